#include "kernels/sim/check/clock.h"

#include <algorithm>
#include <array>

namespace heddle::sim {

void retain(Clock* clock) {
  ++clock->refs;
}
void release(Clock* clock) {
  if (--clock->refs == 0) delete clock;
}

namespace {

constexpr uint32_t kThreads = kMaxThreadsPerBlock;

void raise(std::vector<Clock::Entry>& sorted, uint32_t key, uint32_t value) {
  const auto at = std::lower_bound(sorted.begin(), sorted.end(), Clock::Entry{key, 0});
  if (at != sorted.end() && at->first == key)
    at->second = std::max(at->second, value);
  else
    sorted.insert(at, {key, value});
}

size_t block_floor(const Clock& clock, uint32_t block) {
  return block * (clock.shape.warps + size_t{1});
}
size_t warp_floor(const Clock& clock, uint32_t thread) {
  return block_floor(clock, thread / kThreads) + 1 + thread % kThreads / kWarpSize;
}

// Threads at or below their floors need no entry.
void drop_covered(Clock& clock) {
  const auto covered = [&](const Clock::Entry& lane) { return lane.second <= clock.floor_of_warp(lane.first); };
  clock.lanes.erase(std::remove_if(clock.lanes.begin(), clock.lanes.end(), covered), clock.lanes.end());
}

// Where all 32 lanes of a warp stand as single threads, their earliest time becomes the warp's floor: threads that release one by one, as at a
// cluster barrier, leave clocks as small as those of a block barrier.
void fold_warp(Clock& clock, uint32_t thread) {
  auto& lanes = clock.lanes;
  const uint32_t first = thread - thread % kWarpSize;
  const auto begin = std::lower_bound(lanes.begin(), lanes.end(), Clock::Entry{first, 0});
  if (lanes.end() - begin < static_cast<std::ptrdiff_t>(kWarpSize) || (begin + kWarpSize - 1)->first != first + kWarpSize - 1) return;
  const auto end = begin + kWarpSize;
  const uint32_t earliest = std::min_element(begin, end, [](const Clock::Entry& a, const Clock::Entry& b) { return a.second < b.second; })->second;
  uint32_t& floor = clock.floors[warp_floor(clock, first)];
  floor = std::max(floor, earliest);
  lanes.erase(std::remove_if(begin, end, [&](const Clock::Entry& lane) { return lane.second <= earliest; }), end);
}

// Both sorted, and mostly of the same threads: one walk.
void raise_lanes(Clock& clock, const std::vector<Clock::Entry>& more) {
  auto at = clock.lanes.begin();
  uint32_t unfolded = ~0u;  // a thread of a warp that has got new entries
  for (const auto& [thread, time] : more) {
    if (unfolded != ~0u && unfolded / kWarpSize != thread / kWarpSize) {
      fold_warp(clock, unfolded);
      unfolded = ~0u;
      at = clock.lanes.begin();
    }
    while (at != clock.lanes.end() && at->first < thread) ++at;
    if (at != clock.lanes.end() && at->first == thread) {
      at->second = std::max(at->second, time);
    } else if (time > clock.floor_of_warp(thread)) {
      at = clock.lanes.insert(at, {thread, time});
      unfolded = thread;
    }
  }
  if (unfolded != ~0u) fold_warp(clock, unfolded);
}

// Adds what `more` knows of the same group.
void raise_all(Clock& clock, const Clock& more) {
  bool raised = false;
  for (size_t i = 0; i < clock.floors.size(); ++i) {
    raised |= clock.floors[i] < more.floors[i];
    clock.floors[i] = std::max(clock.floors[i], more.floors[i]);
  }
  if (raised) drop_covered(clock);
  raise_lanes(clock, more.lanes);
  for (const auto& [sync, phase] : more.phases) raise(clock.phases, sync, phase);
}

Clock* copy_of(const ClockRef& clock) {
  auto* copy = new Clock(*clock.get());
  copy->refs = 1;
  return copy;
}

// The clock to change: this one if nobody else refers to it, so that shared clocks never change.
Clock& writable(ClockRef& clock) {
  if (clock->refs > 1) clock = ClockRef(copy_of(clock));
  return const_cast<Clock&>(*clock.get());
}

// Whether a knows all that b knows.
bool covers(const Clock& a, const Clock& b) {
  if (a.group != b.group) return false;
  for (size_t i = 0; i < a.floors.size(); ++i)
    if (a.floors[i] < b.floors[i]) return false;
  auto lane = a.lanes.begin();
  for (const auto& [thread, time] : b.lanes) {
    while (lane != a.lanes.end() && lane->first < thread) ++lane;
    const bool above_floor = lane != a.lanes.end() && lane->first == thread && lane->second >= time;
    if (!above_floor && a.floor_of_warp(thread) < time) return false;
  }
  auto known = a.phases.begin();
  for (const auto& [sync, phase] : b.phases) {
    while (known != a.phases.end() && known->first < sync) ++known;
    if (known == a.phases.end() || known->first != sync || known->second < phase) return false;
  }
  for (const ClockRef& other : b.others) {
    const Clock* mine = a.of_group(other->group);
    if (mine == nullptr || (mine != other.get() && !covers(*mine, *other.get()))) return false;
  }
  return true;
}

void know_other(Clock& clock, const ClockRef& other) {
  const auto at =
      std::lower_bound(clock.others.begin(), clock.others.end(), other->group, [](const ClockRef& o, uint32_t group) { return o->group < group; });
  if (at != clock.others.end() && (*at)->group == other->group)
    add(*at, other);
  else
    clock.others.insert(at, other);
}

}  // namespace

ClockRef async_ops_of(const ClockRef& clock) {
  ClockRef ops = empty_clock(clock->group, clock->shape);
  writable(ops).phases = clock->phases;
  return ops;
}

namespace {

// The part of a clock about its own group.
ClockRef own_part(const ClockRef& clock) {
  if (clock->others.empty()) return clock;
  Clock* own = copy_of(clock);
  own->others.clear();
  return ClockRef(own);
}

// Threads of a warp join the same two clocks one after the other: remember the last results.
struct Remembered {
  ClockRef a, b, sum;
};
std::array<Remembered, 64> remembered;

}  // namespace

uint32_t Clock::lookup(const std::vector<Entry>& sorted, uint32_t key) {
  const auto at = std::lower_bound(sorted.begin(), sorted.end(), Entry{key, 0});
  return at != sorted.end() && at->first == key ? at->second : 0;
}

const Clock* Clock::of_group(uint32_t number) const {
  if (number == group) return this;
  for (const ClockRef& other : others)
    if (other->group == number) return other.get();
  return nullptr;
}

ClockRef empty_clock(uint32_t group, ClockShape shape) {
  auto* clock = new Clock;
  clock->group = group;
  clock->shape = shape;
  clock->floors.assign(shape.blocks * (shape.warps + size_t{1}), 0);
  return ClockRef(clock);
}

void add(ClockRef& clock, const ClockRef& more) {
  if (!more || clock == more) return;
  if (!clock) {
    clock = more;
    return;
  }
  if (clock->refs > 1) {
    if (covers(*clock.get(), *more.get())) return;
    if (covers(*more.get(), *clock.get())) {
      clock = more;
      return;
    }
  }
  Clock& sum = writable(clock);
  if (more->group == sum.group)
    raise_all(sum, *more.get());
  else
    know_other(sum, own_part(more));
  for (const ClockRef& other : more->others) {
    if (other->group == sum.group)
      raise_all(sum, *other.get());
    else
      know_other(sum, other);
  }
}

ClockRef join(const ClockRef& a, const ClockRef& b) {
  if (a == b || !b) return a;
  if (!a) return b;
  const size_t hash = (reinterpret_cast<uintptr_t>(a.get()) / 32 * 31 + reinterpret_cast<uintptr_t>(b.get()) / 32) % remembered.size();
  Remembered& slot = remembered[hash];
  if (slot.a == a && slot.b == b) return slot.sum;
  ClockRef sum = a;
  add(sum, b);
  slot = {a, b, sum};
  return sum;
}

ClockRef meet(const ClockRef& a, const ClockRef& b) {
  if (a == b) return a;
  Clock* both = copy_of(a);
  ClockRef result(both);
  both->lanes.clear();
  both->others.clear();
  for (size_t i = 0; i < both->floors.size(); ++i) both->floors[i] = std::min(a->floors[i], b->floors[i]);
  for (const auto* lanes : {&a->lanes, &b->lanes})
    for (const auto& [thread, time] : *lanes) raise(both->lanes, thread, std::min(a->time_of(thread), b->time_of(thread)));
  // A warp floor on one side against a block floor on the other: what both know of each warp.
  for (uint32_t block = 0; block < a->shape.blocks; ++block)
    for (uint32_t w = 0; w < a->shape.warps; ++w) {
      const uint32_t thread = block * kThreads + w * kWarpSize;
      uint32_t& floor = both->floors[warp_floor(*both, thread)];
      floor = std::max(floor, std::min(a->floor_of_warp(thread), b->floor_of_warp(thread)));
    }
  drop_covered(*both);
  for (auto& [sync, phase] : both->phases) phase = std::min(phase, b->phase_of(sync));
  return result;
}

void add_thread(ClockRef& clock, uint32_t thread, uint32_t time) {
  Clock& changed = writable(clock);
  raise(changed.lanes, thread, time);
  fold_warp(changed, thread);
}

ClockRef with_thread(ClockRef clock, uint32_t thread, uint32_t time) {
  add_thread(clock, thread, time);
  return clock;
}

ClockRef with_warp(ClockRef clock, uint32_t thread, uint32_t time) {
  Clock& changed = writable(clock);
  changed.floors[warp_floor(changed, thread)] = time;
  drop_covered(changed);
  return clock;
}

ClockRef with_block(ClockRef clock, uint32_t block, uint32_t time) {
  Clock& changed = writable(clock);
  const size_t first = block_floor(changed, block);
  std::fill_n(changed.floors.begin() + static_cast<std::ptrdiff_t>(first), changed.shape.warps + 1, 0);
  changed.floors[first] = time;
  drop_covered(changed);
  return clock;
}

ClockRef with_phase(ClockRef clock, uint32_t sync, uint32_t phase) {
  raise(writable(clock).phases, sync, phase);
  return clock;
}

void forget_joins() {
  remembered.fill({});
}

}  // namespace heddle::sim
