// LayerNorm and RMSNorm forward, residual addition fused: see kernels/api/norm.h for the formulas.
//
// Bound by memory: s = x + residual is read once and kept in registers, so the centred variance costs no second pass over memory. A team (a warp, or
// the block) owns a row; blocks walk the rows in steps of the grid.
#pragma once

#include "kernels/cuda/configured.h"
#include "kernels/cuda/norm_config.h"
#include "kernels/cuda/reduce.cuh"
#include "kernels/cuda/vec.cuh"

namespace heddle::kernels::cuda {

struct NormForwardParams {
  const bf16* x;                                // (N, C)
  const bf16* residual;                         // (N, C) or null
  const bf16* gain;                             // (C) or null: 1
  const bf16* bias;                             // (C) or null: 0
  bf16* sum;                                    // (N, C) or null
  bf16* y;                                      // (N, C)
  float* mean;                                  // (N) or null
  float* rstd;                                  // (N) or null
  int64_t x_row, residual_row, sum_row, y_row;  // elements between rows, multiples of 8
  int rows, columns;                            // columns a multiple of 8
  float eps;
};

template <class Config>
__global__ void __launch_bounds__(Config::value.threads) norm_forward_kernel(const NormForwardParams p) {
  constexpr NormConfig kConfig = Config::value;
  constexpr int kVectors = kConfig.vectors, kTeam = kConfig.team;
  constexpr bool kLayer = kConfig.kind == NormKind::layer;
  // Two buffers that take turns, so that a reduction needs one barrier: a buffer is written again only after the barrier of the reduction in between.
  HEDDLE_SHARED(float, partial, [2][kConfig.threads / 32]);
  int turn = 0;
  const auto team_sum = [&](float value) {
    if constexpr (kTeam == 32) {
      return warp::sum(value);
    } else {
      const float total = block::sum<kConfig.threads>(value, partial[turn]);
      turn ^= 1;
      return total;
    }
  };

  const int member = static_cast<int>(threadIdx.x) % kTeam;
  const float per_column = 1.0f / static_cast<float>(p.columns);
  for (int row = static_cast<int>(blockIdx.x) * kConfig.rows_per_block() + static_cast<int>(threadIdx.x) / kTeam; row < p.rows;
       row += static_cast<int>(gridDim.x) * kConfig.rows_per_block()) {
    const bf16* x = p.x + row * p.x_row;
    uint4 packed[kVectors];  // all loads in flight before the first use
#pragma unroll
    for (int i = 0; i < kVectors; ++i) {
      const int column = (i * kTeam + member) * 8;
      packed[i] = column < p.columns ? ptx::ld128_read_once(x + column) : make_uint4(0, 0, 0, 0);
    }
    float s[kVectors][8];
#pragma unroll
    for (int i = 0; i < kVectors; ++i) thread::unpack(packed[i], s[i]);
    if (p.residual != nullptr) {
#pragma unroll
      for (int i = 0; i < kVectors; ++i) {
        const int column = (i * kTeam + member) * 8;
        packed[i] = column < p.columns ? ptx::ld128_read_once(p.residual + row * p.residual_row + column) : make_uint4(0, 0, 0, 0);
      }
#pragma unroll
      for (int i = 0; i < kVectors; ++i) {
        float r[8];
        thread::unpack(packed[i], r);
#pragma unroll
        for (int e = 0; e < 8; ++e) s[i][e] += r[e];
        thread::round_bf16(s[i]);  // backward will see the stored sum
      }
    }
    if (p.sum != nullptr) {
#pragma unroll
      for (int i = 0; i < kVectors; ++i) {
        const int column = (i * kTeam + member) * 8;
        if (column < p.columns) ptx::st128(p.sum + row * p.sum_row + column, thread::pack(s[i]));
      }
    }

    float mean = 0;
    if constexpr (kLayer) {
      float total = 0;  // columns past the end hold zeros
#pragma unroll
      for (int i = 0; i < kVectors; ++i) {
#pragma unroll
        for (int e = 0; e < 8; ++e) total += s[i][e];
      }
      mean = team_sum(total) * per_column;
    }
    float squares = 0;
#pragma unroll
    for (int i = 0; i < kVectors; ++i) {
      if ((i * kTeam + member) * 8 < p.columns) {
#pragma unroll
        for (int e = 0; e < 8; ++e) squares += (s[i][e] - mean) * (s[i][e] - mean);
      }
    }
    const float rstd = 1.0f / sqrtf(team_sum(squares) * per_column + p.eps);
    if (member == 0) {
      if (p.mean != nullptr) p.mean[row] = mean;
      if (p.rstd != nullptr) p.rstd[row] = rstd;
    }

#pragma unroll
    for (int i = 0; i < kVectors; ++i) {
      const int column = (i * kTeam + member) * 8;
      if (column >= p.columns) continue;
      float values[8], parameter[8];
#pragma unroll
      for (int e = 0; e < 8; ++e) values[e] = (s[i][e] - mean) * rstd;
      if (p.gain != nullptr) {
        thread::unpack(ptx::ld128(p.gain + column), parameter);
#pragma unroll
        for (int e = 0; e < 8; ++e) values[e] *= parameter[e];
      }
      if (p.bias != nullptr) {
        thread::unpack(ptx::ld128(p.bias + column), parameter);
#pragma unroll
        for (int e = 0; e < 8; ++e) values[e] += parameter[e];
      }
      ptx::st128(p.y + row * p.y_row + column, thread::pack(values));
    }
  }
}

// At most `blocks` blocks walk the rows.
template <NormConfig kConfig>
void launch_norm_forward(const NormForwardParams& p, int blocks, Stream stream) {
  const int wanted = (p.rows + kConfig.rows_per_block() - 1) / kConfig.rows_per_block();
  HEDDLE_LAUNCH((norm_forward_kernel<Configured<kConfig>>), static_cast<unsigned>(wanted < blocks ? wanted : blocks), kConfig.threads, 0, stream, p);
}

inline NormForwardParams norm_forward_params(const NormForwardArgs& args) {
  NormForwardParams p{};
  p.x = args.x.as<const bf16>();
  p.residual = args.residual.as<const bf16>();
  p.gain = args.gain.as<const bf16>();
  p.bias = args.bias.as<const bf16>();
  p.sum = args.sum.as<bf16>();
  p.y = args.y.as<bf16>();
  p.mean = args.mean.as<float>();
  p.rstd = args.rstd.as<float>();
  p.x_row = args.x.step(0);
  p.residual_row = args.residual ? args.residual.step(0) : 0;
  p.sum_row = args.sum ? args.sum.step(0) : 0;
  p.y_row = args.y.step(0);
  p.rows = static_cast<int>(args.x.size(0));
  p.columns = static_cast<int>(args.x.size(1));
  p.eps = args.eps;
  return p;
}

template <NormKind kKind, int kTeam, int kVectors>
bool launch_norm_forward_if(const NormConfig& wanted, const NormForwardParams& p, int blocks, Stream stream) {
  constexpr NormConfig kConfig{kKind, kTeam, kVectors, kTeam == 32 ? 128 : 256};
  if (wanted != kConfig) return false;
  launch_norm_forward<kConfig>(p, blocks, stream);
  return true;
}

template <NormKind kKind>
bool launch_norm_forward_kind(const NormConfig& config, const NormForwardParams& p, int blocks, Stream stream) {
  return launch_norm_forward_if<kKind, 32, 1>(config, p, blocks, stream) || launch_norm_forward_if<kKind, 32, 2>(config, p, blocks, stream) ||
         launch_norm_forward_if<kKind, 32, 4>(config, p, blocks, stream) || launch_norm_forward_if<kKind, 256, 1>(config, p, blocks, stream) ||
         launch_norm_forward_if<kKind, 256, 2>(config, p, blocks, stream) || launch_norm_forward_if<kKind, 256, 4>(config, p, blocks, stream);
}

// The list of what is built: every configuration that norm_config gives.
inline void launch_norm_forward_for(const NormConfig& config, const NormForwardParams& p, int blocks, Stream stream) {
  const bool launched = config.kind == NormKind::layer ? launch_norm_forward_kind<NormKind::layer>(config, p, blocks, stream)
                                                       : launch_norm_forward_kind<NormKind::rms>(config, p, blocks, stream);
  HEDDLE_CHECK(launched, "norm_forward", "no kernel for rows of ", p.columns);
}

}  // namespace heddle::kernels::cuda
