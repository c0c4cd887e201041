// Order: what each thread knows of the others, and how the machine's events pass it on. See check_clock.h for clocks and stamps.
#include "kernels/sim/check/check.h"

#include <algorithm>

#include "kernels/api/check.h"
#include "kernels/sim/check/check_internal.h"

namespace heddle::sim {

bool checking = true;

Checker* const checker = [] {
  static RaceChecker instance;
  return &instance;
}();

void RaceChecker::launch_begin(const Launch& launch) {
  // Times and ops are never reused within a process; 2^31 of them would be a very long test.
  HEDDLE_CHECK(now_ < kAtomic && first_op_ + ops_.size() < kAtomic, "sim",
               "the check flavour has run out of time stamps: run the tests in several processes");
  first_op_ += static_cast<uint32_t>(ops_.size());
  ops_.clear();
  groups_.clear();
  atomics_.clear();
  launch_start_ = tick();
  (void)launch;
}

void RaceChecker::launch_end() {
  groups_.clear();
  atomics_.clear();
}

void RaceChecker::group_begin(Group& group) {
  group_ = &group;
  BlockState& first = *group.blocks[0];
  shape_ = {group.block_count, first.warp_count};
  GroupRun run{static_cast<uint32_t>(groups_.size()) + 1, tick(), first_op_ + static_cast<uint32_t>(ops_.size()), {}};
  threads_.assign(size_t{group.block_count} * kMaxThreadsPerBlock, {});
  const ClockRef nothing = empty_clock(run.number, shape_);
  shared_.resize(std::max<size_t>(shared_.size(), group.block_count));
  shared_pool_.clear();
  for (uint32_t slot = 0; slot < group.block_count; ++slot) {
    BlockState& block = *group.blocks[slot];
    run.blocks.push_back(block.index);
    for (const ThreadState& thread : block.threads) {
      ThreadClock& clock = clock_of(thread);
      clock.known = clock.async_known = nothing;
      clock.stamp = now_;
    }
    shared_[slot].cells.clear();
  }
  groups_.push_back(std::move(run));
  syncs_.clear();
  issues_.assign(size_t{group.block_count} * (kMaxThreadsPerBlock / kWarpgroupSize), {});
  fences_used_ = false;
}

void RaceChecker::group_end(Group& group) {
  for (uint32_t slot = 0; slot < group.block_count; ++slot)
    for (const WarpState& warp : group.blocks[slot]->warps) count_flush(warp);
  threads_.clear();
  syncs_.clear();
  issues_.clear();
  forget_joins();
  group_ = nullptr;
}

// ---- knowledge ----

void RaceChecker::acquire_clock(ThreadClock& mine, const ClockRef& clock, const ClockRef& async_clock) {
  mine.known = join(mine.known, clock);
  mine.async_known = join(mine.async_known, async_clock);
}

uint32_t RaceChecker::new_stamp(ThreadClock& clock) {
  return clock.stamp = clock.stamp == now_ ? tick() : now_;
}

ClockRef RaceChecker::published(ThreadState& thread) {
  ThreadClock& mine = clock_of(thread);
  new_stamp(mine);
  return with_thread(mine.known, thread.id, mine.stamp);
}

RaceChecker::SyncState& RaceChecker::sync_state(SyncClock& sync) {
  if (sync.id == 0) {
    syncs_.emplace_back();
    sync.id = static_cast<uint32_t>(syncs_.size());
  }
  return syncs_[sync.id - 1];
}

void RaceChecker::sync_warp(WarpState& warp, uint32_t mask) {
  count_flush(warp);
  ClockRef known, async_known;
  for (uint32_t rest = mask; rest != 0; rest &= rest - 1) {
    const ThreadClock& lane = clock_of(warp.lanes[__builtin_ctz(rest)]);
    add(known, lane.known);
    add(async_known, lane.async_known);
  }
  const uint32_t time = tick();
  if (mask == warp.live) {
    known = with_warp(std::move(known), warp.lanes[0].id, time);
  } else {
    for (uint32_t rest = mask; rest != 0; rest &= rest - 1) known = with_thread(std::move(known), warp.lanes[__builtin_ctz(rest)].id, time);
  }
  for (uint32_t rest = mask; rest != 0; rest &= rest - 1) {
    ThreadClock& lane = clock_of(warp.lanes[__builtin_ctz(rest)]);
    lane.known = known;
    lane.async_known = async_known;
    lane.stamp = time;
  }
}

void RaceChecker::sync_block(BlockState& block) {
  ClockRef known, async_known, fenced;
  std::array<Seen, 3> pending;
  for (const ThreadState& thread : block.threads) {
    const ThreadClock& clock = clock_of(thread);
    add(known, clock.known);
    add(async_known, clock.async_known);
    if (!fences_used_) continue;
    add(fenced, clock.fenced);
    for (size_t s = 0; s < pending.size(); ++s) {
      add(pending[s].known, clock.pending[s].known);
      add(pending[s].async_known, clock.pending[s].async_known);
    }
  }
  const uint32_t time = tick();
  known = with_block(std::move(known), block.slot, time);
  for (const ThreadState& thread : block.threads) {
    ThreadClock& clock = clock_of(thread);
    clock.known = known;
    clock.async_known = async_known;
    // "Every thread stores and fences, the block meets, one thread raises the flag" is taken for ordered, as hardware does it; so is "one thread
    // sees the flag, the block meets, every thread fences and loads".
    if (fences_used_) {
      clock.fenced = fenced;
      clock.pending = pending;
    }
    clock.stamp = time;
  }
  for (const WarpState& warp : block.warps) count_flush(warp);
}

void RaceChecker::release(SyncClock& sync, ThreadState& thread) {
  SyncState& state = sync_state(sync);
  ThreadClock& mine = clock_of(thread);
  add(state.gathered, mine.known);
  add_thread(state.gathered, thread.id, new_stamp(mine));
  add(state.async_gathered, mine.async_known);
}

void RaceChecker::release_fenced(SyncClock& sync, ThreadState& thread) {
  SyncState& state = sync_state(sync);
  add(state.gathered, clock_of(thread).fenced);
}

void RaceChecker::release_async_ops(SyncClock& sync, ThreadState& thread) {
  SyncState& state = sync_state(sync);
  add(state.gathered, async_ops_of(clock_of(thread).known));
}

void RaceChecker::release_warp(SyncClock& sync, WarpState& warp) {
  count_flush(warp);
  SyncState& state = sync_state(sync);
  ClockRef known, async_known;
  const uint32_t time = tick();
  for (uint32_t rest = warp.live; rest != 0; rest &= rest - 1) {
    ThreadClock& lane = clock_of(warp.lanes[__builtin_ctz(rest)]);
    add(known, lane.known);
    add(async_known, lane.async_known);
    lane.stamp = time;
  }
  if (!known) return;
  add(state.gathered, with_warp(std::move(known), warp.lanes[0].id, time));
  add(state.async_gathered, async_known);
}

void RaceChecker::complete(SyncClock& sync) {
  SyncState& state = sync_state(sync);
  ++state.phase;
  if (!state.gathered) state.gathered = empty_clock(groups_.back().number, shape_);
  state.gathered = with_phase(std::move(state.gathered), sync.id, state.phase);
  state.done = state.gathered;
  state.async_done = state.async_gathered;
}

void RaceChecker::acquire(SyncClock& sync, ThreadState& thread) {
  const SyncState& state = sync_state(sync);
  acquire_clock(clock_of(thread), state.done, state.async_done);
}

void RaceChecker::acquire_warp(SyncClock& sync, WarpState& warp, uint32_t lanes) {
  const SyncState& state = sync_state(sync);
  for (; lanes != 0; lanes &= lanes - 1) acquire_clock(clock_of(warp.lanes[__builtin_ctz(lanes)]), state.done, state.async_done);
}

// ---- fences and atomics (C++ memory model's fence rules, PTX ISA "Memory Consistency Model: release and acquire patterns") ----

void RaceChecker::fence(ThreadState& thread, Order order, Scope scope) {
  ThreadClock& mine = clock_of(thread);
  if (order == Order::acquire || order == Order::acq_rel) {
    for (size_t s = 0; s < mine.pending.size() && s <= static_cast<size_t>(scope); ++s)
      acquire_clock(mine, mine.pending[s].known, mine.pending[s].async_known);
  }
  if (order == Order::release || order == Order::acq_rel) {
    fences_used_ = true;
    mine.fenced = published(thread);
    mine.fence_scope = scope;
  }
}

void RaceChecker::proxy_fence(ThreadState& thread) {
  const ClockRef all = published(thread);
  ThreadClock& mine = clock_of(thread);
  mine.async_known = join(mine.async_known, all);
}

void RaceChecker::atomic(ThreadState& thread, const void* pointer, size_t bytes, AtomicKind kind, Order order, Scope scope, const Site& site) {
  atomic_access(thread, pointer, bytes, kind, place_of(site));
  ThreadClock& mine = clock_of(thread);
  AtomicState& state = atomics_[pointer];
  const bool same_group = state.block != nullptr && state.group == groups_.back().number;
  const auto cluster = [](const Block* block) { return static_cast<const BlockState*>(block)->slot / block->cluster_size; };
  const Scope needed = !same_group                                     ? Scope::device
                       : state.block == thread.block                   ? Scope::block
                       : cluster(state.block) == cluster(thread.block) ? Scope::cluster
                                                                       : Scope::device;
  if (kind != AtomicKind::store && state.clock && state.scope >= needed) {
    const bool acquires = order == Order::acquire || order == Order::acq_rel;
    if (acquires && scope >= needed)
      acquire_clock(mine, state.clock, state.async_clock);
    else if (!acquires) {
      Seen& seen = mine.pending[static_cast<size_t>(needed)];
      const ClockRef nothing = empty_clock(groups_.back().number, shape_);
      seen.known = join(seen.known ? seen.known : nothing, state.clock);
      seen.async_known = join(seen.async_known ? seen.async_known : nothing, state.async_clock);
    }
  }
  if (kind == AtomicKind::load) return;
  const bool releases = order == Order::release || order == Order::acq_rel;
  const ClockRef mine_published = releases ? published(thread) : mine.fenced;
  const Scope published_scope = releases ? scope : mine.fence_scope;
  if (kind == AtomicKind::store) state = AtomicState{};  // an update keeps what earlier releases published, a store begins anew
  if (!mine_published) return;
  state.scope = state.clock ? std::min(state.scope, published_scope) : published_scope;
  state.clock = state.clock ? join(state.clock, mine_published) : mine_published;
  state.async_clock = state.async_clock ? join(state.async_clock, mine.async_known) : mine.async_known;
  state.block = thread.block;
  state.group = groups_.back().number;
}

// ---- async ops ----

uint32_t RaceChecker::begin_op() {
  ops_.push_back({OpState::Stage::pending, 0, 0, groups_.back().number, false});
  return first_op_ + static_cast<uint32_t>(ops_.size()) - 1;
}

void RaceChecker::issue(Agent& agent, ThreadState& issuer) {
  ThreadClock& mine = clock_of(issuer);
  agent.clock = mine.known;
  agent.async_clock = mine.async_known;
  agent.issued_at = new_stamp(mine);
}

// What all four warps know, each counting what any of its lanes knows: the instruction reads for all of them.
void RaceChecker::issue_warpgroup(Agent& agent, WarpState& first) {
  const uint32_t time = tick();
  auto& block = *static_cast<BlockState*>(first.block);
  std::array<ClockRef, 4> known, async_known;
  for (uint32_t w = 0; w < 4; ++w) {
    for (ThreadState *lane = block.warps[first.id + w].lanes, *end = lane + kWarpSize; lane != end; ++lane) {
      ThreadClock& clock = clock_of(*lane);
      add(known[w], clock.known);
      add(async_known[w], clock.async_known);
      clock.stamp = time;
    }
  }
  WarpgroupIssue& last = issues_[block.slot * (kMaxThreadsPerBlock / kWarpgroupSize) + first.id / 4];
  if (!last.all || last.known != known || last.async_known != async_known) {
    // A warp's own time is news to the others, so it makes no difference to what all of them know.
    last = {known, async_known, {}, {}};
    for (uint32_t w = 0; w < 4; ++w) {
      const ClockRef mine = with_warp(known[w], block.warps[first.id + w].lanes[0].id, time);
      last.all = w == 0 ? mine : meet(last.all, mine);
      last.async_all = w == 0 ? async_known[w] : meet(last.async_all, async_known[w]);
    }
  }
  agent.clock = last.all;
  agent.async_clock = last.async_all;
  agent.issued_at = 0;  // no thread's own accesses count: the other warps must know of them
}

void RaceChecker::adopt_op(uint32_t op, ThreadState& thread) {
  OpState& state = op_state(op);
  if (state.stage != OpState::Stage::pending) return;
  state.stage = OpState::Stage::adopted;
  state.who = thread.id;
  state.when = clock_of(thread).stamp;
}

void RaceChecker::attach_op(uint32_t op, SyncClock& sync) {
  OpState& state = op_state(op);
  const uint32_t phase = sync_state(sync).phase + 1;
  state.stage = OpState::Stage::attached;
  state.who = sync.id;
  state.when = phase;
}

}  // namespace heddle::sim
