// The simulated CUDA machine: what a kernel's thread can do, as plain functions.
//
// A kernel compiled by an ordinary C++ compiler calls these through kernels/arch (platform.h for launching, shared memory and the CUDA built-ins,
// ptx.h for single instructions). Every CUDA thread is a fiber; one OS thread runs all fibers of a *group* of co-resident blocks (one block, a
// cluster, or the whole grid of a cooperative launch), so nothing here needs a lock and every run with the same seed is the same run.
//
// Vocabulary
//   Site        the source line of an operation and its name; it is what every report prints
//   collective  an operation that several threads perform together; the last one to arrive carries it out for all
//   async op    work that completes later than it is issued (cp.async, TMA, bulk copies, wgmma); when, is the run's AsyncMode
//   agent       who touches memory: a thread, or an async op on its own
//   mutation    a synchronisation left out or weakened on purpose, to see that a kernel's tests notice (HEDDLE_SIM_MUTATE)
//
// Errors: everything that a kernel does wrong ends the launch with heddle::Error naming kernel, block, thread and source line.
// Functions marked [thread] may only be called by a running simulated thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>

namespace heddle::sim {

struct Index3 {
  uint32_t x = 1, y = 1, z = 1;
  constexpr uint64_t volume() const { return static_cast<uint64_t>(x) * y * z; }
  friend constexpr bool operator==(const Index3&, const Index3&) = default;
};

// ---- source lines ----

struct Site {
  const char* file;
  int line;
  const char* what;  // the operation as CUDA or PTX spells it: "__syncthreads", "ldmatrix.x4"
};

// The line that calls a function declared with a last parameter `Where where = Where::here()`.
struct Where {
  const char* file;
  int line;
  static constexpr Where here(const char* file = __builtin_FILE(), int line = __builtin_LINE()) { return {file, line}; }
  constexpr Site op(const char* what) const { return {file, line, what}; }
};

// ---- who is running ----

inline constexpr uint32_t kWarpSize = 32;
inline constexpr uint32_t kWarpgroupSize = 128;
inline constexpr uint32_t kFullMask = 0xffffffffu;
inline constexpr uint32_t kMaxThreadsPerBlock = 1024;
inline constexpr uint32_t kMaxBlocksPerCluster = 8;           // the portable limit; Hopper can do 16 for kernels that ask for it
inline constexpr uint32_t kMaxSharedBytes = 227 * 1024;       // of one block, static and dynamic
inline constexpr uint32_t kMaxStaticSharedBytes = 48 * 1024;  // CUDA C++ Programming Guide, "Shared memory"
inline constexpr uint32_t kMaxNamedBarriers = 16;             // PTX ISA "bar, barrier": ids 0 to 15

struct Block;

struct Warp {
  uint32_t id;    // in its block
  uint32_t live;  // bit per lane that exists and has not returned
  Block* block;
};

struct Thread {
  Index3 index;     // threadIdx
  uint32_t linear;  // x fastest
  uint32_t lane;    // linear % 32
  Warp* warp;
  Block* block;
};

struct Block {
  Index3 index;     // blockIdx
  uint64_t linear;  // x fastest
  uint32_t thread_count;
  uint32_t cluster_rank;      // %cluster_ctarank, 0 without clusters
  uint32_t cluster_size;      // blocks in the cluster, 1 without
  Index3 cluster_index;       // %cluster_ctaid: place inside the cluster
  std::byte* shared;          // first byte of its shared-memory window; see shared_address()
  std::byte* dynamic_shared;  // the launch's dynamic shared memory, aligned to 1024
  uint32_t dynamic_end;       // the window offset where it ends
};

struct Geometry {
  Index3 grid, block, cluster;  // gridDim, blockDim, blocks per cluster
};

// The running thread; null on a host thread. Initial-exec TLS: one load.
extern __thread Thread* current_thread __attribute__((tls_model("initial-exec")));
extern __thread const Geometry* current_geometry __attribute__((tls_model("initial-exec")));

inline Thread& this_thread() {  // [thread]
  return *current_thread;
}
inline Block& this_block() {  // [thread]
  return *current_thread->block;
}
Thread& thread_of(Warp& warp, uint32_t lane);  // any lane that exists
Warp& warp_of(Block& block, uint32_t id);
Block& cluster_peer(Block& block, uint32_t rank);  // a block of the same cluster

// ---- reporting a kernel's fault ----

// [thread] Ends the launch: Error "[sim] kernel K, block (x,y,z), thread (x,y,z): rule: text at file:line". Unwinds every fiber of the group.
[[noreturn]] void fault(const std::string& rule, const std::string& text, const Site& site);

// ---- collectives ----

// One warp-wide operation, carried out once: args[lane] is what that lane gave; lanes outside mask hold null.
using WarpOp = void (*)(Warp& warp, void* const* args, uint32_t mask);

// What a collective says about memory. CUDA promises order between lanes for __syncwarp alone: a shuffle moves a value, not memory.
enum class Ordering : uint8_t { none, memory };

// [thread] Waits until every lane of mask has come here with the same op and site line; the last one runs op (may be null). Faults: the caller is not
// in mask, a named lane has returned, lanes of the mask stand at another collective or line (divergence).
void collect(uint32_t mask, WarpOp op, void* arg, const Site& site, Ordering ordering = Ordering::none);

// The same for the 128 threads of an aligned warpgroup (wgmma, setmaxnreg): args[0..127] by thread in the warpgroup; first is its first warp.
using WarpgroupOp = void (*)(Warp& first, void* const* args);
void collect_warpgroup(WarpgroupOp op, void* arg, const Site& site);

// [thread] bar.sync / bar.arrive (PTX ISA "bar, barrier"). count: participating threads, a multiple of 32, the same at every arrival of a phase;
// 0: all threads of the block that have not returned (__syncthreads). Whole warps arrive; a warp counts 32 whatever lanes it still has.
void barrier_sync(uint32_t id, uint32_t count, const Site& site);
void barrier_arrive(uint32_t id, uint32_t count, const Site& site);
// __syncthreads_count / _and / _or: as barrier_sync(0, 0), then the number of threads that gave true.
uint32_t barrier_count(bool predicate, const Site& site);

// [thread] barrier.cluster.arrive / .wait. release = false is the .relaxed form, which orders no memory.
void cluster_arrive(bool release, const Site& site);
void cluster_wait(const Site& site);

// [thread] All threads of a cooperative launch (cooperative_groups' grid.sync()). Faults in any other launch.
void grid_sync(const Site& site);

// [thread] Lets others run: the body of a loop that waits for memory to change. Between two calls the memory is looked at once. Faults when every
// thread of the group waits and nothing can change any more; in a launch that is not cooperative a thread may wait for lower-numbered blocks only.
void spin(const Site& site);

// ---- shared memory ----

// A shared::cluster address (PTX ISA "State spaces"): cluster rank in bits 24 and up, below it the offset in that block's window. The first 1024
// bytes belong to the system, so no address is 0. Offsets fit the 18 bits of a wgmma descriptor.
inline constexpr uint32_t kSharedRankShift = 24;
inline constexpr uint32_t kSharedReserved = 1024;

uint32_t shared_address(const void* pointer, const Site& site);               // [thread] faults unless pointer lies in shared memory of the cluster
std::byte* shared_pointer(uint32_t address, size_t bytes, const Site& site);  // [thread] faults unless [address, +bytes) lies in it
// [thread] The same without a fault: null unless the bytes lie in the caller's own dynamic shared memory. What instructions try first.
inline std::byte* own_dynamic_shared(uint32_t address, size_t bytes) {
  const Block& block = this_block();
  const uint32_t offset = address - (block.cluster_rank << kSharedRankShift);
  return offset >= kSharedReserved && uint64_t{offset} + bytes <= block.dynamic_end ? block.shared + offset : nullptr;
}
uint32_t shared_in_rank(uint32_t address, uint32_t rank, const Site& site);  // [thread] mapa: the same offset in a peer
bool is_shared(const void* pointer);                                         // [thread] of the caller's cluster

// A __shared__ variable of a kernel; one static object per declaration. HEDDLE_SHARED in platform.h makes them.
struct SharedVariable {
  uint64_t launch_and_offset = 0;  // where the current launch put it; written atomically
};
std::byte* static_shared(SharedVariable& variable, size_t bytes, size_t alignment, const char* name, const Site& site);  // [thread]

// ---- mbarriers (PTX ISA "mbarrier") ----
// address: shared::cluster address of the 8-byte object. A phase ends when the pending arrivals and the transaction bytes both reach zero. Every
// function faults on an address that holds no live mbarrier, on more arrivals than init announced and on transaction counts outside +-(2^20 - 1).

void mbarrier_init(uint32_t address, uint32_t count, const Site& site);
void mbarrier_init_fence(
    const Site& site);  // fence.mbarrier_init: without it (or proxy_fence_async) neither TMA nor peers may use what was initialised
void mbarrier_invalidate(uint32_t address, const Site& site);
// release = false: .relaxed. expect_tx without arrival: arrivals = 0. A remote address needs a peer that has not returned.
// What an arrival hands on to those that wait for the phase: nothing, all that the thread did and saw, or only that the async ops it has waited for
// are done.
enum class Releases : uint8_t { nothing, all, async_ops };
void mbarrier_arrive(uint32_t address, uint32_t arrivals, uint32_t expect_tx_bytes, Releases releases, const Site& site);
// Blocks until the phase of this parity has completed (a fresh barrier passes parity 1). Then everything that its arrivals and its completed async
// ops did is visible to the caller.
void mbarrier_wait(uint32_t address, uint32_t parity, const Site& site);
bool mbarrier_test(uint32_t address, uint32_t parity, const Site& site);

// ---- memory accesses that the compiler does not see ----
// In the check flavour loads and stores in kernel code report themselves. Code of the machine (every instruction of ptx_*.cpp) is not instrumented
// and must say what it touches, before it does. In the other flavours these are one load and a branch. They fault on everything check.h lists.

extern bool checking;  // the check flavour is linked

class Agent;  // who touches memory; made by the machine, handed to async tasks

void note_read_checked(const void* pointer, size_t bytes, const Site& site);
void note_write_checked(const void* pointer, size_t bytes, const Site& site);
void note_read_checked(Agent& agent, const void* pointer, size_t bytes);
void note_write_checked(Agent& agent, const void* pointer, size_t bytes);
void note_read_chunks_checked(Agent& agent, const std::byte* base, std::span<const uint32_t> offsets);
void note_write_chunks_checked(Agent& agent, const std::byte* base, std::span<const uint32_t> offsets);

inline void note_read(const void* pointer, size_t bytes, const Site& site) {  // [thread] by the calling thread, generic proxy
  if (checking) note_read_checked(pointer, bytes, site);
}
inline void note_write(const void* pointer, size_t bytes, const Site& site) {
  if (checking) note_write_checked(pointer, bytes, site);
}
inline void note_read(Agent& agent, const void* pointer, size_t bytes) {  // by an async op, at the site that issued it
  if (checking) note_read_checked(agent, pointer, bytes);
}
inline void note_write(Agent& agent, const void* pointer, size_t bytes) {
  if (checking) note_write_checked(agent, pointer, bytes);
}

// The same for a swizzled tile: chunks of 16 bytes at base + offset, each at a multiple of 16 of one block's shared memory.
inline void note_read_chunks(Agent& agent, const std::byte* base, std::span<const uint32_t> offsets) {
  if (checking) note_read_chunks_checked(agent, base, offsets);
}
inline void note_write_chunks(Agent& agent, const std::byte* base, std::span<const uint32_t> offsets) {
  if (checking) note_write_chunks_checked(agent, base, offsets);
}

// An async op's relaxed update (TMA reduce-add): no race with other atomics.
void note_atomic(Agent& agent, const void* pointer, size_t bytes);

// Memory order of an atomic access or fence, as PTX names them; scopes narrower than the use needs are the check flavour's business.
enum class Order : uint8_t { relaxed, acquire, release, acq_rel };
enum class Scope : uint8_t { block, cluster, device, system };
enum class AtomicKind : uint8_t { load, store, update };

// [thread] Called around an atomic access, before it happens: joins and publishes what acquire and release promise.
void note_atomic(const void* pointer, size_t bytes, AtomicKind kind, Order order, Scope scope, const Site& site);
void note_fence(Order order, Scope scope, const Site& site);  // __threadfence and its kin, fence.acq_rel
// fence.proxy.async: generic accesses so far become visible to TMA and wgmma ("proxy fence", PTX ISA memory consistency model).
void proxy_fence_async(const Site& site);

// ---- async operations ----

enum class AsyncMode : uint8_t {
  eager,   // done when issued: finds reuse of a buffer too early
  lazy,    // as late as the program allows: finds a missing wait
  random,  // by the seed; thread order is random too
};

// What an async op does when its time comes. It runs on no thread: it must capture by value all it needs (also the tensor map), touch memory through
// raw pointers only and note each access with the agent it is given. It may fault() (the issuing thread is named).
using AsyncTask = std::function<void(Agent& agent)>;

// [thread] cp.async: bytes (4, 8 or 16) to shared memory, of which the first source_bytes come from global memory, the rest are zero. Groups per
// thread.
void copy_async(void* shared, const void* global, uint32_t bytes, uint32_t source_bytes, const Site& site);
void copy_async_commit(const Site& site);
void copy_async_wait(uint32_t groups_left, const Site& site);  // at most the newest groups_left stay pending
// cp.async.mbarrier.arrive: one arrival on the barrier once all the thread's copies so far have landed. noinc = false first adds one to the pending
// count.
void copy_async_arrive(uint32_t mbarrier_address, bool noinc, const Site& site);

// [thread] TMA load, bulk copy to shared memory: runs task, then gives tx_bytes to the mbarrier (complete_tx). Multicast: one call per destination.
void issue_on_mbarrier(uint32_t mbarrier_address, uint32_t tx_bytes, AsyncTask task, const Site& site);

// [thread] TMA store and reduce, bulk copy to global memory: read fetches the sources, write (after read) stores. Groups per thread.
void issue_bulk(AsyncTask read, AsyncTask write, const Site& site);
void bulk_commit(const Site& site);
void bulk_wait(uint32_t groups_left, bool sources_only, const Site& site);  // sources_only: .read

// wgmma.mma_async: from the WarpgroupOp of a collect_warpgroup. Groups per warpgroup.
void issue_wgmma(Warp& first, AsyncTask task, const Site& site);
void wgmma_commit(Warp& first, const Site& site);                      // from a WarpgroupOp
void wgmma_wait(Warp& first, uint32_t groups_left, const Site& site);  // from a WarpgroupOp

// ---- mutations ----

enum class Mutation : uint8_t { none, drop, weaken };
inline constexpr unsigned kMayDrop = 1;    // leaving it out is a meaningful fault
inline constexpr unsigned kMayWeaken = 2;  // so is doing less: see mutation.h

extern bool mutating;  // a mutation is set, or sites are being listed
Mutation mutation_at_slow(const Site& site, unsigned kinds);

// An operation asks first: `if (mutation_at(site, kMayDrop) == Mutation::drop) return;`. Every function above that synchronises asks by itself, both
// kinds where both mean something; ptx_*.cpp asks only for instructions that have no function here (wgmma.fence, griddepcontrol.wait).
inline Mutation mutation_at(const Site& site, unsigned kinds) {
  return mutating ? mutation_at_slow(site, kinds) : Mutation::none;
}

// ---- launching ----

struct Launch {
  const char* kernel = "";  // its name in reports; must outlive the run
  Geometry geometry;
  size_t dynamic_shared = 0;   // bytes
  bool cooperative = false;    // all blocks are co-resident
  std::function<void()> body;  // the call of the kernel with its arguments, made once per thread
};

// Checks the configuration as the CUDA runtime does (Error on a bad one), runs the kernel on the worker pool and returns when it has finished; a
// fault in the kernel is thrown as Error here. Any host thread may call it; launches run one at a time.
void run(const Launch& launch);

// What HEDDLE_LAUNCH calls: run(), until a runtime that has streams takes over with set_launcher (native_stream is its cudaStream_t).
using Launcher = void (*)(Launch launch, void* native_stream);
void submit(Launch launch, void* native_stream);
void set_launcher(Launcher launcher);
void validate(const Launch& launch);  // the configuration part of run(): throws what cudaLaunchKernel would refuse

// ---- global memory, as the check flavour knows it ----
// Bytes in a registered range are checked for races and for first write before read (note_host_write says what the host has written), and for bounds
// if `guard` bytes on either side are nobody's. Unregistered memory is not checked. No effect in other flavours.
inline constexpr size_t kGuardBytes = 256;  // what the simulated cudaMalloc leaves; the most that a guard can be
void register_global(const void* pointer, size_t bytes, size_t guard = 0);
void unregister_global(const void* pointer);
void note_host_write(const void* pointer, size_t bytes);  // memcpy, memset: initialised now, ordered before later launches

// ---- options ----

struct Options {
  AsyncMode mode = AsyncMode::eager;  // HEDDLE_SIM_MODE = eager | lazy | random[:seed]
  uint64_t seed = 1;
  int threads = 0;  // HEDDLE_SIM_THREADS; 0: one per core. The check flavour runs on one
};
Options options();                         // from the environment at the first call
void set_options(const Options& options);  // between launches; tests loop over modes with it

}  // namespace heddle::sim
