// What the files of the simulated machine share: the state behind Thread, Warp and Block, the group of co-resident blocks that one OS thread runs,
// and the events that the check flavour listens to. No kernel sees this.
#pragma once

#include <array>
#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "kernels/sim/core/clock.h"
#include "kernels/sim/core/fiber.h"
#include "kernels/sim/core/machine.h"
#include "kernels/sim/core/random.h"

namespace heddle::sim {

struct BlockState;
struct WarpState;
struct Group;

// What a barrier or an mbarrier passes from those who arrive to those who wait: a handle of the check flavour, 0 until first used.
struct SyncClock {
  uint32_t id = 0;
};

// ---- async operations ----

// An async op touches memory on its own account, knowing what its issuer knew when it issued it.
class Agent {
 public:
  Thread* issuer = nullptr;
  Site site{};
  uint32_t op = 0;         // what the check flavour knows it by
  uint32_t issued_at = 0;  // accesses of the issuer before this are ordered before the op's
  ClockRef clock, async_clock;
  bool async_proxy = false;  // TMA and wgmma see generic writes only after a proxy fence; cp.async is generic itself
};

struct AsyncOp {
  AsyncTask read, write;  // either may be empty
  Agent reader, writer;
  uint32_t mbarrier = 0;  // shared::cluster address with rank bits as seen in block `home`; 0: completes in a group
  uint32_t tx_bytes = 0;
  BlockState* home = nullptr;
  struct AsyncGroups* in_order = nullptr;  // the ops of this owner run in the order of issue (wgmma)
  enum class Stage : uint8_t { issued, sources_read, done } stage = Stage::issued;
};
using AsyncOpRef = std::shared_ptr<AsyncOp>;

// The groups of one owner that nobody has waited for, oldest first, and the ops issued since the last commit.
struct AsyncGroups {
  std::vector<std::vector<AsyncOpRef>> groups;
  std::vector<AsyncOpRef> open;
  void clear() {
    groups.clear();
    open.clear();
  }
};

// cp.async is far more frequent than the others: a plain record.
struct Copy {
  void* to;
  const void* from;
  uint32_t bytes, source_bytes;
  Agent agent;
};
struct CopyQueue {
  std::vector<Copy> pending;        // lazy copies, oldest first
  std::vector<size_t> group_ends;   // index in `pending` where each committed group ends
  std::vector<uint32_t> group_ops;  // check flavour: the op of each committed group
  uint32_t open_op = 0;
  void clear() {
    pending.clear();
    group_ends.clear();
    group_ops.clear();
    open_op = 0;
  }
};

// ---- threads, warps, blocks ----

// What a switch from thread to thread touches comes first, in one cache line.
struct alignas(64) ThreadState : Thread {
  Context context;
  uint32_t id = 0;  // in its group: slot * kMaxThreadsPerBlock + linear
  enum class Stage : uint8_t { unstarted, started, done } stage = Stage::unstarted;
  bool cluster_arrived = false;  // between barrier.cluster.arrive and wait
  Stack* stack = nullptr;
  Site site{};                // the operation it is in
  uint32_t wait_address = 0;  // of the mbarrier it waits for, with wait_parity; for reports
  uint32_t wait_parity = 0;
  uint64_t cluster_phase = 0;  // of its last arrival
  CopyQueue copies;
  AsyncGroups bulk;
  size_t bulk_sources_waited = 0;  // oldest groups of `bulk` whose sources a .read wait has covered
};

// Lanes that wait for the rest of their mask. Several may be pending in a warp, with disjoint masks.
struct PendingCollective {
  uint32_t mask = 0, arrived = 0;  // arrived == 0: free
  WarpOp op = nullptr;
  Site site{};
  std::array<void*, kWarpSize> args{};
};

struct WarpState : Warp {
  uint32_t ready = 0;     // lanes that can run
  uint32_t existing = 0;  // lanes the block has; `live` are those that have not returned
  ThreadState* lanes = nullptr;
  PendingCollective pending;             // the usual one: of all lanes
  std::vector<PendingCollective> apart;  // of lanes that went their own ways
};

struct Barrier {
  uint32_t expected = 0;  // threads, as given by the first arrival; 0: all live ones
  uint32_t arrived = 0;   // lanes, for __syncthreads; 32 per complete warp otherwise
  uint32_t true_count = 0, last_true_count = 0;
  uint32_t open_warps = 0;  // bit per warp of which some lanes, not all, have arrived
  bool active = false;
  Site site{};
  std::array<uint32_t, kWarpSize> arrived_lanes{}, waiting_lanes{};
  SyncClock clock;
};

struct Warpgroup {
  uint32_t arrived = 0;
  WarpgroupOp op = nullptr;
  Site site{};
  std::array<void*, kWarpgroupSize> args{};
  AsyncGroups wgmma;
  SyncClock clock;
};

struct Mbarrier {
  uint32_t offset = 0;  // in its block's window
  uint32_t count = 0, pending = 0;
  int64_t tx = 0;
  uint64_t phase = 0;  // completed phases; its parity is that of the phase in progress
  bool live = false, fenced = false;
  ThreadState* initialiser = nullptr;
  Site init_site{};
  std::vector<ThreadState*> waiters;
  SyncClock clock;
};

// Where a launch puts a static __shared__ variable.
struct StaticPlace {
  uint32_t offset = 0, bytes = 0;
  const char* name = "";
};
inline constexpr uint32_t kMaxStatics = 64;

struct BlockState : Block {
  uint32_t slot = 0;  // in its group
  Group* group = nullptr;
  Index3 shape{0, 0, 0};  // blockDim that threads and warps are laid out for
  uint32_t warp_count = 0, live = 0;
  uint32_t ready_warps = 0;
  uint32_t current_warp = 0;
  std::vector<ThreadState> threads;
  std::vector<WarpState> warps;
  std::array<Barrier, kMaxNamedBarriers> barriers;
  std::vector<Warpgroup> warpgroups;
  std::vector<Mbarrier> mbarriers;
  uint64_t statics_touched = 0;  // bit per static variable of the launch that this block has used
};

struct ClusterBarrier {
  uint64_t phase = 0;
  uint32_t arrived = 0, live = 0;  // threads of the cluster
  std::vector<ThreadState*> waiters;
  SyncClock clock;
};

// ---- a launch, a group, a worker ----

// What the workers of one launch share.
struct LaunchState {
  const Launch* launch = nullptr;
  uint32_t id = 0;
  uint64_t group_count = 0;
  std::atomic<uint64_t> next_group{0};
  std::mutex mutex;                              // of what follows
  std::array<StaticPlace, kMaxStatics> statics;  // append only: static_count is raised after the entry is written
  std::atomic<uint32_t> static_count{0};
  uint32_t static_bytes = 0;
  std::string failure;
  Site failure_site{};
  std::vector<std::atomic<uint64_t>> running;  // by worker: the group it runs, or kIdle

