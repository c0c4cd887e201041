// Maximum and sum of exponentials of a row that is read once, piece by piece: the one sum is rescaled when the maximum rises.
#pragma once

#include <cmath>

#include "kernels/cuda/rows.cuh"

namespace heddle::kernels::cuda {

inline constexpr float kLog2E = 1.44269504f;
inline constexpr int kPiecesInFlight = 4;

namespace thread {

// exp(x) of a difference that was taken before: relative error about |x| 2^-23.
__device__ __forceinline__ float exp_of(float x) {
  return ptx::ex2(x * kLog2E);
}

struct MaxSum {
  float max = -INFINITY, sum = 0;  // sum of exp(x - max)

  // NaNs are no maximum, but stay in the sum. -Inf adds nothing.
  template <int kCount, int kElements>
  __device__ __forceinline__ void take(const float (&x)[kCount][kElements]) {
    float highest = max;
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
#pragma unroll
      for (int e = 0; e < kElements; ++e) highest = fmaxf(highest, x[i][e]);
    }
    const float shift = highest == -INFINITY ? 0.0f : highest;  // nothing yet: no -Inf - -Inf
    sum *= exp_of(max - shift);
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
#pragma unroll
      for (int e = 0; e < kElements; ++e) sum += exp_of(x[i][e] - shift);
    }
    max = highest;
  }
};

}  // namespace thread

// What the members of a team know of their row, together.
template <class Config>
__device__ __forceinline__ thread::MaxSum joined(Team<Config>& team, const thread::MaxSum& own) {
  const float max = team.max(own.max), shift = max == -INFINITY ? 0.0f : max;
  return {max, team.sum(own.sum * thread::exp_of(own.max - shift))};
}

// The same of scale x over a row, kPiecesInFlight pieces at a time.
template <class T, class Config>
__device__ __forceinline__ thread::MaxSum max_sum_of_row(Team<Config>& team, const T* row, int columns, bool wide, float scale) {
  constexpr int kTeam = Config::value.team, kElements = kWidth<T>;
  const int pieces = pieces_of<T, kTeam>(columns);
  thread::MaxSum own;
  for (int first = 0; first < pieces; first += kPiecesInFlight) {
    uint4 packed[kPiecesInFlight];
#pragma unroll
    for (int i = 0; i < kPiecesInFlight; ++i) packed[i] = thread::load(row, Piece<T, kTeam>(wide, first + i, team.member(), columns));
    float values[kPiecesInFlight][kElements];
#pragma unroll
    for (int i = 0; i < kPiecesInFlight; ++i) {
      const Piece<T, kTeam> at(wide, first + i, team.member(), columns);
      thread::unpack(packed[i], values[i]);
#pragma unroll
      for (int e = 0; e < kElements; ++e) values[i][e] = e < at.valid ? values[i][e] * scale : -INFINITY;
    }
    own.take(values);
  }
  return joined(team, own);
}

}  // namespace heddle::kernels::cuda
