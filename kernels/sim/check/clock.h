// Vector clocks of the check flavour.
//
// Time is one counter per process. A thread's accesses carry its stamp: the time of its last release. A release raises the counter only if the thread
// stamped accesses with its present value; threads that release one after the other share a time. Somebody knows an access if it knows of a later
// release of that thread: time_of(thread) > stamp. Most knowledge is about all threads of a block or warp at once
// (after a barrier), so a clock holds a floor per block, a floor per warp and single threads above those.
#pragma once

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

#include "kernels/sim/core/clock.h"
#include "kernels/sim/core/machine.h"

namespace heddle::sim {

// Where threads stand in a clock: of one group of blocks, all of one shape.
struct ClockShape {
  uint32_t blocks = 1, warps = 1;  // warps per block
};

class Clock {
 public:
  using Entry = std::pair<uint32_t, uint32_t>;  // key, time or phase

  uint32_t refs = 1;
  uint32_t group = 0;  // the run of a group that its threads belong to
  ClockShape shape;
  std::vector<uint32_t> floors;  // per block: its floor, then one per warp
  std::vector<Entry> lanes;      // thread id -> time, above the floors; sorted
  std::vector<Entry> phases;     // sync object -> completed phases known of; sorted
  std::vector<ClockRef> others;  // what is known of other groups, sorted by group

  uint32_t time_of(uint32_t thread) const { return lanes.empty() ? floor_of_warp(thread) : std::max(floor_of_warp(thread), lookup(lanes, thread)); }
  uint32_t floor_of_warp(uint32_t thread) const {  // known of every lane of the thread's warp
    const uint32_t* floor = floors.data() + size_t{thread / kMaxThreadsPerBlock} * (shape.warps + 1);
    return std::max(floor[0], floor[1 + thread % kMaxThreadsPerBlock / kWarpSize]);
  }
  uint32_t phase_of(uint32_t sync) const { return lookup(phases, sync); }
  const Clock* of_group(uint32_t number) const;  // null: nothing known

 private:
  static uint32_t lookup(const std::vector<Entry>& sorted, uint32_t key);
};

ClockRef empty_clock(uint32_t group, ClockShape shape);
ClockRef async_ops_of(const ClockRef& clock);         // which async ops of its group are done, and nothing of threads
ClockRef join(const ClockRef& a, const ClockRef& b);  // all that either knows; the group is a's
ClockRef meet(const ClockRef& a, const ClockRef& b);  // what both know; same group
// These change the clock in place where it is the last reference, else a copy. Where one side knows all, join and add give that very clock, so that
// equal knowledge tends to be the same object.
void add(ClockRef& clock, const ClockRef& more);  // joins `more` to it; null is no knowledge
void add_thread(ClockRef& clock, uint32_t thread, uint32_t time);
ClockRef with_thread(ClockRef clock, uint32_t thread, uint32_t time);
ClockRef with_warp(ClockRef clock, uint32_t thread, uint32_t time);  // all lanes of the thread's warp
ClockRef with_block(ClockRef clock, uint32_t block, uint32_t time);
ClockRef with_phase(ClockRef clock, uint32_t sync, uint32_t phase);
void forget_joins();  // drops remembered results

}  // namespace heddle::sim
