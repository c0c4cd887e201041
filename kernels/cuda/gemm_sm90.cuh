// C (M, N) = A B for Hopper: tiles by TMA into a ring of shared-memory stages, products by wgmma straight from there, in persistent blocks whose
// warpgroups have roles (the structure of CUTLASS's warp-specialized persistent kernels).
//
//   producer   one thread of warpgroup 0: waits until a stage is empty, asks TMA to fill it
//   consumers  the other warpgroups: wait until a stage is full, multiply, say it is empty; at the end of a tile they write C
//
// Both sides walk the stages of ring_sm90.cuh. With clusters, two blocks with the same columns of C fetch half of each tile of B and multicast it to
// both, so a stage is empty when the consumers of both blocks have let go.
//
//   Y = X W^T      A = X  (M, K)  k-major    B = W  (N, K)  k-major
//   dX = dY W      A = dY (M, K)  k-major    B = W  (K, N)  mn-major
//   dW = dY^T X    A = dY (K, M)  mn-major   B = X  (K, N)  mn-major      no transposed copies: wgmma reads either layout
//
// Shared memory: stages of A, stages of B (tile_sm90.cuh), epilogue panels (all 1024-byte aligned for the 128-byte swizzle), barriers.
#pragma once

#include "kernels/arch/ptx.h"
#include "kernels/cuda/configured.h"
#include "kernels/cuda/gemm_sm90_config.h"
#include "kernels/cuda/gemm_sm90_epilogue.cuh"
#include "kernels/cuda/matmul_layout.h"
#include "kernels/cuda/matmul_plan.cuh"
#include "kernels/cuda/ring_sm90.cuh"
#include "kernels/cuda/tile_raster.h"
#include "kernels/cuda/tile_sm90.cuh"

namespace heddle::kernels::cuda {

struct GemmSm90Params {
  int m, n, k;
  int splits;  // parts of K that different blocks compute, none of them empty
  int64_t split_stride;
  MatmulEpilogue epilogue;  // of the first part
};

// What a block does one after the other: tiles of C, or parts of their sums. The blocks of a cluster take neighbouring tiles along M.
template <GemmSm90Config kConfig>
class TileSchedule {
 public:
  __device__ __forceinline__ explicit TileSchedule(const GemmSm90Params& p)
      : cluster_rows_(ceil_div(ceil_div(p.m, kConfig.block_m), kConfig.cluster)),
        columns_(ceil_div(p.n, kConfig.columns())),
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
    n0 = at.n * kConfig.columns();
    split = next_ / tiles;
    first_k_tile = split * k_tiles_per_split_;
    last_k_tile = min(first_k_tile + k_tiles_per_split_, k_tiles_);
    next_ += static_cast<int>(gridDim.x) / kConfig.cluster;
    return true;
  }

  int m0 = 0, n0 = 0, split = 0, first_k_tile = 0, last_k_tile = 0;  // last exclusive

 private:
  static constexpr int kGroupRows = 8;
  int cluster_rows_, columns_, k_tiles_, k_tiles_per_split_, units_, next_;
};

// Shared addresses.
template <GemmSm90Config kConfig>
struct GemmSm90Shared {
  using A = OperandTile<kConfig.a, kConfig.block_m>;
  using B = OperandTile<kConfig.b, kConfig.block_n>;
  using Stages = Ring<kConfig.stages, kConfig.cluster>;
  static_assert(A::kBytes == kConfig.a_bytes() && B::kBytes == kConfig.b_bytes() && Stages::kBytes == kConfig.stages * kConfig.kBarrierBytes);

  uint32_t base;
  __device__ __forceinline__ uint32_t a(int stage) const { return base + stage * A::kBytes; }
  __device__ __forceinline__ uint32_t b(int stage) const { return base + kConfig.stages * A::kBytes + stage * B::kBytes; }
  __device__ __forceinline__ uint32_t panel(int consumer, int i) const {
    return base + kConfig.stages * kConfig.stage_bytes() + (consumer * kConfig.kPanelsInFlight + i) * kConfig.kPanelBytes;
  }
  __device__ __forceinline__ Stages ring() const { return Stages(panel(kConfig.consumers, 0)); }
};

