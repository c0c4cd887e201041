#include "core/tensor.h"

#include <cstring>

#include "core/autograd/node.h"
#include "kernels/api/check.h"
#include "kernels/api/pointwise.h"

namespace heddle {

Shape::Shape(std::initializer_list<int64_t> sizes) : Shape(std::span<const int64_t>(sizes.begin(), sizes.size())) {}

Shape::Shape(std::span<const int64_t> sizes) {
  HEDDLE_CHECK(sizes.size() <= kMaxRank, "shape", "rank ", sizes.size(), ", at most ", int{kMaxRank}, " is supported");
  for (int64_t n : sizes) {
    HEDDLE_CHECK(n >= 0, "shape", "negative size ", n);
    sizes_[rank_++] = n;
  }
}

int64_t Shape::numel() const {
  int64_t n = 1;
  for (int i = 0; i < rank_; ++i) n *= sizes_[i];
  return n;
}

bool Shape::operator==(const Shape& other) const {
  if (rank_ != other.rank_) return false;
  for (int i = 0; i < rank_; ++i) {
    if (sizes_[i] != other.sizes_[i]) return false;
  }
  return true;
}

std::string shape_text(const Shape& shape) {
  std::string text = "(";
  for (int i = 0; i < shape.rank(); ++i) text += (i ? ", " : "") + std::to_string(shape[i]);
  return text + ")";
}

Shape dense_strides(const Shape& shape) {
  Shape strides = shape;
  int64_t step = 1;
  for (int i = shape.rank() - 1; i >= 0; --i) {
    strides[i] = step;
    step *= shape[i];
  }
  return strides;
}

Tensor Tensor::empty(Shape shape, DType dtype, Device device, MemoryTag tag) {
  auto impl = std::make_shared<TensorImpl>();
  impl->storage = allocate(device, static_cast<size_t>(shape.numel() * size_of(dtype)), tag, current_stream(device));
  impl->data = impl->storage->data();
  impl->shape = shape;
  impl->strides = dense_strides(shape);
  impl->dtype = dtype;
  impl->device = device;
  return Tensor(std::move(impl));
}

Tensor Tensor::zeros(Shape shape, DType dtype, Device device, MemoryTag tag) {
  Tensor t = empty(shape, dtype, device, tag);
  const kernels::FillArgs args{t.view(), 0};
  kernels::fill.choose(device.type, args).run(args, current_stream(device));
  return t;
}

Tensor Tensor::full(Shape shape, double value, DType dtype, Device device) {
  Tensor t = empty(shape, dtype, device);
  const kernels::FillArgs args{t.view(), value};
  kernels::fill.choose(device.type, args).run(args, current_stream(device));
  return t;
}

Tensor Tensor::empty_like(const Tensor& t) {
  return empty(t.shape(), t.dtype(), t.device());
}

Tensor Tensor::from(std::span<const double> values, Shape shape, DType dtype, Device device) {
  HEDDLE_CHECK(static_cast<int64_t>(values.size()) == shape.numel(), "tensor", values.size(), " values do not fill the shape ", shape_text(shape));
  Tensor t = empty(shape, dtype, device);
  const auto copy = [&]<class T>(T) {
    std::vector<T> host;
    host.reserve(values.size());
    for (double v : values) {
      if constexpr (std::is_same_v<T, bf16>) {
        host.push_back(bf16(static_cast<float>(v)));
      } else {
        host.push_back(static_cast<T>(v));
      }
    }
    copy_bytes(t.impl().data, device, host.data(), Device{}, host.size() * sizeof(T));
  };
  switch (dtype) {
    case DType::f32: copy(float{}); break;
    case DType::f64: copy(double{}); break;
    case DType::bf16: copy(bf16{}); break;
    case DType::i32: copy(int32_t{}); break;
    case DType::u16: copy(uint16_t{}); break;
    case DType::u8: copy(uint8_t{}); break;
  }
  return t;
}

Tensor Tensor::from(std::span<const int32_t> values, Shape shape, Device device) {
  HEDDLE_CHECK(static_cast<int64_t>(values.size()) == shape.numel(), "tensor", values.size(), " values do not fill the shape ", shape_text(shape));
  Tensor t = empty(shape, DType::i32, device);
  copy_bytes(t.impl().data, device, values.data(), Device{}, values.size_bytes());
  return t;
}

Tensor Tensor::borrow(View view, Device device) {
  auto impl = std::make_shared<TensorImpl>();
  impl->data = view.data;
  impl->shape = Shape(std::span<const int64_t>(view.shape.data(), static_cast<size_t>(view.rank)));
  impl->strides = Shape(std::span<const int64_t>(view.stride.data(), static_cast<size_t>(view.rank)));
  impl->dtype = view.dtype;
  impl->device = device;
  return Tensor(std::move(impl));
}

Device Tensor::device() const {
  return impl_->device;
}
DType Tensor::dtype() const {
  return impl_->dtype;
}
const Shape& Tensor::shape() const {
  return impl_->shape;
}
const Shape& Tensor::strides() const {
  return impl_->strides;
}
const std::shared_ptr<Storage>& Tensor::storage() const {
  return impl_->storage;
}

bool Tensor::is_contiguous() const {
  return view().contiguous();
}

View Tensor::view() const {
  View v;
  if (!impl_) return v;
  v.data = impl_->data;
  v.dtype = impl_->dtype;
  v.rank = impl_->shape.rank();
  for (int i = 0; i < v.rank; ++i) {
    v.shape[i] = impl_->shape[i];
    v.stride[i] = impl_->strides[i];
  }
  return v;
}

std::span<std::byte> Tensor::bytes() const {
  HEDDLE_CHECK(is_contiguous(), "tensor", "bytes() of a strided view ", shape_text(shape()));
  return {impl_->data, static_cast<size_t>(numel() * size_of(dtype()))};
}

std::vector<double> Tensor::to_vector() const {
  Tensor dense = *this;
  if (!is_contiguous()) {
    dense = empty(shape(), dtype(), device(), MemoryTag::workspace);
    const kernels::AxpbyArgs args{view(), {}, {dense.view(), false}};
    kernels::axpby.choose(device().type, args).run(args, current_stream(device()));
  }
  std::vector<std::byte> host(dense.bytes().size());
  copy_bytes(host.data(), Device{}, dense.impl().data, device(), host.size());
  std::vector<double> values(static_cast<size_t>(numel()));
  const auto read = [&]<class T>(T) {
    for (size_t i = 0; i < values.size(); ++i) {
      T element;
      std::memcpy(&element, host.data() + i * sizeof(T), sizeof(T));
      if constexpr (std::is_same_v<T, bf16>) {
        values[i] = static_cast<float>(element);
      } else {
        values[i] = static_cast<double>(element);
      }
    }
  };
  switch (dtype()) {
    case DType::f32: read(float{}); break;
    case DType::f64: read(double{}); break;
    case DType::bf16: read(bf16{}); break;
    case DType::i32: read(int32_t{}); break;
    case DType::u16: read(uint16_t{}); break;
    case DType::u8: read(uint8_t{}); break;
  }
  return values;
}

double Tensor::item() const {
  HEDDLE_CHECK(numel() == 1, "tensor", "item() of a tensor of shape ", shape_text(shape()));
  return to_vector()[0];
}

bool Tensor::requires_grad() const {
  return impl_ && (impl_->requires_grad || impl_->node);
}

Tensor& Tensor::set_requires_grad(bool on) {
  HEDDLE_CHECK(!impl_->node, "tensor", "requires_grad is set on leaves; this one was made by ", impl_->node->name());
  HEDDLE_CHECK(!on || is_floating(dtype()), "tensor", "a gradient of ", name_of(dtype()), " values");
  impl_->requires_grad = on;
  return *this;
}

bool Tensor::is_leaf() const {
  return !impl_->node;
}
Tensor Tensor::grad() const {
  return impl_->grad;
}

void Tensor::clear_grad() const {
  if (!impl_->grad_bound) impl_->grad = Tensor();
  impl_->grad_written = false;
}

Tensor Tensor::detach() const {
  Tensor t = make_view_tensor(*this, shape(), strides(), 0);
  return t;
}

Tensor make_view_tensor(const Tensor& base, Shape shape, Shape strides, int64_t offset_elements) {
  auto impl = std::make_shared<TensorImpl>();
  impl->storage = base.impl().storage;
  impl->data = base.impl().data + offset_elements * size_of(base.dtype());
  impl->shape = shape;
  impl->strides = strides;
  impl->dtype = base.dtype();
  impl->device = base.device();
  return Tensor(std::move(impl));
}

}  // namespace heddle
