// C (M, N) = A B for Hopper: tiles by TMA into a ring of shared-memory stages, products by wgmma straight from there, in persistent blocks whose
// warpgroups have roles (the structure of CUTLASS's warp-specialized persistent kernels).
//
//   producer   one thread of warpgroup 0: waits until a stage is empty, asks TMA to fill it
//   consumers  the other warpgroups: wait until a stage is full, multiply, say it is empty; at the end of a tile they write C
//
// full[s] completes when the bytes of both operands have landed, empty[s] when every consumer warp that reads the stage has let go of it. Both sides
// walk the stages in a ring; the phase of a stage flips each time round. With clusters, two blocks with the same columns of C fetch half of each tile
// of B and multicast it to both, so a stage is empty when the consumers of both blocks have let go.
//
//   Y = X W^T      A = X  (M, K)  k-major    B = W  (N, K)  k-major
//   dX = dY W      A = dY (M, K)  k-major    B = W  (K, N)  mn-major
//   dW = dY^T X    A = dY (K, M)  mn-major   B = X  (K, N)  mn-major      no transposed copies: wgmma reads either layout
//
// Shared memory: stages of A, stages of B, epilogue panels (all 1024-byte aligned for the 128-byte swizzle), barriers. A k-major operand of R rows is
// R rows of 128 bytes (64 k). An mn-major operand is R / 64 panels of 64 rows (k) of 128 bytes (64 of m or n).
#pragma once

#include "kernels/arch/ptx.h"
#include "kernels/cuda/configured.h"
#include "kernels/cuda/gemm_sm90_config.h"
#include "kernels/cuda/tensor_map.cuh"
#include "kernels/cuda/tile_raster.h"

namespace heddle::kernels::cuda {

struct GemmSm90Params {
  int m, n, k;
  int splits;  // parts of K that different blocks compute; more than 1 only with GemmOut::f32_add
};

// A place in the ring of stages.
template <int kStages>
struct RingPosition {
  int stage = 0;
  uint32_t phase = 0;
  __device__ __forceinline__ void advance() {
    if (++stage == kStages) {
      stage = 0;
      phase ^= 1;
    }
  }
};

// What a block does one after the other: tiles of C, or parts of their sums. The blocks of a cluster take neighbouring tiles along M.
template <GemmSm90Config kConfig>
class TileSchedule {
 public:
  __device__ __forceinline__ explicit TileSchedule(const GemmSm90Params& p)
      : cluster_rows_(ceil_div(ceil_div(p.m, kConfig.block_m), kConfig.cluster)),
        columns_(ceil_div(p.n, kConfig.block_n)),
        k_tiles_(ceil_div(p.k, kConfig.kBlockK)),
        k_tiles_per_split_(ceil_div(k_tiles_, p.splits)),
        units_(cluster_rows_ * columns_ * p.splits),
        next_(static_cast<int>(blockIdx.x) / kConfig.cluster) {}

  // False when nothing is left.
  __device__ __forceinline__ bool next() {
    if (next_ >= units_) return false;
    const int tiles = cluster_rows_ * columns_;
    const TileAt at = tile_at(next_ % tiles, cluster_rows_, columns_, kGroupRows / kConfig.cluster);
    m0 = (at.m * kConfig.cluster + static_cast<int>(blockIdx.x) % kConfig.cluster) * kConfig.block_m;
    n0 = at.n * kConfig.block_n;
    first_k_tile = next_ / tiles * k_tiles_per_split_;
    last_k_tile = min(first_k_tile + k_tiles_per_split_, k_tiles_);
    next_ += static_cast<int>(gridDim.x) / kConfig.cluster;
    return true;
  }

  int m0 = 0, n0 = 0, first_k_tile = 0, last_k_tile = 0;  // last exclusive

