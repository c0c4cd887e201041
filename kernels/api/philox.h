// Philox4x32-10, the counter-based generator of Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (SC 2011).
//
// A random number is a pure function of (key, counter): nothing to save, nothing that depends on the number of ranks. heddle's key is
// (seed, name), the counter is (purpose, step or sample, name, element index in the unsharded tensor).
#pragma once

#include <array>
#include <cmath>
#include <cstdint>

#include "kernels/api/types.h"

namespace heddle {

// What a stream of random numbers is for; part of the key, so that streams never overlap.
enum class RngPurpose : uint32_t { init = 1, dropout = 2, shuffle = 3, sample = 4, eval = 5, test = 6 };

struct RngKey {
  uint64_t seed = 0;
  RngPurpose purpose = RngPurpose::test;
  uint64_t name = 0;    // which Part or layer draws: a hash of its name, so that another one beside it changes nothing
  uint64_t stream = 0;  // step, or global sample
};

struct Philox {
  using Block = std::array<uint32_t, 4>;
  static constexpr int kRounds = 10;
  static constexpr uint32_t kMultiplier0 = 0xD2511F53u, kMultiplier1 = 0xCD9E8D57u;
  static constexpr uint32_t kWeyl0 = 0x9E3779B9u, kWeyl1 = 0xBB67AE85u;  // what a round adds to the key

  // The raw function: 10 rounds over a 128-bit counter with a 64-bit key.
  HEDDLE_HOST_DEVICE static constexpr Block block(Block c, uint32_t key0, uint32_t key1) {
    for (int round = 0; round < kRounds; ++round) {
      const uint64_t p0 = uint64_t{kMultiplier0} * c[0];
      const uint64_t p1 = uint64_t{kMultiplier1} * c[2];
      c = {static_cast<uint32_t>(p1 >> 32) ^ c[1] ^ key0, static_cast<uint32_t>(p1), static_cast<uint32_t>(p0 >> 32) ^ c[3] ^ key1,
           static_cast<uint32_t>(p0)};
      key0 += kWeyl0;
      key1 += kWeyl1;
    }
    return c;
  }

  // The counter of element group `index` (elements 4 index .. 4 index + 3) under `key`: index is limited to 2^40 groups, the stream to 2^48. What of
  // the name does not fit, its upper half, is mixed into the seed.
  HEDDLE_HOST_DEVICE static constexpr Block counter(const RngKey& key, uint64_t index) {
    return {
        static_cast<uint32_t>(index),
        static_cast<uint32_t>((index >> 32) & 0xffu) | (static_cast<uint32_t>(key.purpose) << 8) | (static_cast<uint32_t>(key.stream >> 32) << 16),
        static_cast<uint32_t>(key.stream), static_cast<uint32_t>(key.name)};
  }

  HEDDLE_HOST_DEVICE static constexpr uint32_t key0(const RngKey& key) { return static_cast<uint32_t>(key.seed); }
  HEDDLE_HOST_DEVICE static constexpr uint32_t key1(const RngKey& key) { return static_cast<uint32_t>((key.seed ^ key.name) >> 32); }

  // Four words for that group.
  HEDDLE_HOST_DEVICE static constexpr Block draw(const RngKey& key, uint64_t index) { return block(counter(key, index), key0(key), key1(key)); }

  // 24 random bits in [0, 1).
  HEDDLE_HOST_DEVICE static constexpr float uniform(uint32_t word) { return static_cast<float>(word >> 8) * 0x1p-24f; }

  // Box-Muller: two words to two independent N(0, 1). Host only: libm's log and cos must be the same everywhere a run may resume.
  static std::array<float, 2> normal(uint32_t a, uint32_t b) {
    const double u = (static_cast<double>(a) + 1.0) * 0x1p-32;  // (0, 1]
    const double r = std::sqrt(-2.0 * std::log(u)), phi = 6.283185307179586 * (static_cast<double>(b) * 0x1p-32);
    return {static_cast<float>(r * std::cos(phi)), static_cast<float>(r * std::sin(phi))};
  }
};

}  // namespace heddle
