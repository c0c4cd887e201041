// TMA and bulk copies against loops over every element of a box, written from the manual's "Tensors" chapter: bounding box, element strides,
// out-of-bounds elements, swizzling modes.
#include <algorithm>
#include <array>
#include <cstring>
#include <numeric>

#include "tests/sim/ptx_kernels.h"
#include "tests/sim/ptx_support.h"

namespace heddle::test {
namespace {

struct Tensor {
  CUtensorMapDataType type = CU_TENSOR_MAP_DATA_TYPE_BFLOAT16;
  uint32_t element_bytes = 2;
  std::vector<uint64_t> size;       // elements, innermost first
  std::vector<uint64_t> pitch;      // bytes from one index to the next, dimensions 1 and up
  std::vector<uint32_t> box, step;  // step: element strides
  CUtensorMapSwizzle swizzle = CU_TENSOR_MAP_SWIZZLE_NONE;
  CUtensorMapFloatOOBfill fill = CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE;

  uint64_t bytes() const {
    uint64_t end = size[0] * element_bytes;
    for (size_t d = 1; d < size.size(); ++d) end += (size[d] - 1) * pitch[d - 1];
    return end;
  }
  uint32_t taken(size_t d) const { return d == 0 ? box[0] : (box[d] + step[d] - 1) / step[d]; }
  uint32_t tile_elements() const {
    uint32_t count = 1;
    for (size_t d = 0; d < size.size(); ++d) count *= taken(d);
    return count;
  }
  uint32_t tile_bytes() const { return tile_elements() * element_bytes; }

  CUtensorMap encode(void* memory) const {
    CUtensorMap map;
    const CUresult result = cuTensorMapEncodeTiled(&map, type, static_cast<uint32_t>(size.size()), memory, size.data(), pitch.data(), box.data(),
                                                   step.data(), CU_TENSOR_MAP_INTERLEAVE_NONE, swizzle, CU_TENSOR_MAP_L2_PROMOTION_NONE, fill);
    REQUIRE(result == CUDA_SUCCESS);
    return map;
  }

  // The byte of the tensor that element `index` of a tile (innermost first) at `start` is, or -1 outside.
  int64_t source(uint32_t index, const std::vector<int32_t>& start) const {
    int64_t byte = 0;
    for (size_t d = 0; d < size.size(); ++d) {
      const int64_t i = start[d] + static_cast<int64_t>(index % taken(d)) * (d == 0 ? 1 : step[d]);
      index /= taken(d);
      if (i < 0 || i >= static_cast<int64_t>(size[d])) return -1;
      byte += i * static_cast<int64_t>(d == 0 ? element_bytes : pitch[d - 1]);
    }
    return byte;
  }

