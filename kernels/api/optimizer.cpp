// The contracts of the optimizer's kernels, checked.
#include "kernels/api/optimizer.h"

#include "kernels/api/rules.h"

namespace heddle::kernels {
namespace {

// Flat: dense, any rank, n elements.
Rules& flat(Rules& rules, std::string_view name, const View& v, int64_t n) {
  return rules.dense(name, v).need(v.numel() == n, name, " ", v, " must have ", n, " elements");
}

// Values in f32 or bf16 with f32 masters, or all f64.
Rules& value_and_master(Rules& rules, const View& value, const View& master) {
  return rules.need(master.dtype == DType::f32 || master.dtype == DType::f64, "master ", master, " must be f32 or f64")
      .need(is_floating(value.dtype) && accumulator_of(value.dtype) == master.dtype, "value ", value, " does not go with master ", master)
      .need(value.data != master.data || value.dtype == master.dtype, "value ", value, " lies on master ", master, " with another dtype");
}

}  // namespace

Refusal contradiction(const AdamWArgs& args) {
  const int64_t n = args.m.numel(), total = args.arena_block ? args.grad.numel() : n;
  Rules rules;
  flat(rules, "m", args.m, n).same_dtype("m", args.m, "grad", args.grad).need(n % kArenaBlock == 0, "n = ", n, " is not a multiple of ", kArenaBlock);
  flat(rules, "v", args.v, n).same_dtype("v", args.v, "grad", args.grad);
  flat(rules, "grad", args.grad, total).need(total % kArenaBlock == 0, "N = ", total, " is not a multiple of ", kArenaBlock);
  flat(rules, "value", args.value, total);
  flat(rules, "master", args.master, args.master.data == args.value.data ? total : n).same_dtype("master", args.master, "grad", args.grad);
  flat(rules, "group_of_block", args.group_of_block, n / kArenaBlock);
  rules.need(args.group_of_block.dtype == DType::u8, "group_of_block ", args.group_of_block, " must be u8");
  if (args.arena_block) {
    flat(rules, "arena_block", args.arena_block, n / kArenaBlock);
    rules.need(args.arena_block.dtype == DType::i32, "arena_block ", args.arena_block, " must be i32");
  }
  return value_and_master(rules, args.value, args.master).need(args.step != nullptr, "step is absent");
}

Refusal contradiction(const MuonMomentumArgs& args) {
  const int64_t n = args.grad.numel();
  Rules rules;
  flat(rules, "grad", args.grad, n).need(args.grad.dtype == DType::f32 || args.grad.dtype == DType::f64, "grad ", args.grad, " must be f32 or f64");
  flat(rules, "momentum", args.momentum, n).same_dtype("momentum", args.momentum, "grad", args.grad);
  flat(rules, "out", args.out, n)
      .need(is_floating(args.out.dtype) && accumulator_of(args.out.dtype) == args.grad.dtype, "out ", args.out, " does not go with grad ", args.grad);
  return rules.need(args.step != nullptr, "step is absent");
}

Refusal contradiction(const NormalizeArgs& args) {
  Rules rules;
  rules.dense("x", args.x).need(is_floating(args.x.dtype), "x ", args.x, " must be f32, bf16 or f64");
  return rules.dense("out", args.out)
      .need(is_floating(args.out.dtype), "out ", args.out, " must be f32, bf16 or f64")
      .same_shape("out", args.out, "x", args.x);
}

Refusal contradiction(const MuonApplyArgs& args) {
  const int64_t n = args.master.numel();
  Rules rules;
  flat(rules, "master", args.master, n);
  flat(rules, "value", args.value, n);
  flat(rules, "update", args.update, n)
      .need(is_floating(args.update.dtype) && accumulator_of(args.update.dtype) == args.master.dtype, "update ", args.update,
            " does not go with master ", args.master);
  return value_and_master(rules, args.value, args.master).need(args.step != nullptr, "step is absent");
}

Refusal contradiction(const FinishNormArgs& args) {
  Rules rules;
  rules.present("squared_norm", args.squared_norm)
      .need(args.squared_norm.numel() == 1 && (args.squared_norm.dtype == DType::f64 || args.squared_norm.dtype == DType::f32), "squared_norm ",
            args.squared_norm, " must be one f32 or f64");
  if (args.loss) {
    rules.dense("loss", args.loss)
        .need(args.loss.numel() >= 1 && (args.loss.dtype == DType::f64 || args.loss.dtype == DType::f32), "loss ", args.loss,
              " must be f32 or f64, one for each rank");
  }
  if (args.faults) rules.dtype("faults", args.faults, DType::i32).dense("faults", args.faults);
  return rules.need(args.step != nullptr, "step is absent");
}

Refusal contradiction(const AdvanceStepArgs& args) {
  return Rules().need(args.step != nullptr, "step is absent");
}

StepFinds step_finds(const FinishNormArgs& args) {
  const auto numbers = [](const View& v) { return v ? Numbers{v.data, v.numel(), v.dtype == DType::f64} : Numbers{}; };
  return {.squared_norm = numbers(args.squared_norm),
          .loss = numbers(args.loss),
          .faults = args.faults.as<const int32_t>(),
          .fault_count = args.faults ? args.faults.numel() : 0};
}

}  // namespace heddle::kernels
