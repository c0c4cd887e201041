// Which rows of the tables the tokens of a (B, T) batch stand for, as the embedding's kernels ask: kernels/api/embedding.h.
#pragma once

#include "kernels/api/embedding.h"
#include "kernels/cuda/fault.cuh"

namespace heddle::kernels::cuda {

// A (B, T) view of i32.
struct Indices {
  const int32_t* data = nullptr;  // null: absent
  int64_t step_b = 0, step_t = 0;

  explicit Indices(const View& v) : data(v.as<const int32_t>()), step_b(v ? v.step(0) : 0), step_t(v ? v.step(1) : 0) {}
  __device__ __forceinline__ int32_t at(int b, int t) const { return data[b * step_b + t * step_t]; }
};

// Row of the token table, -1: this shard does not hold the token, or no shard does, which is noted.
struct TokenRows {
  Indices tokens;
  VocabShard shard;
  int64_t rows;
  Fault* fault;

  __device__ __forceinline__ int64_t row(int b, int t, bool notes) const {
    const int32_t token = tokens.at(b, t);
    if (token >= 0 && token < shard.tokens(rows)) return shard.row(token, rows);
    if (notes) thread::note(fault, FaultKind::token, b, t, token, shard.tokens(rows));
    return -1;
  }
};

// Row of the table of learned positions, -1: it has none, which is noted.
struct PositionRows {
  Indices start;
  int64_t rows;
  Fault* fault;

  __device__ __forceinline__ int64_t row(int b, int t, bool notes) const {
    const int64_t position = start.data == nullptr ? t : static_cast<int64_t>(t) - start.at(b, t);
    if (position >= 0 && position < rows) return position;
    if (notes) thread::note(fault, FaultKind::position, b, t, position, rows);
    return -1;
  }
};

}  // namespace heddle::kernels::cuda
