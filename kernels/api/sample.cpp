// The contract of sampling, checked.
#include "kernels/api/sample.h"

#include <cmath>

#include "kernels/api/rules.h"

namespace heddle::kernels {

Refusal contradiction(const SampleArgs& args) {
  Rules rules;
  rules.floating("logits", args.logits).need(args.logits.rank == 2, "logits ", args.logits, " must be (B, V)");
  if (args.logits.rank != 2) return rules;
  rules.need(args.logits.size(1) > 0, "logits ", args.logits, " of no token");
  rules.dtype("tokens", args.tokens, DType::i32).shape("tokens", args.tokens, {args.logits.size(0)});
  rules.dtype("draw", args.draw, DType::i32).shape("draw", args.draw, {args.logits.size(0)});
  rules.dtype("text", args.text, DType::i32).shape("text", args.text, {args.logits.size(0)});
  return rules.need(args.temperature >= 0 && std::isfinite(args.temperature), "temperature is ", args.temperature)
      .need(args.vocab >= 0, "vocab is ", args.vocab);
}

}  // namespace heddle::kernels
