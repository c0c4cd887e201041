// What the simulated device says of itself: a small Hopper. Limits are those of compute capability 9.0 (CUDA C++ Programming Guide, "Compute
// Capabilities"); the number of multiprocessors is small, so that grids sized by it stay cheap.
#pragma once

#include <cstddef>
#include <cstdint>

namespace heddle::sim::cudart {

inline constexpr int kThreadsPerBlock = 1024;
inline constexpr int kThreadsPerMultiprocessor = 2048;
inline constexpr int kBlocksPerMultiprocessor = 32;
inline constexpr int kRegisters = 65536;  // of 32 bits, per multiprocessor and per block
inline constexpr int kSharedPerMultiprocessor = 228 * 1024;
inline constexpr int kSharedPerBlock = 48 * 1024;
inline constexpr int kSharedPerBlockOptIn = 227 * 1024;
inline constexpr int kSharedReserved = 1024;  // of each block, by the system
inline constexpr int kCudaVersion = 12040;

// By threads, blocks and shared memory; a simulated kernel has no registers.
uint64_t blocks_per_multiprocessor(uint64_t threads, size_t shared_bytes);

}  // namespace heddle::sim::cudart
