// Shared by the instruction bodies, ptx_*.cpp. None of these sources is compiled with instrumentation.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>

#include "kernels/arch/ptx.h"
#include "kernels/sim/core/machine.h"

namespace heddle::ptx {

inline void require_aligned(uint64_t address, uint32_t alignment, const char* role, const sim::Site& site) {
  if (address % alignment != 0) {
    sim::fault("misaligned address",
               std::string(role) + " of " + site.what + " must be a multiple of " + std::to_string(alignment) + ", is " + std::to_string(address),
               site);
  }
}
inline void require_aligned(const void* pointer, uint32_t alignment, const char* role, const sim::Site& site) {
  require_aligned(reinterpret_cast<uint64_t>(pointer), alignment, role, site);
}

// The bytes at a shared::cta address: this block's own memory. A peer's (mapa) is refused, which hardware would take for some place of this block.
inline std::byte* own_shared(uint32_t address, size_t bytes, uint32_t alignment, const sim::Site& site) {
  if (std::byte* dynamic = sim::own_dynamic_shared(address, bytes); dynamic != nullptr && address % alignment == 0) return dynamic;
  require_aligned(address, alignment, "the shared address", site);
  if (address >> sim::kSharedRankShift != sim::this_block().cluster_rank) {
    sim::fault("address space",
               std::string(site.what) + " takes this block's own shared memory; the address is of block " +
                   std::to_string(address >> sim::kSharedRankShift) + " of the cluster",
               site);
  }
  return sim::shared_pointer(address, bytes, site);
}

template <class T>
T load(const void* from) {
  T value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

// Eight at a time, by the vector types that g++ and clang share: whatever the machine has carries them out. Products of bf16, f16 and tf32 are exact
// in fp32, so it makes no difference whether the compiler fuses a * b + c.
using Floats8 = float __attribute__((vector_size(32)));
using Words8 = uint32_t __attribute__((vector_size(32)));

inline float bf16_value(uint32_t bits) {
  return std::bit_cast<float>(bits << 16);
}
float f16_value(uint32_t bits);   // IEEE half, subnormals and all
uint32_t f16_bits(float value);   // nearest even
uint32_t bf16_bits(float value);  // nearest even; every NaN becomes 0x7fff

}  // namespace heddle::ptx