 private:
  static constexpr int kGroupRows = 8;
  int cluster_rows_, columns_, k_tiles_, k_tiles_per_split_, units_, next_;
};

// Shared addresses.
template <GemmSm90Config kConfig>
struct GemmSm90Shared {
  uint32_t base;
  __device__ __forceinline__ uint32_t a(int stage) const { return base + stage * kConfig.a_bytes(); }
  __device__ __forceinline__ uint32_t b(int stage) const { return base + kConfig.stages * kConfig.a_bytes() + stage * kConfig.b_bytes(); }
  __device__ __forceinline__ uint32_t panel(int consumer, int i) const {
    return base + kConfig.stages * kConfig.stage_bytes() + (consumer * kConfig.kPanelsInFlight + i) * kConfig.kPanelBytes;
  }
  __device__ __forceinline__ uint32_t full(int stage) const { return panel(kConfig.consumers, 0) + stage * 8; }
  __device__ __forceinline__ uint32_t empty(int stage) const { return full(kConfig.stages) + stage * 8; }
};

// thread. Fills stage after stage until the schedule is done.
template <GemmSm90Config kConfig>
__device__ __forceinline__ void produce(const GemmSm90Shared<kConfig> shared, const CUtensorMap* map_a, const CUtensorMap* map_b,
                                        const GemmSm90Params& p) {
  constexpr int kBRows = kConfig.block_n / kConfig.cluster;  // of N, fetched by this block
  const int rank = kConfig.cluster > 1 ? static_cast<int>(ptx::cluster_rank()) : 0;
  const auto load_b = [&](uint32_t to, uint32_t full, int inner, int outer) {
    if constexpr (kConfig.cluster > 1) {
      ptx::tma_load_multicast<2>(to, map_b, full, {inner, outer}, static_cast<uint16_t>((1 << kConfig.cluster) - 1));
    } else {
      ptx::tma_load<2>(to, map_b, full, {inner, outer});
    }
  };

  RingPosition<kConfig.stages> at;
  for (TileSchedule<kConfig> tile(p); tile.next();) {
    for (int k_tile = tile.first_k_tile; k_tile < tile.last_k_tile; ++k_tile) {
      const uint32_t full = shared.full(at.stage);
      const int k0 = k_tile * kConfig.kBlockK, n0 = tile.n0 + rank * kBRows;
      ptx::mbarrier_wait(shared.empty(at.stage), at.phase ^ 1);     // the peer's consumers have let go as well
      ptx::mbarrier_arrive_expect_tx(full, kConfig.stage_bytes());  // both operands in full, wherever B comes from
      if constexpr (kConfig.a == Major::k) {
        ptx::tma_load<2>(shared.a(at.stage), map_a, full, {k0, tile.m0});
      } else {
#pragma unroll
        for (int panel = 0; panel < kConfig.block_m / 64; ++panel) {
          ptx::tma_load<2>(shared.a(at.stage) + panel * kConfig.kPanelBytes, map_a, full, {tile.m0 + panel * 64, k0});
        }
      }
      const uint32_t b = shared.b(at.stage) + rank * kBRows * kConfig.kBlockK * 2;
      if constexpr (kConfig.b == Major::k) {
        load_b(b, full, k0, n0);
      } else {
#pragma unroll
        for (int panel = 0; panel < kBRows / 64; ++panel) load_b(b + panel * kConfig.kPanelBytes, full, n0 + panel * 64, k0);
      }
      at.advance();
    }
  }
}

// The descriptor of an operand's first 16 k, and how far the next 16 k lie.
template <Major kMajor>
__device__ __forceinline__ uint64_t operand_descriptor(uint32_t smem) {
  // k-major: 8 rows of 128 bytes to the next 8 of m or n. mn-major: 8 rows of k; a panel to the next 64 of m or n.
  return kMajor == Major::k ? wgmma_descriptor(smem, 16, 1024, Swizzle::bytes128)
                            : wgmma_descriptor(smem, GemmSm90Config::kPanelBytes, 1024, Swizzle::bytes128);
}
template <Major kMajor>
inline constexpr int kStepBytes = kMajor == Major::k ? 16 * 2 : 16 * 128;

// The accumulators of a consumer: rows in pieces of 64, what one wgmma makes.
template <GemmSm90Config kConfig>
struct GemmSm90Accumulators {
  static constexpr int kPieces = kConfig.rows_per_consumer() / 64;
  float d[kPieces][kConfig.block_n / 2];
};

// warpgroup. Issues the products of one stage as one group.
template <GemmSm90Config kConfig>
__device__ __forceinline__ void multiply_stage(GemmSm90Accumulators<kConfig>& acc, uint64_t a, uint64_t b, bool accumulate) {
  constexpr int kPieces = GemmSm90Accumulators<kConfig>::kPieces;
  constexpr int kPieceBytes = 64 * GemmSm90Config::kBlockK * 2;  // both layouts: 64 rows of 64 k, or a panel
#pragma unroll
  for (int piece = 0; piece < kPieces; ++piece) ptx::keep_in_place(acc.d[piece]);
  ptx::wgmma_fence();
#pragma unroll
  for (int step = 0; step < kConfig.kBlockK / 16; ++step) {
#pragma unroll
    for (int piece = 0; piece < kPieces; ++piece) {
      ptx::wgmma_ss<kConfig.block_n, kConfig.a, kConfig.b>(acc.d[piece], advanced(a, piece * kPieceBytes + step * kStepBytes<kConfig.a>),
                                                           advanced(b, step * kStepBytes<kConfig.b>), accumulate || step > 0);
    }
  }
  ptx::wgmma_commit();
#pragma unroll
  for (int piece = 0; piece < kPieces; ++piece) ptx::keep_in_place(acc.d[piece]);
}

// warpgroup. Writes one panel (64 rows, 128 bytes of columns) of accumulators to swizzled shared memory.
template <GemmSm90Config kConfig>
__device__ __forceinline__ void stage_panel(const float (&d)[kConfig.block_n / 2], int panel, uint32_t smem, std::byte* pointer) {
  const int thread = static_cast<int>(threadIdx.x) % 128, lane = thread % 32, warp_row = thread / 32 * 16;
  if constexpr (kConfig.out == GemmOut::bf16) {
    const int row = warp_row + lane % 16;
#pragma unroll
    for (int group = 0; group < 4; ++group) {  // 16 columns
      const int first = panel * 32 + group * 8;
      uint32_t r[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) r[i] = ptx::cvt_bf16x2(d[first + 2 * i], d[first + 2 * i + 1]);
      ptx::stmatrix_x4(smem + row * 128 + swizzled_chunk_128(row, group * 2 + lane / 16) * 16, r);
    }
  } else {
    // Rows 2 i and 2 i + 1 meet in the same banks: twice the wavefronts that the bytes need. Going through the groups in another order in odd rows
    // would end that, but the selects of accumulators make ptxas serialise wgmma (C7514); so does a store by inline assembly.
#pragma unroll
    for (int group = 0; group < 4; ++group) {  // 8 columns
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int reg = panel * 16 + group * 4 + half * 2;
        const Element at = wgmma_m64::d(thread, half * 2);
        const int chunk = swizzled_chunk_128(at.row, group * 2 + at.column / 4);
        *reinterpret_cast<float2*>(pointer + at.row * 128 + chunk * 16 + at.column % 4 * 4) = make_float2(d[reg], d[reg + 1]);
      }
    }
  }
}

