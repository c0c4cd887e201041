// How a consumer warpgroup of gemm_sm90.cuh gets rid of its accumulators. Plain results leave by TMA: registers to swizzled panels in shared memory,
// from there asynchronously. Everything else goes through the policy of epilogue.cuh: a warp stages 16 rows of 64 columns in f32 and takes them up
// again with eight columns a lane, which then read and write memory in pieces of 16 bytes: side inputs cost no shared memory of their own, and rows
// may start anywhere.
//
// Accumulators are stored through pointers: stores by inline assembly, and selects between accumulators, make ptxas serialise wgmma (C7514).
#pragma once

#include "kernels/arch/ptx.h"
#include "kernels/cuda/epilogue.cuh"
#include "kernels/cuda/gemm_sm90_config.h"

namespace heddle::kernels::cuda {

// The accumulators of a consumer: rows in pieces of 64, what one wgmma makes.
template <GemmSm90Config kConfig>
struct GemmSm90Accumulators {
  static constexpr int kPieces = kConfig.rows_per_consumer() / 64;
  float d[kPieces][kConfig.block_n / 2];
};

// Shared memory of a consumer's epilogue, as address and as pointer.
struct GemmSm90Staging {
  uint32_t address;
  std::byte* pointer;
};

// The first of a consumer's rows and columns, and which part of K they sum up.
struct GemmSm90Corner {
  int m, n, split;
};

// thread. Two neighbouring columns of bias, the first of them even; zeros beyond the last.
__device__ __forceinline__ float2 bias_pair(const MatmulEpilogue& to, int column) {
  const bf16* bias = static_cast<const bf16*>(to.bias) + column;
  uint32_t pair = 0;
  if (column + 1 < to.n) {
    pair = *reinterpret_cast<const uint32_t*>(bias);
  } else if (column < to.n) {
    pair = bias->bits;
  }
  return unpack2(pair);
}

// warpgroup. Writes one panel (64 rows of 64 columns) in bf16 to swizzled shared memory; value(i): what becomes of its accumulator i of 32.
template <class Value>
__device__ __forceinline__ void stage_bf16(uint32_t smem, const Value& value) {
  const int thread = static_cast<int>(threadIdx.x) % 128, lane = thread % 32, row = thread / 32 * 16 + lane % 16;
#pragma unroll
  for (int group = 0; group < 4; ++group) {  // 16 columns
    uint32_t r[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) r[i] = ptx::cvt_bf16x2(value(group * 8 + 2 * i), value(group * 8 + 2 * i + 1));
    ptx::stmatrix_x4(smem + row * 128 + swizzled_chunk_128(row, group * 2 + lane / 16) * 16, r);
  }
}

// warpgroup. The same in f32, of 32 columns. Rows 2 i and 2 i + 1 meet in the same banks: twice the wavefronts that the bytes need. Going through the
// groups in another order in odd rows would end that, but takes selects.
template <int kCount>
__device__ __forceinline__ void stage_f32(std::byte* smem, const float (&d)[kCount], int panel) {
  const int thread = static_cast<int>(threadIdx.x) % 128;
#pragma unroll
  for (int group = 0; group < 4; ++group) {  // 8 columns
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int reg = panel * 16 + group * 4 + half * 2;
      const Element at = wgmma_m64::d(thread, half * 2);
      const int chunk = swizzled_chunk_128(at.row, group * 2 + at.column / 4);
      *reinterpret_cast<float2*>(smem + at.row * 128 + chunk * 16 + at.column % 4 * 4) = make_float2(d[reg], d[reg + 1]);
    }
  }
}

// A consumer's panels on their way out by TMA, two at a time.
template <GemmSm90Config kConfig>
class PanelSender {
 public:
  __device__ __forceinline__ PanelSender(const GemmSm90Staging staging, int consumer) : staging_(staging), consumer_(consumer) {}

  // warpgroup. stage(address, pointer) writes the panel to shared memory; it leaves for (layer, row, column) of the map, cut off at its edges.
  template <class Stage>
  __device__ __forceinline__ void send(const CUtensorMap* map, int column, int row, int layer, const Stage& stage) {
    const bool issuer = threadIdx.x % 128 == 0;  // groups of stores belong to a thread
    const int offset = sent_++ % kConfig.kPanelsInFlight * kConfig.kPanelBytes;
    if (issuer) ptx::bulk_wait_read<kConfig.kPanelsInFlight - 1>();  // the store that used this buffer has read it
    ptx::bar_sync(1 + consumer_, 128);
    stage(staging_.address + offset, staging_.pointer + offset);
    ptx::fence_proxy_async_shared();
    ptx::bar_sync(1 + consumer_, 128);
    if (!issuer) return;
    if constexpr (kConfig.out == GemmOut::f32_add) {
      ptx::tma_reduce_add<3>(map, staging_.address + offset, {column, row, layer});
    } else {
      ptx::tma_store<3>(map, staging_.address + offset, {column, row, layer});
    }
    ptx::bulk_commit();
  }

  // warpgroup, at the end: shared memory must outlive the stores that read it.
  __device__ __forceinline__ void finish() const {
    if (threadIdx.x % 128 == 0) ptx::bulk_wait_read<0>();
  }

