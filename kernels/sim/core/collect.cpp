// Operations that threads perform together: warp and warpgroup collectives, named barriers, cluster and grid barriers.
#include <cstdio>
#include <string_view>

#include "kernels/api/check.h"
#include "kernels/sim/core/machine_internal.h"

namespace heddle::sim {

namespace {

bool same_text(const char* a, const char* b) {
  return a == b || std::string_view(a) == b;
}
inline bool same_line(const Site& a, const Site& b) {
  return a.line == b.line && same_text(a.what, b.what) && same_text(a.file, b.file);
}

std::string mask_text(uint32_t mask) {
  char text[16];
  std::snprintf(text, sizeof text, "0x%08x", mask);
  return text;
}

inline bool joins(const PendingCollective& pending, uint32_t mask, WarpOp op, const Site& site) {
  return pending.mask == mask && pending.op == op && same_line(pending.site, site);
}

void open(PendingCollective& pending, uint32_t mask, WarpOp op, const Site& site) {
  pending.mask = mask;
  pending.op = op;
  pending.site = site;
  if (mask != kFullMask) pending.args.fill(nullptr);
}

// The pending collective of exactly this mask, or a free one, when it is not the warp's usual one.
PendingCollective& find_pending(WarpState& warp, uint32_t mask, WarpOp op, const Site& site) {
  PendingCollective* free = warp.pending.arrived == 0 ? &warp.pending : nullptr;
  const auto look = [&](PendingCollective& pending) {
    if (pending.arrived == 0) {
      if (free == nullptr) free = &pending;
      return false;
    }
    if ((pending.mask & mask) == 0) return false;
    if (joins(pending, mask, op, site)) return true;
    fault("divergent warp",
          concat("lanes ", mask_text(pending.arrived), " of warp ", warp.id, " wait in ", site_text(pending.site), " for lanes ",
                 mask_text(pending.mask), ", this lane asks for ", mask_text(mask)),
          site);
  };
  if (look(warp.pending)) return warp.pending;
  for (PendingCollective& pending : warp.apart)
    if (look(pending)) return pending;
  if ((mask & ~warp.live) != 0)
    fault("divergent warp",
          concat("the mask ", mask_text(mask), " names lanes ", mask_text(mask & ~warp.live), " of warp ", warp.id, " that have returned"), site);
  if (free == nullptr) free = &warp.apart.emplace_back();
  open(*free, mask, op, site);
  return *free;
}

}  // namespace

void collect(uint32_t mask, WarpOp op, void* arg, const Site& site, Ordering ordering) {
  if (ordering == Ordering::memory && mutation_at(site, kMayDrop) == Mutation::drop) return;
  ThreadState& me = self();
  WarpState& warp = warp_state(me);
  const uint32_t bit = 1u << me.lane;
  me.site = site;
  mask &= warp.existing;
  if ((mask & bit) == 0) fault("bad mask", concat("lane ", me.lane, " is not in its own mask ", mask_text(mask)), site);
  const bool usual = warp.pending.arrived != 0 && joins(warp.pending, mask, op, site);
  PendingCollective& pending = usual ? warp.pending : find_pending(warp, mask, op, site);
  pending.args[me.lane] = arg;
  pending.arrived |= bit;
  if (pending.arrived != mask) return wait();
  if (op != nullptr) op(warp, pending.args.data(), mask);
  if (ordering == Ordering::memory && checker != nullptr) checker->sync_warp(warp, mask);
  pending.arrived = 0;
  if (mask != bit) make_ready(warp, mask & ~bit);
  progress_made();
}

void collect_warpgroup(WarpgroupOp op, void* arg, const Site& site) {
  ThreadState& me = self();
  BlockState& block = block_state(me);
  me.site = site;
  const uint32_t index = me.linear / kWarpgroupSize, place = me.linear % kWarpgroupSize;
  if ((index + 1) * kWarpgroupSize > block.thread_count)
    fault("incomplete warpgroup", concat("threads ", index * kWarpgroupSize, " and up of a block of ", block.thread_count, " are no 128"), site);
  Warpgroup& group = block.warpgroups[index];
  if (group.arrived == 0) {
    group.op = op;
    group.site = site;
    for (uint32_t w = 0; w < 4; ++w)
      if (block.warps[index * 4 + w].live != kFullMask)
        fault("divergent warpgroup", concat("threads of warp ", index * 4 + w, " have returned"), site);
  } else if (group.op != op || !same_line(group.site, site)) {
    fault("divergent warpgroup", concat(group.arrived, " threads of warpgroup ", index, " wait in ", site_text(group.site)), site);
  }
  group.args[place] = arg;
  if (++group.arrived < kWarpgroupSize) return wait();
  group.arrived = 0;
  if (op != nullptr) op(block.warps[index * 4], group.args.data());
  for (uint32_t w = 0; w < 4; ++w) {
    WarpState& warp = block.warps[index * 4 + w];
    make_ready(warp, &warp == &warp_state(me) ? kFullMask & ~(1u << me.lane) : kFullMask);
  }
  progress_made();
}

// ---- named barriers ----

namespace {

void check_barrier(const Barrier& barrier, uint32_t id, uint32_t count, const Site& site) {
  if (id >= kMaxNamedBarriers) fault("bad barrier", concat("id ", id, ", there are 0 to ", kMaxNamedBarriers - 1), site);
  if (count % kWarpSize != 0) fault("bad barrier", concat("count ", count, " is no multiple of 32"), site);
  if (!barrier.active) return;
  if (barrier.expected != count)
    fault("barrier misuse", concat("barrier ", id, " expects ", barrier.expected, " threads since ", site_text(barrier.site), ", here ", count),
          site);
  if (count == 0 && !same_line(barrier.site, site))
    fault("divergent barrier", concat(barrier.arrived, " threads of the block wait in ", site_text(barrier.site)), site);
}

void begin_phase(Barrier& barrier, uint32_t count, const Site& site) {
  barrier.active = true;
  barrier.expected = count;
  barrier.site = site;
}

// Lets the waiting threads go. `leaver` is the thread that completed the phase and goes on by itself, or null.
void complete_barrier(BlockState& block, Barrier& barrier, ThreadState* leaver) {
  if (checker != nullptr) {
    if (barrier.expected == 0)
      checker->sync_block(block);
    else
      checker->complete(barrier.clock);
  }
  for (WarpState& warp : block.warps) {
    uint32_t lanes = barrier.waiting_lanes[warp.id];
    if (checker != nullptr && barrier.expected != 0 && lanes != 0) checker->acquire_warp(barrier.clock, warp, lanes);
    if (leaver != nullptr && leaver->warp == &warp) lanes &= ~(1u << leaver->lane);
    if (lanes != 0) make_ready(warp, lanes);
    barrier.waiting_lanes[warp.id] = 0;
    barrier.arrived_lanes[warp.id] = 0;
  }
  barrier.arrived = 0;
  barrier.open_warps = 0;
  barrier.active = false;
  barrier.last_true_count = barrier.true_count;
  barrier.true_count = 0;
  progress_made();
}

// Lanes of a warp arrive at a barrier with a count; the warp counts once all of its live lanes are there.
bool warp_arrived(Barrier& barrier, WarpState& warp, uint32_t lanes) {
  barrier.arrived_lanes[warp.id] |= lanes;
  if (barrier.arrived_lanes[warp.id] != warp.live) {
    barrier.open_warps |= 1u << warp.id;
    return false;
  }
  barrier.open_warps &= ~(1u << warp.id);
  barrier.arrived_lanes[warp.id] = 0;
  barrier.arrived += kWarpSize;
  if (checker != nullptr) checker->release_warp(barrier.clock, warp);
  if (barrier.arrived > barrier.expected)
    fault("barrier misuse", concat(barrier.arrived, " threads arrive at a barrier for ", barrier.expected), barrier.site);
  return barrier.arrived == barrier.expected;
}

// True if the phase ended with this arrival.
bool arrive_and_maybe_complete(ThreadState& me, Barrier& barrier) {
  BlockState& block = block_state(me);
  WarpState& warp = warp_state(me);
  barrier.waiting_lanes[warp.id] |= 1u << me.lane;
  const bool complete = barrier.expected == 0 ? ++barrier.arrived == block.live : warp_arrived(barrier, warp, 1u << me.lane);
  if (complete) complete_barrier(block, barrier, &me);
  return complete;
}

struct NamedArrival {
  uint32_t id, count;
  Site site;
};

void warp_arrives(Warp& warp, void* const* args, uint32_t mask) {
  const auto& arrival = *static_cast<const NamedArrival*>(args[__builtin_ctz(mask)]);
  auto& block = *static_cast<BlockState*>(warp.block);
  Barrier& barrier = block.barriers[arrival.id];
  if (!barrier.active) begin_phase(barrier, arrival.count, arrival.site);
  if (warp_arrived(barrier, static_cast<WarpState&>(warp), mask)) complete_barrier(block, barrier, nullptr);
}

// A barrier of some warps may be left out, or expect one warp less.
Mutation mutate_barrier(uint32_t& count, const Site& site) {
  const Mutation mutation = mutation_at(site, count > kWarpSize ? kMayDrop | kMayWeaken : kMayDrop);
  if (mutation == Mutation::weaken) count -= kWarpSize;
  return mutation;
}

}  // namespace

void barrier_sync(uint32_t id, uint32_t count, const Site& site) {
  if (mutate_barrier(count, site) == Mutation::drop) return;
  ThreadState& me = self();
  me.site = site;
  Barrier& barrier = block_state(me).barriers[id % kMaxNamedBarriers];
  check_barrier(barrier, id, count, site);
  if (!barrier.active) begin_phase(barrier, count, site);
  if (!arrive_and_maybe_complete(me, barrier)) wait();
}

void barrier_arrive(uint32_t id, uint32_t count, const Site& site) {
  if (mutate_barrier(count, site) == Mutation::drop) return;
  ThreadState& me = self();
  me.site = site;
  check_barrier(block_state(me).barriers[id % kMaxNamedBarriers], id, count, site);
  if (count == 0) fault("bad barrier", "bar.arrive needs a thread count", site);
  NamedArrival arrival{id, count, site};
  collect(warp_state(me).live, warp_arrives, &arrival, site);
}

uint32_t barrier_count(bool predicate, const Site& site) {
  if (mutation_at(site, kMayDrop) == Mutation::drop) return predicate ? 1 : 0;
  ThreadState& me = self();
  me.site = site;
  Barrier& barrier = block_state(me).barriers[0];
  check_barrier(barrier, 0, 0, site);
  if (!barrier.active) begin_phase(barrier, 0, site);
  barrier.true_count += predicate ? 1 : 0;
  if (!arrive_and_maybe_complete(me, barrier)) wait();
  return barrier.last_true_count;
}

void barriers_on_exit(ThreadState& thread) {
  BlockState& block = block_state(thread);
  WarpState& warp = warp_state(thread);
  const auto check_pending = [&](const PendingCollective& pending) {
    if (pending.arrived != 0 && (pending.mask >> thread.lane & 1) != 0)
      fault("divergent warp", concat("lane ", thread.lane, " returned while lanes ", mask_text(pending.arrived), " of its warp wait for it"),
            pending.site);
  };
  check_pending(warp.pending);
  for (const PendingCollective& pending : warp.apart) check_pending(pending);
  for (const Warpgroup& group : block.warpgroups)
    if (group.arrived != 0 && &group == &block.warpgroups[thread.linear / kWarpgroupSize])
      fault("divergent warpgroup", concat("thread ", thread.linear, " returned while ", group.arrived, " threads of its warpgroup wait for it"),
            group.site);
  Barrier& whole = block.barriers[0];
  if (whole.active && whole.expected == 0 && whole.arrived == block.live && block.live != 0) complete_barrier(block, whole, nullptr);
  for (Barrier& barrier : block.barriers)
    if (barrier.active && barrier.expected != 0 && (barrier.open_warps >> warp.id & 1) != 0 && barrier.arrived_lanes[warp.id] == warp.live &&
        warp_arrived(barrier, warp, 0))
      complete_barrier(block, barrier, nullptr);
  for (ClusterBarrier* barrier : {&cluster_of(block), &block.group->grid}) {
    if (thread.cluster_arrived && barrier == &cluster_of(block) && thread.cluster_phase == barrier->phase) --barrier->arrived;
    --barrier->live;
    complete_if_all(*barrier);
  }
}

// ---- cluster and grid ----

void complete_if_all(ClusterBarrier& barrier) {
  if (barrier.arrived != barrier.live || barrier.live == 0) return;
  if (checker != nullptr) checker->complete(barrier.clock);
  ++barrier.phase;
  barrier.arrived = 0;
  for (ThreadState* waiter : barrier.waiters) make_ready(*waiter);
  barrier.waiters.clear();
  progress_made();
}

void cluster_arrive(bool release, const Site& site) {
  const Mutation mutation = mutation_at(site, release ? kMayDrop | kMayWeaken : kMayDrop);
  if (mutation == Mutation::drop) return;
  ThreadState& me = self();
  ClusterBarrier& barrier = cluster_of(block_state(me));
  me.site = site;
  if (me.cluster_arrived) fault("cluster barrier", "arrives twice without a wait between", site);
  me.cluster_arrived = true;
  me.cluster_phase = barrier.phase;
  if (checker != nullptr) {
    if (release && mutation != Mutation::weaken)
      checker->release(barrier.clock, me);
    else
      checker->release_fenced(barrier.clock, me);
  }
  ++barrier.arrived;
  complete_if_all(barrier);
}

void cluster_wait(const Site& site) {
  ThreadState& me = self();
  ClusterBarrier& barrier = cluster_of(block_state(me));
  me.site = site;
  if (mutation_at(site, kMayDrop) == Mutation::drop) {
    me.cluster_arrived = false;
    return;
  }
  if (!me.cluster_arrived && !mutating) fault("cluster barrier", "waits without having arrived", site);
  me.cluster_arrived = false;
  if (barrier.phase == me.cluster_phase) {
    barrier.waiters.push_back(&me);
    wait();
  }
  if (checker != nullptr) checker->acquire(barrier.clock, me);
}

void grid_sync(const Site& site) {
  if (mutation_at(site, kMayDrop) == Mutation::drop) return;
  ThreadState& me = self();
  Group& group = *block_state(me).group;
  me.site = site;
  if (!group.launch->cooperative) fault("grid barrier", "the launch is not cooperative", site);
  ClusterBarrier& barrier = group.grid;
  if (checker != nullptr) checker->release(barrier.clock, me);
  const uint64_t phase = barrier.phase;
  ++barrier.arrived;
  complete_if_all(barrier);
  if (barrier.phase == phase) {
    barrier.waiters.push_back(&me);
    wait();
  }
  if (checker != nullptr) checker->acquire(barrier.clock, me);
}

}  // namespace heddle::sim