// warpgroup. C leaves in panels: registers to shared memory, from there by TMA, two panels on their way at a time. TMA cuts off what lies outside C.
template <GemmSm90Config kConfig>
__device__ __forceinline__ void store_accumulators(const GemmSm90Accumulators<kConfig>& acc, const GemmSm90Shared<kConfig> shared,
                                                   std::byte* shared_bytes, const CUtensorMap* map_c, int consumer, int m0, int n0, int columns,
                                                   int& panels_stored) {
  const bool issuer = threadIdx.x % 128 == 0;  // groups of stores belong to a thread
  constexpr int kPanelColumns = kConfig.panel_columns();
#pragma unroll
  for (int piece = 0; piece < GemmSm90Accumulators<kConfig>::kPieces; ++piece) {
#pragma unroll
    for (int panel = 0; panel < kConfig.block_n / kPanelColumns; ++panel) {
      if (n0 + panel * kPanelColumns >= columns) break;
      const uint32_t smem = shared.panel(consumer, panels_stored++ % kConfig.kPanelsInFlight);
      if (issuer) ptx::bulk_wait_read<kConfig.kPanelsInFlight - 1>();  // the store that used this buffer has read it
      ptx::bar_sync(1 + consumer, 128);
      stage_panel<kConfig>(acc.d[piece], panel, smem, shared_bytes + (smem - shared.base));
      ptx::fence_proxy_async_shared();
      ptx::bar_sync(1 + consumer, 128);
      if (issuer) {
        if constexpr (kConfig.out == GemmOut::f32_add) {
          ptx::tma_reduce_add<2>(map_c, smem, {n0 + panel * kPanelColumns, m0 + piece * 64});
        } else {
          ptx::tma_store<2>(map_c, smem, {n0 + panel * kPanelColumns, m0 + piece * 64});
        }
        ptx::bulk_commit();
      }
    }
  }
}

