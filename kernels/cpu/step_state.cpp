// The kernels around an optimizer step that decide about it: see kernels/api/optimizer.h.
#include "kernels/api/optimizer.h"
#include "kernels/cpu/register_internal.h"

namespace heddle::kernels::cpu {

Refusal refuses(const FinishNormArgs& args) {
  return contradiction(args);
}
void run(const FinishNormArgs& args, Stream) {
  finish_step(*args.step, step_finds(args));
}

Refusal refuses(const AdvanceStepArgs& args) {
  return contradiction(args);
}
void run(const AdvanceStepArgs& args, Stream) {
  end_step(*args.step);
}

}  // namespace heddle::kernels::cpu
