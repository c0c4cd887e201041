#include "kernels/sim/check_clock.h"

#include <algorithm>
#include <array>

#include "kernels/sim/machine.h"

namespace heddle::sim {

void retain(Clock* clock) {
  ++clock->refs;
}
void release(Clock* clock) {
  if (--clock->refs == 0) delete clock;
}

namespace {

constexpr uint32_t kThreads = kMaxThreadsPerBlock;

uint32_t lookup(const std::vector<Clock::Entry>& sorted, uint32_t key) {
  const auto at = std::lower_bound(sorted.begin(), sorted.end(), Clock::Entry{key, 0});
  return at != sorted.end() && at->first == key ? at->second : 0;
}

void raise(std::vector<Clock::Entry>& sorted, uint32_t key, uint32_t value) {
  const auto at = std::lower_bound(sorted.begin(), sorted.end(), Clock::Entry{key, 0});
  if (at != sorted.end() && at->first == key)
    at->second = std::max(at->second, value);
  else
    sorted.insert(at, {key, value});
}

std::vector<Clock::Entry> merged(const std::vector<Clock::Entry>& a, const std::vector<Clock::Entry>& b) {
  std::vector<Clock::Entry> result;
  result.reserve(a.size() + b.size());
  auto i = a.begin(), j = b.begin();
  while (i != a.end() || j != b.end()) {
    if (j == b.end() || (i != a.end() && i->first < j->first)) {
      result.push_back(*i++);
    } else if (i == a.end() || j->first < i->first) {
      result.push_back(*j++);
    } else {
      result.emplace_back(i->first, std::max(i->second, j->second));
      ++i, ++j;
    }
  }
  return result;
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

void fold_warps(Clock& clock) {
  if (clock.lanes.size() < kWarpSize) return;
  for (uint32_t block = 0; block < clock.shape.blocks; ++block)
    for (uint32_t w = 0; w < clock.shape.warps; ++w) fold_warp(clock, block * kThreads + w * kWarpSize);
}

Clock* copy_of(const ClockRef& clock) {
  auto* copy = new Clock(*clock.get());
  copy->refs = 1;
  return copy;
}

bool same(const Clock& a, const Clock& b) {
  return a.group == b.group && a.floors == b.floors && a.lanes == b.lanes && a.phases == b.phases && a.others == b.others;
}

void know_other(Clock& clock, const ClockRef& other) {
  const auto at =
      std::lower_bound(clock.others.begin(), clock.others.end(), other->group, [](const ClockRef& o, uint32_t group) { return o->group < group; });
  if (at != clock.others.end() && (*at)->group == other->group)
    *at = join(*at, other);
  else
    clock.others.insert(at, other);
}

// The part of a clock about its own group.
ClockRef own_part(const ClockRef& clock) {
  if (clock->others.empty()) return clock;
  Clock* own = copy_of(clock);
  own->others.clear();
  return ClockRef(own);
}

ClockRef join_now(const ClockRef& a, const ClockRef& b) {
  Clock* sum = copy_of(a);
  ClockRef result(sum);
  if (a->group == b->group) {
    for (size_t i = 0; i < sum->floors.size(); ++i) sum->floors[i] = std::max(sum->floors[i], b->floors[i]);
    sum->lanes = merged(a->lanes, b->lanes);
    drop_covered(*sum);
    fold_warps(*sum);
    sum->phases = merged(a->phases, b->phases);
  } else {
    know_other(*sum, own_part(b));
  }
  for (const ClockRef& other : b->others)
    if (other->group != sum->group) know_other(*sum, other);
  if (same(*sum, *a.get())) return a;
  if (same(*sum, *b.get())) return b;
  return result;
}

// Threads of a warp join the same two clocks one after the other: remember the last results.
struct Remembered {
  ClockRef a, b, sum;
};
std::array<Remembered, 64> remembered;

}  // namespace

uint32_t Clock::floor_of_warp(uint32_t thread) const {
  return std::max(floors[block_floor(*this, thread / kThreads)], floors[warp_floor(*this, thread)]);
}

uint32_t Clock::time_of(uint32_t thread) const {
  return std::max(floor_of_warp(thread), lanes.empty() ? 0 : lookup(lanes, thread));
}

uint32_t Clock::phase_of(uint32_t sync) const {
  return lookup(phases, sync);
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

ClockRef join(const ClockRef& a, const ClockRef& b) {
  if (a == b || !b) return a;
  if (!a) return b;
  const size_t hash = (reinterpret_cast<uintptr_t>(a.get()) / 32 * 31 + reinterpret_cast<uintptr_t>(b.get()) / 32) % remembered.size();
  Remembered& slot = remembered[hash];
  if (slot.a == a && slot.b == b) return slot.sum;
  ClockRef sum = join_now(a, b);
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

ClockRef with_thread(const ClockRef& clock, uint32_t thread, uint32_t time) {
  Clock* result = copy_of(clock);
  raise(result->lanes, thread, time);
  fold_warp(*result, thread);
  return ClockRef(result);
}

ClockRef with_warp(const ClockRef& clock, uint32_t thread, uint32_t time) {
  Clock* result = copy_of(clock);
  result->floors[warp_floor(*result, thread)] = time;
  drop_covered(*result);
  return ClockRef(result);
}

ClockRef with_block(const ClockRef& clock, uint32_t block, uint32_t time) {
  Clock* result = copy_of(clock);
  const size_t first = block_floor(*result, block);
  std::fill_n(result->floors.begin() + static_cast<std::ptrdiff_t>(first), result->shape.warps + 1, 0);
  result->floors[first] = time;
  drop_covered(*result);
  return ClockRef(result);
}

ClockRef with_phase(const ClockRef& clock, uint32_t sync, uint32_t phase) {
  Clock* result = copy_of(clock);
  raise(result->phases, sync, phase);
  return ClockRef(result);
}

void forget_joins() {
  remembered.fill({});
}

}  // namespace heddle::sim
