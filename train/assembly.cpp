#include "train/assembly.h"

#include <algorithm>
#include <optional>

namespace heddle {
namespace {

ScheduleKind kind_of(ScheduleChoice choice) {
  switch (choice) {
    case ScheduleChoice::cosine: return ScheduleKind::cosine;
    case ScheduleChoice::linear: return ScheduleKind::linear;
    case ScheduleChoice::wsd: return ScheduleKind::wsd;
    case ScheduleChoice::constant: break;
  }
  return ScheduleKind::constant;
}

}  // namespace

Layout make_layout(const RunConfig& c, const Module& module, int dp_rank) {
  return Layout(module, {.dp = static_cast<int>(c.dp), .dp_rank = dp_rank},
                {.whole_matrices = c.optimizer == OptimizerChoice::muon, .fixed_cells = c.deterministic});
}

std::unique_ptr<Optimizer> make_optimizer(const RunConfig& c, Arena& arena) {
  std::optional<std::vector<Range>> owned;
  if (c.zero > 0) owned = arena.layout().owned(arena.layout().mesh().dp_rank);
  const AdamWOptions adamw{.lr = static_cast<float>(c.lr),
                           .weight_decay = static_cast<float>(c.weight_decay),
                           .beta1 = static_cast<float>(c.beta1),
                           .beta2 = static_cast<float>(c.beta2),
                           .eps = static_cast<float>(c.eps)};
  const LrScale lr_scale = [&](const Layout::Slot& slot) {
    switch (slot.spec.kind) {
      case ParamKind::head: return static_cast<float>(c.head_lr_scale);
      case ParamKind::embedding: return static_cast<float>(c.embed_lr_scale);
      default: return 1.0f;
    }
  };
  if (c.optimizer == OptimizerChoice::muon) {
    const MuonOptions muon{
        .lr = static_cast<float>(c.muon_lr), .weight_decay = static_cast<float>(c.weight_decay), .momentum = static_cast<float>(c.muon_momentum)};
    return make_muon(arena, muon, adamw, lr_scale, std::move(owned));
  }
  return make_adamw(arena, adamw, lr_scale, std::move(owned));
}

Trainer::Options trainer_options(const RunConfig& c) {
  const bool rounded = c.grad_reduce == GradReduceChoice::bf16 && c.dp > 1;
  return {.batch = c.batch,
          .seq = c.seq,
          .document_mask = c.doc_mask,
          .deterministic = c.deterministic,
          .sharded = c.zero > 0,
          .wire = rounded ? std::optional(DType::bf16) : std::nullopt,
          .graphs = c.graphs == GraphsChoice::automatic};
}

Schedule make_schedule(const RunConfig& c) {
  return {.kind = kind_of(c.schedule),
          .steps = static_cast<uint64_t>(c.steps),
          .warmup = static_cast<uint64_t>(c.warmup),
          .final_fraction = c.final_lr_fraction,
          .decay_fraction = c.decay_fraction};
}

}  // namespace heddle
