// The bodies of device.h: uninstrumented, so that nothing of them looks like the kernel's own accesses.
#include "kernels/sim/core/device.h"

#include <algorithm>
#include <array>

#include "kernels/api/check.h"
#include "kernels/sim/core/machine_internal.h"

namespace heddle::sim {

uint3 thread_index_out_of_line() {
  const Index3& i = current_thread->index;
  return {i.x, i.y, i.z};
}
uint3 block_index_out_of_line() {
  const Index3& i = current_thread->block->index;
  return {i.x, i.y, i.z};
}
dim3 block_dim_out_of_line() {
  const Index3& i = current_geometry->block;
  return {i.x, i.y, i.z};
}
dim3 grid_dim_out_of_line() {
  const Index3& i = current_geometry->grid;
  return {i.x, i.y, i.z};
}
std::byte* dynamic_shared() {
  return current_thread->block->dynamic_shared;
}

namespace {

template <class F>
void for_each_lane(uint32_t mask, F f) {
  for (; mask != 0; mask &= mask - 1) f(static_cast<uint32_t>(__builtin_ctz(mask)));
}

// ---- shuffles ----

struct ShuffleArg {
  uint64_t in, out;
  int lane, width;
  Site site;
};

// PTX ISA "shfl.sync": the segment is `width` lanes; a source outside it leaves the lane's own value.
template <Shuffle kKind>
int source_lane(int lane, const ShuffleArg& arg) {
  const int first = lane & ~(arg.width - 1), last = first + arg.width - 1;
  if constexpr (kKind == Shuffle::index) return first + (arg.lane & (arg.width - 1));
  const int source = kKind == Shuffle::up ? lane - arg.lane : kKind == Shuffle::down ? lane + arg.lane : lane ^ arg.lane;
  if constexpr (kKind == Shuffle::up) return source < first ? lane : source;
  return source > last ? lane : source;
}

template <Shuffle kKind>
void shuffle_warp(Warp&, void* const* args, uint32_t mask) {
  for_each_lane(mask, [&](uint32_t lane) {
    auto& arg = *static_cast<ShuffleArg*>(args[lane]);
    const int source = source_lane<kKind>(static_cast<int>(lane), arg);
    if ((mask >> source & 1) == 0) fault("bad shuffle", concat("lane ", lane, " reads from lane ", source, ", which takes no part"), arg.site);
    arg.out = static_cast<const ShuffleArg*>(args[source])->in;
  });
}

// ---- votes and reductions ----

struct WarpArg {
  uint64_t in;
  uint32_t out;
};

template <class Combine>
void for_all(void* const* args, uint32_t mask, uint32_t start, Combine combine) {
  uint32_t result = start;
  for_each_lane(mask, [&](uint32_t lane) { result = combine(result, lane, static_cast<const WarpArg*>(args[lane])->in); });
  for_each_lane(mask, [&](uint32_t lane) { static_cast<WarpArg*>(args[lane])->out = result; });
}

void ballot_warp(Warp&, void* const* args, uint32_t mask) {
  for_all(args, mask, 0, [](uint32_t votes, uint32_t lane, uint64_t vote) { return votes | static_cast<uint32_t>(vote != 0) << lane; });
}

void match_warp(Warp&, void* const* args, uint32_t mask) {
  for_each_lane(mask, [&](uint32_t lane) {
    auto& mine = *static_cast<WarpArg*>(args[lane]);
    mine.out = 0;
    for_each_lane(mask, [&](uint32_t other) { mine.out |= static_cast<uint32_t>(static_cast<const WarpArg*>(args[other])->in == mine.in) << other; });
  });
}

template <Reduction kKind>
uint32_t combine(uint32_t a, uint32_t b) {
  const auto sa = static_cast<int32_t>(a), sb = static_cast<int32_t>(b);
  switch (kKind) {
    case Reduction::add: return a + b;
    case Reduction::min_signed: return sa < sb ? a : b;
    case Reduction::max_signed: return sa > sb ? a : b;
    case Reduction::min_unsigned: return std::min(a, b);
    case Reduction::max_unsigned: return std::max(a, b);
    case Reduction::bit_and: return a & b;
    case Reduction::bit_or: return a | b;
    case Reduction::bit_xor: return a ^ b;
  }
  return a;
}

template <Reduction kKind>
void reduce_warp(Warp&, void* const* args, uint32_t mask) {
  const int first = __builtin_ctz(mask);
  const auto start = static_cast<uint32_t>(static_cast<const WarpArg*>(args[first])->in);
  uint32_t result = start;
  for_each_lane(mask & (mask - 1),
                [&](uint32_t lane) { result = combine<kKind>(result, static_cast<uint32_t>(static_cast<const WarpArg*>(args[lane])->in)); });
  for_each_lane(mask, [&](uint32_t lane) { static_cast<WarpArg*>(args[lane])->out = result; });
}

constexpr std::array<WarpOp, 4> kShuffles = {shuffle_warp<Shuffle::index>, shuffle_warp<Shuffle::up>, shuffle_warp<Shuffle::down>,
                                             shuffle_warp<Shuffle::exclusive_or>};
constexpr std::array<WarpOp, 8> kReductions = {reduce_warp<Reduction::add>,          reduce_warp<Reduction::min_signed>,
                                               reduce_warp<Reduction::max_signed>,   reduce_warp<Reduction::min_unsigned>,
                                               reduce_warp<Reduction::max_unsigned>, reduce_warp<Reduction::bit_and>,
                                               reduce_warp<Reduction::bit_or>,       reduce_warp<Reduction::bit_xor>};

}  // namespace

uint64_t shuffle(Shuffle kind, uint32_t mask, uint64_t bits, int lane_argument, int width, const Site& site) {
  if (width < 1 || width > 32 || (width & (width - 1)) != 0) fault("bad shuffle", concat("width ", width, " is no power of two up to 32"), site);
  ShuffleArg arg{bits, bits, lane_argument, width, site};
  collect(mask, kShuffles[static_cast<size_t>(kind)], &arg, site);
  return arg.out;
}

uint32_t ballot(uint32_t mask, bool predicate, const Site& site) {
  WarpArg arg{predicate, 0};
  collect(mask, ballot_warp, &arg, site);
  return arg.out;
}

uint32_t match_any(uint32_t mask, uint64_t bits, const Site& site) {
  WarpArg arg{bits, 0};
  collect(mask, match_warp, &arg, site);
  return arg.out;
}

uint32_t reduce(Reduction kind, uint32_t mask, uint32_t value, const Site& site) {
  WarpArg arg{value, 0};
  collect(mask, kReductions[static_cast<size_t>(kind)], &arg, site);
  return arg.out;
}

// ---- atomics ----
// Blocks of one launch may run on several OS threads, so these are the host's atomics.

namespace {

template <class F>
uint64_t by_size(size_t bytes, const void* pointer, const Site& site, F f) {
  if (reinterpret_cast<uintptr_t>(pointer) % bytes != 0) fault("misaligned access", concat("atomic of ", bytes, " bytes at ", pointer), site);
  switch (bytes) {
    case 2: return f(static_cast<uint16_t*>(const_cast<void*>(pointer)));
    case 4: return f(static_cast<uint32_t*>(const_cast<void*>(pointer)));
    case 8: return f(static_cast<uint64_t*>(const_cast<void*>(pointer)));
    default: fault("bad atomic", concat(bytes, " bytes"), site);
  }
}

Order weakened(const Site& site, Order order) {
  if (order == Order::relaxed) return order;
  return mutation_at(site, kMayWeaken) == Mutation::weaken ? Order::relaxed : order;
}

}  // namespace

uint64_t atomic_update(void* pointer, size_t bytes, AtomicFunction f, uint64_t operand, Order order, Scope scope, const Site& site) {
  note_atomic(pointer, bytes, AtomicKind::update, weakened(site, order), scope, site);
  return by_size(bytes, pointer, site, [&]<class T>(T* p) -> uint64_t {
    std::atomic_ref<T> value(*p);
    T old = value.load(), next;
    do {
      next = static_cast<T>(f(old, operand));
    } while (!value.compare_exchange_weak(old, next));
    if (next != old) progress_made();  // others may have waited for it; adding 0 to look at a flag is no progress
    return old;
  });
}

uint64_t atomic_compare_exchange(void* pointer, size_t bytes, uint64_t expected, uint64_t desired, Order order, Scope scope, const Site& site) {
  note_atomic(pointer, bytes, AtomicKind::update, weakened(site, order), scope, site);
  return by_size(bytes, pointer, site, [&]<class T>(T* p) -> uint64_t {
    T old = static_cast<T>(expected);
    if (std::atomic_ref<T>(*p).compare_exchange_strong(old, static_cast<T>(desired)) && expected != desired) progress_made();
    return old;
  });
}

uint64_t atomic_load(const void* pointer, size_t bytes, Order order, Scope scope, const Site& site) {
  note_atomic(pointer, bytes, AtomicKind::load, weakened(site, order), scope, site);
  return by_size(bytes, pointer, site, [&]<class T>(T* p) -> uint64_t { return std::atomic_ref<T>(*p).load(); });
}

void atomic_store(void* pointer, size_t bytes, uint64_t value, Order order, Scope scope, const Site& site) {
  note_atomic(pointer, bytes, AtomicKind::store, weakened(site, order), scope, site);
  by_size(bytes, pointer, site, [&]<class T>(T* p) -> uint64_t {
    if (std::atomic_ref<T>(*p).exchange(static_cast<T>(value)) != static_cast<T>(value)) progress_made();
    return 0;
  });
}

void note_atomic(const void* pointer, size_t bytes, AtomicKind kind, Order order, Scope scope, const Site& site) {
  ThreadState& me = self();
  me.site = site;
  if (checker != nullptr) checker->atomic(me, pointer, bytes, kind, order, scope, site);
}

void note_atomic(Agent& agent, const void* pointer, size_t bytes) {
  if (checker != nullptr) checker->atomic(agent, pointer, bytes);
}

void note_fence(Order order, Scope scope, const Site& site) {
  if (mutation_at(site, kMayDrop) == Mutation::drop) return;
  if (checker != nullptr) checker->fence(self(), order, scope);
}

void proxy_fence_async(const Site& site) {
  if (mutation_at(site, kMayDrop) == Mutation::drop) return;
  ThreadState& me = self();
  for (Mbarrier& barrier : block_state(me).mbarriers)
    if (barrier.initialiser == &me) barrier.fenced = true;
  if (checker != nullptr) checker->proxy_fence(me);
}

// ---- accesses and global memory, as far as a checker listens ----

void note_read_checked(const void* pointer, size_t bytes, const Site& site) {
  checker->read(self(), pointer, bytes, site);
}
void note_write_checked(const void* pointer, size_t bytes, const Site& site) {
  checker->write(self(), pointer, bytes, site);
}
void note_read_checked(Agent& agent, const void* pointer, size_t bytes) {
  checker->read(agent, pointer, bytes);
}
void note_write_checked(Agent& agent, const void* pointer, size_t bytes) {
  checker->write(agent, pointer, bytes);
}
void note_read_chunks_checked(Agent& agent, const std::byte* base, std::span<const uint32_t> offsets) {
  checker->read_chunks(agent, base, offsets);
}
void note_write_chunks_checked(Agent& agent, const std::byte* base, std::span<const uint32_t> offsets) {
  checker->write_chunks(agent, base, offsets);
}
void register_global(const void* pointer, size_t bytes, size_t guard) {
  if (checker != nullptr) checker->add_global(pointer, bytes, std::min(guard, kGuardBytes));
}
void unregister_global(const void* pointer) {
  if (checker != nullptr) checker->remove_global(pointer);
}
void note_host_write(const void* pointer, size_t bytes) {
  if (checker != nullptr) checker->host_write(pointer, bytes);
}

}  // namespace heddle::sim

// For breakpoint conditions: is this thread of this block running? Linear indices, x fastest.
extern "C" bool heddle_at(uint64_t block, uint32_t thread) {
  const heddle::sim::Thread* now = heddle::sim::current_thread;
  return now != nullptr && now->linear == thread && now->block->linear == block;
}
