// Sum, or sum of squares, of a dense tensor in one launch: every block writes its partial sum, the block that comes last adds them up.
//
// Bound by memory: the tensor is read once, 2 or 4 bytes an element. Squares and sums are f64: the square of a gradient of 1e30 is finite, and
// clipping needs it. That is a conversion and a multiply-add in f64 an element, a third of what an A100 or H200 can do in the time that the bytes
// take. The number of blocks follows from the length alone, so the result has the same bits on every run and every device.
#pragma once

#include "kernels/api/reduce.h"
#include "kernels/cuda/ordered_sum.cuh"

namespace heddle::kernels::cuda {

struct SumConfig {
  int threads = 256;
  int vectors = 4;         // 16-byte loads in flight per thread
  int most_blocks = 1024;  // fits 132 multiprocessors at eight blocks each

  constexpr int64_t per_pass(int64_t element_bytes) const { return 16 / element_bytes * threads * vectors; }  // elements, of one block
  constexpr int blocks(int64_t n, int64_t element_bytes) const {
    const int64_t wanted = (n + per_pass(element_bytes) - 1) / per_pass(element_bytes);
    return static_cast<int>(wanted < 1 ? 1 : wanted < most_blocks ? wanted : most_blocks);
  }
};
inline constexpr SumConfig kSumConfig;

template <class T>
struct SumParams {
  const T* x;  // (n)
  int64_t n;
  double* partial;   // (blocks)
  uint32_t* ticket;  // zero before and after
  void* out;         // one f32 or f64
  const StepState* step;
  double scale;  // of the sum
  bool squares, out_f64, accumulate, wide;
};

// thread. The sum as the caller wants it.
template <class T>
__device__ __forceinline__ void store_sum(const SumParams<T>& p, double sum) {
  const double result = sum * (p.step != nullptr ? p.scale * static_cast<double>(p.step->loss_scale) : p.scale);
  if (p.out_f64) {
    double* const out = static_cast<double*>(p.out);
    *out = p.accumulate ? *out + result : result;
  } else {
    float* const out = static_cast<float*>(p.out);
    *out = static_cast<float>(p.accumulate ? static_cast<double>(*out) + result : result);
  }
}

template <class Config, class T>
__global__ void __launch_bounds__(Config::value.threads) sum_kernel(const SumParams<T> p) {
  constexpr SumConfig kConfig = Config::value;
  constexpr int kThreads = kConfig.threads, kVectors = kConfig.vectors, kElements = kWidth<T>;
  constexpr int64_t kPass = kConfig.per_pass(sizeof(T));
  HEDDLE_SHARED(double, partial, [2][kThreads / 32]);
  HEDDLE_SHARED(bool, is_last, [1]);
  const int thread = static_cast<int>(threadIdx.x);

  double own[kVectors] = {};
  for (int64_t base = kPass * blockIdx.x; base < p.n; base += kPass * gridDim.x) {
    const int here = static_cast<int>(p.n - base < kPass ? p.n - base : kPass);
    uint4 packed[kVectors];
#pragma unroll
    for (int i = 0; i < kVectors; ++i) packed[i] = thread::load_read_once(p.x + base, Piece<T, kThreads>(p.wide, i, thread, here));
#pragma unroll
    for (int i = 0; i < kVectors; ++i) {
      float values[kElements];
      thread::unpack(packed[i], values);
#pragma unroll
      for (int e = 0; e < kElements; ++e) {
        const double value = values[e];
        own[i] += p.squares ? value * value : value;
      }
    }
  }

#pragma unroll
  for (int half = kVectors / 2; half > 0; half /= 2) {
#pragma unroll
    for (int i = 0; i < half; ++i) own[i] += own[i + half];
  }
  const double total = block::sum<kThreads>(own[0], partial[0]);
  if (thread == 0) p.partial[blockIdx.x] = total;
  if (!grid::comes_last(p.ticket, is_last[0])) return;

  double rest = 0;
  for (int i = thread; i < static_cast<int>(gridDim.x); i += kThreads) rest += p.partial[i];
  rest = block::sum<kThreads>(rest, partial[1]);
  if (thread == 0) store_sum(p, rest);
}

// Numbers that are f64 already, partial sums of others, are few: one block adds them.
template <class Config>
__global__ void __launch_bounds__(Config::value.threads) sum_doubles_kernel(const SumParams<double> p) {
  constexpr int kThreads = Config::value.threads;
  HEDDLE_SHARED(double, partial, [kThreads / 32]);
  double own = 0;
  for (int64_t i = threadIdx.x; i < p.n; i += kThreads) own += p.squares ? p.x[i] * p.x[i] : p.x[i];
  const double total = block::sum<kThreads>(own, partial);
  if (threadIdx.x == 0) store_sum(p, total);
}

inline size_t sum_scratch(const SumArgs& args) {
  return sizeof(double) * static_cast<size_t>(kSumConfig.blocks(args.x.numel(), size_of(args.x.dtype)));
}

template <class T>
void launch_sum(const SumArgs& args, Stream stream) {
  SumParams<T> p{};
  p.x = args.x.as<const T>();
  p.n = args.x.numel();
  p.partial = reinterpret_cast<double*>(args.scratch.data());
  p.ticket = reinterpret_cast<uint32_t*>(args.zeroed.data());
  p.out = args.out.to.data;
  p.step = args.step;
  p.scale = args.scale;
  p.squares = args.squares;
  p.out_f64 = args.out.to.dtype == DType::f64;
  p.accumulate = args.out.accumulate;
  p.wide = reinterpret_cast<uintptr_t>(args.x.data) % 16 == 0;
  if constexpr (sizeof(T) == sizeof(double)) {
    HEDDLE_LAUNCH((sum_doubles_kernel<Configured<kSumConfig>>), 1, kSumConfig.threads, 0, stream, p);
  } else {
    HEDDLE_LAUNCH((sum_kernel<Configured<kSumConfig>, T>), static_cast<unsigned>(kSumConfig.blocks(p.n, sizeof(T))), kSumConfig.threads, 0, stream,
                  p);
  }
}

}  // namespace heddle::kernels::cuda
