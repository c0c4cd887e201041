// LayerNorm and RMSNorm backward: see kernels/api/norm.h. With n = (s - mean) rstd and g = dy gain,
//   dx = rstd (g - mean(g) - n mean(g n)) + d_residual     (rms norm has no mean(g)),     d_gain = sum of dy n,     d_bias = sum of dy
//
// Bound by memory: s, dy (and d_residual) once in, dx once out, 6 bytes an element of bf16 without d_residual, 8 with it. A team keeps its columns'
// sums of d_gain and d_bias in registers from row to row; a block writes one row of partial sums of each, and a second launch adds them. A row too
// long for registers is read twice, and its parameters' sums are a kernel of their own that reads s and dy once more.
#pragma once

#include "kernels/api/norm.h"
#include "kernels/cuda/ordered_sum.cuh"

namespace heddle::kernels::cuda {

template <class T>
struct NormBackwardParams {
  const T *x, *dy, *d_residual, *gain;  // d_residual, gain may be null: 0, 1
  const float *mean, *rstd;             // (rows); mean null: rms norm
  RowSink dx;                           // may lie on dy or d_residual; data null: not wanted
  Partials partials;                    // data null: no sums wanted. Sum 0 is d_gain, 1 is d_bias
  RowNest<4> nest;                      // of x, dy, d_residual, dx
  int columns;
  bool wide;
};

// Sums of a team's columns over the teams of a block, in their order; then the block's row of partial sums.
template <class Config, class T, int kVectors>
__device__ __forceinline__ void add_teams(float (&sums)[kVectors][kWidth<T>], float* shared, float* to, int columns, bool wide) {
  constexpr RowsConfig kConfig = Config::value;
  constexpr int kTeam = kConfig.team, kElements = kWidth<T>, kWarps = kTeam <= 32 ? kConfig.threads / 32 : 1;
  const int warp = static_cast<int>(threadIdx.x) / 32, member = static_cast<int>(threadIdx.x) % kTeam;
#pragma unroll
  for (int lanes = kTeam; lanes < 32; lanes *= 2) {  // teams of one warp
#pragma unroll
    for (int i = 0; i < kVectors; ++i) {
#pragma unroll
      for (int e = 0; e < kElements; ++e) sums[i][e] += warp::across(sums[i][e], lanes);
    }
  }
  // The warps hand the sums on, the last one has them all.
#pragma unroll
  for (int turn = 0; turn < kWarps; ++turn) {
    const bool mine = (kWarps == 1 || warp == turn) && (kTeam > 32 || static_cast<int>(threadIdx.x) % 32 < kTeam);
    if (mine) {
#pragma unroll
      for (int i = 0; i < kVectors; ++i) {
#pragma unroll
        for (int e = 0; e < kElements; ++e) {
          float& slot = shared[(i * kElements + e) * kTeam + member];
          if (turn > 0) sums[i][e] += slot;
          if (turn < kWarps - 1) slot = sums[i][e];
        }
        if (turn == kWarps - 1) thread::add_or_store(to, Piece<T, kTeam>(wide, i, member, columns), sums[i], false);
      }
    }
    if (turn < kWarps - 1) __syncthreads();
  }
}

template <class Config, class T>
__global__ void __launch_bounds__(Config::value.threads, 512 / Config::value.threads) norm_backward_kernel(const NormBackwardParams<T> p) {
  constexpr RowsConfig kConfig = Config::value;
  constexpr int kElements = kWidth<T>, kVectors = kConfig.vectors > 0 ? kConfig.vectors : 1;
  constexpr bool kHeld = kConfig.vectors > 0, kShared = kHeld && kConfig.team <= 32;
  using At = Piece<T, kConfig.team>;
  HEDDLE_SHARED(float, partial, [2][kConfig.threads / 32]);
  HEDDLE_SHARED(float, handed_on, [2][kShared ? kVectors * kElements * kConfig.team : 1]);
  Team<Config> team(partial);
  const float per_column = 1.0f / static_cast<float>(p.columns);
  float d_gain[kVectors][kElements] = {}, d_bias[kVectors][kElements] = {};

  for (int first = static_cast<int>(blockIdx.x) * kConfig.rows_per_block(); first < p.nest.rows;
       first += static_cast<int>(gridDim.x) * kConfig.rows_per_block()) {
    const int row = first + team.index();
    const bool has_row = row < p.nest.rows;  // a team without one goes along
    const int columns = has_row ? p.columns : 0;
    const auto place = p.nest.at(has_row ? row : first);
    const T* const x = p.x + p.nest.offset(0, place);
    const T* const dy = p.dy + p.nest.offset(1, place);
    const T* const d_residual = p.d_residual + p.nest.offset(2, place);
    const int64_t dx = p.nest.offset(3, place);
    const auto piece = [&](int i) { return At(p.wide, i, team.member(), columns); };

    uint4 held_x[kVectors] = {}, held_dy[kVectors] = {};
    if constexpr (kHeld) {  // all loads in flight before the first use; not of dy, on which dx may lie, as read only
#pragma unroll
      for (int i = 0; i < kVectors; ++i) held_x[i] = thread::load_read_once(x, piece(i));
#pragma unroll
      for (int i = 0; i < kVectors; ++i) held_dy[i] = thread::load(dy, piece(i));
    }
    const float mean = has_row && p.mean != nullptr ? p.mean[row] : 0.0f, rstd = has_row ? p.rstd[row] : 0.0f;
    // n and g of piece i; d: dy
    const auto terms = [&](int i, const At& at, float(&n)[kElements], float(&d)[kElements], float(&g)[kElements]) {
      uint4 gain{};
      if (p.gain != nullptr) gain = thread::load(p.gain, at);
      if constexpr (kHeld) {
        thread::unpack(held_x[i], n);
        thread::unpack(held_dy[i], d);
      } else {
        thread::unpack(thread::load(x, at), n);
        thread::unpack(thread::load(dy, at), d);
      }
      thread::unpack(gain, g);
#pragma unroll
      for (int e = 0; e < kElements; ++e) {
        n[e] = (n[e] - mean) * rstd;
        g[e] = p.gain != nullptr ? g[e] * d[e] : d[e];
      }
    };

    float sum_g = 0, sum_gn = 0;  // columns past the end have no dy
    for_pieces<T, Config>(columns, [&](int i) {
      float n[kElements], d[kElements], g[kElements];
      terms(i, piece(i), n, d, g);
#pragma unroll
      for (int e = 0; e < kElements; ++e) {
        sum_g += g[e];
        sum_gn += g[e] * n[e];
        if constexpr (kHeld) {
          d_gain[i][e] += d[e] * n[e];
          d_bias[i][e] += d[e];
        }
      }
    });
    if (p.dx.data == nullptr) continue;
    const float mean_g = p.mean != nullptr ? team.sum(sum_g) * per_column : 0.0f, mean_gn = team.sum(sum_gn) * per_column;
    for_pieces<T, Config>(columns, [&](int i) {
      const At at = piece(i);
      uint4 residual{};
      if (p.d_residual != nullptr) residual = thread::load(d_residual, at);
      float n[kElements], d[kElements], g[kElements], r[kElements];
      terms(i, at, n, d, g);
      thread::unpack(residual, r);
#pragma unroll
      for (int e = 0; e < kElements; ++e) g[e] = rstd * (g[e] - mean_g - n[e] * mean_gn) + r[e];
      p.dx.give(dx, at, g);
    });
  }

  if constexpr (kHeld) {
    if (p.partials.data == nullptr) return;
    const int block = static_cast<int>(blockIdx.x);
    add_teams<Config, T, kVectors>(d_gain, handed_on[0], p.partials.of(block, 0), p.columns, p.wide);
    add_teams<Config, T, kVectors>(d_bias, handed_on[1], p.partials.of(block, 1), p.columns, p.wide);
  }
}

// d_gain and d_bias of rows too long for registers.
template <class T>
struct NormParameterTerms {
  using Element = T;
  static constexpr int kSums = 2;
  struct Fetched {
    uint4 x, dy;
  };
  NormBackwardParams<T> p;

