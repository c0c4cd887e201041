// TMA tiles of 1 to 5 dimensions under every swizzle, multicast, bulk copies.
#include "bench/gpu/conformance_support.h"
#include "kernels/arch/ptx.h"
#include "kernels/cuda/tensor_map.cuh"

namespace heddle::bench {
namespace {

struct Tensor {
  CUtensorMapDataType type;
  uint32_t element_bytes;
  std::vector<uint64_t> size;  // elements, innermost first
  std::vector<uint32_t> box;
  CUtensorMapSwizzle swizzle = CU_TENSOR_MAP_SWIZZLE_NONE;

  // Rows lie apart, so that what a tile must not touch shows.
  std::vector<uint64_t> pitches() const {
    std::vector<uint64_t> pitches;
    uint64_t pitch = (size[0] * element_bytes + 15) / 16 * 16 + 32;
    for (size_t d = 1; d < size.size(); ++d) {
      pitches.push_back(pitch);
      pitch *= size[d] + 1;
    }
    return pitches;
  }
  size_t words() const {
    uint64_t end = size[0] * element_bytes;
    const std::vector<uint64_t> pitch = pitches();
    for (size_t d = 1; d < size.size(); ++d) end += (size[d] - 1) * pitch[d - 1];
    return (end + 63) / 16 * 4;
  }
  uint32_t tile_bytes() const {
    uint32_t bytes = element_bytes;
    for (uint32_t n : box) bytes *= n;
    return bytes;
  }
  uint32_t tile_words() const { return (tile_bytes() + 127) / 128 * 32; }
  CUtensorMap map(uint32_t* memory) const {
    return kernels::cuda::tensor_map(memory, type, static_cast<uint32_t>(size.size()), size.data(), pitches().data(), box.data(), swizzle);
  }
};

constexpr CUtensorMapDataType kBf16 = CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, kF32 = CU_TENSOR_MAP_DATA_TYPE_FLOAT32, kU8 = CU_TENSOR_MAP_DATA_TYPE_UINT8;

using At = std::vector<int32_t>;
test::Start start_of(const At& at) {
  test::Start start = {};
  for (size_t d = 0; d < at.size(); ++d) start.at[d] = at[d];
  return start;
}

Words loaded(const Tensor& t, const At& at) {
  const Array<uint32_t> memory(bf16_pairs(t.words(), 41)), out(t.tile_words(), 0);
  launch(one_block(32, t.tile_words() * 4 + 16), test::tile_loads(static_cast<int>(at.size())), t.map(memory), start_of(at), 0u, t.tile_bytes(), out,
         t.tile_words());
  return out.words();
}
Words stored(const Tensor& t, const At& at, bool add) {
  const auto values = [&](size_t n, unsigned seed) { return t.type == kF32 ? words_of(small_integers(n, seed)) : bf16_pairs(n, seed); };
  const Array<uint32_t> memory(values(t.words(), 42)), image(values(t.tile_words(), 43));
  launch(one_block(64, t.tile_words() * 4), test::tile_stores(static_cast<int>(at.size())), t.map(memory), start_of(at), image, t.tile_words(), add);
  return memory.words();
}
Words multicast(uint16_t mask, unsigned sender) {
  const Tensor t{kBf16, 2, {100, 30}, {64, 8}, CU_TENSOR_MAP_SWIZZLE_128B};
  const Array<uint32_t> memory(bf16_pairs(t.words(), 44)), out(static_cast<size_t>(4) * t.tile_words(), 0);
  launch(one_cluster(4, 32, t.tile_words() * 4 + 16), test::multicasts, t.map(memory), sender, mask, t.tile_bytes(), out, t.tile_words());
  return out.words();
}

// The forms that the kernels of the tests leave out: a hinted multicast by block 0 of two, then a plain load on top of its upper half, then a plain
// store of the whole by each block to its rows.
__global__ void plain_and_hinted(const __grid_constant__ CUtensorMap from, const __grid_constant__ CUtensorMap upper,
                                 const __grid_constant__ CUtensorMap to, uint32_t tile_bytes) {
  const uint32_t smem = ptx::smem_u32(dyn_smem<uint32_t>()), full = smem + tile_bytes;
  const auto rank = static_cast<int32_t>(ptx::cluster_rank());
  if (threadIdx.x == 0) {
    ptx::mbarrier_init(full, 1);
    ptx::fence_mbarrier_init();
    ptx::mbarrier_arrive_expect_tx(full, tile_bytes);
  }
  ptx::cluster_arrive();
  ptx::cluster_wait();
  if (threadIdx.x == 0) {
    if (rank == 0) ptx::tma_load_multicast_hinted(smem, &from, full, {3, 2}, static_cast<uint16_t>(3), ptx::policy_evict_last());
    ptx::mbarrier_wait_cluster(full, 0);
    ptx::mbarrier_arrive_expect_tx(full, tile_bytes / 2);
    ptx::tma_load(smem + tile_bytes / 2, &upper, full, {7 + rank, 11});
    ptx::mbarrier_wait(full, 1);
    ptx::tma_store(&to, smem, {0, 8 * rank});
    ptx::bulk_commit();
    ptx::bulk_wait<0>();
  }
  ptx::cluster_arrive();
  ptx::cluster_wait();
}
Words plain_forms() {
  const Tensor from{kF32, 4, {60, 20}, {32, 8}}, upper{kF32, 4, {60, 20}, {32, 4}}, to{kF32, 4, {32, 16}, {32, 8}};
  const Array<uint32_t> in(words_of(small_integers(from.words(), 45))), out(to.words(), 0);
  launch(one_cluster(2, 32, from.tile_bytes() + 16), plain_and_hinted, from.map(in), upper.map(in), to.map(out), from.tile_bytes());
  return out.words();
}

Words copied_in_bulk() {
  constexpr uint32_t kN = 48;
  const Array<float> in(small_integers(kN, 46)), out(kN, 0), sum(small_integers(kN, 47));
  launch(one_block(32, 512), test::bulk_copies, in, out, sum, kN * 4);
  Words words = out.words();
  append(words, sum.words());
  return words;
}

}  // namespace

std::vector<ConformanceCase> tma_cases() {
  std::vector<ConformanceCase> cases;
  const auto load = [&](const std::string& name, const Tensor& t, const At& at) {
    cases.push_back({"tma_load_" + name, 90, [=] { return loaded(t, at); }});
  };
  const auto store = [&](const std::string& name, const Tensor& t, const At& at, bool add = false) {
    cases.push_back({(add ? "tma_reduce_add_" : "tma_store_") + name, 90, [=] { return stored(t, at, add); }});
  };
  const Tensor line{kF32, 4, {100}, {32}}, matrix{kBf16, 2, {40, 20}, {16, 8}}, cube{kU8, 1, {33, 7, 5}, {16, 4, 3}},
      four{kBf16, 2, {9, 4, 3, 3}, {8, 2, 2, 2}}, five{kF32, 4, {6, 3, 3, 2, 2}, {4, 2, 2, 2, 2}};
  load("1d_inside", line, {7});
  load("1d_across_end", line, {90});
  load("2d_inside", matrix, {8, 5});
  load("2d_before_origin", matrix, {-3, -2});
  load("2d_across_corner", matrix, {30, 17});
  load("2d_beyond", matrix, {100, 0});
  load("3d", cube, {20, 5, 3});
  load("4d", four, {4, -1, 2, 1});
  load("5d", five, {1, 2, 1, 1, -1});
  const struct {
    const char* name;
    CUtensorMapSwizzle swizzle;
    uint32_t columns;
  } swizzles[] = {{"32", CU_TENSOR_MAP_SWIZZLE_32B, 16}, {"64", CU_TENSOR_MAP_SWIZZLE_64B, 32}, {"128", CU_TENSOR_MAP_SWIZZLE_128B, 64}};
  for (const auto& s : swizzles) {
    const Tensor t{kBf16, 2, {100, 30}, {s.columns, 24}, s.swizzle};
    load(concat("swizzled_", s.name), t, {10, 3});
    load(concat("swizzled_", s.name, "_across_corner"), t, {90, 9});
    store(concat("swizzled_", s.name), t, {90, 9});
  }
  store("1d_across_end", line, {90});
  store("2d_inside", matrix, {8, 5});
  store("2d_before_origin", matrix, {-3, -2});
  store("3d", cube, {20, 5, 3});
  store("4d", four, {4, -1, 2, 1});
  store("5d", five, {1, 2, 1, 1, -1});
  store("f32", {kF32, 4, {50, 20}, {32, 8}, CU_TENSOR_MAP_SWIZZLE_128B}, {30, 16}, true);
  store("bf16", {kBf16, 2, {100, 20}, {64, 8}, CU_TENSOR_MAP_SWIZZLE_128B}, {-5, 16}, true);
  cases.push_back({"tma_load_multicast_to_all", 90, [] { return multicast(0b1111, 0); }});
  cases.push_back({"tma_load_multicast_to_some", 90, [] { return multicast(0b1011, 1); }});
  cases.push_back({"tma_plain_and_hinted", 90, plain_forms});
  cases.push_back({"bulk_copies", 90, copied_in_bulk});
  return cases;
}

}  // namespace heddle::bench
