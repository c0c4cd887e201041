// The fold: a 64-bit fingerprint of a checkpoint's logical content that does not depend on how tensors are sliced.
//
// Each element contributes a mix of its tensor's name, its index in the unsharded tensor and its bits; the fold is their sum modulo 2^64, so ranks
// add up what they hold. It guards the path between memory and file (a box read to the wrong place changes it); SHA-256 guards the files.
#pragma once

#include <cstdint>
#include <cstring>
#include <string_view>

#include "core/io/boxes.h"
#include "core/io/fnv1a.h"

namespace heddle {

inline uint64_t fold_mix(uint64_t seed, uint64_t index, uint64_t bits) {
  uint64_t x = seed + index * 0x9E3779B97F4A7C15u;
  x = (x ^ bits) * 0xBF58476D1CE4E5B9u;
  x = (x ^ (x >> 32)) * 0x94D049BB133111EBu;
  return x ^ (x >> 31);
}

// The fold of one piece: `data` holds the elements of `box` of a tensor of shape `global`, dense. No allocation.
uint64_t fold_piece(std::string_view name, DType dtype, std::span<const int64_t> global, const Box& box, const std::byte* data);

}  // namespace heddle