  template <class At>
  __device__ __forceinline__ Fetched fetch(int row, const At& at) const {
    const auto place = p.nest.at(row);
    return {thread::load(p.x + p.nest.offset(0, place), at), thread::load(p.dy + p.nest.offset(1, place), at)};
  }
  __device__ __forceinline__ void add(int row, const Fetched& fetched, float (&sums)[kSums][kWidth<T>]) const {
    const float mean = p.mean != nullptr ? p.mean[row] : 0.0f, rstd = p.rstd[row];
    float s[kWidth<T>], d[kWidth<T>];
    thread::unpack(fetched.x, s);
    thread::unpack(fetched.dy, d);
#pragma unroll
    for (int e = 0; e < kWidth<T>; ++e) {
      sums[0][e] += d[e] * ((s[e] - mean) * rstd);
      sums[1][e] += d[e];
    }
  }
};

// How many blocks share the rows, and so how many partial sums there are: at least four rows for each team, at most what runs at once.
constexpr int norm_backward_blocks(const RowsConfig& config, int64_t rows) {
  const int64_t wanted = (rows + 4 * config.rows_per_block() - 1) / (4 * config.rows_per_block()), most = 65536 / config.threads;
  return static_cast<int>(wanted < 1 ? 1 : wanted < most ? wanted : most);
}

inline Partials norm_backward_partials(const NormBackwardArgs& args) {
  if (!args.d_gain && !args.d_bias) return {};
  const RowsConfig config = rows_config(kNormBackwardRows, args.x.size(-1), size_of(args.x.dtype));
  const int64_t rows = row_count(args.x);
  const int tiles = config.vectors > 0 ? norm_backward_blocks(config, rows) : ColumnTiles::of(rows).tiles;
  return {reinterpret_cast<float*>(args.scratch.data()), tiles, 2, static_cast<int>(args.x.size(-1))};
}

template <class T>
void launch_norm_backward(const NormBackwardArgs& args, Stream stream) {
  NormBackwardParams<T> p{};
  p.x = args.x.as<const T>();
  p.dy = args.dy.as<const T>();
  p.d_residual = args.d_residual.as<const T>();
  p.gain = args.gain.as<const T>();
  p.mean = args.kind == NormKind::layer ? args.mean.as<const float>() : nullptr;
  p.rstd = args.rstd.as<const float>();
  p.dx = row_sink(args.dx);
  p.partials = norm_backward_partials(args);
  p.nest = row_nest<4>({args.x, args.dy, args.d_residual, args.dx.to});
  p.columns = static_cast<int>(args.x.size(-1));
  p.wide = all_wide({&args.x, &args.dy, &args.d_residual, &args.gain, &args.dx.to});

  const RowsConfig config = rows_config(kNormBackwardRows, p.columns, sizeof(T));
  const bool held = config.vectors > 0;
  if (!held && p.partials.data) launch_column_partials(NormParameterTerms<T>{p}, p.nest.rows, p.wide, p.partials, stream);  // before dx lies on dy
  if (p.dx.data || (held && p.partials.data)) {
    with_rows_config<kNormBackwardRows>(config, [&](auto built) {
      HEDDLE_LAUNCH((norm_backward_kernel<decltype(built), T>), static_cast<unsigned>(norm_backward_blocks(config, p.nest.rows)), config.threads, 0,
                    stream, p);
    });
  }
  if (p.partials.data) launch_add_partials<T>(p.partials, {{row_sink(args.d_gain), row_sink(args.d_bias)}}, stream);
}

}  // namespace heddle::kernels::cuda
