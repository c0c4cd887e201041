// What every attention kernel is told: where heads lie, and which keys a query sees. See kernels/api/attention.h.
#pragma once

#include "kernels/api/attention.h"
#include "kernels/cuda/fault.cuh"

namespace heddle::kernels::cuda {

inline constexpr float kLog2E = 1.44269504f, kLn2 = 0.693147181f;  // probabilities are powers of 2

// A (B, N, H, D) tensor; strides in elements; D is contiguous.
template <class T>
struct HeadsView {
  T* data;
  int64_t batch, row, head;

  // The (N, D) matrix of one head, `row` elements between its rows.
  __device__ __forceinline__ T* matrix(int b, int h) const { return data + b * batch + h * head; }
};

template <class T>
HeadsView<T> heads_view(const View& v) {
  return {v.as<T>(), v.step(0), v.step(1), v.step(2)};
}

// A (B, H, T) tensor of floats, one for each row of queries, or null; strides in elements; T is contiguous.
struct RowsView {
  float* data;
  int64_t batch, head;

  __device__ __forceinline__ float* vector(int b, int h) const { return data + b * batch + h * head; }
};

inline RowsView rows_view(const View& v) {
  return v ? RowsView{v.as<float>(), v.step(0), v.step(1)} : RowsView{};
}

// Which keys a query sees: those from first_key to last_key, both of them.
struct AttentionMask {
  const int32_t* document_start;  // (B, T) or null
  int64_t start_batch;            // elements from one row of it to the next
  const int32_t* position;        // (B) or null
  int64_t position_step;
  int queries, keys;  // T, S
  int window;         // <= 0: no limit

  // Of one sequence: `keys` are its own. A position outside the cache is taken as the nearest in it.
  __device__ __forceinline__ AttentionMask of(int batch) const {
    AttentionMask own = *this;
    if (position != nullptr) own.keys = queries + max(0, min(position[batch * position_step], keys - queries));
    return own;
  }

  __device__ __forceinline__ int last_key(int t) const { return keys - queries + t; }
  // The first key that the window leaves.
  __device__ __forceinline__ int window_start(int t) const { return window > 0 ? max(0, last_key(t) - window + 1) : 0; }

  // A document that begins outside [0, t] is taken as one that begins at the nearer end.
  __device__ __forceinline__ int first_key(int batch, int t) const {
    int first = window_start(t);
    if (document_start != nullptr) first = max(first, min(document_start[batch * start_batch + t], t));
    return first;
  }

  // thread. Notes a position outside the cache, of the mask of all sequences.
  __device__ __forceinline__ void note_position(Fault* fault, int batch) const {
    if (position == nullptr) return;
    const int at = position[batch * position_step];
    if (at < 0 || at > keys - queries) thread::note(fault, FaultKind::cache_position, batch, 0, at, keys - queries);
  }

  // thread. Notes a document of query t that begins outside [0, t].
  __device__ __forceinline__ void note_fault(Fault* fault, int batch, int t) const {
    if (document_start == nullptr) return;
    const int start = document_start[batch * start_batch + t];
    if (start < 0 || start > t) thread::note(fault, FaultKind::document_start, batch, t, start, t);
  }
};

template <class Args>
AttentionMask attention_mask(const Args& args) {
  AttentionMask mask{};
  mask.document_start = args.document_start.template as<const int32_t>();
  mask.start_batch = args.document_start ? args.document_start.step(0) : 0;
  if constexpr (requires { args.position; }) {
    mask.position = args.position.template as<const int32_t>();
    mask.position_step = args.position ? args.position.step(0) : 0;
  }
  mask.queries = static_cast<int>(args.q.size(1));
  mask.keys = static_cast<int>(args.k.size(1));
  mask.window = static_cast<int>(args.window < mask.keys ? args.window : 0);
  return mask;
}

// Rows and keys are counted in 32 bits.
template <class Args>
Refusal attention_too_large(const Args& args) {
  constexpr int64_t kMost = (int64_t{1} << 31) - 1;
  if (args.k.size(1) > kMost / 2) return refused("more than 2^30 keys: ", args.k);
  if (args.q.size(0) * args.q.size(1) * args.q.size(2) > kMost) return refused("2^31 rows and more: ", args.q);
  return {};
}

// Kernels that are short of registers take head and sequence from blockIdx.y and .z, where they cost none.
template <class Args>
Refusal attention_grid_too_large(const Args& args) {
  constexpr int64_t kMost = 65535;
  if (args.q.size(0) > kMost || args.q.size(2) > kMost) return refused("more than 65535 sequences or heads: ", args.q);
  return attention_too_large(args);
}

// The least and the greatest of first_key over some queries.
struct FirstKeys {
  int lowest, highest;
};

namespace warp {

// warp, converged. Over queries t0 ... t0 + kCount - 1, those past the end left out; t0 < T.
template <int kCount>
__device__ __forceinline__ FirstKeys first_keys(const AttentionMask& mask, int batch, int t0) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  FirstKeys keys{mask.keys, 0};
#pragma unroll
  for (int i = 0; i < kCount; i += 32) {
    const int first = mask.first_key(batch, min(t0 + i + lane % kCount, mask.queries - 1));
    keys.lowest = min(keys.lowest, first);
    keys.highest = max(keys.highest, first);
  }
  return {ptx::reduce_min_signed(keys.lowest), ptx::reduce_max_signed(keys.highest)};
}

}  // namespace warp

// One block for every tile of every head of every sequence: those of one head follow each other, and share what they read of it.
struct TileOfHead {
  int tile, head, batch;
};

__device__ __forceinline__ TileOfHead tile_of_head(int block, int tiles, int heads) {
  return {block % tiles, block / tiles % heads, block / tiles / heads};
}

}  // namespace heddle::kernels::cuda
