// Memory for kernel tests: a strided View over storage that is poisoned and guarded.
//
//   Buffer c(DType::f32, {M, N}, {.padding = 3});   // rows N + 3 elements apart
//   run kernel on c.view(); CHECK(c.guards_intact()); // nothing outside the view was written
//
// A new buffer is full of NaN (0xFF for integers): an element the kernel forgot to write stays NaN. `fill` gives it values.
#pragma once

#include <algorithm>
#include <cstring>
#include <functional>
#include <new>
#include <random>
#include <vector>

#include "kernels/api/types.h"

namespace heddle::test {

struct BufferOptions {
  int64_t padding = 0;  // elements between the end of a row (last axis) and the start of the next
  int64_t offset = 0;   // elements before the view: an odd one makes it unaligned
};

// Told where Buffers lie, by tests of kernels on a machine that watches memory (tests/kernels/kernel_case.h). A Buffer counts as written as a whole:
// what is poisoned shows as NaN.
struct BufferWatch {
  void (*made)(const std::byte*, size_t) = nullptr;
  void (*gone)(const std::byte*) = nullptr;
  bool every_access = false;  // it sees who reads or writes beside a Buffer: one ends with the last element of its view, and has no guards
};
inline BufferWatch buffer_watch;

// Every block has kSpace bytes on either side that are nobody's, so that an access next to it is out of bounds, and begins where cudaMalloc's would.
template <class T>
struct WatchedMemory {
  using value_type = T;
  static constexpr size_t kSpace = 256;
  static_assert(sizeof(T) == 1);
  WatchedMemory() = default;
  template <class U>
  explicit WatchedMemory(const WatchedMemory<U>&) {}
  T* allocate(size_t n) {
    T* block = static_cast<T*>(::operator new (n + 2 * kSpace, std::align_val_t{kSpace})) + kSpace;
    if (buffer_watch.made) buffer_watch.made(block, n);
    return block;
  }
  void deallocate(T* block, size_t) {
    if (buffer_watch.gone) buffer_watch.gone(block);
    ::operator delete (block - kSpace, std::align_val_t{kSpace});
  }
  friend bool operator==(const WatchedMemory&, const WatchedMemory&) { return true; }
};

class Buffer {
 public:
  Buffer() = default;
  Buffer(DType dtype, std::vector<int64_t> shape, BufferOptions options = {}) {
    view_.dtype = dtype;
    view_.rank = static_cast<int>(shape.size());
    int64_t step = 1;
    for (int axis = view_.rank - 1; axis >= 0; --axis) {
      view_.shape[axis] = shape[static_cast<size_t>(axis)];
      view_.stride[axis] = step;
      step *= view_.shape[axis];
      if (axis == view_.rank - 1) step += options.padding;
    }
    const int64_t guard = buffer_watch.every_access ? 0 : 64, behind = buffer_watch.every_access && view_.numel() > 0 ? options.padding : 0;
    const int64_t elements = std::max<int64_t>(step - behind, 1) + options.offset + 2 * guard;
    bytes_.assign(static_cast<size_t>(elements * size_of(dtype)), std::byte{0xFF});
    first_ = (guard + options.offset) * size_of(dtype);
  }

  View view() const {
    View v = view_;
    v.data = const_cast<std::byte*>(bytes_.data()) + first_;
    return v;
  }

  // value(i) for element i in row-major order; stored rounded to the dtype.
  Buffer& fill(const std::function<double(int64_t)>& value) {
    for (int64_t i = 0; i < view_.numel(); ++i) put(i, value(i));
    return *this;
  }
  Buffer& normal(uint32_t seed, double mean = 0, double stddev = 1) {
    std::mt19937 engine(seed);
    std::normal_distribution<double> distribution(mean, stddev);
    return fill([&](int64_t) { return distribution(engine); });
  }
  Buffer& poison() {
    std::fill(bytes_.begin(), bytes_.end(), std::byte{0xFF});
    return *this;
  }

  void put(int64_t i, double value) {
    const int64_t at = offset_of(i);
    std::byte* p = bytes_.data() + first_ + at * size_of(view_.dtype);
    switch (view_.dtype) {
      case DType::f64: store(p, value); break;
      case DType::f32: store(p, static_cast<float>(value)); break;
      case DType::bf16: store(p, bf16(static_cast<float>(value))); break;
      case DType::i32: store(p, static_cast<int32_t>(value)); break;
      case DType::u16: store(p, static_cast<uint16_t>(value)); break;
      case DType::u8: store(p, static_cast<uint8_t>(value)); break;
    }
  }

  // Every byte outside the view's elements is still 0xFF.
  bool guards_intact() const {
    // Rows are contiguous: look between them.
    const int64_t size = size_of(view_.dtype), row = view_.rank ? view_.size(-1) : 1;
    std::vector<char> inside(bytes_.size(), 0);
    for (int64_t i = 0; i < view_.numel(); i += row) std::memset(inside.data() + first_ + offset_of(i) * size, 1, static_cast<size_t>(row * size));
    for (size_t b = 0; b < bytes_.size(); ++b) {
      if (!inside[b] && bytes_[b] != std::byte{0xFF}) return false;
    }
    return true;
  }

  // The same bits, guards and all: for thread-count and repeatability tests.
  bool operator==(const Buffer& other) const { return bytes_ == other.bytes_; }

 private:
  int64_t offset_of(int64_t i) const {
    int64_t at = 0;
    for (int axis = view_.rank - 1; axis >= 0; --axis) {
      at += (i % view_.shape[axis]) * view_.stride[axis];
      i /= view_.shape[axis];
    }
    return at;
  }
  template <class T>
  static void store(std::byte* p, T value) {
    std::memcpy(p, &value, sizeof value);
  }

  std::vector<std::byte, WatchedMemory<std::byte>> bytes_;
  View view_;  // data is set by view(): copies of a Buffer own their bytes
  int64_t first_ = 0;
};

}  // namespace heddle::test
