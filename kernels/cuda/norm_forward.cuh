// LayerNorm and RMSNorm forward, residual addition fused: see kernels/api/norm.h for the formulas.
//
// Bound by memory: x (and residual) once in, y (and sum) once out, so 4 bytes an element of bf16 without a residual, 8 with one; 8 and 16 of f32. The
// row stays in registers, so that the centred variance costs no second pass over memory. A row too long for that is read again, from the second level
// cache: once for the squares of a layer norm, once for y.
#pragma once

#include "kernels/api/norm.h"
#include "kernels/cuda/rows.cuh"

namespace heddle::kernels::cuda {

template <class T>
struct NormForwardParams {
  const T *x, *residual, *gain, *bias;  // residual, gain, bias may be null: 0, 1, 0
  T *sum, *y;                           // sum may be null
  float *mean, *rstd;                   // (rows), or null
  RowNest<4> nest;                      // of x, residual, sum, y
  int columns;
  float eps;
  bool layer, wide;
};

template <class Config, class T>
__global__ void __launch_bounds__(Config::value.threads, 768 / Config::value.threads) norm_forward_kernel(const NormForwardParams<T> p) {
  constexpr RowsConfig kConfig = Config::value;
  constexpr int kElements = kWidth<T>;
  constexpr bool kHeld = kConfig.vectors > 0;
  using At = Piece<T, kConfig.team>;
  HEDDLE_SHARED(float, partial, [2][kConfig.threads / 32]);
  Team<Config> team(partial);
  const float per_column = 1.0f / static_cast<float>(p.columns);

  for (int first = static_cast<int>(blockIdx.x) * kConfig.rows_per_block(); first < p.nest.rows;
       first += static_cast<int>(gridDim.x) * kConfig.rows_per_block()) {
    const int row = first + team.index();
    const bool has_row = row < p.nest.rows;  // a team without one goes along
    const int columns = has_row ? p.columns : 0;
    const auto place = p.nest.at(has_row ? row : first);
    const T* const x = p.x + p.nest.offset(0, place);
    const T* const residual = p.residual + p.nest.offset(1, place);
    T* const sum = p.sum + p.nest.offset(2, place);
    T* const y = p.y + p.nest.offset(3, place);
    const auto piece = [&](int i) { return At(p.wide, i, team.member(), columns); };

    uint4 held[kHeld ? kConfig.vectors : 1] = {}, added[kHeld ? kConfig.vectors : 1] = {};
    if constexpr (kHeld) {  // all loads in flight before the first use
#pragma unroll
      for (int i = 0; i < kConfig.vectors; ++i) held[i] = thread::load_read_once(x, piece(i));
      if (p.residual != nullptr) {
#pragma unroll
        for (int i = 0; i < kConfig.vectors; ++i) added[i] = thread::load_read_once(residual, piece(i));
      }
    }
    float total = 0;                                               // columns past the end hold zeros
    const bool first_pass = kHeld || p.layer || p.sum != nullptr;  // else the squares are the first
    for_pieces<T, Config>(first_pass ? columns : 0, [&](int i) {
      const At at = piece(i);
      uint4 packed = kHeld ? held[kHeld ? i : 0] : thread::load(x, at);
      float s[kElements];
      thread::unpack(packed, s);
      if (p.residual != nullptr) {
        float r[kElements];
        thread::unpack(kHeld ? added[kHeld ? i : 0] : thread::load(residual, at), r);
#pragma unroll
        for (int e = 0; e < kElements; ++e) s[e] += r[e];
        packed = thread::pack(s);  // backward will see the sum as it is stored
        thread::unpack(packed, s);
      }
      if (p.sum != nullptr) thread::store(sum, at, packed);
      if constexpr (kHeld) held[i] = packed;
#pragma unroll
      for (int e = 0; e < kElements; ++e) total += s[e];
    });
    const T* const source = p.sum != nullptr ? sum : x;  // each thread finds there what it wrote
    const auto s_of = [&](int i, const At& at, float(&s)[kElements]) {
      if constexpr (kHeld) {
        thread::unpack(held[i], s);
      } else {
        thread::unpack(thread::load(source, at), s);
      }
    };

    float mean = 0;
    if (p.layer) mean = team.sum(total) * per_column;
    float squares = 0;
    for_pieces<T, Config>(columns, [&](int i) {
      const At at = piece(i);
      float s[kElements];
      s_of(i, at, s);
#pragma unroll
      for (int e = 0; e < kElements; ++e) squares += e < at.valid ? (s[e] - mean) * (s[e] - mean) : 0.0f;
    });
    const float rstd = 1.0f / sqrtf(team.sum(squares) * per_column + p.eps);
    if (has_row && team.member() == 0) {
      if (p.mean != nullptr) p.mean[row] = mean;
      if (p.rstd != nullptr) p.rstd[row] = rstd;
    }

    for_pieces<T, Config>(columns, [&](int i) {
      const At at = piece(i);
      uint4 gain{}, bias{};
      if (p.gain != nullptr) gain = thread::load(p.gain, at);
      if (p.bias != nullptr) bias = thread::load(p.bias, at);
      float s[kElements], parameter[kElements];
      s_of(i, at, s);
#pragma unroll
      for (int e = 0; e < kElements; ++e) s[e] = (s[e] - mean) * rstd;
      if (p.gain != nullptr) {
        thread::unpack(gain, parameter);
#pragma unroll
        for (int e = 0; e < kElements; ++e) s[e] *= parameter[e];
      }
      if (p.bias != nullptr) {
        thread::unpack(bias, parameter);
#pragma unroll
        for (int e = 0; e < kElements; ++e) s[e] += parameter[e];
      }
      thread::store(y, at, thread::pack(s));
    });
  }
}

template <class T>
NormForwardParams<T> norm_forward_params(const NormForwardArgs& args) {
  NormForwardParams<T> p{};
  p.x = args.x.as<const T>();
  p.residual = args.residual.as<const T>();
  p.gain = args.gain.as<const T>();
  p.bias = args.bias.as<const T>();
  p.sum = args.sum.as<T>();
  p.y = args.y.as<T>();
  p.mean = args.mean.as<float>();
  p.rstd = args.rstd.as<float>();
  p.nest = row_nest<4>({args.x, args.residual, args.sum, args.y});
  p.columns = static_cast<int>(args.x.size(-1));
  p.eps = args.eps;
  p.layer = args.kind == NormKind::layer;
  p.wide = all_wide({&args.x, &args.residual, &args.gain, &args.bias, &args.sum, &args.y});
  return p;
}

// At most `blocks` blocks walk the rows; 0: as many as run at once.
template <class T>
void launch_norm_forward(const NormForwardArgs& args, unsigned blocks, Stream stream) {
  const NormForwardParams<T> p = norm_forward_params<T>(args);
  with_rows_config<kNormRows>(rows_config(kNormRows, p.columns, sizeof(T)), [&](auto config) {
    const unsigned most = walking_blocks(config.value, p.nest.rows);
    HEDDLE_LAUNCH((norm_forward_kernel<decltype(config), T>), blocks > 0 && blocks < most ? blocks : most, config.value.threads, 0, stream, p);
  });
}

}  // namespace heddle::kernels::cuda
