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
    {"gelu", false, true, four_times, [](const Tensor& x, const MlpWeights& w) { return gelu_mlp(x, w.in, w.in_bias, w.out, w.out_bias); }},
    {"relu2", false, true, four_times, [](const Tensor& x, const MlpWeights& w) { return relu2_mlp(x, w.in, w.in_bias, w.out, w.out_bias); }},
    {"swiglu", true, false, eight_thirds, [](const Tensor& x, const MlpWeights& w) { return swiglu_mlp(x, w.in, w.out); }},
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

}  // namespace heddle
