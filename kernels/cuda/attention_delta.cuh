// delta (B, H, T) = the sum over D of d_out times out: what both passes of attention's backward subtract from every row.
//
// Bound by memory: reads out and d_out once (4 bytes an element in bf16, 8 in f32), writes 4 bytes a row. A row of up to 256 elements belongs to the
// fewest lanes that hold it eight each; 16 bytes a load where every row starts at a multiple of 16 bytes.
#pragma once

#include "kernels/cuda/attention_views.cuh"
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/vec.cuh"

namespace heddle::kernels::cuda {

template <class T>
struct AttentionDeltaParams {
  HeadsView<const T> out, d_out;
  float* delta;  // (B, H, T), dense
  AttentionMask mask;
  int batches, heads, head_dim;
  int team;      // lanes that share a row: 1, 2, ... 32
  bool aligned;  // all rows to 16 bytes, and D a multiple of 8
  Fault* fault;
};

inline constexpr int kAttentionDeltaThreads = 256;

// thread. Columns first ... first + 7 of a row; zeros from d on.
template <class T>
__device__ __forceinline__ void load_columns(const T* row, int first, int d, bool aligned, float (&values)[8]) {
  if (aligned && first < d) return thread::load8(row + first, values);
#pragma unroll
  for (int e = 0; e < 8; ++e) values[e] = first + e < d ? to_float(row[first + e]) : 0.0f;
}

template <class T>
__global__ void __launch_bounds__(kAttentionDeltaThreads) attention_delta_kernel(const AttentionDeltaParams<T> p) {
  // Rows in the order of memory: (B, T, H).
  const int64_t row = (static_cast<int64_t>(blockIdx.x) * kAttentionDeltaThreads + threadIdx.x) / p.team;
  const int member = static_cast<int>(threadIdx.x) % p.team;
  const int64_t token = row / p.heads;
  const int head = static_cast<int>(row % p.heads), batch = static_cast<int>(token / p.mask.queries), t = static_cast<int>(token % p.mask.queries);
  float sum = 0;
  if (batch < p.batches) {
    float out[8], d_out[8];
    load_columns(p.out.matrix(batch, head) + t * p.out.row, member * 8, p.head_dim, p.aligned, out);
    load_columns(p.d_out.matrix(batch, head) + t * p.d_out.row, member * 8, p.head_dim, p.aligned, d_out);
#pragma unroll
    for (int e = 0; e < 8; ++e) sum += out[e] * d_out[e];
  }
  for (int offset = p.team / 2; offset > 0; offset /= 2) sum += ptx::shfl_bfly(sum, offset);
  if (batch >= p.batches || member != 0) return;
  p.delta[(static_cast<int64_t>(batch) * p.heads + head) * p.mask.queries + t] = sum;
  if (head == 0) p.mask.note_fault(p.fault, batch, t);
}

inline size_t attention_delta_bytes(const AttentionBackwardArgs& args) {
  return sizeof(float) * static_cast<size_t>(args.q.size(0) * args.q.size(1) * args.q.size(2));
}

// Also notes documents that begin where they may not.
template <class T>
void launch_attention_delta(const AttentionBackwardArgs& args, float* delta, Stream stream) {
  AttentionDeltaParams<T> p{};
  p.out = heads_view<const T>(args.out);
  p.d_out = heads_view<const T>(args.d_out);
  p.delta = delta;
  p.mask = attention_mask(args);
  p.batches = static_cast<int>(args.q.size(0));
  p.heads = static_cast<int>(args.q.size(2));
  p.head_dim = static_cast<int>(args.q.size(3));
  p.team = 1;
  while (p.team * 8 < p.head_dim) p.team *= 2;
  p.aligned = p.head_dim % 8 == 0 && rows_aligned_16(args.out) && rows_aligned_16(args.d_out);
  p.fault = args.fault;
  const int64_t rows = args.q.size(0) * args.q.size(1) * args.q.size(2), per_block = kAttentionDeltaThreads / p.team;
  HEDDLE_LAUNCH((attention_delta_kernel<T>), static_cast<unsigned>((rows + per_block - 1) / per_block), kAttentionDeltaThreads, 0, stream, p);
}

}  // namespace heddle::kernels::cuda
