// Instructions of the tests' own. Like those of kernels/sim/ptx/*.cpp they are compiled without instrumentation and say what they touch.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/sim/core/machine.h"

namespace heddle::test {

// Copies to shared memory, completing on the mbarrier.
void bulk_load(uint32_t mbarrier, void* shared, const void* global, uint32_t bytes, sim::Where where = sim::Where::here());
// Copies from shared memory as part of the thread's bulk group.
void bulk_store(void* global, const void* shared, size_t bytes, sim::Where where = sim::Where::here());

}  // namespace heddle::test
