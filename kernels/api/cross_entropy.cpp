// The contracts of the cross entropy, checked.
#include "kernels/api/cross_entropy.h"

#include "kernels/api/rules.h"

namespace heddle::kernels {

Refusal contradiction(const CrossEntropyStatsArgs& args) {
  Rules rules;
  rules.floating("logits", args.logits).need(args.logits.rank == 2, "logits ", args.logits, " must be (N, V)");
  if (args.logits.rank != 2) return rules;
  const int64_t n = args.logits.size(0);
  rules.dtype("targets", args.targets, DType::i32).shape("targets", args.targets, {n});
  rules.dtype("stats", args.stats, accumulator_of(args.logits.dtype)).shape("stats", args.stats, {n, 3});
  rules.need(args.shard.first >= 0 && args.shard.vocabulary >= 0, "a shard that begins at ", args.shard.first, " of ", args.shard.vocabulary);
  return rules;
}

Refusal contradiction(const CrossEntropyArgs& args) {
  Rules rules;
  rules.rows("losses", args.losses).need(args.losses.rank == 1, "losses ", args.losses, " must be (N)");
  rules.need(args.losses.dtype == DType::f32 || args.losses.dtype == DType::f64, "losses ", args.losses, " must be f32 or f64");
  if (rules.broken()) return rules;
  const int64_t n = args.losses.size(0);
  if (args.write_gradient) {
    rules.floating("logits", args.logits).need(args.logits.rank == 2 && args.logits.size(0) == n, "logits ", args.logits, " must be (", n, ", V)");
    rules.need(accumulator_of(args.logits.dtype) == args.losses.dtype, "losses ", args.losses, " of logits ", args.logits);
  }
  rules.dtype("targets", args.targets, DType::i32).shape("targets", args.targets, {n});
  rules.dtype("stats", args.stats, args.losses.dtype);
  rules.need(args.stats.rank == 3 && args.stats.size(0) >= 1, "stats ", args.stats, " must be (S, ", n, ", 3)");
  if (args.stats.rank == 3) rules.shape("stats", args.stats, {args.stats.size(0), n, 3});
  rules.need(args.shard.first >= 0 && args.shard.vocabulary >= 0, "a shard that begins at ", args.shard.first, " of ", args.shard.vocabulary);
  if (args.nll) rules.dtype("nll", args.nll, args.losses.dtype).shape("nll", args.nll, {n});
  if (args.weights) {
    const bool wide = args.weights.dtype == args.losses.dtype;
    rules.dtype("weights", args.weights, wide ? args.losses.dtype : DType::f32).shape("weights", args.weights, {n});
  }
  return rules;
}

}  // namespace heddle::kernels
