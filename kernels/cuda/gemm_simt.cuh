// C (M, N) = op(A) op(B) with the epilogue of kernels/api/matmul.h, on the ordinary arithmetic of any GPU: f32 and bf16 operands, every
// transposition, any stride and alignment, K = 0. What the tensor-core kernels refuse comes here.
//
// Register-blocked: 4 x 8 lanes of a warp hold thread_m rows and 8 neighbouring columns each; of both operands a tile of block_k along K lies in
// shared memory as f32 (k, row), twice: the next tile is on its way from memory to registers while this one is multiplied.
//
// Shared memory meets no conflict beyond what its bytes need: the columns of a tile's row k are permuted by k / 4; of its two columns of four every
// second group of four lanes reads the upper first (its accumulators are swapped likewise).
//
// Bytes: A once per column of tiles, B once per row of tiles, C once; bound by arithmetic at 2 M N K / (2 * 128 per clock and multiprocessor).
#pragma once

#include "kernels/cuda/configured.h"
#include "kernels/cuda/epilogue.cuh"
#include "kernels/cuda/gemm_simt_config.h"
#include "kernels/cuda/matmul_plan.cuh"
#include "kernels/cuda/tile_raster.h"

namespace heddle::kernels::cuda {

// A matrix stored in rows of one axis: k contiguous (row, k), or not (k, row). row: m of A, n of B.
struct GemmSimtOperand {
  const void* data;
  int64_t ld;  // elements between stored rows
  bool k_contiguous;
  bool aligned;  // four elements may be read at once
};

struct GemmSimtParams {
  GemmSimtOperand a, b;
  int n, k;             // epilogue.n is more where parts of K go to scratch in whole pieces
  int steps_per_split;  // tiles along K
  int64_t split_stride;
  MatmulEpilogue epilogue;
};

// block. Brings tiles of (kRows, kBlockK) of an operand to shared memory, zeros beyond its edge, four elements of a stored row a thread at a time.
template <class T, int kRows, int kBlockK, int kThreads>
class SimtTileLoader {
 public:
  static constexpr int kQuads = kRows * kBlockK / 4 / kThreads;
  static_assert(kRows * kBlockK % (4 * kThreads) == 0 && (kBlockK == 8 || kBlockK == 16));

  // Rows from `row` of `rows`, k from `k` up to `k_end`.
  __device__ __forceinline__ SimtTileLoader(const GemmSimtOperand& from, int rows, int row, int k_end, int k)
      : k_contiguous_(from.k_contiguous), aligned_(from.aligned), ld_(from.ld) {
    const int thread = static_cast<int>(threadIdx.x);
    row_ = k_contiguous_ ? thread / (kBlockK / 4) : thread % (kRows / 4) * 4;
    k_ = k_contiguous_ ? thread % (kBlockK / 4) * 4 : thread / (kRows / 4);
    step_ = k_contiguous_ ? kThreads * 4 / kBlockK : kThreads * 4 / kRows;  // of row_ or k_, from one quad of the thread to its next
    const int outer = k_contiguous_ ? row + row_ : k + k_, inner = k_contiguous_ ? k + k_ : row + row_;
    outer_left_ = (k_contiguous_ ? rows : k_end) - outer;
    inner_left_ = (k_contiguous_ ? k_end : rows) - inner;
    source_ = static_cast<const T*>(from.data) + outer * ld_ + inner;
  }

  // Memory to registers, and on to the next tile.
  __device__ __forceinline__ void load() {
#pragma unroll
    for (int i = 0; i < kQuads; ++i) {
      const T* from = source_ + i * step_ * ld_;
      const int left = i * step_ < outer_left_ ? inner_left_ : 0;
      if (aligned_ && left >= 4) {
        load4(from, values_[i]);
      } else {
#pragma unroll
        for (int e = 0; e < 4; ++e) values_[i][e] = e < left ? to_float(from[e]) : 0.0f;
      }
    }
    source_ += k_contiguous_ ? kBlockK : kBlockK * ld_;
    (k_contiguous_ ? inner_left_ : outer_left_) -= kBlockK;
  }

