#include "core/autograd/engine.h"

#include <atomic>
#include <queue>
#include <unordered_map>
#include <vector>

#include "core/autograd/node.h"
#include "core/launch.h"
#include "kernels/api/check.h"
#include "kernels/api/pointwise.h"

namespace heddle {
namespace {

thread_local bool recording_enabled = true;
std::atomic<uint64_t> next_sequence{1}, next_visit{1};

void add_into(Sink sink, const Tensor& value) {
  launch(kernels::axpby, kernels::AxpbyArgs{value.view(), {}, sink}, value.device());
}

}  // namespace

Node::Node() : sequence_(next_sequence++) {}

// Long chains of nodes would recurse once a node through shared_ptr destructors; unlink them one by one.
Node::~Node() {
  std::vector<std::shared_ptr<Node>> doomed;
  const auto take = [&](Node& node) {
    for (Edge& edge : node.edges_) {
      if (edge.node) doomed.push_back(std::move(edge.node));
    }
  };
  take(*this);
  while (!doomed.empty()) {
    std::shared_ptr<Node> node = std::move(doomed.back());
    doomed.pop_back();
    if (node.use_count() == 1) take(*node);
  }
}

bool grad_enabled() {
  return recording_enabled;
}
NoGradGuard::NoGradGuard(bool record) : previous_(recording_enabled) {
  recording_enabled = record;
}
NoGradGuard::~NoGradGuard() {
  recording_enabled = previous_;
}

bool recording(std::initializer_list<const Tensor*> inputs) {
  if (!recording_enabled) return false;
  for (const Tensor* t : inputs) {
    if (t->requires_grad()) return true;
  }
  return false;
}

void record(std::shared_ptr<Node> node, std::span<const Tensor* const> inputs, std::span<Tensor* const> outputs) {
  for (const Tensor* t : inputs) {
    Edge edge;
    if (t->requires_grad()) {
      const TensorImpl& impl = t->impl();
      if (impl.node) {
        edge.node = impl.node;
        edge.output = impl.output;
      } else {
        edge.leaf = t->shared();
      }
      edge.shape = impl.shape;
      edge.dtype = impl.dtype;
      edge.device = impl.device;
    }
    node->edges_.push_back(std::move(edge));
  }
  node->outputs_ = static_cast<int>(outputs.size());
  for (size_t i = 0; i < outputs.size(); ++i) {
    if (!*outputs[i]) continue;
    outputs[i]->impl().node = node;
    outputs[i]->impl().output = static_cast<int>(i);
  }
}

namespace {

uint64_t version_of(const Tensor& t) {
  return t && t.storage() ? t.storage()->version() : 0;
}

void require_unchanged(const Tensor& t, uint64_t version, std::string_view op) {
  HEDDLE_CHECK(t, op, "a saved tensor was already released: backward ran through this graph before");
  if (version_of(t) == version) return;
  fail(op,
       concat("a tensor saved for backward ", shape_text(t.shape()), " was changed in place since (version ", version, ", now ", version_of(t), ")"));
}

}  // namespace

Saved::Saved(const Tensor& t) : tensor_(t ? t.detach() : Tensor()), version_(version_of(t)) {}

const Tensor& Saved::get(std::string_view op) const {
  require_unchanged(tensor_, version_, op);
  return tensor_;
}

SavedWeight::SavedWeight(const Weight& weight) : weight_(weight), version_(version_of(weight.slot())) {}

const Weight& SavedWeight::get(std::string_view op) const {
  require_unchanged(weight_.slot(), version_, op);
  return weight_;
}

Sink grad_sink(TensorImpl& leaf) {
  if (!leaf.grad) {
    leaf.grad = Tensor::empty(leaf.shape, leaf.dtype, leaf.device, MemoryTag::gradient);
    leaf.grad_written = false;
  }
  const Sink sink{leaf.grad.view(), leaf.grad_written};
  leaf.grad_written = true;
  return sink;
}

Sink GradSlot::sink() {
  if (!needed()) return {};
  if (edge_->leaf) return grad_sink(*edge_->leaf);
  PendingGrad& pending = edge_->node->grads_[edge_->output];
  if (pending.value && pending.owned) return {pending.value.view(), true};
  Tensor fresh = Tensor::empty(edge_->shape, edge_->dtype, edge_->device);
  if (pending.value) {  // somebody else's tensor waits here: copy it, then add
    add_into({fresh.view(), false}, pending.value);
    pending = {fresh, true};
    return {fresh.view(), true};
  }
  pending = {fresh, true};
  return {fresh.view(), false};
}

void GradSlot::give(const Tensor& gradient) {
  if (!needed() || !gradient) return;
  HEDDLE_CHECK(gradient.shape() == edge_->shape, "backward", "a gradient of shape ", shape_text(gradient.shape()), " for an input of shape ",
               shape_text(edge_->shape));
  if (edge_->leaf) return add_into(grad_sink(*edge_->leaf), gradient);
  PendingGrad& pending = edge_->node->grads_[edge_->output];
  if (!pending.value) {
    pending = {gradient, false};
  } else {
    add_into(sink(), gradient);
  }
}

// One backward pass. Nested passes (activation checkpointing) have an Engine each and never share nodes.
class Engine {
 public:
  void run(const Tensor& root, const Tensor& seed, std::span<const Tensor> leaves, const LeafHook& hook) {
    hook_ = &hook;
    HEDDLE_CHECK(root.requires_grad(), "backward", "the tensor does not depend on anything that requires a gradient");
    if (!root.impl().node) fail("backward", "the tensor is a leaf: nothing to run");
    visit_ = next_visit++;
    const std::shared_ptr<Node>& start = root.impl().node;
    count(*start);
    for (const Tensor& leaf : leaves) wanted_.emplace(leaf.shared().get(), false);

    PendingGrad& slot = start->grads_[root.impl().output];
    if (seed) {
      HEDDLE_CHECK(seed.shape() == root.shape(), "backward", "seed of shape ", shape_text(seed.shape()), " for ", shape_text(root.shape()));
      slot = {seed, false};
    } else if (!start->takes_unit_seed()) {
      slot = {Tensor::full(root.shape(), 1, root.dtype(), root.device()), true};
    }
    ready_.push(start.get());
    root_ = start.get();
    while (!ready_.empty()) {
      Node* node = ready_.top();
      ready_.pop();
      step(*node);
    }
    finish(leaves);
  }

