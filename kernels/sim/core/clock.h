// What a thread knows of the others: vector clocks of the check flavour. See check_clock.cpp for the rules, check.h for what they are good for.
#pragma once

#include <cstdint>
#include <utility>

namespace heddle::sim {

class Clock;
void retain(Clock* clock);
void release(Clock* clock);

// Counted reference to an immutable Clock; null knows nothing. One OS thread only: the check flavour has one worker.
class ClockRef {
 public:
  ClockRef() = default;
  explicit ClockRef(Clock* clock) : clock_(clock) {}  // takes over one count
  ClockRef(const ClockRef& other) : clock_(other.clock_) {
    if (clock_ != nullptr) retain(clock_);
  }
  ClockRef(ClockRef&& other) noexcept : clock_(std::exchange(other.clock_, nullptr)) {}
  ClockRef& operator=(ClockRef other) noexcept {
    std::swap(clock_, other.clock_);
    return *this;
  }
  ~ClockRef() {
    if (clock_ != nullptr) sim::release(clock_);
  }
  const Clock* get() const { return clock_; }
  const Clock* operator->() const { return clock_; }
  explicit operator bool() const { return clock_ != nullptr; }
  friend bool operator==(const ClockRef& a, const ClockRef& b) { return a.clock_ == b.clock_; }

 private:
  Clock* clock_ = nullptr;
};

}  // namespace heddle::sim
