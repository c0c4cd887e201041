#include "checkpoint/fold.h"

#include <array>

#include "kernels/api/check.h"

namespace heddle {
namespace {

template <class Word>
uint64_t fold_run(uint64_t seed, uint64_t index, const std::byte* data, int64_t count) {
  uint64_t sum = 0;
  for (int64_t i = 0; i < count; ++i) {
    Word word;
    std::memcpy(&word, data + static_cast<size_t>(i) * sizeof(Word), sizeof(Word));
    sum += fold_mix(seed, index + static_cast<uint64_t>(i), word);
  }
  return sum;
}

}  // namespace

uint64_t fold_piece(std::string_view name, DType dtype, std::span<const int64_t> global, const Box& box, const std::byte* data) {
  constexpr size_t kMostRank = 8;
  const size_t rank = box.size();
  HEDDLE_CHECK(rank <= kMostRank, "checkpoint", "tensor \"", name, "\" has ", rank, " dimensions, at most ", kMostRank);
  if (volume(box) == 0) return 0;
  const uint64_t seed = fnv1a(name);
  // Rows along the last axis are consecutive in the whole tensor; odometer over the others.
  std::array<int64_t, kMostRank> step{}, index{};
  int64_t s = 1;
  uint64_t at = 0;
  for (size_t i = rank; i-- > 0;) {
    step[i] = s;
    at += static_cast<uint64_t>(box[i].begin * s);
    s *= global[i];
  }
  const int64_t row = rank == 0 ? 1 : box[rank - 1].size();
  uint64_t sum = 0;
  while (true) {
    switch (size_of(dtype)) {
      case 8: sum += fold_run<uint64_t>(seed, at, data, row); break;
      case 4: sum += fold_run<uint32_t>(seed, at, data, row); break;
      case 2: sum += fold_run<uint16_t>(seed, at, data, row); break;
      default: sum += fold_run<uint8_t>(seed, at, data, row); break;
    }
    data += row * size_of(dtype);
    size_t i = rank > 0 ? rank - 1 : 0;
    for (; i > 0; --i) {
      at += static_cast<uint64_t>(step[i - 1]);
      if (++index[i - 1] < box[i - 1].size()) break;
      at -= static_cast<uint64_t>(step[i - 1] * index[i - 1]);
      index[i - 1] = 0;
    }
    if (i == 0) return sum;
  }
}

}  // namespace heddle
