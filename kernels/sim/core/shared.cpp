// Shared memory: one window per block. Window offsets are the 32-bit addresses that kernels compute with, so descriptors and swizzles are real
// arithmetic.
//
//   offset 0       1024              1024 + dynamic                             256 KiB
//          system  dynamic shared    static variables, each behind a gap        end
//
// Inaccessible pages surround a window. In the ASan flavour everything but the variables is poisoned.
#include <sys/mman.h>

#include <atomic>
#include <cstring>

#include "kernels/api/check.h"
#include "kernels/sim/core/machine_internal.h"

#ifdef HEDDLE_SIM_ASAN
#include <sanitizer/asan_interface.h>
#endif

namespace heddle::sim {

namespace {

constexpr size_t kAround = 256 * 1024;  // inaccessible bytes before and after a window
constexpr uint32_t kGap = 16;           // between static variables: an overrun touches nothing of another
constexpr uint32_t kOffsetMask = (1u << kSharedRankShift) - 1;

void poison(std::byte* begin, size_t bytes) {
#ifdef HEDDLE_SIM_ASAN
  __asan_poison_memory_region(begin, bytes);
#else
  (void)begin, (void)bytes;
#endif
}
void unpoison(std::byte* begin, size_t bytes) {
#ifdef HEDDLE_SIM_ASAN
  __asan_unpoison_memory_region(begin, bytes);
#else
  (void)begin, (void)bytes;
#endif
}

std::byte* map_window() {
  void* mapping = mmap(nullptr, 2 * kAround + kSharedWindowBytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  HEDDLE_CHECK(mapping != MAP_FAILED, "sim", "no memory for a block's shared memory");
  std::byte* window = static_cast<std::byte*>(mapping) + kAround;
  HEDDLE_CHECK(mprotect(window, kSharedWindowBytes, PROT_READ | PROT_WRITE) == 0, "sim", "mprotect of a block's shared memory failed");
  return window;
}

// What shared memory holds before a kernel writes it: NaN in every floating-point type.
void fill(std::byte* begin, size_t bytes) {
  std::memset(begin, 0xff, bytes);
}

// Finds or makes the place of a variable; returns its index.
uint32_t place_static(LaunchState& launch, SharedVariable& variable, size_t bytes, size_t alignment, const char* name, const Site& site) {
  std::lock_guard lock(launch.mutex);
  const uint64_t known = std::atomic_ref(variable.launch_and_offset).load(std::memory_order_acquire);
  if (known >> 32 == launch.id) return static_cast<uint32_t>(known);
  const uint32_t index = launch.static_count.load(std::memory_order_relaxed);
  if (index == kMaxStatics) fault("shared memory", concat("a kernel has at most ", kMaxStatics, " static variables here"), site);
  const uint32_t end = index == 0 ? launch.dynamic_end() : launch.statics[index - 1].offset + launch.statics[index - 1].bytes;
  const auto align = static_cast<uint32_t>(alignment < 16 ? 16 : alignment);
  const uint32_t offset = (end + kGap + align - 1) / align * align;
  launch.static_bytes += static_cast<uint32_t>(bytes);
  if (launch.static_bytes > kMaxStaticSharedBytes || launch.static_bytes + launch.launch->dynamic_shared > kMaxSharedBytes ||
      offset + bytes > kSharedWindowBytes)
    fault("shared memory",
          concat("with '", name, "' the block has ", launch.static_bytes, " static and ", launch.launch->dynamic_shared,
                 " dynamic bytes; the limits are ", kMaxStaticSharedBytes, " static, ", kMaxSharedBytes, " in all"),
          site);
  launch.statics[index] = {offset, static_cast<uint32_t>(bytes), name};
  launch.static_count.store(index + 1, std::memory_order_release);
  std::atomic_ref(variable.launch_and_offset).store(uint64_t{launch.id} << 32 | index, std::memory_order_release);
  return index;
}

}  // namespace

Worker::~Worker() {
  for (std::byte* window : windows) munmap(window - kAround, 2 * kAround + kSharedWindowBytes);
}

void open_window(Worker& worker, BlockState& block) {
  while (worker.windows.size() <= block.slot) worker.windows.push_back(map_window());
  block.shared = worker.windows[block.slot];
  block.dynamic_shared = block.shared + kSharedReserved;
  block.dynamic_end = worker.group.shared->dynamic_end();
  block.statics_touched = 0;
  const size_t dynamic = worker.group.launch->dynamic_shared;
  poison(block.shared, kSharedWindowBytes);
  unpoison(block.dynamic_shared, dynamic);
  fill(block.dynamic_shared, dynamic);
}

std::byte* static_shared(SharedVariable& variable, size_t bytes, size_t alignment, const char* name, const Site& site) {
  BlockState& block = block_state(self());
  LaunchState& launch = *block.group->shared;
  const uint64_t known = std::atomic_ref(variable.launch_and_offset).load(std::memory_order_acquire);
  const uint32_t index = known >> 32 == launch.id ? static_cast<uint32_t>(known) : place_static(launch, variable, bytes, alignment, name, site);
  std::byte* begin = block.shared + launch.statics[index].offset;
  if ((block.statics_touched >> index & 1) == 0) {
    block.statics_touched |= uint64_t{1} << index;
    unpoison(begin, bytes);
    fill(begin, bytes);
  }
  return begin;
}

bool is_shared(const void* pointer) {
  BlockState& block = block_state(self());
  const auto* byte = static_cast<const std::byte*>(pointer);
  for (uint32_t rank = 0; rank < block.cluster_size; ++rank) {
    const std::byte* window = peer(block, rank).shared;
    if (byte >= window && byte < window + kSharedWindowBytes) return true;
  }
  return false;
}

uint32_t shared_address(const void* pointer, const Site& site) {
  BlockState& block = block_state(self());
  const auto* byte = static_cast<const std::byte*>(pointer);
  const auto inside = [byte](const Block& b) { return byte >= b.shared && byte < b.shared + kSharedWindowBytes; };
  const auto address = [byte](const Block& b) { return b.cluster_rank << kSharedRankShift | static_cast<uint32_t>(byte - b.shared); };
  if (inside(block)) return address(block);
  for (uint32_t rank = 0; rank < block.cluster_size; ++rank)
    if (inside(peer(block, rank))) return address(peer(block, rank));
  fault("not shared memory", concat(pointer, " lies in no block of the cluster"), site);
}

BlockState& block_of_address(BlockState& home, uint32_t address, const Site& site) {
  const uint32_t rank = address >> kSharedRankShift;
  if (rank >= home.cluster_size) fault("shared address", concat("names block ", rank, " of a cluster of ", home.cluster_size), site);
  BlockState& block = peer(home, rank);
  if (&block != &home && block.live == 0)
    fault("shared address", concat("block ", rank, " of the cluster has returned; its shared memory is gone"), site);
  return block;
}

std::byte* shared_pointer(uint32_t address, size_t bytes, const Site& site) {
  BlockState& block = block_of_address(block_state(self()), address, site);
  const uint32_t offset = address & kOffsetMask;
  const LaunchState& launch = *block.group->shared;
  if (offset >= kSharedReserved && offset + bytes <= launch.dynamic_end()) return block.shared + offset;
  for (uint32_t i = 0; i < launch.static_count.load(std::memory_order_acquire); ++i) {
    const StaticPlace& place = launch.statics[i];
    if (offset >= place.offset && offset + bytes <= place.offset + place.bytes) return block.shared + offset;
  }
  fault("shared memory out of bounds",
        concat(bytes, " bytes at smem+", offset, "; the block has ", launch.launch->dynamic_shared, " dynamic bytes from smem+", kSharedReserved,
               " and ", launch.static_bytes, " static ones"),
        site);
}

uint32_t shared_in_rank(uint32_t address, uint32_t rank, const Site& site) {
  const BlockState& block = block_state(self());
  if (rank >= block.cluster_size) fault("mapa", concat("rank ", rank, " of a cluster of ", block.cluster_size), site);
  return (address & kOffsetMask) | rank << kSharedRankShift;
}

Warp& warp_of(Block& block, uint32_t id) {
  return static_cast<BlockState&>(block).warps[id];
}

Thread& thread_of(Warp& warp, uint32_t lane) {
  return static_cast<WarpState&>(warp).lanes[lane];
}

Block& cluster_peer(Block& block, uint32_t rank) {
  return peer(static_cast<BlockState&>(block), rank);
}

}  // namespace heddle::sim