  // Registers to a tile.
  __device__ __forceinline__ void store(float* tile) const {
#pragma unroll
    for (int i = 0; i < kQuads; ++i) {
      if (k_contiguous_) {
        float* to = tile + k_ * kRows + ((row_ + i * step_) ^ permuted(k_));
#pragma unroll
        for (int e = 0; e < 4; ++e) to[e * kRows] = values_[i][e];
      } else {
        const int k = k_ + i * step_;
        ptx::st128_shared(ptx::smem_u32(tile + k * kRows + (row_ ^ permuted(k))),
                          make_uint4(__float_as_uint(values_[i][0]), __float_as_uint(values_[i][1]), __float_as_uint(values_[i][2]),
                                     __float_as_uint(values_[i][3])));
      }
    }
  }

  // Lanes that bring (row, k) in quads of k have 32 / (kBlockK / 4) rows: their stores meet 32 banks.
  __device__ static __forceinline__ constexpr int permuted(int k) {
    return k / 4 % (kBlockK / 4) * (128 / kBlockK);
  }

 private:
  __device__ static __forceinline__ void load4(const float* from, float (&out)[4]) {
    const uint4 words = ptx::ld128(from);
    out[0] = __uint_as_float(words.x);
    out[1] = __uint_as_float(words.y);
    out[2] = __uint_as_float(words.z);
    out[3] = __uint_as_float(words.w);
  }
  __device__ static __forceinline__ void load4(const bf16* from, float (&out)[4]) {
    const uint2 pairs = *reinterpret_cast<const uint2*>(from);
    out[0] = thread::low_half(pairs.x);
    out[1] = thread::high_half(pairs.x);
    out[2] = thread::low_half(pairs.y);
    out[3] = thread::high_half(pairs.y);
  }

  bool k_contiguous_, aligned_;
  int64_t ld_;
  const T* source_;
  int row_, k_, step_, outer_left_, inner_left_;
  float values_[kQuads][4];
};

template <class Config>
__global__ void __launch_bounds__(Config::value.threads(), Config::value.blocks) gemm_simt_kernel(const GemmSimtParams p) {
  constexpr GemmSimtConfig kConfig = Config::value;
  constexpr int kBlockM = kConfig.block_m, kBlockN = kConfig.block_n, kBlockK = kConfig.block_k, kWarpN = kConfig.kWarpN;
  constexpr int kChunks = kConfig.thread_m / 4;  // of four rows of a thread, 16 of the warp
  using T = std::conditional_t<kConfig.bf16_operands, bf16, float>;
  HEDDLE_SHARED(float4, shared, [kConfig.shared_floats() / 4]);
  float* stages = reinterpret_cast<float*>(shared);  // (STAGE, A then B)

  const int m = p.epilogue.m, split = static_cast<int>(blockIdx.y);
  const TileAt tile = tile_at(static_cast<int>(blockIdx.x), ceil_div(m, kBlockM), ceil_div(p.n, kBlockN), kRasterRows);
  const int m0 = tile.m * kBlockM, n0 = tile.n * kBlockN;
  const int k_first = split * p.steps_per_split * kBlockK, k_end = min(p.k, k_first + p.steps_per_split * kBlockK);
  const int steps = ceil_div(k_end - k_first, kBlockK);

  SimtTileLoader<T, kBlockM, kBlockK, kConfig.threads()> load_a(p.a, m, m0, k_end, k_first);
  SimtTileLoader<T, kBlockN, kBlockK, kConfig.threads()> load_b(p.b, p.n, n0, k_end, k_first);
  using Permutation = SimtTileLoader<T, kBlockM, kBlockK, kConfig.threads()>;

  constexpr int kWarpsN = kBlockN / kWarpN;
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const int warp_row = warp / kWarpsN * kConfig.warp_m(), warp_column = warp % kWarpsN * kWarpN;
  const int row = warp_row + lane / 8 * 4, upper_first = lane / 4 % 2;
  const int column_first = warp_column + lane % 8 * 8 + 4 * upper_first, column_second = column_first ^ 4;
  float acc[kChunks][4][2][4] = {};  // rows of a chunk, the columns read first and second

  const auto bring = [&](int step) {
    if (step < steps) {
      load_a.load();
      load_b.load();
    }
  };
  const auto leave = [&](int step) {
    if (step < steps) {
      float* stage = stages + step % 2 * kConfig.stage_floats();
      load_a.store(stage);
      load_b.store(stage + kBlockM * kBlockK);
    }
  };
  bring(0);
  leave(0);
  __syncthreads();
  for (int step = 0; step < steps; ++step) {
    bring(step + 1);
    const uint32_t a = ptx::smem_u32(stages + step % 2 * kConfig.stage_floats()), b = a + kBlockM * kBlockK * 4;
#pragma unroll
    for (int k = 0; k < kBlockK; ++k) {
      float rows[kChunks][4], columns[2][4];
      const auto read = [](uint32_t from, float(&out)[4]) {
        const uint4 words = ptx::ld128_shared(from);
        out[0] = __uint_as_float(words.x);
        out[1] = __uint_as_float(words.y);
        out[2] = __uint_as_float(words.z);
        out[3] = __uint_as_float(words.w);
      };
#pragma unroll
      for (int chunk = 0; chunk < kChunks; ++chunk) read(a + (k * kBlockM + ((row + chunk * 16) ^ Permutation::permuted(k))) * 4, rows[chunk]);
      read(b + (k * kBlockN + (column_first ^ Permutation::permuted(k))) * 4, columns[0]);
      read(b + (k * kBlockN + (column_second ^ Permutation::permuted(k))) * 4, columns[1]);
#pragma unroll
      for (int chunk = 0; chunk < kChunks; ++chunk) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
#pragma unroll
          for (int half = 0; half < 2; ++half) {
#pragma unroll
            for (int j = 0; j < 4; ++j) acc[chunk][i][half][j] = fmaf(rows[chunk][i], columns[half][j], acc[chunk][i][half][j]);
          }
        }
      }
    }
    leave(step + 1);  // to the tile that the step before has read
    __syncthreads();
  }

  // The stages are free: 16 rows of each warp at a time go through them.
  using Rows = StagedRows<kWarpN>;
  const uint32_t staging = ptx::smem_u32(stages) + warp * 16 * Rows::kRowBytes;
  MatmulEpilogue to = p.epilogue;
  to.c = static_cast<float*>(to.c) + split * p.split_stride;
  ColumnEpilogue<T> epilogue(to, n0 + warp_column + Rows::own_column());
