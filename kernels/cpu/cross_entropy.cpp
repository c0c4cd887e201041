// Softmax cross entropy, forward and backward together: see kernels/api/cross_entropy.h.
#include "kernels/api/cross_entropy.h"

#include "kernels/cpu/rules_internal.h"
#include "kernels/cpu/softmax_internal.h"

namespace heddle::kernels::cpu {
namespace {

template <class T>
void stats(const CrossEntropyStatsArgs& args) {
  constexpr T kNone = -std::numeric_limits<T>::infinity();
  const int64_t columns = args.logits.size(1), held = args.shard.held(columns), stride = args.logits.stride[0];
  const int32_t* const targets = args.targets.as<const int32_t>();
  for_tiles(args.logits.size(0), rows_per_tile(columns), 2 * args.logits.numel(), [&](int64_t begin, int64_t end) {
    Input<T> logits(args.logits);
    for (int64_t n = begin; n < end; ++n) {
      RowStats<T> row{kNone, 0, kNone};
      if (targets[n] != args.ignore_index) {
        const MaxSum<T> softmax = max_sum(logits, n * stride, held, T{1});
        const int64_t target = args.shard.row(targets[n], columns);
        row = {softmax.max, softmax.sum, target < 0 ? kNone : *logits.at(n * stride + target, 1)};
      }
      T* const to = args.stats.as<T>() + n * args.stats.stride[0];
      to[0] = row.max, to[1] = row.sum, to[2] = row.target;
    }
  });
}

// Of all shards, in their order.
template <class T>
RowStats<T> joined(const View& stats, int64_t n) {
  const auto of = [&](int64_t shard) {
    const T* const from = stats.as<const T>() + shard * stats.stride[0] + n * stats.stride[1];
    return RowStats<T>{from[0], from[1], from[2]};
  };
  RowStats<T> row = of(0);
  for (int64_t shard = 1; shard < stats.size(0); ++shard) row.join(of(shard));
  return row;
}

// logits[v] <- factor softmax[v] - [v == target] one, from the row's own maximum and sum: exp(x - lse) would lose the bits of a large lse.
template <class T>
void write_gradient(Input<T>& logits, Output<T>& out, int64_t offset, int64_t columns, const RowStats<T>& row, T factor, T one, int64_t target) {
  const T max = row.max, share = factor / row.sum;
  for (int64_t column = 0; column < columns; column += kChunk) {
    const int64_t n = std::min(kChunk, columns - column);
    T* const to = out.at(offset + column, n);
    map_lanes(
        n, to, [=](auto v) HEDDLE_LANEWISE { return vec::exp(v - max) * share; }, logits.at(offset + column, n));
    if (target >= column && target < column + n) to[target - column] -= one;
    out.commit();
  }
}

template <class T>
void losses(const CrossEntropyArgs& args) {
  const int64_t columns = args.write_gradient ? args.logits.size(1) : 0, held = args.shard.held(columns), stride = args.logits.stride[0];
  const int32_t* const targets = args.targets.as<const int32_t>();
  const auto weight_of = [&args](int64_t n) {
    if (!args.weights) return T{1};
    return args.weights.dtype == DType::f32 ? static_cast<T>(args.weights.as<const float>()[n]) : args.weights.as<const T>()[n];
  };
  T* const losses = args.losses.as<T>();
  T* const nll = args.nll.as<T>();
  const T z_loss = static_cast<T>(args.z_loss);
  const T scale = static_cast<T>(args.scale) * (args.step ? static_cast<T>(args.step->loss_scale) : T{1});

  const int64_t count = args.losses.size(0);
  for_tiles(count, rows_per_tile(columns), 2 * count * std::max<int64_t>(columns, 1), [&](int64_t begin, int64_t end) {
    Input<T> logits(args.logits);
    Output<T> gradient(args.logits);
    for (int64_t n = begin; n < end; ++n) {
      const int32_t target = targets[n];
      const bool ignored = target == args.ignore_index;
      if (args.write_gradient) {  // all bits zero is +0 in every dtype
        const int64_t from = ignored ? 0 : held, size = size_of(args.logits.dtype);
        std::memset(args.logits.data + (n * stride + from) * size, 0, static_cast<size_t>((columns - from) * size));
      }
      if (ignored) {
        losses[n] = 0;
        if (nll) nll[n] = 0;
        continue;
      }
      const RowStats<T> row = joined<T>(args.stats, n);
      const T weight = weight_of(n), one = scale * weight;
      const T log_sum = std::log(row.sum), lse = row.max + log_sum;
      const T loss = log_sum - (row.target - row.max);
      losses[n] = weight * (loss + z_loss * lse * lse);
      if (nll) nll[n] = weight * loss;
      if (args.write_gradient) {
        write_gradient(logits, gradient, n * stride, held, row, one * (1 + 2 * z_loss * lse), one, args.shard.row(target, columns));
      }
    }
  });
}

}  // namespace

Refusal refuses(const CrossEntropyStatsArgs& args) {
  return contradiction(args);
}
void run(const CrossEntropyStatsArgs& args, Stream) {
  const int32_t* const targets = args.targets.as<const int32_t>();
  const int64_t vocabulary = args.shard.tokens(args.logits.size(1));
  for (int64_t n = 0; n < args.targets.size(0); ++n) {
    if ((targets[n] < 0 || targets[n] >= vocabulary) && targets[n] != args.ignore_index) {
      noted(args.fault, {.kind = FaultKind::target, .row = n, .value = targets[n], .limit = vocabulary});
      return;
    }
  }
  with_compute_type(args.logits.dtype == DType::f64, [&](auto zero) { stats<decltype(zero)>(args); });
}

Refusal refuses(const CrossEntropyArgs& args) {
  return contradiction(args);
}
void run(const CrossEntropyArgs& args, Stream) {
  with_compute_type(args.losses.dtype == DType::f64, [&](auto zero) { losses<decltype(zero)>(args); });
}

}  // namespace heddle::kernels::cpu