// thread. Fills stage after stage until the schedule is done.
template <GemmSm90Config kConfig>
__device__ __forceinline__ void produce(const GemmSm90Shared<kConfig> shared, const CUtensorMap* map_a, const CUtensorMap* map_b,
                                        const GemmSm90Params& p) {
  using Shared = GemmSm90Shared<kConfig>;
  constexpr int kBRows = kConfig.block_n / kConfig.cluster;  // of N, fetched by this block
  using BShare = OperandTile<kConfig.b, kBRows>;
  [[maybe_unused]] constexpr auto kAll = static_cast<uint16_t>((1 << kConfig.cluster) - 1);
  const int rank = kConfig.cluster > 1 ? static_cast<int>(ptx::cluster_rank()) : 0;
  const auto ring = shared.ring();
  typename Shared::Stages::Position at;
  for (TileSchedule<kConfig> tile(p); tile.next();) {
    for (int k_tile = tile.first_k_tile; k_tile < tile.last_k_tile; ++k_tile) {
      const int k0 = k_tile * kConfig.kBlockK;
      const uint32_t b = shared.b(at.stage) + rank * BShare::kBytes;
      ring.fill(at, kConfig.stage_bytes(), [&](uint32_t full) {  // both operands in full, wherever B comes from
        Shared::A::load(shared.a(at.stage), tile.m0, k0, [&](uint32_t to, int inner, int outer) {
          ptx::tma_load<2>(to, map_a, full, {inner, outer});
        });
        if constexpr (kConfig.out == GemmOut::gated) {  // the rows of gate, then those of up: each a block's share, or two layers of one box
          if constexpr (kConfig.cluster > 1) {
            ptx::tma_load_multicast<3>(b, map_b, full, {k0, tile.n0, rank}, kAll);
          } else {
            ptx::tma_load<3>(b, map_b, full, {k0, tile.n0, 0});
          }
        } else {
          BShare::load(b, tile.n0 + rank * kBRows, k0, [&](uint32_t to, int inner, int outer) {
            if constexpr (kConfig.cluster > 1) {
              ptx::tma_load_multicast<2>(to, map_b, full, {inner, outer}, kAll);
            } else {
              ptx::tma_load<2>(to, map_b, full, {inner, outer});
            }
          });
        }
      });
      at.advance();
    }
  }
}

// warpgroup. Issues the products of one stage as one group.
template <GemmSm90Config kConfig>
__device__ __forceinline__ void multiply_stage(GemmSm90Accumulators<kConfig>& acc, uint64_t a, uint64_t b, bool accumulate) {
  using Shared = GemmSm90Shared<kConfig>;
  constexpr int kPieces = GemmSm90Accumulators<kConfig>::kPieces;
#pragma unroll
  for (int piece = 0; piece < kPieces; ++piece) ptx::keep_in_place(acc.d[piece]);
  ptx::wgmma_fence();
#pragma unroll
  for (int step = 0; step < kConfig.kBlockK / 16; ++step) {
#pragma unroll
    for (int piece = 0; piece < kPieces; ++piece) {
      ptx::wgmma_ss<kConfig.block_n, kConfig.a, kConfig.b>(acc.d[piece], Shared::A::at(a, piece, step), Shared::B::at(b, 0, step),
                                                           accumulate || step > 0);
    }
  }
  ptx::wgmma_commit();
#pragma unroll
  for (int piece = 0; piece < kPieces; ++piece) ptx::keep_in_place(acc.d[piece]);
}