 private:
  GemmSm90Staging staging_;
  int consumer_, sent_ = 0;
};

// warpgroup. Plain results.
template <GemmSm90Config kConfig>
__device__ __forceinline__ void store_accumulators(const GemmSm90Accumulators<kConfig>& acc, PanelSender<kConfig>& out, const CUtensorMap* map_c,
                                                   const MatmulEpilogue& to, const GemmSm90Corner at) {
  constexpr int kColumns = kConfig.panel_columns();
#pragma unroll
  for (int piece = 0; piece < GemmSm90Accumulators<kConfig>::kPieces; ++piece) {
#pragma unroll
    for (int panel = 0; panel < kConfig.block_n / kColumns; ++panel) {
      const int column = at.n + panel * kColumns;
      if (column >= to.n) break;
      out.send(map_c, column, at.m + piece * 64, at.split, [&](uint32_t smem, std::byte* pointer) {
        if constexpr (kConfig.out == GemmOut::bf16) {
          float2 bias[8] = {};
          if (to.bias != nullptr) {
#pragma unroll
            for (int i = 0; i < 8; ++i) bias[i] = bias_pair(to, column + i * 8 + static_cast<int>(threadIdx.x) % 4 * 2);
          }
          stage_bf16(smem, [&](int i) { return acc.d[piece][panel * 32 + i] + (i % 2 == 0 ? bias[i / 4].x : bias[i / 4].y); });
        } else {
          stage_f32(pointer, acc.d[piece], panel);
        }
      });
    }
  }
}

// warpgroup. silu(gate) up; before it gate and up themselves where they are wanted (to.preact). Accumulators of up lie behind those of gate.
template <GemmSm90Config kConfig>
__device__ __forceinline__ void store_gated(const GemmSm90Accumulators<kConfig>& acc, PanelSender<kConfig>& out, const CUtensorMap* map_c,
                                            const CUtensorMap* map_both, const MatmulEpilogue& to, const GemmSm90Corner at) {
  constexpr int kUp = kConfig.block_n / 4;
#pragma unroll
  for (int piece = 0; piece < GemmSm90Accumulators<kConfig>::kPieces; ++piece) {
#pragma unroll
    for (int panel = 0; panel < kConfig.columns() / 64; ++panel) {
      const int column = at.n + panel * 64, row = at.m + piece * 64;
      if (column >= to.n) break;
      const auto gate = [&](int i) { return acc.d[piece][panel * 32 + i]; };
      const auto up = [&](int i) { return acc.d[piece][kUp + panel * 32 + i]; };
      if (to.preact != nullptr) {
        out.send(map_both, column, row, 0, [&](uint32_t smem, std::byte*) { stage_bf16(smem, gate); });
        out.send(map_both, column, row, 1, [&](uint32_t smem, std::byte*) { stage_bf16(smem, up); });
      }
      out.send(map_c, column, row, 0, [&](uint32_t smem, std::byte*) { stage_bf16(smem, [&](int i) { return thread::silu(gate(i)) * up(i); }); });
    }
  }
}

// warpgroup, each warp by itself. Sums of columns are left for every 16 rows.
template <GemmSm90Config kConfig>
__device__ __forceinline__ void finish_accumulators(const GemmSm90Accumulators<kConfig>& acc, const GemmSm90Staging staging, const MatmulEpilogue& to,
                                                    const GemmSm90Corner at) {
  using Rows = SwizzledRows<64>;
  static_assert(4 * 16 * Rows::kRowBytes == kConfig.kPanelsInFlight * kConfig.kPanelBytes && kConfig.kRowsPerPart == 16);
  const int thread = static_cast<int>(threadIdx.x) % 128, warp = thread / 32, offset = warp * 16 * Rows::kRowBytes;
#pragma unroll
  for (int piece = 0; piece < GemmSm90Accumulators<kConfig>::kPieces; ++piece) {
    const int first_row = at.m + piece * 64 + warp * 16;
#pragma unroll
    for (int panel = 0; panel < kConfig.block_n / 64; ++panel) {
      if (at.n + panel * 64 >= to.n) break;
      ptx::warp_sync();  // the rows before have been read
#pragma unroll
      for (int group = 0; group < 8; ++group) {  // 8 columns
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const int reg = panel * 32 + group * 4 + half * 2;
          const Element in_warp = mma_m16n8k16::d(thread % 32, 0);  // eight rows to the other half, which change places alike
          *reinterpret_cast<float2*>(staging.pointer + offset + Rows::at(in_warp.row, group) + half * 8 * Rows::kRowBytes + in_warp.column * 4) =
              make_float2(acc.d[piece][reg], acc.d[piece][reg + 1]);
        }
      }
      ptx::warp_sync();
      ColumnEpilogue<bf16> epilogue(to, at.n + panel * 64 + Rows::own_column());
      finish_staged<16, Rows, 1>(epilogue, staging.address + offset, first_row);
      epilogue.template store_sums<16, Rows::kPerRow>(first_row);
    }
  }
}

}  // namespace heddle::kernels::cuda
