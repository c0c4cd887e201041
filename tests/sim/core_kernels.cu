// Small kernels that exercise the machine itself.
#include "kernels/arch/platform.h"
#include "tests/sim/core_kernels.h"
#include "tests/sim/core_support.h"

namespace heddle::test {

namespace {

using sim::Site;
using sim::Where;

constexpr unsigned kAll = 0xffffffffu;

Site here(const char* what, Where where = Where::here()) {
  return where.op(what);
}

__device__ float warp_sum(float value) {
  for (int offset = 16; offset > 0; offset /= 2) value += __shfl_xor_sync(kAll, value, offset);
  return value;
}

__global__ void block_sum_kernel(const float* x, float* sums) {
  HEDDLE_SHARED(float, partial, [8]);
  const unsigned warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const float mine = warp_sum(x[blockIdx.x * blockDim.x + threadIdx.x]);
  if (lane == 0) partial[warp] = mine;
  __syncthreads();
  if (warp == 0) {
    const float total = warp_sum(lane < 8 ? partial[lane] : 0.0f);
    if (lane == 0) sums[blockIdx.x] = total;
  }
}

__global__ void warp_collectives_kernel(uint32_t* out) {
  const unsigned lane = threadIdx.x;
  const unsigned value = lane * lane;
  int row = 0;
  const auto give = [&](uint32_t result) { out[row++ * 32 + static_cast<int>(lane)] = result; };
  give(__shfl_sync(kAll, value, 5));
  give(__shfl_sync(kAll, value, 3, 8));
  give(__shfl_up_sync(kAll, value, 3));
  give(__shfl_up_sync(kAll, value, 3, 16));
  give(__shfl_down_sync(kAll, value, 30));
  give(__shfl_down_sync(kAll, value, 2, 4));
  give(__shfl_xor_sync(kAll, value, 7));
  give(static_cast<uint32_t>(__shfl_xor_sync(kAll, uint64_t{value} << 32, 1) >> 32));
  give(__ballot_sync(kAll, lane % 3 == 0));
  give(static_cast<uint32_t>(__any_sync(kAll, lane == 31)) + 2 * static_cast<uint32_t>(__all_sync(kAll, lane < 31)));
  give(__reduce_add_sync(kAll, lane));
  give(static_cast<uint32_t>(__reduce_min_sync(kAll, -static_cast<int>(lane))));
  give(__reduce_max_sync(kAll, lane ^ 0x80000000u));
  give(__match_any_sync(kAll, lane / 4));
  // Two halves of the warp, each with its own mask, at one line.
  const unsigned half = lane < 16 ? 0x0000ffffu : 0xffff0000u;
  give(__ballot_sync(half, (lane & 1) != 0));
  give(__reduce_xor_sync(half, 1u << lane));
}

__global__ void named_barriers_kernel(int* out, int rounds) {
  HEDDLE_SHARED(int, box);
  const bool producer = threadIdx.x < 32;
  for (int r = 0; r < rounds; ++r) {
    if (producer) {
      sim::barrier_sync(1, 64, here("bar.sync"));  // the box is empty
      if (threadIdx.x == 0) box = r * r;
      sim::barrier_arrive(2, 64, here("bar.arrive"));  // and full
    } else {
      sim::barrier_arrive(1, 64, here("bar.arrive"));
      sim::barrier_sync(2, 64, here("bar.sync"));
      if (threadIdx.x == 32) out[r] = box;
    }
  }
}

__global__ void mbarrier_ring_kernel(const int* in, int* out, int n, bool bulk) {
  constexpr int kStages = 3, kTile = 64;
  HEDDLE_SHARED(uint64_t, full, [kStages]);
  HEDDLE_SHARED(uint64_t, empty, [kStages]);
  HEDDLE_SHARED(int, ring, [kStages][kTile]);
  const auto address = [](const void* p) { return sim::shared_address(p, here("cvta")); };
  if (threadIdx.x == 0) {
    for (int s = 0; s < kStages; ++s) {
      sim::mbarrier_init(address(&full[s]), 1, here("mbarrier.init"));
      sim::mbarrier_init(address(&empty[s]), 2, here("mbarrier.init"));
    }
    sim::mbarrier_init_fence(here("fence.mbarrier_init"));
  }
  __syncthreads();
  if (threadIdx.x < 32) {
    if (threadIdx.x != 0) return;
    for (int t = 0; t < n / kTile; ++t) {
      const int s = t % kStages;
      sim::mbarrier_wait(address(&empty[s]), static_cast<uint32_t>(t / kStages & 1) ^ 1, here("wait empty"));
      if (bulk) {
        sim::mbarrier_arrive(address(&full[s]), 1, sizeof ring[s], sim::Releases::all, here("arrive.expect_tx"));
        bulk_load(address(&full[s]), ring[s], in + t * kTile, sizeof ring[s]);
      } else {
        for (int i = 0; i < kTile; ++i) ring[s][i] = in[t * kTile + i];
        sim::mbarrier_arrive(address(&full[s]), 1, 0, sim::Releases::all, here("arrive full"));
      }
    }
    return;
  }
  const int place = static_cast<int>(threadIdx.x) - 32;
  for (int t = 0; t < n / kTile; ++t) {
    const int s = t % kStages;
    sim::mbarrier_wait(address(&full[s]), static_cast<uint32_t>(t / kStages & 1), here("wait full"));
    out[t * kTile + place] = 2 * ring[s][place];
    __syncwarp();
    if (place % 32 == 0) sim::mbarrier_arrive(address(&empty[s]), 1, 0, sim::Releases::all, here("arrive empty"));
  }
}

// All lanes of a warp store, and each fences its own stores before it arrives: one fence for the warp would publish one lane's.
__global__ void fenced_arrivals_kernel(int* out) {
  HEDDLE_SHARED(uint64_t, full);
  HEDDLE_SHARED(int, words, [32]);
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const uint32_t address = sim::shared_address(&full, here("cvta"));
  if (threadIdx.x == 0) sim::mbarrier_init(address, 32, here("mbarrier.init"));
  __syncthreads();
  if (threadIdx.x < 32) {
    words[lane] = lane + 7;
    __threadfence_block();
    sim::mbarrier_arrive(address, 1, 0, sim::Releases::nothing, here("arrive"));  // heddle-mutate: ignore weaken, which is what it does
  } else {
    sim::mbarrier_wait(address, 0, here("wait"));
    out[lane] = words[31 - lane];
  }
}

// All lanes of a warp store, one arrives for them: the warp must meet in between (cudnn-frontend issue 426 left that out).
__global__ void elected_arrival_kernel(int* out) {
  HEDDLE_SHARED(uint64_t, full);
  HEDDLE_SHARED(int, words, [32]);
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const uint32_t address = sim::shared_address(&full, here("cvta"));
  if (threadIdx.x == 0) sim::mbarrier_init(address, 1, here("mbarrier.init"));
  __syncthreads();
  if (threadIdx.x < 32) {
    words[lane] = lane * lane;
    __syncwarp();
    if (lane == 0) sim::mbarrier_arrive(address, 1, 0, sim::Releases::all, here("arrive"));
  } else {
    sim::mbarrier_wait(address, 0, here("wait"));
    out[lane] = words[31 - lane];
  }
}

__global__ void copy_pipeline_kernel(const float* in, float* out, int tiles, bool waits) {
  constexpr int kStages = 3, kTile = 128;
  auto* buffers = dyn_smem<float>();  // (kStages, kTile)
  const auto load = [&](int t) {
    if (t < tiles) sim::copy_async(buffers + t % kStages * kTile + threadIdx.x * 4, in + t * kTile + threadIdx.x * 4, 16, 16, here("cp.async"));
    sim::copy_async_commit(here("cp.async.commit_group"));
  };
  for (int t = 0; t < kStages - 1; ++t) load(t);
  for (int t = 0; t < tiles; ++t) {
    if (waits) sim::copy_async_wait(kStages - 2, here("cp.async.wait_group"));
    __syncthreads();
    load(t + kStages - 1);
    for (int i = static_cast<int>(threadIdx.x); i < kTile; i += 32) out[t * kTile + i] = buffers[t % kStages * kTile + i] + 1.0f;
  }
}

__global__ void cluster_exchange_kernel(int* out) {
  HEDDLE_SHARED(int, mine);
  const sim::Block& block = sim::this_block();
  if (threadIdx.x == 0) mine = static_cast<int>(blockIdx.x);
  sim::cluster_arrive(true, here("barrier.cluster.arrive"));
  sim::cluster_wait(here("barrier.cluster.wait"));
  const uint32_t next = (block.cluster_rank + 1) % block.cluster_size;
  const uint32_t remote = sim::shared_in_rank(sim::shared_address(&mine, here("cvta")), next, here("mapa"));
  const auto* theirs = reinterpret_cast<const int*>(sim::shared_pointer(remote, sizeof(int), here("ld.shared::cluster")));
  if (threadIdx.x == 0) out[blockIdx.x] = mine * 100 + *theirs;
  sim::cluster_arrive(false, here("barrier.cluster.arrive.relaxed"));  // nobody leaves while others read
  sim::cluster_wait(here("barrier.cluster.wait"));
}

__global__ void grid_exchange_kernel(int* out) {
  const unsigned blocks = gridDim.x;
  if (threadIdx.x == 0) out[blockIdx.x] = static_cast<int>(blockIdx.x * blockIdx.x);
  grid_sync();
  const int next = out[(blockIdx.x + 1) % blocks];
  grid_sync();
  if (threadIdx.x == 0) out[blockIdx.x] = next;
}

__global__ void last_block_sum_kernel(const float* x, float* partial, unsigned* finished, float* total) {
  HEDDLE_SHARED(float, sums, [4]);
  HEDDLE_SHARED(bool, last);
  const unsigned warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const float mine = warp_sum(x[blockIdx.x * 128 + threadIdx.x]);
  if (lane == 0) sums[warp] = mine;
  __syncthreads();
  if (threadIdx.x == 0) {
    partial[blockIdx.x] = sums[0] + sums[1] + sums[2] + sums[3];
    __threadfence();
    last = atomicAdd(finished, 1u) == gridDim.x - 1;
    __threadfence();
  }
  __syncthreads();
  if (last && threadIdx.x == 0) {
    float sum = 0;
    for (unsigned b = 0; b < gridDim.x; ++b) sum += partial[b];
    *total = sum;
  }
}

__global__ void chained_blocks_kernel(int* flags, bool backwards) {
  const unsigned b = blockIdx.x;
  const bool first = backwards ? b + 1 == gridDim.x : b == 0;
  if (threadIdx.x == 0) {
    if (!first) {
      int* flag = flags + (backwards ? b + 1 : b - 1);
      spin_until([flag] { return atomicAdd(flag, 0) != 0; });
    }
    atomicExch(flags + b, 1);
  }
}

__global__ void count_true_kernel(int* out, int limit) {
  const int mine = static_cast<int>(threadIdx.x);
  const int count = __syncthreads_count(mine < limit);
  const int any = __syncthreads_or(mine < limit);
  const int all = __syncthreads_and(mine < limit);
  out[mine] = count * 4 + any * 2 + all;
}

}  // namespace

void block_sum(const float* x, float* sums, int blocks) {
  HEDDLE_LAUNCH(block_sum_kernel, static_cast<unsigned>(blocks), 256, 0, Stream{}, x, sums);
}

void warp_collectives(uint32_t* out) {
  HEDDLE_LAUNCH(warp_collectives_kernel, 1, 32, 0, Stream{}, out);
}

void named_barriers(int* out, int rounds) {
  HEDDLE_LAUNCH(named_barriers_kernel, 1, 64, 0, Stream{}, out, rounds);
}

void mbarrier_ring(const int* in, int* out, int n, bool bulk) {
  HEDDLE_LAUNCH(mbarrier_ring_kernel, 1, 96, 0, Stream{}, in, out, n, bulk);
}

void fenced_arrivals(int* out) {
  HEDDLE_LAUNCH(fenced_arrivals_kernel, 1, 64, 0, Stream{}, out);
}
void elected_arrival(int* out) {
  HEDDLE_LAUNCH(elected_arrival_kernel, 1, 64, 0, Stream{}, out);
}

void copy_pipeline(const float* in, float* out, int tiles, bool waits) {
  HEDDLE_LAUNCH(copy_pipeline_kernel, 1, 32, 3 * 128 * sizeof(float), Stream{}, in, out, tiles, waits);
}

void cluster_exchange(int* out, int blocks) {
  const LaunchShape shape{.grid = static_cast<unsigned>(blocks), .block = 64, .cluster = 4};
  HEDDLE_LAUNCH_AS(cluster_exchange_kernel, shape, Stream{}, out);
}

void grid_exchange(int* out, int blocks, bool cooperative) {
  const LaunchShape shape{.grid = static_cast<unsigned>(blocks), .block = 33, .cooperative = cooperative};
  HEDDLE_LAUNCH_AS(grid_exchange_kernel, shape, Stream{}, out);
}

void last_block_sum(const float* x, float* partial, unsigned* finished, float* total, int blocks) {
  HEDDLE_LAUNCH(last_block_sum_kernel, static_cast<unsigned>(blocks), 128, 0, Stream{}, x, partial, finished, total);
}

void chained_blocks(int* flags, int blocks, bool backwards) {
  HEDDLE_LAUNCH(chained_blocks_kernel, static_cast<unsigned>(blocks), 32, 0, Stream{}, flags, backwards);
}

void count_true(int* out, int threads, int limit) {
  HEDDLE_LAUNCH(count_true_kernel, 1, static_cast<unsigned>(threads), 0, Stream{}, out, limit);
}

}  // namespace heddle::test
