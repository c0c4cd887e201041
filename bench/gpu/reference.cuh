// How references are written: a struct with operator()(element) -> Expected, on the device; what() runs it.
#pragma once

#include <algorithm>

#include "bench/gpu/reference.h"
#include "kernels/arch/platform.h"
#include "tests/support/difference.h"

namespace heddle::bench {

// Like the oracles of tests/oracles: the value, and the sum of the absolute values of the terms it added.
struct Expected {
  double want = 0, magnitude = 0;
  __device__ void add(double term) { add(term, term < 0 ? -term : term); }
  __device__ void add(double term, double size) {
    want += term;
    magnitude += size;
  }
};

// The data as T: View's own members are the host's.
template <class T>
__device__ inline T* data_of(const View& view) {
  return reinterpret_cast<T*>(view.data);
}
__device__ inline double load(const View& view, int64_t at) {
  switch (view.dtype) {
    case DType::f64: return data_of<const double>(view)[at];
    case DType::f32: return static_cast<double>(data_of<const float>(view)[at]);
    case DType::bf16: return static_cast<double>(static_cast<float>(data_of<const bf16>(view)[at]));
    case DType::i32: return data_of<const int32_t>(view)[at];
    case DType::u16: return data_of<const uint16_t>(view)[at];
    default: return data_of<const uint8_t>(view)[at];
  }
}
// Element (row, column) of a matrix; element i of a view in row-major order.
__device__ inline double load(const View& view, int64_t row, int64_t column) {
  return load(view, row * view.stride[0] + column * view.stride[1]);
}
__device__ inline double element(const View& view, int64_t i) {
  int64_t at = 0;
  for (int axis = view.rank - 1; axis >= 0; --axis) {
    at += i % view.shape[axis] * view.stride[axis];
    i /= view.shape[axis];
  }
  return load(view, at);
}
__device__ inline double size_of_term(double x) {
  return x < 0 ? -x : x;
}

template <class F>
__global__ void reference_kernel(F f, View out, Sample sample) {
  for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < sample.count; i += int64_t{gridDim.x} * blockDim.x) {
    const int64_t at = i * sample.step;
    const Expected expected = f(at);
    sample.want[i] = expected.want;
    sample.magnitude[i] = expected.magnitude;
    sample.got[i] = element(out, at);
  }
}

// One output, by f.
template <class F>
Output what(const char* name, const View& view, double terms, double cost, F f) {
  const auto launch = [=](const Sample& sample) {
    constexpr int kThreads = 128;
    const int64_t blocks = std::min<int64_t>((sample.count + kThreads - 1) / kThreads, 1 << 20);
    HEDDLE_LAUNCH(reference_kernel<F>, static_cast<unsigned>(blocks), kThreads, 0, Stream{}, f, view, sample);
  };
  return {name, view, false, terms, cost, launch};
}
template <class F>
Output what(const char* name, const Sink& sink, double terms, double cost, F f) {
  Output output = what(name, sink.to, terms, cost, f);
  output.added = sink.accumulate;
  return output;
}

}  // namespace heddle::bench
