// What instructions say of their own accesses: the check flavour finds each fault planted in ptx_race_kernels.cu, in every order, and nothing in the
// kernel without it.
#include <cstring>
#include <memory>

#include "kernels/sim/check/check.h"
#include "tests/sim/ptx_kernels.h"
#include "tests/sim/ptx_support.h"

namespace heddle::test {
namespace {

// Global memory that the check flavour watches, zeroed, with its guards.
class Watched {
 public:
  explicit Watched(size_t words) : storage_((words * 4 + 2 * sim::kGuardBytes) / 16 + 1), bytes_(words * 4) {
    sim::register_global(first(), bytes_, sim::kGuardBytes);
    std::memset(first(), 0, bytes_);
    sim::note_host_write(first(), bytes_);
  }
  ~Watched() { sim::unregister_global(first()); }
  Watched(const Watched&) = delete;
  Watched& operator=(const Watched&) = delete;
  uint32_t* first() { return reinterpret_cast<uint32_t*>(reinterpret_cast<std::byte*>(storage_.data()) + sim::kGuardBytes); }

 private:
  std::vector<uint4> storage_;  // 16-byte aligned
  size_t bytes_;
};

struct Case {
  PtxRace kind;
  uint32_t threads, blocks;
  const char* report;
  uint32_t cluster = 1;
};
const Case kCases[] = {
    {PtxRace::ldmatrix_of_stores, 64, 1, "ldmatrix.x4"},
    {PtxRace::stmatrix_then_load, 64, 1, "stmatrix.x4"},
    {PtxRace::store_after_ldmatrix, 32, 1, "race on shared memory (write after read)"},
    {PtxRace::wide_shared, 64, 1, "shared.v4"},
    {PtxRace::tile_not_waited_for, 64, 1, "cp.async.bulk.tensor load"},
    {PtxRace::stage_of_loads, 64, 1, "cp.async.bulk.tensor load"},
    {PtxRace::tile_source_reused, 64, 1, "cp.async.bulk.tensor store"},
    {PtxRace::tile_without_proxy_fence, 64, 1, "missing proxy fence"},
    {PtxRace::wgmma_without_proxy_fence, 128, 1, "missing proxy fence"},
    {PtxRace::wgmma_operand_overwritten, 128, 1, "wgmma.mma_async"},
    {PtxRace::uninitialised_ldmatrix, 32, 1, "uninitialised read"},
    {PtxRace::tiles_of_two_blocks, 32, 2, "race on global memory"},
    {PtxRace::wide_global, 64, 1, "global.v4"},
    {PtxRace::narrow_shared, 64, 1, "race on shared memory"},
    {PtxRace::async_copy_not_waited, 64, 1, "cp.async.cg"},
    {PtxRace::bulk_not_waited, 32, 1, "cp.async.bulk load"},
    {PtxRace::bulk_source_overwritten, 32, 1, "cp.async.bulk load"},
    {PtxRace::bulk_source_without_proxy_fence, 32, 1, "missing proxy fence"},
    {PtxRace::tile_overwritten_on_its_way, 32, 1, "cp.async.bulk.tensor load"},
    {PtxRace::bulk_target_not_waited, 32, 1, "cp.async.bulk store"},
    {PtxRace::bulk_sum_not_waited, 32, 1, "cp.reduce.async.bulk.add.f32"},
    {PtxRace::cluster_words, 32, 2, "shared::cluster", 2},
    {PtxRace::bulk_source_of_other_block, 32, 2, "missing proxy fence"},
    {PtxRace::add_acq_rel, 32, 2, "race on global memory"},
    {PtxRace::cas_acq_rel, 32, 2, "race on global memory"},
    {PtxRace::red_release, 32, 2, "race on global memory"},
    {PtxRace::release_acquire, 32, 2, "race on global memory"},
    {PtxRace::fences_of_grid, 32, 2, "race on global memory"},
    {PtxRace::fences_of_cluster, 32, 2, "race on global memory", 2},
    {PtxRace::fences_of_block, 64, 1, "race on global memory"},
};

std::string report_of(const Case& c, bool wrong) {
  Watched tensor(16 * 32), out(256);
  const uint64_t size[2] = {64, 16}, pitch[1] = {128};
  const uint32_t box[2] = {64, 16}, step[2] = {1, 1};
  CUtensorMap map;
  REQUIRE(cuTensorMapEncodeTiled(&map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 2, tensor.first(), size, pitch, box, step, CU_TENSOR_MAP_INTERLEAVE_NONE,
                                 CU_TENSOR_MAP_SWIZZLE_NONE, CU_TENSOR_MAP_L2_PROMOTION_NONE, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) == CUDA_SUCCESS);
  const Shape shape = {.grid = {c.blocks, 1, 1}, .block = {c.threads, 1, 1}, .shared_bytes = 4096 + 16, .cluster = {c.cluster, 1, 1}};
  return fault_of([&] { on_machine(shape, ptx_race(c.kind), map, wrong, out.first()); });
}

TEST_CASE("ptx races: each is found in every order, with its line") {
  for (const Case& c : kCases) {
    in_every_mode([&] {
      const std::string report = report_of(c, true);
      INFO(static_cast<int>(c.kind) << ": " << report);
      CHECK(mentions(report, c.report));
      CHECK(mentions(report, "ptx_race_kernels.cu:"));
    });
  }
}

TEST_CASE("ptx races: nothing is said of the right kernels, in 50 random orders") {
  const sim::Options before = sim::options();
  for (const Case& c : kCases) {
    in_every_mode([&] { CHECK(report_of(c, false) == ""); });
    for (uint64_t seed = 1; seed <= 50; ++seed) {
      sim::Options options = before;
      options.mode = sim::AsyncMode::random;
      options.seed = seed;
      sim::set_options(options);
      REQUIRE(report_of(c, false) == "");
    }
    sim::set_options(before);
  }
}

TEST_CASE("ptx: the 128-byte swizzle frees a column of ldmatrix rows from bank conflicts") {
  std::vector<uint32_t> out(256);
  for (bool swizzle : {true, false}) {
    sim::count_accesses(true);
    on_machine({.block = {256, 1, 1}, .shared_bytes = 8192}, column_of_chunks, swizzle, out.data());
    const std::vector<sim::AccessCount> counts = sim::access_counts();
    sim::count_accesses(false);
    uint64_t accesses = 0, extra = 0;
    for (const sim::AccessCount& count : counts) {
      if (!count.shared || count.write) continue;
      accesses += count.warp_accesses;
      extra += count.extra();
    }
    CHECK(accesses == 8);                       // one ldmatrix.x4 of each warp
    CHECK(extra == (swizzle ? 0 : 8 * 4 * 7));  // four matrices, each of eight rows in one bank group
  }
}

}  // namespace
}  // namespace heddle::test
