// The next token from logits, drawn by Philox.
//
//   logits (B, V); draw, text (B) i32: the draw[b]-th token of text[b]; tokens (B) i32
//   temperature 0: the most likely token, the first of equals. Else token b is drawn from softmax(logits[b] / temperature), cut to the top_k most
//   likely (0: all) and of those to the smallest set that sums to top_p (Holtzman et al. 2020): tokens by falling logit, equals by id, and of those
//   the first whose running sum exceeds uniform(key with seed + text[b], stream = draw[b], word 0) times the sum. So a text's tokens do not depend on
//   what else is drawn with them
//   vocab: ids from here on pad the model's vocabulary and are never chosen; 0, or more than V: none do
//
// A row with a logit that is not finite, of padding too, has no token: -1 - the first such id is written. What makes a token likely is counted in
// whole numbers (sample_rules.h): equal logits give equal tokens on every device.
#pragma once

#include "kernels/api/kernel.h"
#include "kernels/api/philox.h"
#include "kernels/api/types.h"

namespace heddle::kernels {

struct SampleArgs {
  View logits, draw, text;
  View tokens;
  double temperature = 1;
  int64_t top_k = 0;
  double top_p = 1;
  int64_t vocab = 0;
  RngKey key = {.purpose = RngPurpose::sample};
};

Refusal contradiction(const SampleArgs&);

extern Kernel<SampleArgs> sample;

}  // namespace heddle::kernels
