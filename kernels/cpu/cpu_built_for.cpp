// Compiled with the flags of all other code, to say which instruction sets these flags allow. A constant: nothing here runs.
#include "kernels/cpu/cpu_features_internal.h"

namespace {

// A macro that is defined expands to 1, another to its own name.
#define HEDDLE_TEXT(x) #x
#define HEDDLE_EXPANDED(x) HEDDLE_TEXT(x)
constexpr bool is_one(const char* text) {
  return text[0] == '1';
}

constexpr uint64_t built_for() {
  uint64_t all = 0;
#if defined(__x86_64__)
  uint64_t bit = 1;
#define HEDDLE_ADD(name, ...) all |= is_one(HEDDLE_EXPANDED(__##name##__)) ? bit : 0, bit <<= 1;
  HEDDLE_CPU_FEATURES(HEDDLE_ADD)
#endif
  return all;
}

}  // namespace

constinit const uint64_t heddle_cpu_built_for = built_for();
