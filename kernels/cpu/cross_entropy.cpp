// Softmax cross entropy, forward and backward together: see kernels/api/cross_entropy.h.
#include "kernels/api/cross_entropy.h"

#include "kernels/cpu/rules_internal.h"
#include "kernels/cpu/softmax_internal.h"

namespace heddle::kernels::cpu {
namespace {

// logits[v] <- factor softmax[v] - [v == target] one, from the row's own maximum and sum: exp(x - lse) would lose the bits of a large lse.
template <class T>
void write_gradient(Input<T>& logits, Output<T>& out, int64_t offset, int64_t columns, const MaxSum<T>& row, T factor, T one, int64_t target) {
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
void rows(const CrossEntropyArgs& args) {
  const int64_t columns = args.logits.size(1), stride = args.logits.stride[0];
  const int32_t* const targets = args.targets.as<const int32_t>();
  T* const losses = args.losses.as<T>();
  T* const nll = args.nll.as<T>();
  const T z_loss = static_cast<T>(args.z_loss);
  const T scale = static_cast<T>(args.scale) * (args.step ? static_cast<T>(args.step->loss_scale) : T{1});

  for_tiles(args.logits.size(0), rows_per_tile(columns), 4 * args.logits.numel(), [&](int64_t begin, int64_t end) {
    Input<T> logits(args.logits);
    Output<T> gradient(args.logits);
    for (int64_t n = begin; n < end; ++n) {
      const int32_t target = targets[n];
      if (target == args.ignore_index) {
        losses[n] = 0;
        if (nll) nll[n] = 0;
        if (args.write_gradient) {  // all bits zero is +0 in every dtype
          std::memset(args.logits.data + n * stride * size_of(args.logits.dtype), 0, static_cast<size_t>(columns * size_of(args.logits.dtype)));
        }
        continue;
      }
      const MaxSum<T> row = max_sum(logits, n * stride, columns, T{1});
      const T log_sum = std::log(row.sum), lse = row.max + log_sum;
      const T loss = log_sum - (*logits.at(n * stride + target, 1) - row.max);
      losses[n] = loss + z_loss * lse * lse;
      if (nll) nll[n] = loss;
      if (args.write_gradient) write_gradient(logits, gradient, n * stride, columns, row, scale * (1 + 2 * z_loss * lse), scale, target);
    }
  });
}

}  // namespace

Refusal refuses(const CrossEntropyArgs& args) {
  Rules rules;
  rules.floating("logits", args.logits).need(args.logits.rank == 2, "logits ", args.logits, " must be (N, V)");
  if (args.logits.rank != 2) return rules;
  const int64_t n = args.logits.size(0);
  const DType sum_type = accumulator_of(args.logits.dtype);
  rules.dtype("targets", args.targets, DType::i32).shape("targets", args.targets, {n});
  rules.dtype("losses", args.losses, sum_type).shape("losses", args.losses, {n});
  if (args.nll) rules.dtype("nll", args.nll, sum_type).shape("nll", args.nll, {n});
  return rules;
}
void run(const CrossEntropyArgs& args, Stream) {
  const int32_t* const targets = args.targets.as<const int32_t>();
  for (int64_t n = 0; n < args.targets.size(0); ++n) {
    if ((targets[n] < 0 || targets[n] >= args.logits.size(1)) && targets[n] != args.ignore_index) {
      fail("cross_entropy", concat("target outside the vocabulary: targets[", n, "] = ", targets[n], ", V = ", args.logits.size(1)),
           ExitCode::bad_data);
    }
  }
  with_compute_type(args.logits.dtype == DType::f64, [&](auto zero) { rows<decltype(zero)>(args); });
}

}  // namespace heddle::kernels::cpu
