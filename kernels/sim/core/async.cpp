// Operations that complete later than they are issued. What an op may do early and what it may do late is the program's risk on hardware, so the
// machine takes both sides: eager ops are done at once, lazy ones when the program has no way left to go on without them, random ones anywhere
// between.
#include <algorithm>
#include <cstring>
#include <utility>

#include "kernels/api/check.h"
#include "kernels/sim/core/machine_internal.h"

namespace heddle::sim {

namespace {

// While an op runs, faults are its issuer's.
class Running {
 public:
  explicit Running(AsyncOp& op) : before_(current_worker->running_op) { current_worker->running_op = &op; }
  ~Running() { current_worker->running_op = before_; }
  Running(const Running&) = delete;
  Running& operator=(const Running&) = delete;

 private:
  AsyncOp* before_;
};

void read_sources(AsyncOp& op) {
  if (op.stage != AsyncOp::Stage::issued) return;
  op.stage = AsyncOp::Stage::sources_read;
  Running running(op);
  if (op.read) op.read(op.reader);
}

void finish(AsyncOp& op) {
  if (op.stage == AsyncOp::Stage::done) return;
  read_sources(op);
  op.stage = AsyncOp::Stage::done;
  Running running(op);
  if (op.write) op.write(op.writer);
  if (op.mbarrier != 0) complete_tx(op);
}

AsyncOpRef new_op(ThreadState& issuer, const Site& site) {
  auto op = std::make_shared<AsyncOp>();
  op->home = &block_state(issuer);
  op->reader = op->writer = Agent{&issuer, site, 0, 0, {}, {}, false};
  return op;
}

// Whether an op is done at once. Lazy mode and, half of the time, random mode put it off.
bool done_at_once() {
  const Worker& worker = *current_worker;
  return !worker.defer || (worker.shuffle_order && current_worker->random.one_in(2));
}

void drop_done(Group& group) {
  auto& async = group.async;
  async.erase(std::remove_if(async.begin(), async.end(), [](const AsyncOpRef& op) { return op->stage == AsyncOp::Stage::done; }), async.end());
}

// Groups before the newest `left` ones: how many.
size_t due(size_t groups, uint32_t left) {
  return groups > left ? groups - left : 0;
}

}  // namespace

bool run_one_async(Group& group) {
  drop_done(group);
  if (group.async.empty()) return false;
  Worker& worker = *current_worker;
  const size_t i = worker.shuffle_order ? worker.random.below(static_cast<uint32_t>(group.async.size())) : 0;
  AsyncOpRef op = group.async[i];
  if (op->in_order != nullptr) {  // its owner's oldest one instead
    const auto oldest =
        std::find_if(group.async.begin(), group.async.end(), [&](const AsyncOpRef& other) { return other->in_order == op->in_order; });
    op = *oldest;
  }
  if (worker.shuffle_order && op->read && op->stage == AsyncOp::Stage::issued && worker.random.one_in(2))
    read_sources(*op);
  else
    finish(*op);
  progress_made();
  return true;
}

void finish_async(Group& group) {
  for (size_t i = 0; i < group.async.size(); ++i) {
    const AsyncOpRef op = group.async[i];
    finish(*op);
  }
  group.async.clear();
}

// ---- cp.async ----

namespace {

inline void copy_bytes(void* to, const void* from, uint32_t bytes, uint32_t source_bytes) {
  if (source_bytes == 16) {
    std::memcpy(to, from, 16);
  } else {
    std::memcpy(to, from, source_bytes);
    std::memset(static_cast<std::byte*>(to) + source_bytes, 0, bytes - source_bytes);
  }
}

void carry_out(Copy& copy) {
  note_read(copy.agent, copy.from, copy.source_bytes);
  note_write(copy.agent, copy.to, copy.bytes);
  copy_bytes(copy.to, copy.from, copy.bytes, copy.source_bytes);
}

}  // namespace

void run_copies(ThreadState& thread, size_t count) {
  CopyQueue& queue = thread.copies;
  for (size_t i = 0; i < count; ++i) carry_out(queue.pending[i]);
  queue.pending.erase(queue.pending.begin(), queue.pending.begin() + static_cast<std::ptrdiff_t>(count));
  for (size_t& end : queue.group_ends) end -= std::min(end, count);
}

void copy_async(void* shared, const void* global, uint32_t bytes, uint32_t source_bytes, const Site& site) {
  if (bytes != 4 && bytes != 8 && bytes != 16) fault("cp.async", concat("copies 4, 8 or 16 bytes, not ", bytes), site);
  if (source_bytes > bytes) fault("cp.async", concat("source size ", source_bytes, " of a copy of ", bytes), site);
  if ((reinterpret_cast<uintptr_t>(shared) | reinterpret_cast<uintptr_t>(global)) % bytes != 0)
    fault("misaligned access", concat("cp.async of ", bytes, " bytes from ", global, " to ", shared), site);
  shared_address(shared, site);
  const bool at_once = done_at_once();
  if (checker == nullptr && at_once) return copy_bytes(shared, global, bytes, source_bytes);
  ThreadState& me = self();
  Copy copy{shared, global, bytes, source_bytes, {}};
  if (checker != nullptr) {
    if (me.copies.open_op == 0) me.copies.open_op = checker->begin_op();
    copy.agent.issuer = &me;
    copy.agent.site = site;
    copy.agent.op = me.copies.open_op;
    checker->issue(copy.agent, me);
  }
  if (at_once)
    carry_out(copy);
  else
    me.copies.pending.push_back(std::move(copy));
}

void copy_async_commit(const Site& site) {
  if (mutation_at(site, kMayDrop) == Mutation::drop) return;
  CopyQueue& queue = self().copies;
  queue.group_ends.push_back(queue.pending.size());
  queue.group_ops.push_back(queue.open_op);
  queue.open_op = 0;
}

void copy_async_wait(uint32_t groups_left, const Site& site) {
  const Mutation mutation = mutation_at(site, kMayDrop | kMayWeaken);
  if (mutation == Mutation::drop) return;
  if (mutation == Mutation::weaken) ++groups_left;
  ThreadState& me = self();
  CopyQueue& queue = me.copies;
  const size_t count = due(queue.group_ends.size(), groups_left);
  if (count == 0) return;
  run_copies(me, queue.group_ends[count - 1]);
  for (size_t i = 0; i < count; ++i)
    if (queue.group_ops[i] != 0) checker->adopt_op(queue.group_ops[i], me);
  queue.group_ends.erase(queue.group_ends.begin(), queue.group_ends.begin() + static_cast<std::ptrdiff_t>(count));
  queue.group_ops.erase(queue.group_ops.begin(), queue.group_ops.begin() + static_cast<std::ptrdiff_t>(count));
}

void copy_async_arrive(uint32_t mbarrier_address, bool noinc, const Site& site) {
  if (mutation_at(site, kMayDrop) == Mutation::drop) return;
  ThreadState& me = self();
  me.site = site;
  BlockState& home = block_state(me);
  Mbarrier& barrier = find_mbarrier(home, mbarrier_address, site);
  if (!noinc) ++barrier.pending;
  std::vector<uint32_t> ops = me.copies.group_ops;
  if (me.copies.open_op != 0) ops.push_back(me.copies.open_op);
  me.copies.open_op = 0;
  me.copies.group_ops.assign(me.copies.group_ops.size(), 0);
  const auto arrive = [&home, mbarrier_address, site, ops] {
    if (checker != nullptr)
      for (const uint32_t op : ops)
        if (op != 0) checker->attach_op(op, find_mbarrier(home, mbarrier_address, site).clock);
    hardware_arrive(home, mbarrier_address, site);
  };
  if (done_at_once()) {
    run_copies(me, me.copies.pending.size());
    return arrive();
  }
  // The copies so far move into one op, which arrives after them.
  AsyncOpRef op = new_op(me, site);
  op->write = [copies = std::exchange(me.copies.pending, {}), arrive](Agent&) mutable {
    for (Copy& copy : copies) carry_out(copy);
    arrive();
  };
  for (size_t& end : me.copies.group_ends) end = 0;
  home.group->async.push_back(std::move(op));
}

// ---- completion on an mbarrier ----

void issue_on_mbarrier(uint32_t mbarrier_address, uint32_t tx_bytes, AsyncTask task, const Site& site) {
  ThreadState& me = self();
  me.site = site;
  const Mbarrier& barrier = find_mbarrier(block_state(me), mbarrier_address, site);
  if (!barrier.fenced)
    fault("mbarrier not visible to the async proxy", concat("no fence.mbarrier_init or fence.proxy.async after ", site_text(barrier.init_site)),
          site);
  AsyncOpRef op = new_op(me, site);
  op->mbarrier = mbarrier_address;
  op->tx_bytes = tx_bytes;
  op->write = std::move(task);
  if (checker != nullptr) {
    op->writer.op = checker->begin_op();
    op->writer.async_proxy = true;
    checker->issue(op->writer, me);
  }
  if (done_at_once())
    finish(*op);
  else
    op->home->group->async.push_back(std::move(op));
}

// ---- bulk groups ----

void issue_bulk(AsyncTask read, AsyncTask write, const Site& site) {
  ThreadState& me = self();
  me.site = site;
  AsyncOpRef op = new_op(me, site);
  op->read = std::move(read);
  op->write = std::move(write);
  if (checker != nullptr) {
    op->reader.op = checker->begin_op();
    op->writer.op = checker->begin_op();
    op->reader.async_proxy = true;
    checker->issue(op->reader, me);
    const uint32_t writer_op = op->writer.op;
    op->writer = op->reader;
    op->writer.op = writer_op;
  }
  me.bulk.open.push_back(op);
  if (done_at_once())
    finish(*op);
  else if (current_worker->shuffle_order)
    op->home->group->async.push_back(std::move(op));
}

void bulk_commit(const Site& site) {
  if (mutation_at(site, kMayDrop) == Mutation::drop) return;
  AsyncGroups& bulk = self().bulk;
  bulk.groups.push_back(std::exchange(bulk.open, {}));
}

void bulk_wait(uint32_t groups_left, bool sources_only, const Site& site) {
  const Mutation mutation = mutation_at(site, kMayDrop | kMayWeaken);
  if (mutation == Mutation::drop) return;
  if (mutation == Mutation::weaken) ++groups_left;
  ThreadState& me = self();
  auto& groups = me.bulk.groups;
  const size_t count = due(groups.size(), groups_left);
  for (size_t i = 0; i < count; ++i)
    for (const AsyncOpRef& op : groups[i]) {
      if (sources_only)
        read_sources(*op);
      else
        finish(*op);
      if (checker == nullptr) continue;
      checker->adopt_op(op->reader.op, me);
      if (!sources_only) checker->adopt_op(op->writer.op, me);
    }
  // Groups whose sources have been read stay until somebody waits for their writes.
  if (!sources_only) groups.erase(groups.begin(), groups.begin() + static_cast<std::ptrdiff_t>(count));
  me.bulk_sources_waited = std::max(me.bulk_sources_waited, sources_only ? count : size_t{0});
  if (!sources_only) me.bulk_sources_waited -= std::min(me.bulk_sources_waited, count);
}

void async_on_exit(ThreadState& thread) {
  if (!thread.copies.pending.empty()) run_copies(thread, thread.copies.pending.size());
  AsyncGroups& bulk = thread.bulk;
  bulk.groups.push_back(std::exchange(bulk.open, {}));
  for (size_t i = 0; i < bulk.groups.size(); ++i)
    for (const AsyncOpRef& op : bulk.groups[i]) {
      if (i >= thread.bulk_sources_waited && op->read)
        fault("returns too early", "a bulk copy may still read this block's shared memory: wait for its sources first", op->reader.site);
      if (op->stage != AsyncOp::Stage::done) block_state(thread).group->async.push_back(op);
    }
  bulk.clear();
  BlockState& block = block_state(thread);
  if (thread.linear / kWarpgroupSize >= block.warpgroups.size()) return;
  const AsyncGroups& wgmma = block.warpgroups[thread.linear / kWarpgroupSize].wgmma;
  for (const auto& group : wgmma.groups)
    if (!group.empty()) fault("returns too early", "a wgmma still writes this thread's registers: wgmma.wait_group first", group[0]->writer.site);
}

// ---- wgmma groups ----

namespace {

bool all_done(const AsyncGroups& ops) {
  const auto done = [](const AsyncOpRef& op) { return op->stage == AsyncOp::Stage::done; };
  return std::all_of(ops.open.begin(), ops.open.end(), done) &&
         std::all_of(ops.groups.begin(), ops.groups.end(), [&](const auto& group) { return std::all_of(group.begin(), group.end(), done); });
}

Warpgroup& warpgroup_of(Warp& first) {
  return static_cast<BlockState*>(first.block)->warpgroups[first.id / 4];
}

}  // namespace

void issue_wgmma(Warp& first, AsyncTask task, const Site& site) {
  Warpgroup& warpgroup = warpgroup_of(first);
  AsyncOpRef op = new_op(static_cast<WarpState&>(first).lanes[0], site);
  op->in_order = &warpgroup.wgmma;
  op->write = std::move(task);
  if (checker != nullptr) {
    op->writer.op = checker->begin_op();
    op->writer.async_proxy = true;
    checker->issue_warpgroup(op->writer, static_cast<WarpState&>(first));
  }
  const bool in_turn = all_done(warpgroup.wgmma);  // accumulators chain: an op never overtakes an older one
  warpgroup.wgmma.open.push_back(op);
  if (done_at_once() && in_turn)
    finish(*op);
  else if (current_worker->shuffle_order)
    op->home->group->async.push_back(std::move(op));
}

void wgmma_commit(Warp& first, const Site& site) {
  if (mutation_at(site, kMayDrop) == Mutation::drop) return;
  AsyncGroups& wgmma = warpgroup_of(first).wgmma;
  wgmma.groups.push_back(std::exchange(wgmma.open, {}));
}

void wgmma_wait(Warp& first, uint32_t groups_left, const Site& site) {
  const Mutation mutation = mutation_at(site, kMayDrop | kMayWeaken);
  if (mutation == Mutation::drop) return;
  if (mutation == Mutation::weaken) ++groups_left;
  Warpgroup& warpgroup = warpgroup_of(first);
  auto& groups = warpgroup.wgmma.groups;
  const size_t count = due(groups.size(), groups_left);
  if (count == 0) return;
  for (size_t i = 0; i < count; ++i)
    for (const AsyncOpRef& op : groups[i]) {
      finish(*op);
      if (checker != nullptr) checker->attach_op(op->writer.op, warpgroup.clock);
    }
  groups.erase(groups.begin(), groups.begin() + static_cast<std::ptrdiff_t>(count));
  if (checker == nullptr) return;
  checker->complete(warpgroup.clock);
  for (uint32_t w = 0; w < 4; ++w) {
    WarpState& warp = static_cast<BlockState*>(first.block)->warps[first.id + w];
    checker->acquire_warp(warpgroup.clock, warp, warp.live);
  }
}

}  // namespace heddle::sim
