// Softmax cross entropy in its two phases: see kernels/api/cross_entropy.h.
//
// Bound by memory. Phase 1 reads the logits once, 2 or 4 bytes each; phase 2 reads them and writes the gradient in their place, 4 or 8 bytes. It
// begins with the last rows, which phase 1 left in the second level cache. Without a gradient phase 2 touches three numbers a row and shard.
#pragma once

#include "kernels/api/cross_entropy.h"
#include "kernels/cuda/fault.cuh"
#include "kernels/cuda/softmax_rows.cuh"

namespace heddle::kernels::cuda {

// A warp, or a block, for a row; nothing is held.
inline constexpr RowsConfig kLossRows[] = {{32, 0, 128}, {256, 0, 256}};
constexpr RowsConfig loss_rows(int64_t columns) {
  return kLossRows[columns > 1024];
}

template <class T>
struct CrossEntropyStatsParams {
  const T* logits;         // (rows, columns)
  const int32_t* targets;  // (rows)
  float* stats;            // (rows, 3)
  int64_t logits_row, stats_row;
  int rows, columns, held;  // of the columns so many are no padding
  int32_t ignore_index;
  VocabShard shard;
  Fault* fault;
  bool wide;
};

template <class Config, class T>
__global__ void __launch_bounds__(Config::value.threads) cross_entropy_stats_kernel(const CrossEntropyStatsParams<T> p) {
  constexpr RowsConfig kConfig = Config::value;
  HEDDLE_SHARED(float, partial, [2][kConfig.threads / 32]);
  Team<Config> team(partial);
  for (int first = static_cast<int>(blockIdx.x) * kConfig.rows_per_block(); first < p.rows;
       first += static_cast<int>(gridDim.x) * kConfig.rows_per_block()) {
    const int row = first + team.index();
    const bool has_row = row < p.rows;
    const int32_t target = has_row ? p.targets[row] : p.ignore_index;
    const bool ignored = target == p.ignore_index;
    const T* const logits = p.logits + (has_row ? row : first) * p.logits_row;
    const thread::MaxSum softmax = max_sum_of_row<T>(team, logits, ignored ? 0 : p.held, p.wide, 1.0f);
    if (!has_row || team.member() != 0) continue;
    float* const stats = p.stats + row * p.stats_row;
    const int64_t column = ignored ? -1 : p.shard.row(target, p.columns);
    stats[0] = softmax.max;
    stats[1] = softmax.sum;
    stats[2] = column < 0 ? -INFINITY : to_float(logits[column]);
    if (!ignored && (target < 0 || target >= p.shard.tokens(p.columns)))
      thread::note(p.fault, FaultKind::target, row, 0, target, p.shard.tokens(p.columns));
  }
}

template <class T>
struct CrossEntropyParams {
  T* logits;               // (rows, columns), or null: no gradient
  const int32_t* targets;  // (rows)
  const float* stats;      // (shards, rows, 3)
  const float* weights;    // (rows) or null
  float *losses, *nll;     // (rows); nll may be null
  const StepState* step;   // or null
  int64_t logits_row, stats_shard, stats_row;
  int rows, columns, held, shards;
  int32_t ignore_index;
  float z_loss, scale;
  VocabShard shard;
  bool wide;
};

template <class Config, class T>
__global__ void __launch_bounds__(Config::value.threads) cross_entropy_kernel(const CrossEntropyParams<T> p) {
  constexpr RowsConfig kConfig = Config::value;
  constexpr int kTeam = kConfig.team, kElements = kWidth<T>;
  using At = Piece<T, kTeam>;
  const int member = static_cast<int>(threadIdx.x) % kTeam;
  const float scale = p.step != nullptr ? p.scale * p.step->loss_scale : p.scale;
  const int pieces = pieces_of<T, kTeam>(p.columns);
  for (int backward = static_cast<int>(blockIdx.x) * kConfig.rows_per_block() + static_cast<int>(threadIdx.x) / kTeam; backward < p.rows;
       backward += static_cast<int>(gridDim.x) * kConfig.rows_per_block()) {
    const int row = p.rows - 1 - backward;
    const int32_t target = p.targets[row];
    const bool ignored = target == p.ignore_index;
    RowStats<float> of_row{-INFINITY, 0, -INFINITY};
    float loss = 0, z_term = 0, weight = 0, one = 0, share = 0;
    if (!ignored) {
      const float* stats = p.stats + row * p.stats_row;
      of_row = {stats[0], stats[1], stats[2]};
      for (int s = 1; s < p.shards; ++s) {
        stats += p.stats_shard;
        of_row.join({stats[0], stats[1], stats[2]});
      }
      const float log_sum = logf(of_row.sum), lse = of_row.max + log_sum;
      weight = p.weights != nullptr ? p.weights[row] : 1.0f;
      one = scale * weight;
      loss = log_sum - (of_row.target - of_row.max);
      z_term = p.z_loss * lse * lse;
      share = one * (1 + 2 * p.z_loss * lse) / of_row.sum;
    }
    if (member == 0) {
      p.losses[row] = weight * (loss + z_term);
      if (p.nll != nullptr) p.nll[row] = weight * loss;
    }
    if (p.logits == nullptr) continue;

    T* const logits = p.logits + row * p.logits_row;
    const int read = ignored ? 0 : p.held;
    const int column = ignored ? -1 : static_cast<int>(p.shard.row(target, p.columns));
    for (int first = 0; first < pieces; first += kPiecesInFlight) {
      uint4 packed[kPiecesInFlight];
#pragma unroll
      for (int i = 0; i < kPiecesInFlight; ++i) packed[i] = thread::load(logits, At(p.wide, first + i, member, read));
#pragma unroll
      for (int i = 0; i < kPiecesInFlight; ++i) {
        const At here(p.wide, first + i, member, read);
        float values[kElements];
        thread::unpack(packed[i], values);
#pragma unroll
        for (int e = 0; e < kElements; ++e) {
          const float gradient = thread::exp_of(values[e] - of_row.max) * share - (here.first + e == column ? one : 0.0f);
          values[e] = e < here.valid ? gradient : 0.0f;
        }
        thread::store(logits, At(p.wide, first + i, member, p.columns), thread::pack(values));
      }
    }
  }
}

template <class T>
void launch_cross_entropy_stats(const CrossEntropyStatsArgs& args, Stream stream) {
  CrossEntropyStatsParams<T> p{};
  p.logits = args.logits.as<const T>();
  p.targets = args.targets.as<const int32_t>();
  p.stats = args.stats.as<float>();
  p.logits_row = args.logits.step(0);
  p.stats_row = args.stats.step(0);
  p.rows = static_cast<int>(args.logits.size(0));
  p.columns = static_cast<int>(args.logits.size(1));
  p.held = static_cast<int>(args.shard.held(p.columns));
  p.ignore_index = args.ignore_index;
  p.shard = args.shard;
  p.fault = args.fault;
  p.wide = all_wide({&args.logits});
  with_rows_config<kLossRows>(loss_rows(p.columns), [&](auto config) {
    HEDDLE_LAUNCH((cross_entropy_stats_kernel<decltype(config), T>), walking_blocks(config.value, p.rows), config.value.threads, 0, stream, p);
  });
}

template <class T>
void launch_cross_entropy(const CrossEntropyArgs& args, Stream stream) {
  CrossEntropyParams<T> p{};
  p.targets = args.targets.as<const int32_t>();
  p.stats = args.stats.as<const float>();
  p.weights = args.weights.as<const float>();
  p.losses = args.losses.as<float>();
  p.nll = args.nll.as<float>();
  p.step = args.step;
  p.stats_shard = args.stats.step(0);
  p.stats_row = args.stats.step(1);
  p.rows = static_cast<int>(args.losses.size(0));
  p.shards = static_cast<int>(args.stats.size(0));
  p.ignore_index = args.ignore_index;
  p.z_loss = args.z_loss;
  p.scale = args.scale;
  p.shard = args.shard;
  if (args.write_gradient) {
    p.logits = args.logits.as<T>();
    p.logits_row = args.logits.step(0);
    p.columns = static_cast<int>(args.logits.size(1));
    p.held = static_cast<int>(args.shard.held(p.columns));
    p.wide = all_wide({&args.logits});
  }
  with_rows_config<kLossRows>(loss_rows(p.columns), [&](auto config) {
    HEDDLE_LAUNCH((cross_entropy_kernel<decltype(config), T>), walking_blocks(config.value, p.rows), config.value.threads, 0, stream, p);
  });
}

}  // namespace heddle::kernels::cuda
