// A program compiled for another CPU ends with one line here, before its constructors, instead of an illegal instruction somewhere.
//
// This file alone is compiled for every x86-64 (kernels/CMakeLists.txt); it calls nothing that is compiled otherwise. Other machines than
// x86-64 are not checked.
#include "kernels/cpu/cpu_features_internal.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>
#include <unistd.h>

namespace {

struct Cpuid {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;  // all zero where the CPU does not know the leaf
  Cpuid(unsigned leaf, unsigned subleaf) { __get_cpuid_count(leaf, subleaf, &eax, &ebx, &ecx, &edx); }
};

// Which registers the operating system saves when it switches tasks.
__attribute__((target("xsave"))) uint64_t saved_registers() {
  return _xgetbv(0);
}
constexpr uint64_t none = 0, ymm = 0x6, zmm = 0xe6;

struct Line {
  char text[1024];
  size_t size = 0;
  Line& operator<<(const char* words) {
    for (; *words != 0 && size < sizeof text; ++words) text[size++] = *words;
    return *this;
  }
};

}  // namespace

// After the constructors of shared libraries, which others have compiled, and before those of this program: smaller numbers are the compiler's.
extern "C" __attribute__((constructor(101))) void heddle_cpu_check() {
  const Cpuid leaf1(1, 0), leaf7(7, 0), leaf7_1(7, 1), extended1(0x80000001, 0);
  constexpr unsigned kOsxsave = 1u << 27;
  const uint64_t saved = (leaf1.ecx & kOsxsave) != 0 ? saved_registers() : 0;
#define HEDDLE_FEATURE(name, leaf, reg, bit, state, level) {#name, level, (leaf.reg >> bit & 1) != 0 && (saved & state) == state},
  const struct {
    const char* name;
    int level;
    bool here;
  } features[] = {HEDDLE_CPU_FEATURES(HEDDLE_FEATURE)};

  Line line;
  line << "heddle: this program was compiled for CPUs with";
  bool runs = true;
  int level = 4;
  uint64_t needed = heddle_cpu_built_for;
  for (const auto& feature : features) {
    if (!feature.here && feature.level <= level) level = feature.level - 1;
    if (!feature.here && (needed & 1) != 0) {
      line << " " << feature.name;
      runs = false;
    }
    needed >>= 1;
  }
  if (runs) return;
  constexpr const char* kLevels[] = {"x86-64", "x86-64-v2", "x86-64-v3", "x86-64-v4"};
  line << ", which this one lacks: build it here, or with -DHEDDLE_MARCH=" << kLevels[level - 1] << "\n";
  [[maybe_unused]] const ssize_t written = write(STDERR_FILENO, line.text, line.size);
  _exit(1);
}
#else
extern "C" void heddle_cpu_check() {}
#endif
