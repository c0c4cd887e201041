// The autograd graph: Nodes made by ops, the slots their gradients leave through, and what they may save.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "core/tensor.h"
#include "core/weight.h"

namespace heddle {

class Node;

// Where an op's input came from: a node's output, or a leaf, or neither (no gradient wanted).
struct Edge {
  std::shared_ptr<Node> node;
  int output = 0;
  std::shared_ptr<TensorImpl> leaf;
  Shape shape;
  DType dtype = DType::f32;
  Device device;

  explicit operator bool() const { return node || leaf; }
};

// A gradient on its way to a node's output. `owned`: nobody else holds it, so later contributions may be added in place.
struct PendingGrad {
  Tensor value;
  bool owned = false;
};

// One per input edge during backward. A node either asks for a sink and writes there, or gives a tensor, or does neither (zero gradient).
class GradSlot {
 public:
  GradSlot(const Edge& edge, bool needed) : edge_(&edge), needed_(needed) {}

  bool needed() const { return needed_ && *edge_; }
  // The whole gradient of this edge, in the input's shape. It may alias dy or another slot's tensor.
  void give(const Tensor& gradient);
  // Memory to write ("=") or add to ("+=") in the input's shape: for a leaf its gradient buffer, else a buffer of the input's dtype.
  // A slot that is not needed gives an absent Sink, so args can be filled without asking.
  Sink sink();

 private:
  const Edge* edge_;
  bool needed_;
};

// The buffer of a leaf's gradient: allocated on first use, or the arena's range. Marks it written.
Sink grad_sink(TensorImpl& leaf);

class Node {
 public:
  Node();
  virtual ~Node();

  virtual std::string_view name() const = 0;
  // dy: one a forward output, undefined where nothing reached it. dx: one an edge.
  virtual void backward(std::span<const Tensor> dy, std::span<GradSlot> dx) = 0;
  // Drops saved tensors; called once backward has run.
  virtual void release_saved() = 0;
  // A loss that has its gradients already takes the seed 1 as an undefined dy.
  virtual bool takes_unit_seed() const { return false; }

  std::span<const Edge> edges() const { return edges_; }
  uint64_t sequence() const { return sequence_; }
  int outputs() const { return outputs_; }

 private:
  friend class Engine;
  friend class GradSlot;
  friend void record(std::shared_ptr<Node>, std::span<const Tensor* const>, std::span<Tensor* const>);

  std::vector<Edge> edges_;
  uint64_t sequence_;  // creation order: backward runs the latest first
  int outputs_ = 0;
  bool released_ = false;

  // of the backward pass in progress
  std::vector<PendingGrad> grads_;
  uint64_t visit_ = 0;
  int pending_ = 0;
};

// A tensor kept for backward, with the version it had: get() refuses one that was written in place since.
class Saved {
 public:
  Saved() = default;
  explicit Saved(const Tensor& t);
  explicit operator bool() const { return static_cast<bool>(tensor_); }
  const Tensor& get(std::string_view op) const;
  void reset() { tensor_ = Tensor(); }

 private:
  Tensor tensor_;
  uint64_t version_ = 0;
};

// A weight kept for backward: not its values, which backward acquires anew, but get() refuses it when they were changed in place since.
class SavedWeight {
 public:
  SavedWeight() = default;
  explicit SavedWeight(const Weight& weight);
  explicit operator bool() const { return static_cast<bool>(weight_); }
  const Weight& get(std::string_view op) const;
  void reset() { weight_ = Weight(); }

 private:
  Weight weight_;
  uint64_t version_ = 0;
};

// Whether ops record nodes on this thread.
bool grad_enabled();
class NoGradGuard {
 public:
  explicit NoGradGuard(bool record = false);
  ~NoGradGuard();
  NoGradGuard(const NoGradGuard&) = delete;
  NoGradGuard& operator=(const NoGradGuard&) = delete;

 private:
  bool previous_;
};

// True when an op over these inputs must make a node.
bool recording(std::initializer_list<const Tensor*> inputs);

// Connects a node: one edge an input (undefined inputs get an empty edge), and itself as the maker of the outputs.
void record(std::shared_ptr<Node> node, std::span<const Tensor* const> inputs, std::span<Tensor* const> outputs);
inline void record(std::shared_ptr<Node> node, std::initializer_list<const Tensor*> inputs, std::initializer_list<Tensor*> outputs) {
  record(std::move(node), std::span<const Tensor* const>(inputs.begin(), inputs.size()), std::span<Tensor* const>(outputs.begin(), outputs.size()));
}

}  // namespace heddle
