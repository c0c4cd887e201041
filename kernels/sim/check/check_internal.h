// The check flavour's state, shared by check*.cpp.
#pragma once

#include <array>
#include <map>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "kernels/sim/check/clock.h"
#include "kernels/sim/check/report.h"
#include "kernels/sim/check/shadow.h"
#include "kernels/sim/core/machine_internal.h"

namespace heddle::sim {

// Who looks at memory now, and what it knows.
struct Observer {
  uint32_t who = 0;                // thread id, or kByOp
  uint32_t when = 0;               // stamp, or op
  uint32_t lanes = 1;              // bit of the lane in its warp; `who` of a read record is the warp's first thread
  const Thread* thread = nullptr;  // itself, or the issuer
  const Clock* known = nullptr;
  const Clock* async_known = nullptr;  // TMA and wgmma: generic writes must also be known here
  uint32_t issued_at = 0;              // ops: earlier accesses of the issuer are ordered before
  bool atomic = false;
  // Neighbouring bytes tend to have one history: the accesses last found to be ordered before this one.
  mutable Record fine_write, fine_read;
  bool by_op() const { return (who & kByOp) != 0; }
};

class RaceChecker final : public Checker {
 public:
  void launch_begin(const Launch& launch) override;
  void launch_end() override;
  void group_begin(Group& group) override;
  void group_end(Group& group) override;

  void sync_warp(WarpState& warp, uint32_t mask) override;
  void sync_block(BlockState& block) override;
  void release(SyncClock& sync, ThreadState& thread) override;
  void release_fenced(SyncClock& sync, ThreadState& thread) override;
  void release_async_ops(SyncClock& sync, ThreadState& thread) override;
  void release_warp(SyncClock& sync, WarpState& warp) override;
  void complete(SyncClock& sync) override;
  void acquire(SyncClock& sync, ThreadState& thread) override;
  void acquire_warp(SyncClock& sync, WarpState& warp, uint32_t lanes) override;
  void atomic(ThreadState& thread, const void* pointer, size_t bytes, AtomicKind kind, Order order, Scope scope, const Site& site) override;
  void atomic(Agent& agent, const void* pointer, size_t bytes) override;
  void sync_object(ThreadState& thread, const void* pointer, size_t bytes, AtomicKind kind, const Site& site) override;
  void fence(ThreadState& thread, Order order, Scope scope) override;
  void proxy_fence(ThreadState& thread) override;

  uint32_t begin_op() override;
  void issue(Agent& agent, ThreadState& issuer) override;
  void issue_warpgroup(Agent& agent, WarpState& first) override;
  void adopt_op(uint32_t op, ThreadState& thread) override;
  void attach_op(uint32_t op, SyncClock& sync) override;

  void read(ThreadState& thread, const void* pointer, size_t bytes, const Site& site) override;
  void write(ThreadState& thread, const void* pointer, size_t bytes, const Site& site) override;
  void read(Agent& agent, const void* pointer, size_t bytes) override;
  void write(Agent& agent, const void* pointer, size_t bytes) override;
  void read_chunks(Agent& agent, const std::byte* base, std::span<const uint32_t> offsets) override;
  void write_chunks(Agent& agent, const std::byte* base, std::span<const uint32_t> offsets) override;

  void add_global(const void* pointer, size_t bytes, size_t guard) override;
  void remove_global(const void* pointer) override;
  void host_write(const void* pointer, size_t bytes) override;

  // A load or store of instrumented code. aligned: the compiler took it to be.
  void instrumented(ThreadState& thread, const void* pointer, size_t bytes, bool is_write, bool aligned, const void* pc);
  // A load or store of a type (its name in quotes) that wants more alignment than the pointer has.
  void misaligned(ThreadState& thread, const void* pointer, size_t alignment, bool is_write, const char* type, const Site& site);

 private:
  // What relaxed loads saw; an acquire fence makes it known.
  struct Seen {
    ClockRef known, async_known;
  };
  struct ThreadClock {
    ClockRef known;               // whose accesses are ordered before what this thread does next
    ClockRef async_known;         // of these, whose generic writes TMA and wgmma see
    ClockRef fenced;              // what the last release fence covered; relaxed atomics publish it
    std::array<Seen, 3> pending;  // by the scope that the acquire fence must have
    Scope fence_scope = Scope::block;
    uint32_t stamp = 0;
  };
  struct SyncState {
    ClockRef gathered, async_gathered;  // from those who have arrived
    ClockRef done, async_done;          // up to the last completed phase
    uint32_t phase = 0;
  };
  struct OpState {
    enum class Stage : uint8_t { pending, adopted, attached } stage = Stage::pending;
    uint32_t who = 0;   // the adopting thread, or the sync object
    uint32_t when = 0;  // its stamp, or the phase
    uint32_t group = 0;
    bool generic = false;  // cp.async: its writes need a proxy fence like a thread's
  };
  // A place that atomics use: what the last releases published there.
  struct AtomicState {
    ClockRef clock, async_clock;
    Scope scope = Scope::system;
    const Block* block = nullptr;
    uint32_t group = 0;
  };
  // What the last wgmma of a warpgroup was issued with: the next one mostly finds the same.
  struct WarpgroupIssue {
    std::array<ClockRef, 4> known, async_known;  // of each warp
    ClockRef all, async_all;
  };
  struct GroupRun {
    uint32_t number, first_time, first_op;
    std::vector<Index3> blocks;  // for reports
  };
  struct Allocation {
    const std::byte* begin;
    size_t bytes, guard;
    std::vector<std::unique_ptr<Cell[]>> pages;
  };
  struct SharedShadow {
    std::vector<Cell> cells;  // by offset / kCellBytes
  };
  enum class Access : uint8_t { read, write };