  // PTX ISA, "Swizzling modes", as tables: a tile is lines of 128 bytes; in line y (counted from a multiple of the pattern) chunk x lies at x ^ f(y,
  // x).
  uint32_t place(uint32_t byte, uint32_t first_line) const {
    const uint32_t y = first_line + byte / 128, x = byte / 16 % 8;
    uint32_t to = x;
    switch (swizzle) {
      case CU_TENSOR_MAP_SWIZZLE_128B: to = x ^ (y % 8); break;
      case CU_TENSOR_MAP_SWIZZLE_64B: to = (x & 4) | ((x & 3) ^ (y % 4)); break;
      case CU_TENSOR_MAP_SWIZZLE_32B: to = (x & 6) | ((x & 1) ^ (y % 2)); break;
      default: break;
    }
    return byte / 128 * 128 + to * 16 + byte % 16;
  }
};

Tensor dense(CUtensorMapDataType type, uint32_t element_bytes, std::vector<uint64_t> size, std::vector<uint32_t> box, CUtensorMapSwizzle swizzle) {
  Tensor t{.type = type, .element_bytes = element_bytes, .size = std::move(size), .box = std::move(box), .swizzle = swizzle};
  uint64_t pitch = (t.size[0] * element_bytes + 15) / 16 * 16 + 32;  // rows lie apart
  for (size_t d = 1; d < t.size.size(); ++d) {
    t.pitch.push_back(pitch);
    pitch *= t.size[d] + 1;
  }
  t.step.assign(t.size.size(), 1);
  return t;
}

constexpr size_t kAlignment = 16;
struct Memory {  // the tensor and room around it, 16-byte aligned
  Memory(const Tensor& t, size_t seed) : words((t.bytes() + 64) / 4 + 8) {
    words = random_words(words.size(), static_cast<unsigned>(seed));
    for (uint32_t& w : words) w &= 0x3FFF3FFFu;  // no NaN in any 16-bit or 32-bit float
    const auto address = reinterpret_cast<uintptr_t>(words.data());
    first = reinterpret_cast<std::byte*>((address + kAlignment - 1) / kAlignment * kAlignment);
  }
  std::vector<uint32_t> words;
  std::byte* first;
};

Start start_of(const std::vector<int32_t>& at) {
  Start start = {};
  std::copy(at.begin(), at.end(), start.at);
  return start;
}

void check_load(const Tensor& t, const std::vector<int32_t>& at, uint32_t first_line = 0) {
  const int rank = static_cast<int>(at.size());
  const Memory memory(t, at.size());
  const uint32_t words = (t.tile_bytes() + first_line * 128 + 127) / 128 * 32;
  std::vector<uint32_t> out(words);
  on_machine({.block = {32, 1, 1}, .shared_bytes = words * 4 + 16}, tile_loads(rank), t.encode(memory.first), start_of(at), first_line * 128,
             t.tile_bytes(), out.data(), words);
  const auto* got = reinterpret_cast<const std::byte*>(out.data()) + first_line * 128;
  for (uint32_t e = 0; e < t.tile_elements(); ++e) {
    const int64_t source = t.source(e, at);
    for (uint32_t byte = 0; byte < t.element_bytes; ++byte) {
      const std::byte outside = t.fill == CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE ? std::byte{0} : std::byte{0xFF};
      const std::byte want = source < 0 ? outside : memory.first[source + byte], have = got[t.place(e * t.element_bytes + byte, first_line)];
      if (have == want) continue;
      INFO("rank " << rank << " swizzle " << t.swizzle << " element " << e);
      REQUIRE(have == want);
    }
  }
}

constexpr CUtensorMapDataType kBf16 = CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, kF32 = CU_TENSOR_MAP_DATA_TYPE_FLOAT32, kU8 = CU_TENSOR_MAP_DATA_TYPE_UINT8;

TEST_CASE("ptx: TMA loads tiles of 1 to 5 dimensions, inside and across every edge") {
  in_every_mode([] {
    const CUtensorMapSwizzle none = CU_TENSOR_MAP_SWIZZLE_NONE;
    check_load(dense(kF32, 4, {100}, {32}, none), {7});
    check_load(dense(kF32, 4, {100}, {32}, none), {90});
    for (const std::vector<int32_t>& at : {std::vector<int32_t>{0, 0}, {8, 5}, {-3, -2}, {30, 17}, {100, 0}, {0, -20}}) {
      check_load(dense(kBf16, 2, {40, 20}, {16, 8}, none), at);
    }
    check_load(dense(kU8, 1, {33, 7, 5}, {16, 4, 3}, none), {20, 5, 3});
    check_load(dense(kBf16, 2, {9, 4, 3, 3}, {8, 2, 2, 2}, none), {4, -1, 2, 1});
    check_load(dense(kF32, 4, {6, 3, 3, 2, 2}, {4, 2, 2, 2, 2}, none), {1, 2, 1, 1, -1});
    check_load(dense(kF32, 4, {6, 3, 3, 2, 2}, {4, 2, 2, 2, 2}, none), {1, 1, 1, 0, 0});
  });
}

TEST_CASE("ptx: TMA swizzles by the address, also where a tile does not start at the pattern") {
  for (uint32_t line : {0u, 1u, 3u, 6u}) {
    check_load(dense(kBf16, 2, {100, 30}, {64, 24}, CU_TENSOR_MAP_SWIZZLE_128B), {10, 9}, line);
    check_load(dense(kBf16, 2, {100, 30}, {32, 24}, CU_TENSOR_MAP_SWIZZLE_64B), {90, 9}, line);
    check_load(dense(kBf16, 2, {100, 30}, {16, 24}, CU_TENSOR_MAP_SWIZZLE_32B), {-5, -1}, line);
  }
  check_load(dense(kF32, 4, {64, 9, 4}, {32, 8, 2}, CU_TENSOR_MAP_SWIZZLE_128B), {16, 3, 1});
}

TEST_CASE("ptx: TMA takes every n-th element of the dimensions that have a stride, and fills with NaN when asked") {
  Tensor t = dense(kBf16, 2, {40, 20, 9}, {16, 8, 5}, CU_TENSOR_MAP_SWIZZLE_NONE);
  t.step = {1, 2, 3};
  check_load(t, {5, 7, 2});
  check_load(t, {5, 15, 4});
  t.fill = CU_TENSOR_MAP_FLOAT_OOB_FILL_NAN_REQUEST_ZERO_FMA;
  check_load(t, {35, 15, 4});
}

void check_store(const Tensor& t, const std::vector<int32_t>& at, bool add) {
  const int rank = static_cast<int>(at.size());
  Memory memory(t, at.size() + 10);
  auto image = random_words((t.tile_bytes() + 127) / 128 * 32, 20);
  if (add) {  // values whose sums are exact
    const auto integers = small_integers(std::max(image.size(), memory.words.size()) * 2, 3);
    const auto fill = [&](std::byte* to, size_t bytes) {
      for (size_t i = 0; i < bytes / t.element_bytes; ++i) {
        const uint32_t bits = __builtin_bit_cast(uint32_t, integers[i]) >> (t.element_bytes == 2 ? 16 : 0);
        std::memcpy(to + i * t.element_bytes, &bits, t.element_bytes);
      }
    };
    fill(memory.first, t.bytes());
    fill(reinterpret_cast<std::byte*>(image.data()), image.size() * 4);
    std::reverse(image.begin(), image.end());
  }
  std::vector<std::byte> want(memory.first, memory.first + t.bytes());
  const auto* tile = reinterpret_cast<const std::byte*>(image.data());
  for (uint32_t e = 0; e < t.tile_elements(); ++e) {
    const int64_t target = t.source(e, at);
    if (target < 0) continue;
    const std::byte* from = tile + t.place(e * t.element_bytes, 0);
    if (add) {
      uint32_t x = 0, y = 0;
      std::memcpy(&x, want.data() + target, t.element_bytes);
      std::memcpy(&y, from, t.element_bytes);
      const int up = t.element_bytes == 2 ? 16 : 0;
      const uint32_t sum = __builtin_bit_cast(uint32_t, __builtin_bit_cast(float, x << up) + __builtin_bit_cast(float, y << up)) >> up;
      std::memcpy(want.data() + target, &sum, t.element_bytes);
    } else {
      std::memcpy(want.data() + target, from, t.element_bytes);
    }
  }
  const uint32_t words = static_cast<uint32_t>(image.size());
  on_machine({.block = {64, 1, 1}, .shared_bytes = words * 4}, tile_stores(rank), t.encode(memory.first), start_of(at), image.data(), words, add);
  for (size_t i = 0; i < want.size(); ++i) {
    if (memory.first[i] == want[i]) continue;
    INFO("rank " << rank << (add ? " add" : " store") << " byte " << i);
    REQUIRE(memory.first[i] == want[i]);
  }
}

TEST_CASE("ptx: TMA stores and adds tiles and leaves what lies outside the tensor alone") {
  in_every_mode([] {
    for (bool add : {false, true}) {
      check_store(dense(kF32, 4, {100}, {32}, CU_TENSOR_MAP_SWIZZLE_NONE), {80}, add);
      for (const std::vector<int32_t>& at : {std::vector<int32_t>{0, 0}, {-4, 3}, {50, 18}}) {
        check_store(dense(kBf16, 2, {100, 20}, {64, 16}, CU_TENSOR_MAP_SWIZZLE_128B), at, add);
        check_store(dense(kF32, 4, {100, 20}, {16, 16}, CU_TENSOR_MAP_SWIZZLE_64B), at, add);
        check_store(dense(kBf16, 2, {100, 20}, {16, 16}, CU_TENSOR_MAP_SWIZZLE_32B), at, add);
      }
      check_store(dense(kF32, 4, {20, 6, 4}, {8, 4, 2}, CU_TENSOR_MAP_SWIZZLE_NONE), {15, -1, 3}, add);
    }
  });
}

TEST_CASE("ptx: TMA adds in the tensor's type, rounds to nearest even, and refuses types that have no add") {
  struct Sum {
    CUtensorMapDataType type;
    uint32_t element_bytes;
    uint64_t a, b, sum;
  };
  const Sum sums[] = {{CU_TENSOR_MAP_DATA_TYPE_FLOAT32, 4, 0x3FC00000, 0x40100000, 0x40700000},  // 1.5 + 2.25
                      {CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 2, 0x4302, 0x4301, 0x4382},             // 130 + 129 between 258 and 260
                      {CU_TENSOR_MAP_DATA_TYPE_FLOAT16, 2, 0x6401, 0x6402, 0x6802},              // 1025 + 1026 between 2050 and 2052
                      {CU_TENSOR_MAP_DATA_TYPE_FLOAT16, 2, 0x0001, 0x8003, 0x8002},              // subnormals
                      {CU_TENSOR_MAP_DATA_TYPE_INT32, 4, 0x7FFFFFFF, 2, 0x80000001},
                      {CU_TENSOR_MAP_DATA_TYPE_UINT32, 4, 0xFFFFFFFF, 3, 2},
                      {CU_TENSOR_MAP_DATA_TYPE_INT64, 8, 0x1FFFFFFFF, 2, 0x200000001},
                      {CU_TENSOR_MAP_DATA_TYPE_UINT64, 8, 0xFFFFFFFFFFFFFFFF, 3, 2}};
  const auto added = [](const Sum& s) {
    Tensor t = dense(s.type, s.element_bytes, {8}, {8}, CU_TENSOR_MAP_SWIZZLE_NONE);
    alignas(16) std::byte memory[64] = {};
    std::vector<uint32_t> image(32);
    for (uint32_t i = 0; i < 8; ++i) {
      std::memcpy(memory + i * s.element_bytes, &s.a, s.element_bytes);
      std::memcpy(reinterpret_cast<std::byte*>(image.data()) + i * s.element_bytes, &s.b, s.element_bytes);
    }
    on_machine({.block = {64, 1, 1}, .shared_bytes = 128}, tile_stores(1), t.encode(memory), Start{}, image.data(), 32u, true);
    uint64_t got = 0;
    std::memcpy(&got, memory + 7 * s.element_bytes, s.element_bytes);
    return got;
  };
  for (const Sum& s : sums) {
    INFO("type " << s.type);
    CHECK(added(s) == s.sum);
  }
  CHECK(mentions(fault_of([&] { added({CU_TENSOR_MAP_DATA_TYPE_UINT16, 2, 1, 1, 2}); }), "no .add for element type"));
  CHECK(mentions(fault_of([&] { added({CU_TENSOR_MAP_DATA_TYPE_FLOAT64, 8, 1, 1, 2}); }), "no .add for element type"));
}

TEST_CASE("ptx: a multicast load gives the same tile to every block of the mask and to no other") {
  const Tensor t = dense(kBf16, 2, {64, 16}, {64, 16}, CU_TENSOR_MAP_SWIZZLE_128B);
  const Memory memory(t, 77);
  const uint32_t words = t.tile_bytes() / 4;
  in_every_mode([&] {
    for (const auto& [sender, mask] : {std::pair{0u, 0b1111}, std::pair{2u, 0b0101}, std::pair{1u, 0b1000}}) {
      std::vector<uint32_t> out(4 * words);
      on_machine({.grid = {4, 1, 1}, .block = {32, 1, 1}, .shared_bytes = words * 4 + 16, .cluster = {4, 1, 1}}, multicasts, t.encode(memory.first),
                 sender, static_cast<uint16_t>(mask), t.tile_bytes(), out.data(), words);
      for (uint32_t rank = 0; rank < 4; ++rank) {
        for (uint32_t byte = 0; byte < t.tile_bytes(); ++byte) {
          const std::byte got = reinterpret_cast<const std::byte*>(&out[rank * words])[t.place(byte, 0)];
          const std::byte want = ((mask >> rank & 1) != 0 ? memory.first[t.source(byte / 2, {0, 0}) + byte % 2] : std::byte{0xEE});
          if (got == want) continue;
          INFO("sender " << sender << " mask " << mask << " rank " << rank << " byte " << byte);
          REQUIRE(got == want);
        }
      }
    }
  });
}

TEST_CASE("ptx: bulk copies and reductions") {
  in_every_mode([] {
    const auto in = small_integers(64, 1);
    alignas(16) float from[64], out[64] = {}, sum[64];
    std::copy(in.begin(), in.end(), from);
    std::iota(sum, sum + 64, 1.0f);
    on_machine({.block = {32, 1, 1}, .shared_bytes = 512}, bulk_copies, from, out, sum, 192u);
    for (size_t i = 0; i < 64; ++i) {
      REQUIRE(out[i] == (i < 48 ? in[i] : 0.0f));
      REQUIRE(sum[i] == static_cast<float>(i + 1) + (i < 48 ? in[i] : 0.0f));
    }
  });
  alignas(16) float any[64] = {};
  const Shape shape = {.block = {32, 1, 1}, .shared_bytes = 512};
  CHECK(mentions(fault_of([&] { on_machine(shape, bulk_copies, any, any, any, 24u); }), "a positive multiple of 16, not 24"));
  CHECK(mentions(fault_of([&] { on_machine(shape, bulk_copies, any + 2, any, any, 64u); }), "must be a multiple of 16"));
}

TEST_CASE("ptx: TMA faults on a wrong rank, a misaligned tile, a foreign map and a tile that leaves shared memory") {
  const Tensor t = dense(kBf16, 2, {64, 16}, {64, 16}, CU_TENSOR_MAP_SWIZZLE_128B);
  const Memory memory(t, 7);
  const CUtensorMap map = t.encode(memory.first);
  const Shape shape = {.block = {1, 1, 1}, .shared_bytes = 8192 + 16};
  const std::string rank = fault_of([&] { on_machine(shape, unchecked_tile, map, 0u, true); }),
                    misaligned = fault_of([&] { on_machine(shape, unchecked_tile, map, 64u, false); }),
                    outside = fault_of([&] { on_machine(shape, unchecked_tile, map, 7168u, false); }),
                    foreign = fault_of([&] { on_machine(shape, unchecked_tile, CUtensorMap{}, 0u, false); });
  CUtensorMap altered = map;
  reinterpret_cast<std::byte*>(&altered)[9] ^= std::byte{1};
  const std::string changed = fault_of([&] { on_machine(shape, unchecked_tile, altered, 0u, false); });
  const Tensor narrow = dense(kBf16, 2, {64, 16}, {32, 16}, CU_TENSOR_MAP_SWIZZLE_128B);
  const std::string row = fault_of([&] { on_machine(shape, unchecked_tile, narrow.encode(memory.first), 0u, false); });
  std::vector<uint32_t> out(4 * 512);
  const Shape cluster = {.grid = {4, 1, 1}, .block = {32, 1, 1}, .shared_bytes = 2048 + 16, .cluster = {4, 1, 1}};
  const std::string mask = fault_of([&] { on_machine(cluster, multicasts, map, 0u, uint16_t{0b10001}, 2048u, out.data(), 512u); });
  CAPTURE(rank, misaligned, outside, foreign, changed, row, mask);
  CHECK(mentions(rank, "3 coordinates for a map of rank 2"));
  CHECK(mentions(misaligned, "multiple of 128"));
  CHECK(mentions(outside, "out of bounds"));
  CHECK(mentions(foreign, "not written by cuTensorMapEncodeTiled"));
  CHECK(mentions(changed, "not written by cuTensorMapEncodeTiled"));
  CHECK(mentions(row, "64 bytes under a swizzle of 128"));
  CHECK(mentions(mask, "beyond the cluster's 4"));
}

}  // namespace
}  // namespace heddle::test
