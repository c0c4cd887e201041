// What cuda_mutants.py writes into copies of kernels/cuda: each fault is in the program, and HEDDLE_MUTANT=n turns the n-th on. Constant expressions
// keep what they have. HEDDLE_MUTANTS_REACHED=path writes at the end which faults a run has come by, one number a line.
#pragma once

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <type_traits>

namespace heddle::mutants {

inline constexpr int kMost = 1 << 16;
inline const int chosen = [] {
  const char* text = std::getenv("HEDDLE_MUTANT");
  return text != nullptr ? std::atoi(text) : 0;
}();

struct Reached {
  std::array<unsigned char, kMost> mutant = {};
  ~Reached() {
    const char* path = std::getenv("HEDDLE_MUTANTS_REACHED");
    std::FILE* out = path != nullptr ? std::fopen(path, "w") : nullptr;
    if (out == nullptr) return;
    for (int n = 0; n < kMost; ++n)
      if (mutant[static_cast<size_t>(n)] != 0) std::fprintf(out, "%d\n", n);
    std::fclose(out);
  }
};
inline Reached reached;

constexpr bool on(int n) {
  if (std::is_constant_evaluated()) return false;
  reached.mutant[static_cast<size_t>(n)] = 1;
  return n == chosen;
}

template <class T>
constexpr T other(int n, T original, T fault) {
  return on(n) ? fault : original;
}
template <class A, class B>
constexpr A other(int n, A original, B fault) {
  return on(n) ? static_cast<A>(fault) : original;
}

// A number, a pointer or the like, moved by one; anything else stays.
template <class T>
constexpr T moved(int n, T x, int by) {
  if constexpr (std::is_same_v<T, bool>) {
    return x;
  } else if constexpr (std::is_arithmetic_v<T>) {
    return on(n) ? static_cast<T>(x + static_cast<T>(by)) : x;
  } else {
    return x;
  }
}

template <class T>
constexpr T negated(int n, T x) {
  if constexpr (std::is_arithmetic_v<T> && !std::is_same_v<T, bool>) {
    return on(n) ? static_cast<T>(T{} - x) : x;
  } else {
    return x;
  }
}

// A factor that is left out.
template <class T>
constexpr T one(int n, T x) {
  if constexpr (std::is_arithmetic_v<T> && !std::is_same_v<T, bool>) {
    return on(n) ? T{1} : x;
  } else {
    return x;
  }
}

// The first of two things, or where the fault is on the second: swapped arguments are two of these.
template <class A, class B>
constexpr decltype(auto) first(int n, A&& a, [[maybe_unused]] B&& b) {
  if constexpr (std::is_same_v<A, B>) {
    return on(n) ? static_cast<B&&>(b) : static_cast<A&&>(a);
  } else {
    return static_cast<A&&>(a);
  }
}

}  // namespace heddle::mutants
