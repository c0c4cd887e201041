// A micro-step's samples for tests that need no data set.
#pragma once

#include "data/loader.h"
#include "kernels/api/philox.h"

namespace heddle::test {

// Random tokens below `vocab`, the same for the same step and micro-step; in the middle of each sequence a document ends, whose last token has no
// target.
inline void fill_random(uint64_t step, int64_t micro_step, int64_t vocab, const BatchView& into) {
  for (int64_t i = 0; i < into.batch * into.seq; ++i) {
    const Philox::Block words =
        Philox::draw({.seed = step, .purpose = RngPurpose::test, .name = static_cast<uint64_t>(micro_step)}, static_cast<uint64_t>(i));
    into.tokens[i] = static_cast<int32_t>(words[0] % static_cast<uint64_t>(vocab));
    into.targets[i] = i % into.seq == into.seq / 2 ? -1 : static_cast<int32_t>(words[1] % static_cast<uint64_t>(vocab));
    into.document_start[i] = i % into.seq > into.seq / 2 ? static_cast<int32_t>(into.seq / 2 + 1) : 0;
  }
}

}  // namespace heddle::test
