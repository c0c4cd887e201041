// Tensor: a cheap handle on storage, shape, strides, dtype, and the autograd node that made it.
//
// Copying a Tensor copies the handle. Views (reshape, slice, transpose) share storage. Rank is at most 4, strides count elements. Ops are free
// functions (core/ops/ops.h) that run at once, on the current stream of the tensor's device.
#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/storage.h"
#include "kernels/api/types.h"

namespace heddle {

class Node;

class Shape {
 public:
  static constexpr int kMaxRank = View::kMaxRank;

  Shape() = default;
  Shape(std::initializer_list<int64_t> sizes);
  explicit Shape(std::span<const int64_t> sizes);

  int rank() const { return rank_; }
  int64_t operator[](int axis) const { return sizes_[axis < 0 ? rank_ + axis : axis]; }
  int64_t& operator[](int axis) { return sizes_[axis < 0 ? rank_ + axis : axis]; }
  int64_t numel() const;
  bool operator==(const Shape&) const;
  std::vector<int64_t> vector() const { return {sizes_.begin(), sizes_.begin() + rank_}; }

 private:
  int rank_ = 0;
  std::array<int64_t, kMaxRank> sizes_{};
};

std::string shape_text(const Shape&);

struct TensorImpl;

class Tensor {
 public:
  Tensor() = default;  // undefined: "no tensor", for optional arguments
  explicit Tensor(std::shared_ptr<TensorImpl> impl) : impl_(std::move(impl)) {}

  static Tensor empty(Shape, DType, Device = {}, MemoryTag = MemoryTag::activation);  // not initialised
  static Tensor zeros(Shape, DType, Device = {}, MemoryTag = MemoryTag::activation);
  static Tensor full(Shape, double value, DType, Device = {});
  static Tensor empty_like(const Tensor&);
  // Host values, copied to the device and converted to dtype.
  static Tensor from(std::span<const double> values, Shape, DType, Device = {});
  static Tensor from(std::span<const int32_t> values, Shape, Device = {});
  // A tensor over memory somebody else owns and keeps alive (CPU).
  static Tensor borrow(View, Device = {});

  explicit operator bool() const { return impl_ != nullptr; }
  Device device() const;
  DType dtype() const;
  const Shape& shape() const;
  const Shape& strides() const;
  int rank() const { return shape().rank(); }
  int64_t size(int axis) const { return shape()[axis]; }
  int64_t numel() const { return shape().numel(); }
  bool is_contiguous() const;

  View view() const;                   // an undefined tensor gives an absent View
  std::span<std::byte> bytes() const;  // contiguous tensors only
  const std::shared_ptr<Storage>& storage() const;

  std::vector<double> to_vector() const;  // copied to the host, any floating or integer dtype; waits for the device
  double item() const;                    // of a tensor with one element; waits for the device

  // autograd
  bool requires_grad() const;       // a leaf that wants a gradient, or the output of a recorded op
  Tensor& set_requires_grad(bool);  // leaves only
  bool is_leaf() const;
  Tensor grad() const;      // leaves: undefined before the first backward
  void clear_grad() const;  // forget an owned gradient; the next backward writes "="
  Tensor detach() const;    // same storage, no history

  TensorImpl& impl() const { return *impl_; }
  const std::shared_ptr<TensorImpl>& shared() const { return impl_; }
  bool same(const Tensor& other) const { return impl_ == other.impl_; }

 private:
  std::shared_ptr<TensorImpl> impl_;
};

// What a handle points to. Ops and the engine read it; user code has no need to.
struct TensorImpl {
  std::shared_ptr<Storage> storage;
  std::byte* data = nullptr;
  Shape shape, strides;
  DType dtype = DType::f32;
  Device device;

  bool requires_grad = false;  // set by the user on leaves
  std::shared_ptr<Node> node;  // the op that made it; null for leaves
  int output = 0;              // which of the node's outputs

  // Leaves: where the gradient goes. `grad_bound`: an arena range, never released; grad_written: the next write accumulates.
  Tensor grad;
  bool grad_bound = false, grad_written = false;
};

// A view of `base` with its own geometry; no autograd (ops add it).
Tensor make_view_tensor(const Tensor& base, Shape shape, Shape strides, int64_t offset_elements);
Shape dense_strides(const Shape&);

}  // namespace heddle
