// Token and position embedding: see kernels/api/embedding.h.
//
// Bound by memory: a row of weight is read and a row of out written for each token, 4 C bytes in bf16; rows of position, fewer than tokens, come
// from L2. A team of up to 32 lanes has a row and moves 16 bytes a lane, one element where rows are not aligned or C is no multiple of 16 bytes.
#pragma once

#include "kernels/cuda/embedding_rows.cuh"
#include "kernels/cuda/piece.cuh"

namespace heddle::kernels::cuda {

inline constexpr int kEmbeddingThreads = 256;

template <class T>
struct EmbeddingForwardParams {
  TokenRows tokens;
  PositionRows positions;
  const T *weight, *position;             // position may be null
  T* out;                                 // (B, T, C)
  int64_t weight_row, position_row;       // elements between rows
  int64_t out_b, out_t;                   // and between those of out
  int rows, length, columns, team_shift;  // rows = B T; a team has 1 << team_shift lanes
};

template <class T, int kElements>
__global__ void __launch_bounds__(kEmbeddingThreads) embedding_forward_kernel(const EmbeddingForwardParams<T> p) {
  using Vector = Piece<T, kElements>;
  const int64_t index = static_cast<int64_t>(blockIdx.x) * kEmbeddingThreads + threadIdx.x;
  if (index >> p.team_shift >= p.rows) return;
  const int row = static_cast<int>(index >> p.team_shift), team = 1 << p.team_shift, member = static_cast<int>(threadIdx.x) & (team - 1);
  const int b = row / p.length, t = row - b * p.length;
  const int64_t held = p.tokens.row(b, t, member == 0), place = p.position != nullptr ? p.positions.row(b, t, member == 0) : -1;
  const T* const weight = held >= 0 ? p.weight + held * p.weight_row : nullptr;
  const T* const position = place >= 0 ? p.position + place * p.position_row : nullptr;
  T* const out = p.out + b * p.out_b + t * p.out_t;
  for (int column = member * kElements; column < p.columns; column += team * kElements) {
    float sum[kElements] = {}, more[kElements];
    if (weight != nullptr) Vector::load(weight + column, sum);
    if (position != nullptr) {
      Vector::load(position + column, more);
#pragma unroll
      for (int e = 0; e < kElements; ++e) sum[e] += more[e];
    }
    Vector::store(out + column, sum);
  }
}

template <class T, int kElements>
void launch_embedding_forward(EmbeddingForwardParams<T> p, Stream stream) {
  const int pieces = p.columns / kElements;
  p.team_shift = 0;
  while (p.team_shift < 5 && 1 << p.team_shift < pieces) ++p.team_shift;
  const int64_t threads = static_cast<int64_t>(p.rows) << p.team_shift;
  HEDDLE_LAUNCH((embedding_forward_kernel<T, kElements>), static_cast<unsigned>((threads + kEmbeddingThreads - 1) / kEmbeddingThreads),
                kEmbeddingThreads, 0, stream, p);
}

}  // namespace heddle::kernels::cuda
