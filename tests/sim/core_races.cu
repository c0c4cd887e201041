// Pairs of kernels for the check flavour: right, and with one thing left out.
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

__device__ uint32_t address(const void* p, Where where = Where::here()) {
  return sim::shared_address(p, where.op("cvta"));
}

// ---- one block, shared memory ----

__global__ void shared_kernel(Race kind, bool wrong, float* out) {
  HEDDLE_SHARED(float, tile, [64]);
  const unsigned i = threadIdx.x, lane = i % 32;
  const auto unless = [&](bool here_wrong) { return !(wrong && here_wrong); };
  switch (kind) {
    case Race::shared_read_after_write:
      tile[i] = 1.0f;
      if (unless(true)) __syncthreads();
      out[i] = tile[63 - i];
      break;
    case Race::shared_write_after_read:
      tile[i] = 1.0f;
      __syncthreads();
      out[i] = tile[63 - i];
      if (unless(true)) __syncthreads();
      tile[i] = 2.0f;
      break;
    case Race::warp_without_syncwarp:
      tile[i] = 1.0f;
      if (unless(true))
        __syncwarp();
      else
        out[i] = __shfl_xor_sync(kAll, 1.0f, 1);
      out[i] = tile[i ^ 1];
      break;
    case Race::half_warp_mask:
      tile[i] = 1.0f;
      __syncwarp(unless(true) ? kAll : (lane < 16 ? 0x0000ffffu : 0xffff0000u));
      out[i] = tile[i ^ 16];
      break;
    case Race::named_barrier:
      if (i < 32) {
        tile[i] = 1.0f;
        sim::barrier_arrive(1, 64, here("bar.arrive"));
      } else {
        if (unless(true)) sim::barrier_sync(1, 64, here("bar.sync"));
        out[i] = tile[i - 32];
      }
      break;
    case Race::uninitialised_shared:
      if (unless(true) || i != 5) tile[i] = 1.0f;
      __syncthreads();
      out[i] = tile[i];
      break;
    case Race::static_bounds: tile[i + (wrong ? 1 : 0)] = 1.0f; break;
    default: break;
  }
}

__global__ void dynamic_bounds_kernel(bool wrong) {
  auto* bytes = dyn_smem<unsigned char>();
  bytes[threadIdx.x + (wrong ? 4 : 3)] = 1;
}

__global__ void misaligned_kernel(Race kind, bool wrong, float* out) {
  auto* four = reinterpret_cast<float4*>(out + (wrong ? 1 : 4));
  if (kind == Race::misaligned_vector) {
    *four = make_float4(1, 2, 3, 4);
  } else {
    four->w = out[0];  // four bytes at a multiple of four: only the type says that the address is wrong
  }
}

// Whole vectors: compilers copy and clear them by calls of memcpy and memset.
__global__ void vector_kernel(Race kind, bool wrong, float* scratch) {
  HEDDLE_SHARED(float4, tile, [64]);
  auto* in = reinterpret_cast<const float4*>(scratch);
  auto* out = reinterpret_cast<float4*>(scratch + 512);
  const unsigned i = threadIdx.x;
  switch (kind) {
    case Race::vectors_between_blocks: out[wrong ? i : 64 * blockIdx.x + i] = in[i]; break;
    case Race::vectors_shared:
      tile[i] = in[i];
      if (!wrong) __syncthreads();
      out[i] = tile[63 - i];
      break;
    case Race::vectors_zeroed:
      if (!wrong || i != 7) tile[i] = {};
      __syncthreads();
      out[i] = tile[i];
      break;
    default: out[i] = *reinterpret_cast<const float4*>(scratch + 4 * i + 1024 - 4 * 64 + (wrong ? 4 : 0)); break;
  }
}

// ---- global memory ----

