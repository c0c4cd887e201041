#include "data/permutation.h"

#include "kernels/api/check.h"
#include "kernels/api/philox.h"

namespace heddle {
namespace {

constexpr uint32_t kRounds = 8;

}  // namespace

Permutation::Permutation(uint64_t size, uint64_t seed, uint64_t epoch) : size_(size), seed_(seed), epoch_(epoch) {
  HEDDLE_CHECK(size >= 1 && size <= uint64_t{1} << 62, "permutation", "size ", size, " is not in [1, 2^62]");
  while ((uint64_t{1} << (2 * half_bits_)) < size) ++half_bits_;
}

uint64_t Permutation::operator()(uint64_t index) const {
  HEDDLE_CHECK(index < size_, "permutation", "index ", index, " of ", size_);
  const uint64_t mask = (uint64_t{1} << half_bits_) - 1;
  do {
    uint64_t left = index >> half_bits_, right = index & mask;
    for (uint32_t round = 0; round < kRounds; ++round) {
      const RngKey key{seed_, RngPurpose::shuffle, round, epoch_};
      const uint64_t mixed = left ^ (Philox::draw(key, right)[0] & mask);
      left = right;
      right = mixed;
    }
    index = left << half_bits_ | right;
  } while (index >= size_);
  return index;
}

}  // namespace heddle
