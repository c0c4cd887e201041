// Host side of the core_*.cu kernels: each function launches one kernel and returns when it has run, or throws what the machine says.
#pragma once

#include <cstdint>

namespace heddle::test {

// ---- core_kernels.cu: what the machine does ----

// sums[b] = sum of x over block b's 256 elements.
void block_sum(const float* x, float* sums, int blocks);

// One warp. out (kWarpResults, 32): what each lane got from each collective; the expected values are spelled out in the test.
inline constexpr int kWarpResults = 16;
void warp_collectives(uint32_t* out);

// Two warps hand values to each other through bar.sync / bar.arrive, `rounds` times; out[r] = r * r.
void named_barriers(int* out, int rounds);

// A producer thread fills a ring of 3 buffers for two consumer warps, guarded by mbarriers; out[i] = 2 * in[i], n a multiple of 64. bulk: the
// producer's copies are async ops that complete on the mbarrier.
void mbarrier_ring(const int* in, int* out, int n, bool bulk);

// 32 lanes store i * i, one arrives on an mbarrier for them, another warp waits and reads backwards: out[i] = (31 - i) * (31 - i).
void fenced_arrivals(int* out);
void elected_arrival(int* out);

// Tiles of 128 floats through a pipeline of cp.async groups; out[i] = in[i] + 1. waits = false leaves the wait out.
void copy_pipeline(const float* in, float* out, int tiles, bool waits);

// Each block adds its neighbour's shared memory (rank + 1, in a circle) to its own: clusters of 4.
void cluster_exchange(int* out, int blocks);

// grid-wide: every block writes, grid_sync, every block reads the next one's value. Cooperative.
void grid_exchange(int* out, int blocks, bool cooperative);

// The last block to finish sums what all have written (flag by atomic).
void last_block_sum(const float* x, float* partial, unsigned* finished, float* total, int blocks);

// Block b waits for block b - 1's flag (backwards = true: for block b + 1's).
void chained_blocks(int* flags, int blocks, bool backwards);

void count_true(int* out, int threads, int limit);

// ---- core_faults.cu: what it says when a kernel misuses it ----

enum class Fault {
  none,
  missing_arrive,     // half of the block never comes to a named barrier
  divergent_barrier,  // __syncthreads at two lines
  divergent_shuffle,  // half of a warp shuffles with a full mask
  other_collective,   // lanes of one warp at different collectives
  lane_not_in_mask,
  returned_lane,         // the mask names a lane that has returned
  shuffle_from_outside,  // the source lane takes no part
  barrier_count,         // one phase, two counts
  barrier_id,
  mbarrier_uninitialised,
  mbarrier_twice,
  mbarrier_overwritten,
  mbarrier_misaligned,
  mbarrier_arrivals,  // one arrival too many
  mbarrier_bytes,     // expects bytes that nobody sends
  mbarrier_unfenced,  // an async op before fence.mbarrier_init
  copy_misaligned,
  shared_too_large,  // static variables beyond 48 KiB
  address_outside,
  incomplete_warpgroup,
  bulk_unread,  // returns while a bulk copy may read its shared memory
  cluster_twice,
  trap,
  spin_for_ever,
  throws_number,
  null_pointer,    // dies
  deep_recursion,  // dies
  large_frame,     // dies: touches the far end of a local array alone
};
void misbehave(Fault fault);

// ---- core_races.cu: what the check flavour says; `wrong` leaves out the one thing that makes the kernel right ----

enum class Race {
  shared_read_after_write,  // no __syncthreads between
  shared_write_after_read,
  warp_without_syncwarp,  // lanes talk through memory; a shuffle is no barrier
  half_warp_mask,         // __syncwarp of half the lanes only
  named_barrier,          // the consumer skips bar.sync
  global_between_blocks,  // every block adds to one place; right: atomicAdd
  last_block_fence,       // flag without __threadfence
  last_block_scope,       // __threadfence_block in place of __threadfence
  copy_without_wait,
  copy_without_barrier,    // each thread waits for its own copies only
  copy_overwritten,        // next copy into a buffer that others still read
  mbarrier_parity,         // waits for the phase before
  mbarrier_early_release,  // a lane releases the buffer before the warp has read it
  proxy_fence,             // st.shared, barrier, bulk store without fence.proxy.async
  bulk_source_reuse,       // overwrites the source of a bulk store without wait.read
  cluster_exit,            // reads a peer's shared memory without a cluster barrier before
  uninitialised_shared,
  uninitialised_global,
  shared_bounds,
  static_bounds,
  global_bounds,
  misaligned_vector,
  misaligned_element,
  vectors_between_blocks,  // every block writes the same float4
  vectors_shared,          // whole float4s through shared memory, no __syncthreads between
  vectors_zeroed,          // the same, set to zero as a whole; one is left out
  vector_bounds,           // the last float4 begins inside the allocation
  mbarrier_init,           // no __syncthreads after mbarrier.init, and the initialising thread uses it first
  plain_then_atomic,       // one thread sets the counter and adds to it, no __syncthreads before the others add
  spinlock,                // taken and given by relaxed atomics, no __threadfence
  last_block_all_fence,    // one thread sees the flag, the block meets, every thread fences; wrong: none does
};
// scratch: device memory of at least 1024 floats, zero.
void race(Race kind, bool wrong, float* scratch);

// Neighbouring bytes, halves and words of one vector, written by different threads: no race.
void neighbours(unsigned char* out);

// Copies a 32 x 32 tile transposed through shared memory with rows of 32 + padding floats.
void transpose_tile(const float* in, float* out, int padding);

}  // namespace heddle::test