__global__ void global_kernel(Race kind, bool wrong, float* out) {
  const unsigned i = threadIdx.x;
  switch (kind) {
    case Race::global_between_blocks:
      if (i != 0) return;
      if (wrong)
        out[0] += 1.0f;
      else
        atomicAdd(out, 1.0f);
      break;
    case Race::uninitialised_global: out[i] = out[512 + i + (wrong ? 1 : 0)]; break;
    case Race::global_bounds:
      if (i == 0) out[1023 + (wrong ? 1 : 0)] = 1.0f;
      break;
    default: break;
  }
}

// partial sums of all blocks, added by the last one to finish
__global__ void last_block_kernel(Race kind, bool wrong, float* out) {
  auto* finished = reinterpret_cast<unsigned*>(out);
  HEDDLE_SHARED(bool, last);
  if (threadIdx.x == 0) {
    out[16 + blockIdx.x] = 1.0f;
    if (!wrong)
      __threadfence();
    else if (kind == Race::last_block_scope)
      __threadfence_block();
    last = atomicAdd(finished, 1u) == gridDim.x - 1;
    __threadfence();
  }
  __syncthreads();
  if (last && threadIdx.x < gridDim.x) out[64 + threadIdx.x] = out[16 + threadIdx.x];
}

__global__ void last_block_all_fence_kernel(bool wrong, float* out) {
  HEDDLE_SHARED(bool, last);
  out[16 + blockIdx.x * 64 + threadIdx.x] = 1.0f;
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) last = atomicAdd(reinterpret_cast<unsigned*>(out), 1u) == gridDim.x - 1;
  __syncthreads();
  if (!last) return;
  if (!wrong) __threadfence();
  for (unsigned b = 0; b < gridDim.x; ++b) out[512 + threadIdx.x] += out[16 + b * 64 + 63 - threadIdx.x];
}

__global__ void spinlock_kernel(bool wrong, float* out) {
  auto* lock = reinterpret_cast<unsigned*>(out);
  for (unsigned turn = 0; turn < blockDim.x; ++turn) {
    if (turn == threadIdx.x) {
      spin_until([&] { return atomicCAS(lock, 0u, 1u) == 0u; });
      if (!wrong) __threadfence();
      out[16] += 1.0f;
      if (!wrong) __threadfence();
      atomicExch(lock, 0u);
    }
  }
}

__global__ void plain_then_atomic_kernel(bool wrong, float* out) {
  HEDDLE_SHARED(unsigned, count);
  if (threadIdx.x == 0) count = 0;
  if (!wrong) __syncthreads();
  atomicAdd(&count, 1u);
  __syncthreads();
  if (threadIdx.x == 0) out[0] = static_cast<float>(count);
}

// ---- async copies ----

__global__ void copy_kernel(Race kind, bool wrong, float* data) {
  HEDDLE_SHARED(float4, buffer, [2][64]);
  const unsigned i = threadIdx.x;
  const auto* from = reinterpret_cast<const float4*>(data);
  float* out = data + 512;
  const auto load = [&](int slot) {
    sim::copy_async(&buffer[slot][i], from + i, 16, 16, here("cp.async"));
    sim::copy_async_commit(here("cp.async.commit_group"));
  };
  load(0);
  if (!(wrong && kind == Race::copy_without_wait)) sim::copy_async_wait(0, here("cp.async.wait_group"));
  if (!(wrong && kind == Race::copy_without_barrier)) __syncthreads();
  out[i] = buffer[0][63 - i].x;
  if (kind != Race::copy_overwritten) return;
  if (!wrong) __syncthreads();
  load(0);
  sim::copy_async_wait(0, here("cp.async.wait_group"));
}

