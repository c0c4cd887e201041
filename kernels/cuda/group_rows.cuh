// Numbers 0..n-1 in groups of those that belong to the same row of a table, each group in ascending order: a stable radix sort of (row, number).
//
// Each pass is two launches: every block counts the digits of its part, then finds from all blocks' counts where its own go, and moves them. Which
// number goes where follows from the rows alone. O(n) a pass and O(rows log n) for the starts; about 24 bytes a number and pass, all in L2: with the
// few microseconds of each launch that is what it costs.
#pragma once

#include "kernels/arch/ptx.h"
#include "kernels/cuda/group_rows_config.h"

namespace heddle::kernels::cuda {

// A plan's arrays in its scratch. Pass i reads pairs[i % 2] and writes the other: the groups lie in pairs[passes % 2] at last.
struct Grouping {
  uint2* pairs[2];   // (n): x the row, y the number
  uint32_t* counts;  // (blocks, kDigits)
  int32_t* starts;   // (rows + 1): group r is sorted[starts[r] .. starts[r + 1])
  int n, rows, strip;

  Grouping(const GroupPlan& plan, std::byte* scratch)
      : pairs{reinterpret_cast<uint2*>(scratch), reinterpret_cast<uint2*>(scratch + plan.pairs_bytes())},
        counts(reinterpret_cast<uint32_t*>(scratch + plan.counts_at())),
        starts(reinterpret_cast<int32_t*>(scratch + plan.starts_at())),
        n(plan.n),
        rows(static_cast<int>(plan.rows)),
        strip(static_cast<int>(plan.strip())) {}
};

// For the passes after the first: the pairs have been written.
struct RowsKnown {
  static constexpr bool kKnown = true;
};

// First pass: row_of(i) gives number i's row, or `rows`; it is asked once for each, and the pairs are written.
template <class RowOf>
__global__ void __launch_bounds__(GroupPlan::kThreads) group_count_kernel(const Grouping g, uint2* pairs, int shift, const RowOf row_of) {
  HEDDLE_SHARED(uint32_t, counts, [GroupPlan::kDigits]);
  const int thread = static_cast<int>(threadIdx.x);
  for (int digit = thread; digit < GroupPlan::kDigits; digit += GroupPlan::kThreads) counts[digit] = 0;
  __syncthreads();
  const int64_t part = static_cast<int64_t>(g.strip) * GroupPlan::kWarps, begin = blockIdx.x * part, end = begin + part < g.n ? begin + part : g.n;
  for (int64_t i = begin + thread; i < end; i += GroupPlan::kThreads) {
    uint32_t row;
    if constexpr (!RowOf::kKnown) {
      row = static_cast<uint32_t>(row_of(static_cast<int>(i)));
      pairs[i] = make_uint2(row, static_cast<uint32_t>(i));
    } else {
      row = pairs[i].x;
    }
    ptx::atom_add_shared(ptx::smem_u32(&counts[(row >> shift) % GroupPlan::kDigits]), 1);
  }
  __syncthreads();
  for (int digit = thread; digit < GroupPlan::kDigits; digit += GroupPlan::kThreads)
    g.counts[static_cast<int64_t>(blockIdx.x) * GroupPlan::kDigits + digit] = counts[digit];
}

namespace block {

// The sum over the threads before the caller; one barrier.
__device__ __forceinline__ uint32_t sum_before(uint32_t value, uint32_t (&partial)[GroupPlan::kWarps]) {
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  uint32_t up_to = value;
#pragma unroll
  for (int delta = 1; delta < 32; delta *= 2) {
    const uint32_t before = ptx::shfl_up(up_to, delta);
    if (lane >= delta) up_to += before;
  }
  if (lane == 31) partial[warp] = up_to;
  __syncthreads();
  uint32_t before = up_to - value;
#pragma unroll
  for (int w = 0; w < GroupPlan::kWarps; ++w) before += w < warp ? partial[w] : 0;
  return before;
}

}  // namespace block

// Moves each number of this block's part behind those of smaller digits, and behind those of its own digit that come before it.
template <class Plan>
__global__ void __launch_bounds__(Plan::kThreads) group_move_kernel(const Grouping g, const uint2* from, uint2* to, int shift) {
  constexpr int kDigits = Plan::kDigits, kWarps = Plan::kWarps;
  static_assert(kDigits == 2 * Plan::kThreads);
  HEDDLE_SHARED(uint32_t, next, [kWarps][kDigits]);  // how many a warp has of a digit; then where its next one goes
  HEDDLE_SHARED(uint32_t, partial, [kWarps]);
  const int thread = static_cast<int>(threadIdx.x), lane = thread % 32, warp = thread / 32;
  const auto digit_of = [&](uint32_t row) { return static_cast<int>((row >> shift) % kDigits); };
  const int64_t begin = (static_cast<int64_t>(blockIdx.x) * kWarps + warp) * g.strip, end = begin + g.strip < g.n ? begin + g.strip : g.n;

  for (int digit = lane; digit < kDigits; digit += 32) next[warp][digit] = 0;
  ptx::warp_sync();
  for (int64_t i = begin + lane; i < end; i += 32) ptx::atom_add_shared(ptx::smem_u32(&next[warp][digit_of(from[i].x)]), 1);

  // This thread's two digits: how many there are in all blocks, and in those before this one.
  const int digit = 2 * thread;
  uint2 all = make_uint2(0, 0), before = make_uint2(0, 0);
  for (unsigned block = 0; block < gridDim.x; ++block) {
    const uint2 count = *reinterpret_cast<const uint2*>(g.counts + static_cast<int64_t>(block) * kDigits + digit);
    all.x += count.x, all.y += count.y;
    if (block < blockIdx.x) before.x += count.x, before.y += count.y;
  }
  const uint32_t smaller = block::sum_before(all.x + all.y, partial);  // its barrier: every warp has counted
  uint32_t at[2] = {smaller + before.x, smaller + all.x + before.y};
#pragma unroll
  for (int w = 0; w < kWarps; ++w) {
#pragma unroll
    for (int d = 0; d < 2; ++d) {
      const uint32_t count = next[w][digit + d];
      next[w][digit + d] = at[d];
      at[d] += count;
    }
  }
  __syncthreads();

  for (int64_t first = begin; first < end; first += 32) {
    const bool there = first + lane < end;
    const uint2 pair = there ? from[first + lane] : make_uint2(0, 0);
    const int own = there ? digit_of(pair.x) : kDigits;
    const uint32_t same = ptx::match_any(static_cast<uint32_t>(own));
    const uint32_t place = there ? next[warp][own] + static_cast<uint32_t>(__popc(same & ((1u << lane) - 1))) : 0;
    if (there) to[place] = pair;
    ptx::warp_sync();                                               // all have read
    if (there && (same >> lane) == 1) next[warp][own] = place + 1;  // the last of its digit
    ptx::warp_sync();
  }
}

// starts[r]: how many numbers belong to rows before r.
template <class Plan>
__global__ void __launch_bounds__(Plan::kThreads) group_starts_kernel(const Grouping g, const uint2* sorted) {
  const int64_t row = static_cast<int64_t>(blockIdx.x) * Plan::kThreads + threadIdx.x;
  if (row > g.rows) return;
  int low = 0, high = g.n;
  while (low < high) {
    const int middle = low + (high - low) / 2;
    if (static_cast<int64_t>(sorted[middle].x) < row) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  g.starts[row] = low;
}

// Returns the sorted pairs; their groups' starts are in g.starts.
template <class RowOf>
const uint2* launch_group_rows(const GroupPlan& plan, const Grouping& g, const RowOf& row_of, Stream stream) {
  const uint2* const sorted = g.pairs[plan.passes() % 2];
  const unsigned blocks = static_cast<unsigned>(plan.blocks());
  for (int pass = 0; pass < plan.passes() && plan.n > 0; ++pass) {
    uint2 *const from = g.pairs[pass % 2], *const to = g.pairs[(pass + 1) % 2];
    const int shift = pass * GroupPlan::kDigitBits;
    if (pass == 0) {
      HEDDLE_LAUNCH(group_count_kernel<RowOf>, blocks, GroupPlan::kThreads, 0, stream, g, from, shift, row_of);
    } else {
      HEDDLE_LAUNCH(group_count_kernel<RowsKnown>, blocks, GroupPlan::kThreads, 0, stream, g, from, shift, RowsKnown());
    }
    HEDDLE_LAUNCH(group_move_kernel<GroupPlan>, blocks, GroupPlan::kThreads, 0, stream, g, from, to, shift);
  }
  const int64_t starts = plan.rows + 1;
  HEDDLE_LAUNCH(group_starts_kernel<GroupPlan>, static_cast<unsigned>((starts + GroupPlan::kThreads - 1) / GroupPlan::kThreads), GroupPlan::kThreads,
                0, stream, g, sorted);
  return sorted;
}

}  // namespace heddle::kernels::cuda
