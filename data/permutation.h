// A keyed bijection of [0, n): the order in which an epoch visits its samples.
//
// A balanced Feistel network over 2h bits (4^h the first power of four >= n, h >= 1) with 8 rounds; the round function is Philox keyed by
// (seed, RngPurpose::shuffle, round, epoch) with the half-block as counter. Values >= n are walked: fed in again until one falls below n,
// which stays a bijection and takes fewer than 4 steps on average (Black and Rogaway, "Ciphers with arbitrary finite domains", CT-RSA 2002).
// Nothing is stored: order(i) costs the same anywhere in the epoch, on any rank, after any restart.
#pragma once

#include <cstdint>

namespace heddle {

class Permutation {
 public:
  Permutation(uint64_t size, uint64_t seed, uint64_t epoch);  // 1 <= size <= 2^62
  uint64_t operator()(uint64_t index) const;                  // index < size; the result too

 private:
  uint64_t size_, seed_, epoch_;
  uint32_t half_bits_ = 1;
};

}  // namespace heddle