  // check.cpp
  ThreadClock& clock_of(const ThreadState& thread) { return threads_[thread.id]; }
  SyncState& sync_state(SyncClock& sync);
  OpState& op_state(uint32_t op) { return ops_[op - first_op_]; }
  uint32_t tick() { return ++now_; }
  uint32_t new_stamp(ThreadClock& clock);   // later than that of any access so far
  ClockRef published(ThreadState& thread);  // what the thread knows and has done: a release
  void acquire_clock(ThreadClock& mine, const ClockRef& clock, const ClockRef& async_clock);

  // check_access.cpp
  Observer observer(const ThreadState& thread) const;
  Observer observer(const Agent& agent) const;
  void count(const ThreadState& thread, const void* pointer, size_t bytes, bool shared, bool is_write, uint32_t place);
  void count(const Agent& agent, const void* pointer, size_t bytes, bool is_write);
  void access(const Observer& by, Access kind, const void* pointer, size_t bytes, uint32_t place);
  void access_chunks(const Observer& by, Access kind, const std::byte* base, std::span<const uint32_t> offsets, uint32_t place);
  void atomic_access(ThreadState& thread, const void* pointer, size_t bytes, AtomicKind kind, uint32_t place);
  BlockState* owner_of(const Observer& by, const std::byte* pointer) const;  // of shared memory; null: elsewhere
  std::vector<Cell>& shared_cells(const BlockState& block, size_t last);     // at least up to cell `last`
  void access_shared(const Observer& by, Access kind, BlockState& block, size_t offset, size_t bytes, uint32_t place);
  void access_global(const Observer& by, Access kind, const std::byte* pointer, size_t bytes, uint32_t place);
  void touch(Cell& cell, uint32_t cell_bytes, uint32_t begin, uint32_t end, const Observer& by, Access kind, uint32_t place);
  void touch_parts(Cell& cell, uint32_t cell_bytes, uint32_t begin, uint32_t end, const Observer& by, Access kind, uint32_t place);
  void touch_whole(Cell& cell, const Observer& by, Access kind, uint32_t place);
  void remember_read(Cell& cell, const Observer& by, uint32_t place);
  void initialise(Cell& cell, uint32_t cell_bytes, size_t begin, size_t end);  // the host wrote it
  bool ordered(const Record& before, const Observer& by) const;
  bool lane_ordered(uint32_t thread, uint32_t stamp, const Observer& by) const;
  bool visible_to_proxy(const Record& write, const Observer& by) const;
  const GroupRun& group_of(uint32_t time) const;
  bool is_current(uint32_t time) const { return time >= groups_.back().first_time; }
  Allocation* find_allocation(const std::byte* pointer);
  // Outside the block's dynamic shared memory only static variables may be touched.
  void check_static_bounds(const Observer& by, Access kind, BlockState& block, size_t offset, size_t bytes, uint32_t place);
  // Reports; none returns.
  [[noreturn]] void race(const Record& before, bool before_writes, const Observer& by, Access kind, uint32_t place);
  [[noreturn]] void complain(const Observer& by, const std::string& rule, const std::string& text, uint32_t place);
  std::string who_text(const Record& record) const;
  std::string address_text() const;  // of the access being checked

  uint32_t now_ = 1;
  uint32_t launch_start_ = 0;
  std::vector<GroupRun> groups_;  // of this launch
  Group* group_ = nullptr;
  ClockShape shape_;
  std::vector<ThreadClock> threads_;
  std::vector<SyncState> syncs_;
  std::vector<OpState> ops_;
  std::vector<WarpgroupIssue> issues_;  // by slot and warpgroup
  uint32_t first_op_ = 1;
  bool fences_used_ = false;
  std::unordered_map<const void*, AtomicState> atomics_;

  std::vector<SharedShadow> shared_;  // by slot
  CellPool shared_pool_, global_pool_;
  CellPool* pool_ = nullptr;  // of the access being checked
  std::map<const std::byte*, Allocation> globals_;
  Allocation* last_global_ = nullptr;
  const std::byte* globals_begin_ = nullptr;
  const std::byte* globals_end_ = nullptr;

  // The access being checked, for its report.
  struct Current {
    const void* pointer = nullptr;
    size_t bytes = 0;
    const BlockState* block = nullptr;  // of shared memory
    size_t offset = 0;
    const Allocation* allocation = nullptr;
  } current_;
};

inline RaceChecker& race_checker() {
  return static_cast<RaceChecker&>(*checker);
}

void left_callback();  // check_tsan.cpp: report() is left for good

// check_counters.cpp
extern bool counting;
void count_access(const ThreadState& thread, const void* pointer, size_t bytes, bool shared, bool write, uint32_t place);
void count_flush(const WarpState& warp);

}  // namespace heddle::sim
