#include "parallel/mlp.h"

#include "kernels/api/check.h"

namespace heddle {
namespace {

std::vector<ColumnLinear::Rows> projections(const MlpKind& kind, int64_t hidden) {
  if (!kind.gated) return {{.name = "up", .count = hidden}};
  return {{.name = "gate", .count = hidden}, {.name = "up", .count = hidden}};
}

}  // namespace

Mlp::Mlp(const Options& options, const MeshShape& mesh)
    : kind_(mlp_kind(options.kind)),
      in_(options.dim, projections(kind_, options.hidden), {.bias = options.bias, .init_std = options.init_std}, mesh),
      out_(options.hidden, options.dim, {.bias = options.bias, .init_std = options.out_init_std}, mesh) {
  HEDDLE_CHECK(!options.bias || kind_.biases, "mlp", kind_.name, " has no biases");
  add("", in_);
  add("down", out_);
}

Tensor Mlp::forward(const Tensor& x) const {
  return out_.output(kind_.forward(in_.input(x), {in_.weight(), in_.bias(), out_.weight(), out_.added_bias()}));
}

}  // namespace heddle
