#include "core/nn/mlp.h"

#include <string>
#include <vector>

#include "core/io/nearest.h"
#include "core/ops/ops.h"
#include "kernels/api/check.h"

namespace heddle {
namespace {

int64_t four_times(int64_t dim) {
  return 4 * dim;
}
// 8/3 of the width: as many numbers in three matrices as four times the width in two (Shazeer 2020), rounded up for the kernels.
int64_t eight_thirds(int64_t dim) {
  return (8 * dim / 3 + 63) / 64 * 64;
}

constexpr MlpKind kKinds[] = {
    {"gelu", false, true, four_times,
     [](const Tensor& x, const MlpWeights& w, const Tensor& residual) { return gelu_mlp(x, w.in, w.in_bias, w.out, w.out_bias, residual); }},
    {"relu2", false, true, four_times,
     [](const Tensor& x, const MlpWeights& w, const Tensor& residual) { return relu2_mlp(x, w.in, w.in_bias, w.out, w.out_bias, residual); }},
    {"swiglu", true, false, eight_thirds,
     [](const Tensor& x, const MlpWeights& w, const Tensor& residual) { return swiglu_mlp(x, w.in, w.out, residual); }},
};

}  // namespace

std::span<const MlpKind> mlp_kinds() {
  return kKinds;
}

const MlpKind& mlp_kind(std::string_view name) {
  std::vector<std::string> names;
  std::string list;
  for (const MlpKind& kind : kKinds) {
    if (kind.name == name) return kind;
    list += concat(names.empty() ? "" : ", ", kind.name);
    names.emplace_back(kind.name);
  }
  fail("model", concat("--mlp ", name, " is no kind of MLP", suggestion(name, names), "; there are ", list), ExitCode::usage);
}

Mlp::Mlp(const Options& options) : kind_(mlp_kind(options.kind)) {
  HEDDLE_CHECK(!options.bias || kind_.biases, "mlp", kind_.name, " has no biases");
  const auto matrix = [](float init_std) {
    ParameterSpec spec;
    spec.init_std = init_std;
    return spec;
  };
  const auto bias = [](int64_t size) { return ParameterSpec{.kind = ParamKind::bias, .parts = {{.global = {size}}}}; };
  ParameterSpec in = matrix(options.init_std), out = matrix(options.out_init_std);
  in.parts.resize(kind_.gated ? 2 : 1);
  for (Part& part : in.parts) part.global = {options.hidden, options.dim};
  if (kind_.gated) in.parts[0].name = "gate.weight", in.parts[1].name = "up.weight";
  out.parts = {{.global = {options.dim, options.hidden}}};
  in_ = add(kind_.gated ? "gateup.weight" : "up.weight", std::move(in));
  if (options.bias) in_bias_ = add("up.bias", bias(options.hidden));
  out_ = add("down.weight", std::move(out));
  if (options.bias) out_bias_ = add("down.bias", bias(options.dim));
}

Tensor Mlp::forward(const Tensor& x, const Tensor& residual) const {
  return kind_.forward(x, {in_, tensor_or_none(in_bias_), out_, tensor_or_none(out_bias_)}, residual);
}

}  // namespace heddle