// warpgroup. One group of wgmma stays in flight: while stage i is multiplied, stage i - 1 is let go.
template <GemmSm90Config kConfig>
__device__ __forceinline__ void consume(const GemmSm90Shared<kConfig> shared, std::byte* shared_bytes, const CUtensorMap* map_c,
                                        const GemmSm90Params& p, int consumer) {
  const uint64_t a0 = operand_descriptor<kConfig.a>(shared.a(0) + consumer * kConfig.rows_per_consumer() * kConfig.kBlockK * 2);
  const uint64_t b0 = operand_descriptor<kConfig.b>(shared.b(0));
  const uint32_t lane = threadIdx.x % 32;
  const auto release = [&](int stage) {  // one arrival per warp at every block that fills this stage
    if constexpr (kConfig.cluster > 1) {
      if (lane < kConfig.cluster) ptx::mbarrier_arrive_async_reads(ptx::mapa(shared.empty(stage), lane));
    } else {
      if (lane == 0) ptx::mbarrier_arrive(shared.empty(stage));
    }
  };

  RingPosition<kConfig.stages> at;
  int panels_stored = 0;
  GemmSm90Accumulators<kConfig> acc;
  for (TileSchedule<kConfig> tile(p); tile.next();) {
    if (tile.first_k_tile >= tile.last_k_tile) continue;  // more splits than tiles along K
    int previous = -1;
    for (int k_tile = tile.first_k_tile; k_tile < tile.last_k_tile; ++k_tile) {
      ptx::mbarrier_wait(shared.full(at.stage), at.phase);
      multiply_stage<kConfig>(acc, advanced(a0, at.stage * kConfig.a_bytes()), advanced(b0, at.stage * kConfig.b_bytes()), previous >= 0);
      if (previous >= 0) {
        ptx::wgmma_wait<1>();
        release(previous);
      }
      previous = at.stage;
      at.advance();
    }
    ptx::wgmma_wait<0>();
#pragma unroll
    for (int piece = 0; piece < GemmSm90Accumulators<kConfig>::kPieces; ++piece) ptx::keep_in_place(acc.d[piece]);
    release(previous);
    store_accumulators<kConfig>(acc, shared, shared_bytes, map_c, consumer, tile.m0 + consumer * kConfig.rows_per_consumer(), tile.n0, p.n,
                                panels_stored);
  }
  if (threadIdx.x % 128 == 0) ptx::bulk_wait_read<0>();  // shared memory must outlive the stores that read it
}

// block, or all blocks of the cluster.
template <int kCluster>
__device__ __forceinline__ void barrier_of_all() {
  if constexpr (kCluster > 1) {
    ptx::cluster_arrive();  // fence_mbarrier_init has released already: heddle-mutate: ignore weaken
    ptx::cluster_wait();
  } else {
    __syncthreads();
  }
}