  uint32_t dynamic_end() const { return kSharedReserved + static_cast<uint32_t>(launch->dynamic_shared); }
};

struct Group {
  const Launch* launch = nullptr;
  LaunchState* shared = nullptr;
  uint64_t index = 0;  // of the group in the launch
  std::vector<std::unique_ptr<BlockState>> blocks;
  uint32_t block_count = 0;
  uint64_t live = 0;                   // threads
  std::vector<uint64_t> ready_blocks;  // bit per slot
  uint32_t current_block = 0;
  std::vector<ClusterBarrier> clusters;
  ClusterBarrier grid;            // grid_sync
  std::vector<AsyncOpRef> async;  // issued, not done; oldest first
  uint64_t idle_spins = 0;        // calls of spin() since anything else happened
  bool failed = false;            // once set, every thread unwinds
  std::string failure;            // the first report, and its line
  Site failure_site{};
  uint32_t unwind_block = 0, unwind_thread = 0;  // threads before these have ended
};

struct Worker {
  Group group;
  Context host;
  StackPool stacks;
  std::vector<std::byte*> windows;  // shared-memory windows, by slot
  Random random;
  bool shuffle_order = false, defer = false;  // the AsyncMode, as the hot path asks
  uint32_t async_odds = 8;                    // random mode: an async op runs at one in so many choices of a thread; drawn for each group
  AsyncOp* running_op = nullptr;              // an async task is being carried out
  ~Worker();
};

extern __thread Worker* current_worker __attribute__((tls_model("initial-exec")));

inline ThreadState& self() {
  return *static_cast<ThreadState*>(current_thread);
}
inline WarpState& warp_state(ThreadState& thread) {
  return *static_cast<WarpState*>(thread.warp);
}
inline BlockState& block_state(Thread& thread) {
  return *static_cast<BlockState*>(thread.block);
}
inline ClusterBarrier& cluster_of(BlockState& block) {
  return block.group->clusters[block.slot / block.cluster_size];
}
inline BlockState& peer(BlockState& block, uint32_t rank) {
  return *block.group->blocks[block.slot - block.cluster_rank + rank];
}

// Thrown through a simulated thread to end it; the report is in Group::failure.
struct Abort {};

// ---- scheduler.cpp ----

inline void make_ready(WarpState& warp, uint32_t lanes) {
  auto& block = *static_cast<BlockState*>(warp.block);
  warp.ready |= lanes;
  block.ready_warps |= 1u << warp.id;
  block.group->ready_blocks[block.slot / 64] |= uint64_t{1} << (block.slot % 64);
}
inline void make_ready(ThreadState& thread) {
  make_ready(warp_state(thread), 1u << thread.lane);
}
void wait();                                                     // the running thread is not ready: run others until it is
void run_group(Worker& worker);                                  // all blocks of worker.group, to their end; the report, if any, is in group.failure
void record_failure(const std::string& text, const Site& site);  // the first one counts
std::string deadlock_report(const Group& group);
std::string thread_text(const Thread& thread);  // "thread (3,0,0) of block (1,0,0)"
// "kernels/cuda/norm.cu", however the compiler was told of it: a compiler cache may have made it "../../kernels/cuda/norm.cu".
std::string_view path_in_tree(std::string_view path);
std::string site_text(const Site& site);  // "__syncthreads at kernels/cuda/norm.cu:31"
[[noreturn]] void abandon();              // leaves the failed thread without unwinding it: where its code cannot let an exception pass
void progress_made();                     // something other than spinning happened

// ---- launch.cpp ----
bool lower_groups_are_running(const Group& group);
std::string kernel_name(const char* text);  // without the parentheses that HEDDLE_LAUNCH may need

// ---- collect.cpp ----
void complete_if_all(ClusterBarrier& barrier);
void barriers_on_exit(ThreadState& thread);  // a returned thread counts as arrived where CUDA says so

// ---- async.cpp ----
bool run_one_async(Group& group);  // false: nothing pending that may run now
void finish_async(Group& group);   // at the end: what no one waited for
void async_on_exit(ThreadState& thread);
void run_copies(ThreadState& thread, size_t count);

// ---- mbarrier.cpp ----
std::string mbarrier_text(BlockState& block, uint32_t address, uint32_t parity);
Mbarrier& find_mbarrier(BlockState& home, uint32_t address, const Site& site);
void complete_tx(AsyncOp& op);  // its bytes have arrived
void hardware_arrive(BlockState& home, uint32_t address, const Site& site);

// ---- shared.cpp ----
inline constexpr uint32_t kSharedWindowBytes = 256 * 1024;
void open_window(Worker& worker, BlockState& block);                                 // gives the block its window, filled with NaN
BlockState& block_of_address(BlockState& home, uint32_t address, const Site& site);  // resolves the rank bits

// ---- the check flavour's ears ----

class Checker {
 public:
  virtual ~Checker() = default;
  virtual void launch_begin(const Launch& launch) = 0;
  virtual void launch_end() = 0;
  virtual void group_begin(Group& group) = 0;
  virtual void group_end(Group& group) = 0;