 private:
  struct Later {
    bool operator()(const Node* a, const Node* b) const { return a->sequence() < b->sequence(); }
  };

  // Counts the edges that reach each node and each leaf.
  void count(Node& start) {
    std::vector<Node*> stack{&start};
    begin(start);
    while (!stack.empty()) {
      Node* node = stack.back();
      stack.pop_back();
      for (const Edge& edge : node->edges_) {
        if (edge.leaf) ++leaf_edges_[edge.leaf.get()];
        if (!edge.node) continue;
        if (edge.node->visit_ != visit_) {
          begin(*edge.node);
          stack.push_back(edge.node.get());
        }
        ++edge.node->pending_;
      }
    }
  }

  void begin(Node& node) {
    if (node.released_) fail(node.name(), "backward ran through this graph before; run the forward pass again");
    node.visit_ = visit_;
    node.pending_ = 0;
    node.grads_.assign(static_cast<size_t>(node.outputs_), {});
  }

  void step(Node& node) {
    std::vector<Tensor> dy;
    bool any = &node == root_;
    for (PendingGrad& pending : node.grads_) {
      any = any || pending.value;
      dy.push_back(std::move(pending.value));
    }
    node.grads_.clear();
    if (any) {
      std::vector<GradSlot> slots;
      slots.reserve(node.edges_.size());
      for (const Edge& edge : node.edges_) slots.emplace_back(edge, true);
      NoGradGuard no_grad;
      node.backward(dy, slots);
    }
    dy.clear();
    node.release_saved();
    node.released_ = true;
    for (const Edge& edge : node.edges_) {
      if (edge.leaf && --leaf_edges_[edge.leaf.get()] == 0) complete(edge.leaf);
      if (edge.node && --edge.node->pending_ == 0) ready_.push(edge.node.get());
    }
  }

  void complete(const std::shared_ptr<TensorImpl>& leaf) {
    zero_if_untouched(*leaf);
    if (!*hook_) return;
    auto it = wanted_.find(leaf.get());
    if (it == wanted_.end() || it->second) return;
    it->second = true;
    (*hook_)(Tensor(leaf));
  }

  void zero_if_untouched(TensorImpl& leaf) {
    if (leaf.grad && leaf.grad_written) return;
    const Sink sink = grad_sink(leaf);
    launch(kernels::fill, kernels::FillArgs{sink.to, 0}, leaf.device);
  }

  void finish(std::span<const Tensor> leaves) {
    for (const Tensor& leaf : leaves) {
      if (leaf_edges_.find(leaf.shared().get()) == leaf_edges_.end()) complete(leaf.shared());
    }
  }

  const LeafHook* hook_ = nullptr;
  uint64_t visit_ = 0;
  Node* root_ = nullptr;
  std::priority_queue<Node*, std::vector<Node*>, Later> ready_;
  std::unordered_map<TensorImpl*, int> leaf_edges_;
  std::unordered_map<TensorImpl*, bool> wanted_;  // hooked yet?
};

void backward(const Tensor& loss, std::span<const Tensor> leaves, const LeafHook& hook) {
  HEDDLE_CHECK(loss.numel() == 1, "backward", "the loss has shape ", shape_text(loss.shape()), ", one element is needed");
  Engine().run(loss, Tensor(), leaves, hook);
}

void backward_from(const Tensor& y, const Tensor& seed) {
  Engine().run(y, seed, {}, {});
}

}  // namespace heddle
