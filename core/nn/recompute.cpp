#include "core/nn/recompute.h"

#include "core/autograd/engine.h"
#include "core/ops/common.h"

namespace heddle {
namespace {

// Edges: x, then every parameter of the region. Backward reruns fn with recording on and backpropagates through that inner graph; parameter
// gradients go straight to their buffers, and this node's own edges tell the engine when they are complete.
class RecomputeNode final : public Node {
 public:
  std::string_view name() const override { return "recompute"; }
  void backward(std::span<const Tensor> dy, std::span<GradSlot> dx) override {
    Tensor x = x_.get(name()).detach();
    if (dx[0].needed()) x.set_requires_grad(true);
    Tensor y;
    {
      NoGradGuard recording_on(true);
      y = fn(x);
    }
    if (y.same(x)) {  // fn handed its input back: nothing to run
      dx[0].give(dy[0]);
      return;
    }
    backward_from(y, dy[0]);
    if (dx[0].needed()) dx[0].give(x.grad());
  }
  void release_saved() override { x_.reset(); }

  Saved x_;
  std::function<Tensor(const Tensor&)> fn;
};

}  // namespace

Tensor recompute(const Module& region, const std::function<Tensor(const Tensor&)>& fn, const Tensor& x) {
  const std::vector<Tensor> leaves = region.leaves();
  std::vector<const Tensor*> inputs{&x};
  bool recorded = recording({&x});
  for (const Tensor& leaf : leaves) {
    inputs.push_back(&leaf);
    recorded = recorded || recording({&leaf});
  }
  if (!recorded) return fn(x);
  Tensor y;
  {
    NoGradGuard no_grad;
    y = fn(x);
  }
  auto node = std::make_shared<RecomputeNode>();
  node->x_ = Saved(x);
  node->fn = fn;
  y = y.detach();  // fn may have returned x itself
  Tensor* out = &y;
  record(node, std::span<const Tensor* const>(inputs), std::span<Tensor* const>(&out, 1));
  return y;
}

}  // namespace heddle