  // Order between threads.
  virtual void sync_warp(WarpState& warp, uint32_t mask) = 0;  // __syncwarp
  virtual void sync_block(BlockState& block) = 0;              // __syncthreads, all threads
  virtual void release(SyncClock& sync, ThreadState& thread) = 0;
  virtual void release_fenced(SyncClock& sync, ThreadState& thread) = 0;     // only what the thread has fenced
  virtual void release_async_ops(SyncClock& sync, ThreadState& thread) = 0;  // only which async ops are done
  virtual void release_warp(SyncClock& sync, WarpState& warp) = 0;           // all its lanes at once
  virtual void complete(SyncClock& sync) = 0;                                // a phase ends: what was released can be acquired
  virtual void acquire(SyncClock& sync, ThreadState& thread) = 0;
  virtual void acquire_warp(SyncClock& sync, WarpState& warp, uint32_t lanes) = 0;
  virtual void atomic(ThreadState& thread, const void* pointer, size_t bytes, AtomicKind kind, Order order, Scope scope, const Site& site) = 0;
  virtual void atomic(Agent& agent, const void* pointer, size_t bytes) = 0;  // relaxed update
  // A look at the memory of an object whose own SyncClock passes the order on.
  virtual void sync_object(ThreadState& thread, const void* pointer, size_t bytes, AtomicKind kind, const Site& site) = 0;
  virtual void fence(ThreadState& thread, Order order, Scope scope) = 0;
  virtual void proxy_fence(ThreadState& thread) = 0;

  // Async ops. Each is pending until a thread adopts it (its wait returned) or a sync object's phase carries it.
  virtual uint32_t begin_op() = 0;
  virtual void issue(Agent& agent, ThreadState& issuer) = 0;         // agent.op is set: what it does is issued now
  virtual void issue_warpgroup(Agent& agent, WarpState& first) = 0;  // by all four warps
  virtual void adopt_op(uint32_t op, ThreadState& thread) = 0;
  virtual void attach_op(uint32_t op, SyncClock& sync) = 0;  // done in the sync object's current phase

  // Accesses.
  virtual void read(ThreadState& thread, const void* pointer, size_t bytes, const Site& site) = 0;
  virtual void write(ThreadState& thread, const void* pointer, size_t bytes, const Site& site) = 0;
  virtual void read(Agent& agent, const void* pointer, size_t bytes) = 0;
  virtual void write(Agent& agent, const void* pointer, size_t bytes) = 0;
  virtual void read_chunks(Agent& agent, const std::byte* base, std::span<const uint32_t> offsets) = 0;
  virtual void write_chunks(Agent& agent, const std::byte* base, std::span<const uint32_t> offsets) = 0;

  // Global memory.
  virtual void add_global(const void* pointer, size_t bytes, size_t guard) = 0;
  virtual void remove_global(const void* pointer) = 0;
  virtual void host_write(const void* pointer, size_t bytes) = 0;
};

extern Checker* const checker;  // null but in the check flavour

}  // namespace heddle::sim