template <class Config>
__global__ void __launch_bounds__(Config::value.threads(), 1)
    gemm_sm90_kernel(const __grid_constant__ CUtensorMap map_a, const __grid_constant__ CUtensorMap map_b, const __grid_constant__ CUtensorMap map_c,
                     const GemmSm90Params p) {
  constexpr GemmSm90Config kConfig = Config::value;
  static_assert(kConfig.shared_bytes() <= kMaxSharedSm90 && kConfig.rows_per_consumer() % 64 == 0 && kConfig.block_n % (64 * kConfig.cluster) == 0);
  static_assert(kConfig.block_n <= 256 && kConfig.cluster <= 2 && kConfig.stages >= 2);
  std::byte* shared_bytes = dyn_smem<std::byte>();
  const GemmSm90Shared<kConfig> shared{ptx::smem_u32(shared_bytes)};
  if (shared.base % 1024 != 0) __trap();  // the swizzle of TMA and wgmma follows the address, the layout here the place

  if (threadIdx.x == 0) {
    ptx::tma_prefetch_descriptor(&map_a);
    ptx::tma_prefetch_descriptor(&map_b);
    ptx::tma_prefetch_descriptor(&map_c);
    for (int stage = 0; stage < kConfig.stages; ++stage) {
      ptx::mbarrier_init(shared.full(stage), 1);
      ptx::mbarrier_init(shared.empty(stage), 4 * kConfig.consumers * kConfig.cluster);  // warps
    }
    ptx::fence_mbarrier_init();
  }
  barrier_of_all<kConfig.cluster>();  // the peer's barriers exist too

  const int warpgroup = ptx::shfl_idx(static_cast<int>(threadIdx.x) / 128, 0);  // the same for the warp, and the compiler knows
  if (warpgroup == 0) {
    ptx::setmaxnreg_dec<kConfig.producer_registers()>();
    if (ptx::shfl_idx(static_cast<int>(threadIdx.x) / 32, 0) == 0) {
      if (ptx::elect_one()) produce<kConfig>(shared, &map_a, &map_b, p);
      ptx::warp_sync();  // converges the warp: heddle-mutate: ignore
    }
  } else {
    ptx::setmaxnreg_inc<kConfig.consumer_registers()>();
    consume<kConfig>(shared, shared_bytes, &map_c, p, warpgroup - 1);
  }
  if constexpr (kConfig.cluster > 1) barrier_of_all<kConfig.cluster>();  // a peer may still signal this block's barriers
}

struct GemmSm90Args {
  const void *a, *b;      // bf16, stored as the configuration's majors say
  void* c;                // (M, N) bf16 or f32
  int m, n, k;            // none of them 0
  int64_t lda, ldb, ldc;  // elements between rows; rows start at multiples of 16 bytes
  int splits = 1;         // of K: GemmOut::f32_add only
  int blocks = 0;         // resident at once, normally one per multiprocessor
};

template <GemmSm90Config kConfig>
void launch_gemm_sm90(const GemmSm90Args& args, Stream stream) {
  HEDDLE_CHECK(args.splits >= 1 && (args.splits == 1 || kConfig.out == GemmOut::f32_add), "gemm_sm90", "only f32_add splits K, into ", args.splits);
  constexpr int kBoxK = kConfig.kBlockK;
  const CUtensorMap map_a = kConfig.a == Major::k ? tensor_map(args.a, DType::bf16, args.m, args.k, args.lda, kConfig.block_m, kBoxK)
                                                  : tensor_map(args.a, DType::bf16, args.k, args.m, args.lda, kBoxK, 64);
  const CUtensorMap map_b = kConfig.b == Major::k
                                ? tensor_map(args.b, DType::bf16, args.n, args.k, args.ldb, kConfig.block_n / kConfig.cluster, kBoxK)
                                : tensor_map(args.b, DType::bf16, args.k, args.n, args.ldb, kBoxK, 64);
  const CUtensorMap map_c =
      tensor_map(args.c, kConfig.out == GemmOut::bf16 ? DType::bf16 : DType::f32, args.m, args.n, args.ldc, 64, kConfig.panel_columns());

  const int units = ceil_div(ceil_div(args.m, kConfig.block_m), kConfig.cluster) * ceil_div(args.n, kConfig.block_n) * args.splits;
  const int clusters = args.blocks / kConfig.cluster;
  LaunchShape shape;
  shape.grid = dim3(static_cast<unsigned>((clusters < 1 ? 1 : clusters < units ? clusters : units) * kConfig.cluster));
  shape.block = dim3(static_cast<unsigned>(kConfig.threads()));
  shape.cluster = dim3(static_cast<unsigned>(kConfig.cluster));
  shape.shared_bytes = static_cast<size_t>(kConfig.shared_bytes());
  HEDDLE_LAUNCH_AS((gemm_sm90_kernel<Configured<kConfig>>), shape, stream, map_a, map_b, map_c, GemmSm90Params{args.m, args.n, args.k, args.splits});
}

}  // namespace heddle::kernels::cuda