__global__ void mbarrier_kernel(Race kind, bool wrong, float* data) {
  HEDDLE_SHARED(uint64_t, full);
  HEDDLE_SHARED(uint64_t, empty);
  HEDDLE_SHARED(float4, buffer, [32]);
  const unsigned i = threadIdx.x;
  if (i == 0) {
    sim::mbarrier_init(address(&full), 1, here("mbarrier.init"));
    sim::mbarrier_init(address(&empty), 1, here("mbarrier.init"));
    sim::mbarrier_init_fence(here("fence.mbarrier_init"));
  }
  __syncthreads();
  if (i >= 32) {  // producer
    if (i != 32) return;
    for (uint32_t t = 0; t < 6; ++t) {
      sim::mbarrier_wait(address(&empty), (t & 1) ^ 1, here("wait empty"));
      sim::mbarrier_arrive(address(&full), 1, sizeof buffer, sim::Releases::all, here("arrive.expect_tx"));
      bulk_load(address(&full), buffer, data, sizeof buffer);
    }
    return;
  }
  for (uint32_t t = 0; t < 6; ++t) {
    const bool early = wrong && kind == Race::mbarrier_early_release;
    sim::mbarrier_wait(address(&full), (t & 1) ^ (wrong && kind == Race::mbarrier_parity ? 1 : 0), here("wait full"));
    if (early && i == 0) sim::mbarrier_arrive(address(&empty), 1, 0, sim::Releases::all, here("arrive empty"));
    data[512 + i] = buffer[i].x;
    __syncwarp();
    if (!early && i == 0) sim::mbarrier_arrive(address(&empty), 1, 0, sim::Releases::all, here("arrive empty"));
  }
}

__global__ void mbarrier_init_kernel(bool wrong) {
  HEDDLE_SHARED(uint64_t, met);
  if (threadIdx.x == 0) sim::mbarrier_init(address(&met), blockDim.x, here("mbarrier.init"));
  if (!wrong) __syncthreads();
  sim::mbarrier_arrive(address(&met), 1, 0, sim::Releases::all, here("mbarrier.arrive"));
  sim::mbarrier_wait(address(&met), 0, here("mbarrier.try_wait"));
}

__global__ void bulk_kernel(Race kind, bool wrong, float* data) {
  HEDDLE_SHARED(float, tile, [64]);
  const unsigned i = threadIdx.x;
  tile[i] = static_cast<float>(i);
  if (!(wrong && kind == Race::proxy_fence)) sim::proxy_fence_async(here("fence.proxy.async"));
  __syncthreads();
  if (i == 0) {
    bulk_store(data + 256, tile, sizeof tile);
    sim::bulk_commit(here("cp.async.bulk.commit_group"));
    if (!(wrong && kind == Race::bulk_source_reuse)) sim::bulk_wait(0, true, here("cp.async.bulk.wait_group.read"));
  }
  __syncthreads();
  if (kind == Race::bulk_source_reuse) tile[i] = 0.0f;
  __syncthreads();
  if (i == 0) sim::bulk_wait(0, false, here("cp.async.bulk.wait_group"));
}

__global__ void cluster_kernel(bool wrong, float* out) {
  HEDDLE_SHARED(float, mine);
  const sim::Block& block = sim::this_block();
  if (threadIdx.x == 0) mine = 1.0f;
  sim::cluster_arrive(!wrong, here("barrier.cluster.arrive"));
  sim::cluster_wait(here("barrier.cluster.wait"));
  if (threadIdx.x == 0) {
    const uint32_t theirs = sim::shared_in_rank(address(&mine), block.cluster_rank ^ 1, here("mapa"));
    out[blockIdx.x] = *reinterpret_cast<const float*>(sim::shared_pointer(theirs, sizeof(float), here("ld.shared::cluster")));
  }
  sim::cluster_arrive(true, here("barrier.cluster.arrive"));
  sim::cluster_wait(here("barrier.cluster.wait"));
}

__global__ void neighbours_kernel(unsigned char* out) {
  HEDDLE_SHARED(uint4, vectors, [4]);
  auto* bytes = reinterpret_cast<unsigned char*>(vectors);
  const unsigned i = threadIdx.x;
  bytes[i] = static_cast<unsigned char>(i);
  __syncthreads();
  auto* halves = reinterpret_cast<unsigned short*>(vectors);
  if (i < 32) halves[i] = static_cast<unsigned short>(halves[i] + 1);
  __syncthreads();
  if (i < 4) {
    uint4 all = vectors[i];
    all.w += 1;
    vectors[i] = all;
  }
  __syncthreads();
  out[i] = bytes[i];
}

