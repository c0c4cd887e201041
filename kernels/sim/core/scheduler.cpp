// Which thread runs next. Threads change places only where they synchronise; between two such places a thread runs alone, which is one of the orders
// the hardware could choose. The fixed order goes on with the lowest ready lane of the current warp, the random order takes any ready thread.
#include <unistd.h>

#include <algorithm>
#include <exception>
#include <map>
#include <utility>

#include "kernels/api/check.h"
#include "kernels/sim/core/machine_internal.h"

namespace heddle::sim {

__thread Thread* current_thread;
__thread const Geometry* current_geometry;
__thread Worker* current_worker;

namespace {

// Bits of `mask` above bit i, or all of them when there are none: the next one in a circle.
template <class Bits>
int next_bit(Bits mask, uint32_t i) {
  const Bits above = i + 1 >= sizeof(Bits) * 8 ? 0 : mask & (~Bits{0} << (i + 1));
  return __builtin_ctzll(above != 0 ? above : mask);
}

int random_bit(uint64_t mask, Random& random) {
  for (uint32_t skip = random.below(static_cast<uint32_t>(__builtin_popcountll(mask))); skip > 0; --skip) mask &= mask - 1;
  return __builtin_ctzll(mask);
}

inline ThreadState& take(BlockState& block, WarpState& warp, int lane) {
  warp.ready &= ~(1u << lane);
  if (warp.ready == 0) {
    block.ready_warps &= ~(1u << warp.id);
    if (block.ready_warps == 0) block.group->ready_blocks[block.slot / 64] &= ~(uint64_t{1} << (block.slot % 64));
  }
  return warp.lanes[lane];
}

// The first block after `slot`, in a circle, that has a ready thread; null if none has.
BlockState* next_ready_block(Group& group, uint32_t slot) {
  const size_t words = group.ready_blocks.size();
  const uint32_t first = (slot + 1) % group.block_count;
  for (size_t i = 0; i <= words; ++i) {
    const size_t word = (first / 64 + i) % words;
    uint64_t bits = group.ready_blocks[word];
    if (i == 0) bits &= ~uint64_t{0} << (first % 64);
    if (bits != 0) return group.blocks[word * 64 + static_cast<size_t>(__builtin_ctzll(bits))].get();
  }
  return nullptr;
}

BlockState* random_ready_block(Group& group, Random& random) {
  if (group.block_count == 1) return group.ready_blocks[0] != 0 ? group.blocks[0].get() : nullptr;
  return next_ready_block(group, random.below(group.block_count));
}

ThreadState* pick_random(Worker& worker) {
  Group& group = worker.group;
  if (!group.async.empty() && worker.random.one_in(worker.async_odds)) run_one_async(group);
  BlockState* block = random_ready_block(group, worker.random);
  if (block == nullptr) return nullptr;
  WarpState& warp = block->warps[static_cast<size_t>(random_bit(block->ready_warps, worker.random))];
  return &take(*block, warp, random_bit(warp.ready, worker.random));
}

ThreadState* pick_in_order(Worker& worker) {
  Group& group = worker.group;
  BlockState* block = group.blocks[group.current_block].get();
  WarpState* warp = &block->warps[block->current_warp];
  if (warp->ready == 0) {
    if (block->ready_warps == 0) {
      block = next_ready_block(group, group.current_block);
      if (block == nullptr) return nullptr;
      group.current_block = block->slot;
    }
    block->current_warp = static_cast<uint32_t>(next_bit(block->ready_warps, block->current_warp));
    warp = &block->warps[block->current_warp];
  }
  return &take(*block, *warp, __builtin_ctz(warp->ready));
}

// The next thread to run, or null: everyone waits and no async op is left that could wake one.
ThreadState* pick(Worker& worker) {
  do {
    ThreadState* next = worker.shuffle_order ? pick_random(worker) : pick_in_order(worker);
    if (next != nullptr) return next;
  } while (run_one_async(worker.group));
  return nullptr;
}

// In a circle over all ready threads, starting after `from`: nobody who spins keeps the others from running.
ThreadState& pick_after(ThreadState& from) {
  BlockState* block = &block_state(from);
  WarpState* warp = &warp_state(from);
  uint32_t above = from.lane == 31 ? 0 : warp->ready & (~0u << (from.lane + 1));
  if (above == 0) {
    const uint32_t later = warp->id == 31 ? 0 : block->ready_warps & (~0u << (warp->id + 1));
    if (later == 0) block = next_ready_block(*block->group, block->slot);
    warp = &block->warps[static_cast<size_t>(__builtin_ctz(later != 0 ? later : block->ready_warps))];
    above = warp->ready;
  }
  return take(*block, *warp, __builtin_ctz(above));
}

// After a fault: the next thread that still has frames to unwind. Threads that never began simply end.
ThreadState* pick_unwinding(Group& group) {
  for (; group.unwind_block < group.block_count; ++group.unwind_block, group.unwind_thread = 0) {
    BlockState& block = *group.blocks[group.unwind_block];
    for (; group.unwind_thread < block.thread_count; ++group.unwind_thread) {
      ThreadState& thread = block.threads[group.unwind_thread];
      if (thread.stage == ThreadState::Stage::started) return &thread;
      thread.stage = ThreadState::Stage::done;
    }
  }
  return nullptr;
}

void thread_main();

void give_stack(Worker& worker, ThreadState& thread) {
  thread.stack = worker.stacks.take();
  prepare(thread.context, *thread.stack, thread_main);
}

inline void resume(ThreadState& from, ThreadState& to) {
  if (&from == &to) return;
  if (to.stack == nullptr) give_stack(*current_worker, to);
  current_thread = &to;
  switch_fiber(from.context, to.context, false);
}

void end_thread(ThreadState& thread) {
  WarpState& warp = warp_state(thread);
  BlockState& block = block_state(thread);
  thread.stage = ThreadState::Stage::done;
  warp.live &= ~(1u << thread.lane);
  --block.live;
  --block.group->live;
  progress_made();
}

// A thread's life: the kernel, then its end.
void live(Group& group, ThreadState& thread) {
  thread.stage = ThreadState::Stage::started;
  thread.site = {"", 0, "(running)"};
  try {
    group.launch->body();
    async_on_exit(thread);
    end_thread(thread);
    barriers_on_exit(thread);
  } catch (const Abort&) {
  } catch (const std::exception& error) {
    record_failure(concat(thread_text(thread), ": the kernel threw: ", error.what()), thread.site);
  } catch (...) {
    record_failure(concat(thread_text(thread), ": the kernel threw something that is no std::exception"), thread.site);
  }
  if (thread.stage != ThreadState::Stage::done) end_thread(thread);
}

// Where the first thread that has not returned stands: the place that a deadlock's report gives.
Site waiting_site(const Group& group) {
  for (const auto& block : group.blocks)
    for (const ThreadState& thread : block->threads)
      if (thread.stage != ThreadState::Stage::done) return thread.site;
  return {"", 0, ""};
}

ThreadState* pick_at_end(Worker& worker) {
  Group& group = worker.group;
  if (!group.failed) {
    try {
      if (ThreadState* next = pick(worker)) return next;
      if (group.live == 0) return nullptr;
      record_failure(deadlock_report(group), waiting_site(group));
    } catch (const Abort&) {  // a fault of an async op
    }
  }
  return pick_unwinding(group);
}

// Leaves the ended thread for `next`, or for the host when there is none; never returns.
[[noreturn]] void leave(Worker& worker, Stack* stack, ThreadState* next) {
  worker.stacks.give(stack);
  if (next != nullptr && next->stack == nullptr) give_stack(worker, *next);
  current_thread = next;
  Context ended;
  ended.stack = stack;
  switch_fiber(ended, next != nullptr ? next->context : worker.host, true);
  __builtin_unreachable();
}

// Every fiber runs this. A thread that ends hands its warm stack to the next one if that has not begun: for kernels without barriers no switch at
// all.
void thread_main() {
  entered_fiber();
  Worker& worker = *current_worker;
  for (;;) {
    ThreadState& thread = self();
    live(worker.group, thread);
    ThreadState* next = pick_at_end(worker);
    Stack* stack = std::exchange(thread.stack, nullptr);
    if (next == nullptr || next->stack != nullptr) leave(worker, stack, next);
    next->stack = stack;
    next->context.stack = stack;
    current_thread = next;
  }
}

std::string ranges_text(const std::vector<uint32_t>& sorted) {
  std::string text;
  constexpr int kMaxRanges = 6;
  int ranges = 0;
  for (size_t i = 0; i < sorted.size(); ++ranges) {
    if (ranges == kMaxRanges) return text + ", ...";
    size_t j = i;
    while (j + 1 < sorted.size() && sorted[j + 1] == sorted[j] + 1) ++j;
    text += concat(text.empty() ? "" : ", ", sorted[i]);
    if (j > i) text += concat("-", sorted[j]);
    i = j + 1;
  }
  return text;
}

std::string index_text(const Index3& i) {
  return concat("(", i.x, ",", i.y, ",", i.z, ")");
}

}  // namespace

void wait() {
  Worker& worker = *current_worker;
  ThreadState& me = self();
  if (worker.group.failed) throw Abort{};
  WarpState& warp = warp_state(me);
  if (!worker.shuffle_order && warp.ready != 0) {  // what pick() would find, in the one case that has to be fast
    resume(me, take(block_state(me), warp, __builtin_ctz(warp.ready)));
    if (worker.group.failed) throw Abort{};
    return;
  }
  ThreadState* next = pick(worker);
  if (next == nullptr) {
    record_failure(deadlock_report(worker.group), waiting_site(worker.group));
    throw Abort{};
  }
  resume(me, *next);
  if (worker.group.failed) throw Abort{};
}

void abandon() {
  Worker& worker = *current_worker;
  ThreadState& thread = self();
  end_thread(thread);
  ThreadState* next = pick_unwinding(worker.group);
  leave(worker, std::exchange(thread.stack, nullptr), next);
}

void progress_made() {
  current_worker->group.idle_spins = 0;
}

void spin(const Site& site) {
  Worker& worker = *current_worker;
  Group& group = worker.group;
  ThreadState& me = self();
  me.site = site;
  ++group.idle_spins;
  if (group.idle_spins > group.live && run_one_async(group)) progress_made();
  // A flag that a plain store sets is not seen as progress, so patience outlasts any sensible exchange of flags.
  const uint64_t patience = 64 * group.live + 1000;
  if (group.idle_spins > patience) {
    if (!lower_groups_are_running(group)) {
      record_failure(deadlock_report(group), site);
      throw Abort{};
    }
    usleep(20);
    group.idle_spins = group.live;
  }
  make_ready(me);
  ThreadState* next = worker.shuffle_order ? pick(worker) : &pick_after(me);
  if (!worker.shuffle_order) {
    group.current_block = block_state(*next).slot;
    block_state(*next).current_warp = next->warp->id;
  }
  resume(me, *next);
  if (group.failed) throw Abort{};
}

void run_group(Worker& worker) {
  Group& group = worker.group;
  if (checker != nullptr) checker->group_begin(group);
  ThreadState* first = pick(worker);
  give_stack(worker, *first);
  current_thread = first;
  switch_fiber(worker.host, first->context, false);
  current_thread = nullptr;
  if (!group.failed) {
    try {
      finish_async(group);
    } catch (const Abort&) {
    }
  }
  if (checker != nullptr) checker->group_end(group);
}

// ---- reports ----

std::string thread_text(const Thread& thread) {
  return concat("thread ", index_text(thread.index), " of block ", index_text(thread.block->index));
}

std::string_view path_in_tree(std::string_view path) {
#ifdef HEDDLE_SOURCE_ROOT
  constexpr std::string_view root = HEDDLE_SOURCE_ROOT "/";
  if (path.substr(0, root.size()) == root) path.remove_prefix(root.size());
#endif
  while (path.substr(0, 3) == "../") path.remove_prefix(3);
  return path;
}

std::string site_text(const Site& site) {
  return site.line == 0 ? std::string(site.what) : concat(site.what, " at ", path_in_tree(site.file), ":", site.line);
}

void record_failure(const std::string& text, const Site& site) {
  Group& group = current_worker->group;
  if (group.failed) return;
  group.failed = true;
  group.failure = text;
  group.failure_site = site;
}

void fault(const std::string& rule, const std::string& text, const Site& site) {
  HEDDLE_CHECK(current_worker != nullptr, "sim", rule, ": ", text, " in ", site_text(site), ", called outside a kernel");
  const AsyncOp* op = current_worker->running_op;
  const Thread* who = op != nullptr ? op->reader.issuer : current_thread;
  record_failure(concat(who != nullptr ? thread_text(*who) : std::string("no thread"), ": ", rule, ": ", text, ", in ", site.what), site);
  throw Abort{};
}

std::string deadlock_report(const Group& group) {
  struct Waiting {
    const ThreadState* first;
    std::vector<uint32_t> threads;
  };
  uint64_t total = 0;
  std::string text;
  constexpr int kMaxLines = 12;
  int lines = 0;
  for (uint32_t slot = 0; slot < group.block_count; ++slot) {
    BlockState& block = *group.blocks[slot];
    total += block.thread_count;
    std::map<std::string, Waiting> by_site;
    for (const ThreadState& thread : block.threads) {
      if (thread.stage == ThreadState::Stage::done) continue;
      std::string where = site_text(thread.site);
      if (thread.wait_address != 0) where += concat(" for ", mbarrier_text(block, thread.wait_address, thread.wait_parity));
      Waiting& waiting = by_site[where];
      if (waiting.threads.empty()) waiting.first = &thread;
      waiting.threads.push_back(thread.linear);
    }
    for (const auto& [where, waiting] : by_site) {
      if (lines++ >= kMaxLines) continue;
      text +=
          concat("\n  block ", index_text(block.index), ": ", waiting.threads.size(), " thread(s) in ", where, ": ", ranges_text(waiting.threads));
    }
  }
  if (lines > kMaxLines) text += concat("\n  and ", lines - kMaxLines, " more places");
  return concat("deadlock: ", total - group.live, " of ", total, " threads have returned, the others wait for each other", text);
}

}  // namespace heddle::sim
