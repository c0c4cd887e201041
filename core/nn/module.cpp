#include "core/nn/module.h"

#include <algorithm>

#include "core/autograd/engine.h"
#include "core/ops/common.h"

namespace heddle {

Parameter::Parameter(std::string name, ParameterSpec spec) : name_(std::move(name)), data_(std::make_shared<Data>()) {
  auto impl = std::make_shared<TensorImpl>();
  impl->shape = Shape(spec.shard.global);
  if (const auto& [global, axis, slice, grad_sum, norm_owner] = spec.shard; axis >= 0) {
    HEDDLE_CHECK(axis < impl->shape.rank() && 0 <= slice.begin && slice.begin <= slice.end && slice.end <= impl->shape[axis], "parameter", "\"",
                 name_, "\": slice [", slice.begin, ", ", slice.end, ") of axis ", axis, " of ", shape_text(impl->shape));
    impl->shape[axis] = slice.size();
  }
  impl->strides = dense_strides(impl->shape);
  impl->requires_grad = true;
  data_->spec = std::move(spec);
  data_->tensor = Tensor(std::move(impl));
}

Parameter Module::add(std::string name, ParameterSpec spec) {
  for (const Item& item : items_) HEDDLE_CHECK(item.name != name, "module", "\"", name, "\" is registered twice");
  Parameter parameter(name, std::move(spec));
  items_.push_back({std::move(name), parameter, nullptr});
  return parameter;
}

void Module::add(std::string name, Module& child) {
  for (const Item& item : items_) HEDDLE_CHECK(item.name != name, "module", "\"", name, "\" is registered twice");
  items_.push_back({std::move(name), {}, &child});
}

void Module::tie(std::string name, const Parameter& parameter) {
  items_.push_back({std::move(name), parameter, nullptr});
}

void Module::collect(const std::string& prefix, std::vector<Parameter>& into) const {
  for (const Item& item : items_) {
    const std::string path = prefix.empty() ? item.name : prefix + "." + item.name;
    if (item.child) {
      item.child->collect(path, into);
    } else if (std::none_of(into.begin(), into.end(), [&](const Parameter& p) { return p.same(item.parameter); })) {
      into.push_back(item.parameter);
      into.back().name_ = path;
    }
  }
}

std::vector<Parameter> Module::parameters() const {
  std::vector<Parameter> all;
  collect("", all);
  return all;
}

std::vector<Tensor> Module::leaves() const {
  std::vector<Tensor> all;
  for (const Parameter& p : parameters()) all.push_back(p.tensor());
  return all;
}

int64_t Module::parameter_count() const {
  int64_t n = 0;
  for (const Parameter& p : parameters()) n += p.tensor().numel();
  return n;
}

namespace {

// Edges: x, then every parameter of the region. Backward reruns fn with recording on and backpropagates through that inner graph; parameter
// gradients go straight to their buffers, and this node's own edges tell the engine when they are complete.
class CheckpointNode final : public Node {
 public:
  std::string_view name() const override { return "checkpoint"; }
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

Tensor checkpoint(const Module& region, const std::function<Tensor(const Tensor&)>& fn, const Tensor& x) {
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
  auto node = std::make_shared<CheckpointNode>();
  node->x_ = Saved(x);
  node->fn = fn;
  y = y.detach();  // fn may have returned x itself
  Tensor* out = &y;
  record(node, std::span<const Tensor* const>(inputs), std::span<Tensor* const>(&out, 1));
  return y;
}

}  // namespace heddle
