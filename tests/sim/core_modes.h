// Running a test body in each of the machine's modes.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "kernels/api/check.h"
#include "kernels/sim/core/machine.h"
#include "tests/support/catch.h"

namespace heddle::test {

class ScopedOptions {
 public:
  ScopedOptions() : before_(sim::options()) {}
  ~ScopedOptions() { sim::set_options(before_); }
  ScopedOptions(const ScopedOptions&) = delete;
  ScopedOptions& operator=(const ScopedOptions&) = delete;

 protected:
  sim::Options before_;
};

class ScopedMode : ScopedOptions {
 public:
  ScopedMode(sim::AsyncMode mode, uint64_t seed) {
    sim::Options options = before_;
    options.mode = mode;
    options.seed = seed;
    sim::set_options(options);
  }
};

class ScopedThreads : ScopedOptions {
 public:
  explicit ScopedThreads(int threads) {
    sim::Options options = before_;
    options.threads = threads;
    sim::set_options(options);
  }
};

// Device memory that the check flavour watches: n elements with unused guards around, the first `written` of them set to zero.
template <class T>
class Watched {
 public:
  explicit Watched(size_t n, size_t written) : n_(n), memory_(n + 2 * kGuard) {
    sim::register_global(data(), n * sizeof(T), sim::kGuardBytes);
    sim::note_host_write(data(), written * sizeof(T));
  }
  explicit Watched(size_t n) : Watched(n, n) {}
  ~Watched() { sim::unregister_global(data()); }
  Watched(const Watched&) = delete;
  Watched& operator=(const Watched&) = delete;
  T* data() { return memory_.data() + kGuard; }
  T& operator[](size_t i) { return data()[i]; }
  size_t size() const { return n_; }

 private:
  static constexpr size_t kGuard = sim::kGuardBytes / sizeof(T);
  size_t n_;
  std::vector<T> memory_;
};

// Fixed thread order with early and with late async ops, and random orders.
template <class Body>
void in_every_mode(Body body) {
  for (const auto& [mode, seed] :
       {std::pair{sim::AsyncMode::eager, 1}, {sim::AsyncMode::lazy, 1}, {sim::AsyncMode::random, 1}, {sim::AsyncMode::random, 2}}) {
    CAPTURE(static_cast<int>(mode), seed);
    const ScopedMode scoped(mode, static_cast<uint64_t>(seed));
    body();
  }
}

// What body throws; empty if it does not.
template <class Body>
std::string error_of(Body body) {
  try {
    body();
  } catch (const std::exception& error) {
    return error.what();
  }
  return {};
}

}  // namespace heddle::test
