#include "core/ops/common.h"
#include "kernels/api/squash.h"

namespace heddle {
namespace {

// y = cap tanh(x / cap): dx = dy (1 - tanh(x / cap)^2).
class SquashNode final : public Node {
 public:
  explicit SquashNode(float cap) : cap_(cap) {}
  std::string_view name() const override { return "squash"; }
  void backward(std::span<const Tensor> dy, std::span<GradSlot> dx) override {
    const Tensor d = contiguous(dy[0]);
    launch(kernels::squash, {.x = x.get(name()).view(), .dy = d.view(), .out = dx[0].sink(), .cap = cap_}, d.device());
  }
  void release_saved() override { x.reset(); }

  Saved x;

 private:
  float cap_;
};

}  // namespace

Tensor squash(const Tensor& x, float cap) {
  check_floating(x, "squash", "x");
  const Tensor dense = contiguous(x);
  Tensor y = Tensor::empty_like(dense);
  launch(kernels::squash, {.x = dense.view(), .out = {y.view(), false}, .cap = cap}, x.device());
  if (recording({&dense})) {
    auto node = std::make_shared<SquashNode>(cap);
    node->x = Saved(dense);
    record(node, {&dense}, {&y});
  }
  return y;
}

}  // namespace heddle
