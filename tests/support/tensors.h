// Tensors of a DEVICE_TEST_CASE: made on test::device(), written and read through copies, since the host cannot touch a device's memory.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/autograd/gradcheck.h"
#include "core/tensor.h"
#include "tests/support/compare.h"
#include "tests/support/devices.h"

namespace heddle::test {

inline Tensor tensor(const std::vector<double>& values, Shape shape, DType dtype = DType::f32) {
  return Tensor::from(values, shape, dtype, device());
}
inline Tensor ints(const std::vector<int32_t>& values, Shape shape) {
  return Tensor::from(std::span<const int32_t>(values), shape, device());
}
inline Tensor zeros(Shape shape, DType dtype = DType::f32) {
  return Tensor::zeros(shape, dtype, device());
}
inline Tensor full(Shape shape, double value, DType dtype = DType::f32) {
  return Tensor::full(shape, value, dtype, device());
}
// The same tensor on the test's device; a leaf that wants a gradient as `t` does.
inline Tensor on_device(const Tensor& t) {
  if (!t || t.device() == device()) return t;
  return Tensor::from(t.to_vector(), t.shape(), t.dtype(), device()).set_requires_grad(t.requires_grad());
}
// N(mean, stddev) values keyed by seed, the same on every device; they want a gradient unless told otherwise.
inline Tensor random(Shape shape, uint64_t seed, double mean = 0, double stddev = 1, DType dtype = DType::f32, bool requires_grad = true) {
  return on_device(random_input(shape, seed, mean, stddev, dtype, requires_grad));
}

// What lies in memory of `on`: a copy in the host's, its elements row-major as double, its bytes.
inline Tensor on_host(const View& view, Device on = device()) {
  const Tensor t = Tensor::borrow(view, on);
  return Tensor::from(t.to_vector(), t.shape(), t.dtype());
}
inline std::vector<double> values_of(const View& view, Device on = device()) {
  return Tensor::borrow(view, on).to_vector();
}
inline std::vector<std::byte> bytes_of(const Tensor& t) {
  std::vector<std::byte> bytes(t.bytes().size());
  copy_bytes(bytes.data(), Device{}, t.bytes().data(), t.device(), bytes.size());
  return bytes;
}
// Overwrites dense memory on `on`, every element anew, as work of the stream: who does not wait for it sees what was there.
inline void write(const View& to, const std::vector<double>& values, Device on = device()) {
  const Tensor from = Tensor::from(values, Tensor::borrow(to, on).shape(), to.dtype, on);
  copy_bytes(to.data, on, from.bytes().data(), on, from.bytes().size());
}
inline void write(const Tensor& to, const std::vector<double>& values) {
  write(to.view(), values, to.device());
}

// A struct that kernels read, StepState for one, in the device's memory.
template <class T>
class DeviceValue {
 public:
  explicit DeviceValue(const T& value) : memory_(zeros({static_cast<int64_t>(sizeof(T))}, DType::u8)) {
    copy_bytes(memory_.bytes().data(), device(), &value, Device{}, sizeof value);
  }
  const T* get() const { return reinterpret_cast<const T*>(memory_.bytes().data()); }

 private:
  Tensor memory_;
};

}  // namespace heddle::test