#pragma unroll
  for (int chunk = 0; chunk < kChunks; ++chunk) {
    ptx::warp_sync();  // the rows before have been read
#pragma unroll
    for (int i = 0; i < 4; ++i) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const float(&z)[4] = acc[chunk][i][half];
        const int column = (half == 0 ? column_first : column_second) - warp_column;
        ptx::st128_shared(staging + (lane / 8 * 4 + i) * Rows::kRowBytes + column * 4,
                          make_uint4(__float_as_uint(z[0]), __float_as_uint(z[1]), __float_as_uint(z[2]), __float_as_uint(z[3])));
      }
    }
    ptx::warp_sync();
    finish_staged<16, Rows, 1>(epilogue, staging, m0 + warp_row + chunk * 16);
  }
  epilogue.template store_sums<kConfig.warp_m(), Rows::kPerRow>(m0 + warp_row);
}

inline GemmSimtParams gemm_simt_params(const MatmulArgs& args, const MatmulTarget& target, int splits, const GemmSimtConfig& config) {
  const auto operand = [](const View& v, bool k_contiguous) {
    const auto bytes = static_cast<uintptr_t>(4 * size_of(v.dtype));
    const bool aligned = reinterpret_cast<uintptr_t>(v.data) % bytes == 0 && (v.size(0) <= 1 || v.step(0) % 4 == 0);
    return GemmSimtOperand{v.data, v.step(0), k_contiguous, aligned};
  };
  const MatmulShape shape = shape_of(args);
  GemmSimtParams p{};
  p.a = operand(args.a, !args.trans_a);
  p.b = operand(args.b, args.trans_b);
  p.n = static_cast<int>(shape.n);
  p.k = static_cast<int>(shape.k);
  p.steps_per_split = ceil_div(ceil_div(p.k, config.block_k), splits);
  p.split_stride = target.split_stride;
  p.epilogue = target.epilogue;
  return p;
}

template <GemmSimtConfig kConfig>
void launch_gemm_simt(const GemmSimtParams& p, int splits, Stream stream) {
  const dim3 blocks(static_cast<unsigned>(ceil_div(p.epilogue.m, kConfig.block_m) * ceil_div(p.n, kConfig.block_n)), static_cast<unsigned>(splits));
  HEDDLE_LAUNCH((gemm_simt_kernel<Configured<kConfig>>), blocks, kConfig.threads(), 0, stream, p);
}

}  // namespace heddle::kernels::cuda