__global__ void transpose_kernel(const float* in, float* out, int padding) {
  auto* tile = dyn_smem<float>();  // (32, 32 + padding)
  const unsigned row = 32 + static_cast<unsigned>(padding), lane = threadIdx.x;
  for (unsigned r = 0; r < 32; ++r) tile[r * row + lane] = in[r * 32 + lane];
  __syncwarp();
  for (unsigned r = 0; r < 32; ++r) out[r * 32 + lane] = tile[lane * row + r];
}

}  // namespace

void race(Race kind, bool wrong, float* scratch) {
  switch (kind) {
    case Race::shared_bounds: HEDDLE_LAUNCH(dynamic_bounds_kernel, 1, 96, 99, Stream{}, wrong); break;
    case Race::misaligned_vector:
    case Race::misaligned_element: HEDDLE_LAUNCH(misaligned_kernel, 1, 1, 0, Stream{}, kind, wrong, scratch); break;
    case Race::global_between_blocks:
    case Race::uninitialised_global:
    case Race::global_bounds:
      HEDDLE_LAUNCH(global_kernel, kind == Race::global_between_blocks ? 3u : 1u, 32, 0, Stream{}, kind, wrong, scratch);
      break;
    case Race::vectors_between_blocks:
    case Race::vectors_shared:
    case Race::vectors_zeroed:
    case Race::vector_bounds:
      HEDDLE_LAUNCH(vector_kernel, kind == Race::vectors_between_blocks ? 2u : 1u, kind == Race::vectors_between_blocks ? 32u : 64u, 0, Stream{},
                    kind, wrong, scratch);
      break;
    case Race::mbarrier_init: HEDDLE_LAUNCH(mbarrier_init_kernel, 1, 64, 0, Stream{}, wrong); break;
    case Race::plain_then_atomic: HEDDLE_LAUNCH(plain_then_atomic_kernel, 1, 64, 0, Stream{}, wrong, scratch); break;
    case Race::spinlock: HEDDLE_LAUNCH(spinlock_kernel, 2, 2, 0, Stream{}, wrong, scratch); break;
    case Race::last_block_all_fence: HEDDLE_LAUNCH(last_block_all_fence_kernel, 4, 64, 0, Stream{}, wrong, scratch); break;
    case Race::last_block_fence:
    case Race::last_block_scope: HEDDLE_LAUNCH(last_block_kernel, 4, 64, 0, Stream{}, kind, wrong, scratch); break;
    case Race::copy_without_wait:
    case Race::copy_without_barrier:
    case Race::copy_overwritten: HEDDLE_LAUNCH(copy_kernel, 1, 64, 0, Stream{}, kind, wrong, scratch); break;
    case Race::mbarrier_parity:
    case Race::mbarrier_early_release: HEDDLE_LAUNCH(mbarrier_kernel, 1, 64, 0, Stream{}, kind, wrong, scratch); break;
    case Race::proxy_fence:
    case Race::bulk_source_reuse: HEDDLE_LAUNCH(bulk_kernel, 1, 64, 0, Stream{}, kind, wrong, scratch); break;
    case Race::cluster_exit: {
      const LaunchShape shape{.grid = 4, .block = 32, .cluster = 2};
      HEDDLE_LAUNCH_AS(cluster_kernel, shape, Stream{}, wrong, scratch);
      break;
    }
    default: HEDDLE_LAUNCH(shared_kernel, 1, 64, 0, Stream{}, kind, wrong, scratch); break;
  }
}

void neighbours(unsigned char* out) {
  HEDDLE_LAUNCH(neighbours_kernel, 1, 64, 0, Stream{}, out);
}

void transpose_tile(const float* in, float* out, int padding) {
  HEDDLE_LAUNCH(transpose_kernel, 1, 32, 32 * (32 + static_cast<size_t>(padding)) * sizeof(float), Stream{}, in, out, padding);
}

}  // namespace heddle::test
