#include "kernels/api/rope.h"

#include <cmath>

#include "core/ops/common.h"

namespace heddle {
namespace {

// y = R x with R orthogonal: dx = R^T dy, the rotation by the negative angles.
class RopeNode final : public Node {
 public:
  std::string_view name() const override { return "rope"; }
  void backward(std::span<const Tensor> dy, std::span<GradSlot> dx) override {
    Tensor grad = Tensor::empty_like(dy[0]);  // (B, T, H, D)
    launch(kernels::rope,
           {.x = dy[0].view(), .out = grad.view(), .table = table_.get(name()).view(), .first = first, .rotated = rotated, .inverse = true},
           grad.device());
    dx[0].give(grad);
  }
  void release_saved() override { table_.reset(); }

  Saved table_;
  int64_t first = 0, rotated = 0;
};

}  // namespace

Tensor rope_table(int64_t positions, int64_t head_dim, double theta, Device device) {
  HEDDLE_CHECK(head_dim > 0 && head_dim % 2 == 0, "rope_table", "head dimension ", head_dim, " is not even");
  const int64_t half = head_dim / 2;
  std::vector<double> values(static_cast<size_t>(positions * head_dim));
  for (int64_t p = 0; p < positions; ++p) {
    for (int64_t i = 0; i < half; ++i) {
      const double angle = static_cast<double>(p) * std::pow(theta, -2.0 * static_cast<double>(i) / static_cast<double>(head_dim));
      values[static_cast<size_t>(p * head_dim + i)] = std::cos(angle);
      values[static_cast<size_t>(p * head_dim + half + i)] = std::sin(angle);
    }
  }
  return Tensor::from(values, {positions, head_dim}, DType::f32, device);  // (P, D)
}

Tensor rope_(const Tensor& x, const Tensor& table, int64_t rotated, int64_t first) {
  check_floating(x, "rope", "x");
  HEDDLE_CHECK(x.rank() == 4 && x.is_contiguous(), "rope", "x (B, T, H, D) is needed, not ", shape_text(x.shape()));
  HEDDLE_CHECK(table && table.rank() == 2 && table.size(1) == x.size(3) && first + x.size(1) <= table.size(0), "rope", "table ",
               shape_text(table.view()), " does not cover positions ", first, " to ", first + x.size(1), " of x ", shape_text(x.shape()));
  HEDDLE_CHECK(rotated >= 0 && rotated <= x.size(2), "rope", rotated, " of ", x.size(2), " heads");
  HEDDLE_CHECK(!x.requires_grad() || !x.is_leaf() || !grad_enabled(), "rope", "a leaf that requires a gradient cannot be changed in place");
  launch(kernels::rope, {.x = x.view(), .out = x.view(), .table = table.view(), .first = first, .rotated = rotated}, x.device());
  if (x.storage()) x.storage()->bump_version();
  Tensor y = x.detach();
  if (recording({&x})) {
    auto node = std::make_shared<RopeNode>();
    node->table_ = Saved(table), node->first = first, node->rotated = rotated;
    record(node, {&x}, {&y});
  }
  return y;
}

}  // namespace heddle
