#include "train/resolve.h"

#include <algorithm>

namespace heddle {

void derive_recipe(RunConfig& c, const TransformerConfig& model) {
  if (c.depth == 0) return;
  const std::string why = "depth " + std::to_string(c.depth);
  if (!c.is_set("steps") && !c.is_set("tokens")) {
    c.tokens = 20 * model.matrix_parameters();
    c.mark_derived("tokens", why);
  }
  if (!c.is_set("optimizer")) {
    c.optimizer = OptimizerChoice::muon;
    c.mark_derived("optimizer", why);
  }
  if (!c.is_set("lr")) {
    c.lr = 3e-3 * std::min(1.0, 512.0 / static_cast<double>(model.dim));
    c.mark_derived("lr", why);
  }
  if (!c.is_set("schedule")) {
    c.schedule = ScheduleChoice::linear;
    c.mark_derived("schedule", why);
  }
}

void refuse_unbuilt(const RunConfig& c) {
  if (c.tp > 1 || c.sp) fail("pretrain", "--tp and --sp: this version shares a run over data-parallel ranks only; use --dp", ExitCode::usage);
  if (c.zero > 0) fail("pretrain", "--zero: this version keeps whole optimizer states on every rank; leave it out", ExitCode::usage);
}

}  // namespace heddle