// warpgroup. One group of wgmma stays in flight: while stage i is multiplied, stage i - 1 is let go.
template <GemmSm90Config kConfig>
__device__ __forceinline__ void consume(const GemmSm90Shared<kConfig> shared, std::byte* shared_bytes, const CUtensorMap* map_c,
                                        const CUtensorMap* map_both, const GemmSm90Params& p, int consumer) {
  using Shared = GemmSm90Shared<kConfig>;
  const uint64_t a0 = Shared::A::descriptor(shared.a(0), consumer * kConfig.rows_per_consumer()), b0 = Shared::B::descriptor(shared.b(0));
  const auto ring = shared.ring();
  const GemmSm90Staging staging{shared.panel(consumer, 0), shared_bytes + (shared.panel(consumer, 0) - shared.base)};
  typename Shared::Stages::Position at;
  PanelSender<kConfig> out(staging, consumer);
  for (TileSchedule<kConfig> tile(p); tile.next();) {
    GemmSm90Accumulators<kConfig> acc;  // begun by wgmma, which then adds to nothing
    int previous = -1;
    for (int k_tile = tile.first_k_tile; k_tile < tile.last_k_tile; ++k_tile) {
      ring.wait(at);
      multiply_stage<kConfig>(acc, Shared::A::at(a0, at.stage * kConfig.block_m / 64, 0), Shared::B::at(b0, at.stage * kConfig.block_n / 64, 0),
                              previous >= 0);
      if (previous >= 0) {
        ptx::wgmma_wait<1>();
        ring.release(previous);
      }
      previous = at.stage;
      at.advance();
    }
    ptx::wgmma_wait<0>();
#pragma unroll
    for (int piece = 0; piece < GemmSm90Accumulators<kConfig>::kPieces; ++piece) ptx::keep_in_place(acc.d[piece]);
    ring.release(previous);
    const GemmSm90Corner corner{tile.m0 + consumer * kConfig.rows_per_consumer(), tile.n0, tile.split};
    if constexpr (kConfig.out == GemmOut::whole) {
      MatmulEpilogue to = p.epilogue;
      to.c = static_cast<float*>(to.c) + tile.split * p.split_stride;
      finish_accumulators<kConfig>(acc, staging, to, corner);
    } else if constexpr (kConfig.out == GemmOut::gated) {
      store_gated<kConfig>(acc, out, map_c, map_both, p.epilogue, corner);
    } else {
      store_accumulators<kConfig>(acc, out, map_c, p.epilogue, corner);
    }
  }
  if constexpr (kConfig.out != GemmOut::whole) out.finish();
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
                     const __grid_constant__ CUtensorMap map_both, const GemmSm90Params p) {
  constexpr GemmSm90Config kConfig = Config::value;
  static_assert(kConfig.shared_bytes() <= kMaxSharedSm90 && kConfig.rows_per_consumer() % 64 == 0 && kConfig.block_n % (64 * kConfig.cluster) == 0);
  static_assert(kConfig.block_n <= 256 && kConfig.cluster <= 2 && kConfig.stages >= 2);
  std::byte* shared_bytes = dyn_smem<std::byte>();
  const GemmSm90Shared<kConfig> shared{ptx::smem_u32(shared_bytes)};
  if (shared.base % 1024 != 0) __trap();  // the swizzle of TMA and wgmma follows the address, the layout here the place

  if (threadIdx.x == 0) {
    ptx::tma_prefetch_descriptor(&map_a);
    ptx::tma_prefetch_descriptor(&map_b);
    if constexpr (kConfig.out != GemmOut::whole) ptx::tma_prefetch_descriptor(&map_c);
    shared.ring().init(4 * kConfig.consumers);
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
    consume<kConfig>(shared, shared_bytes, &map_c, &map_both, p, warpgroup - 1);
  }
  if constexpr (kConfig.cluster > 1) barrier_of_all<kConfig.cluster>();  // a peer may still signal this block's barriers
}

struct GemmSm90Args {
  const bf16 *a, *b;  // stored as the configuration's majors say
  int m, n, k;        // none of them 0; n: columns of the result
  int64_t lda, ldb;   // elements between rows; rows start at multiples of 16 bytes
  int splits;         // of K: none of them empty
  int64_t split_stride;
  MatmulEpilogue epilogue;  // of the first part
  int blocks;               // resident at once, normally one per multiprocessor
};

