// Replicas: what several ranks hold alike is the same on all of them bit for bit, or a memory, a processor or a kernel errs in silence.
#pragma once

#include <cstdint>

#include "checkpoint/loading.h"
#include "core/state.h"
#include "parallel/control.h"

namespace heddle {

// Every rank hashes the pieces of `state` that it holds, whole or sliced, and `values`, the weights as they are computed with, which all hold; what
// more than one rank holds is compared. Error on all ranks alike, naming the rank that differs from the majority, or both of two. Collective. `step`
// is the newest, `saved` that of the newest checkpoint.
void require_equal_replicas(const StateDict& state, const View& values, Control& control, const CopyOut& copy_out, uint64_t step, uint64_t saved);

}  // namespace heddle
