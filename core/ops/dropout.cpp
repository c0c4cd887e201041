#include "core/ops/common.h"
#include "kernels/api/random.h"

namespace heddle {
namespace {

// y = x m / (1 - p): dx = dy m / (1 - p) with the same mask, drawn again.
class DropoutNode final : public Node {
 public:
  std::string_view name() const override { return "dropout"; }
  void backward(std::span<const Tensor> dy, std::span<GradSlot> dx) override {
    const Tensor d = contiguous(dy[0]);
    launch(kernels::dropout, {.x = d.view(), .out = dx[0].sink(), .key = key, .first = first, .p = p, .step = step}, d.device());
  }
  void release_saved() override {}

  RngKey key;
  uint64_t first = 0;
  float p = 0;
  const StepState* step = nullptr;
};

}  // namespace

Tensor dropout(const Tensor& x, float p, const RngKey& key, uint64_t first, const StepState* step) {
  check_floating(x, "dropout", "x");
  HEDDLE_CHECK(p >= 0 && p < 1, "dropout", "probability ", p, " is not in [0, 1)");
  if (p == 0) return x;
  const Tensor dense = contiguous(x);
  Tensor y = Tensor::empty_like(dense);
  launch(kernels::dropout, {.x = dense.view(), .out = {y.view(), false}, .key = key, .first = first, .p = p, .step = step}, x.device());
  if (recording({&dense})) {
    auto node = std::make_shared<DropoutNode>();
    node->key = key, node->first = first, node->p = p, node->step = step;
    record(node, {&dense}, {&y});
  }
  return y;
}

}  // namespace heddle