inline GemmSm90Args gemm_sm90_args(const MatmulArgs& args, const MatmulTarget& target, int splits, int blocks) {
  auto call = matmul_operands<GemmSm90Args>(args);
  call.splits = splits;
  call.split_stride = target.split_stride;
  call.epilogue = target.epilogue;
  call.blocks = blocks;
  return call;
}

// What a launch that ends in `to` takes: TMA where it can.
inline GemmOut gemm_sm90_out(MatmulLayout layout, const MatmulEpilogue& to) {
  const bool rows_of_16 = to.aligned && to.c_row * (to.f32_out ? 4 : 2) % 16 == 0;
  if (!rows_of_16 || to.kind != Epilogue::none || to.preact != nullptr || to.column_partials != nullptr) return GemmOut::whole;
  if (layout != MatmulLayout::weight_gradient) return to.f32_out || to.accumulate ? GemmOut::whole : GemmOut::bf16;
  if (!to.f32_out || to.bias != nullptr) return GemmOut::whole;
  return to.accumulate ? GemmOut::f32_add : GemmOut::f32;
}

// The results as TMA sees them: (parts of K, M, N).
template <GemmSm90Config kConfig>
CUtensorMap result_map(const GemmSm90Args& args) {
  constexpr DType kType = kConfig.panel_columns() == 64 ? DType::bf16 : DType::f32;
  const MatmulEpilogue& to = args.epilogue;
  return tensor_map(to.c, kType, args.splits, to.m, to.n, args.splits > 1 ? args.split_stride : to.m * to.c_row, to.c_row, 64,
                    kConfig.panel_columns());
}

template <GemmSm90Config kConfig>
void launch_gemm_sm90(const GemmSm90Args& args, Stream stream) {
  HEDDLE_CHECK(args.splits == 1 || kConfig.out == GemmOut::f32 || kConfig.out == GemmOut::whole, "gemm_sm90",
               "only sums in f32 come in parts, not in ", args.splits);
  const CUtensorMap map_a = OperandTile<kConfig.a, kConfig.block_m>::map(args.a, args.m, args.k, args.lda);
  CUtensorMap map_b, map_c{}, map_both{};
  if constexpr (kConfig.out == GemmOut::gated) {
    static_assert(kConfig.b == Major::k);
    map_b = tensor_map(args.b, DType::bf16, 2, args.n, args.k, args.n * args.ldb, args.ldb, kConfig.columns(), kConfig.kBlockK, 2 / kConfig.cluster);
    if (args.epilogue.preact != nullptr)
      map_both = tensor_map(args.epilogue.preact, DType::bf16, 2, args.m, args.n, args.n, args.epilogue.preact_row, 64, kConfig.panel_columns());
  } else {
    map_b = OperandTile<kConfig.b, kConfig.block_n / kConfig.cluster>::map(args.b, args.n, args.k, args.ldb);
  }
  if constexpr (kConfig.out != GemmOut::whole) map_c = result_map<kConfig>(args);

  const int units = ceil_div(ceil_div(args.m, kConfig.block_m), kConfig.cluster) * ceil_div(args.n, kConfig.columns()) * args.splits;
  const int clusters = args.blocks / kConfig.cluster;
  LaunchShape shape;
  shape.grid = dim3(static_cast<unsigned>((clusters < 1 ? 1 : clusters < units ? clusters : units) * kConfig.cluster));
  shape.block = dim3(static_cast<unsigned>(kConfig.threads()));
  shape.cluster = dim3(static_cast<unsigned>(kConfig.cluster));
  shape.shared_bytes = static_cast<size_t>(kConfig.shared_bytes());
  HEDDLE_LAUNCH_AS((gemm_sm90_kernel<Configured<kConfig>>), shape, stream, map_a, map_b, map_c, map_both,
                   GemmSm90Params{args.m, args.n, args.k, args.splits, args.split_stride, args.epilogue});
}

}  // namespace heddle::kernels::cuda
