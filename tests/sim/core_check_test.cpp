// What the check flavour finds, and that it finds nothing where nothing is: each kernel of core_races.cu right and wrong, in many orders.
#include <string>
#include <vector>

#include "kernels/sim/check/check.h"
#include "kernels/sim/core/machine.h"
#include "tests/sim/core_kernels.h"
#include "tests/sim/core_modes.h"
#include "tests/support/catch.h"

namespace heddle::test {
namespace {

struct Case {
  Race kind;
  const char* report;  // part of what is said of the wrong one
};

const Case kCases[] = {
    {Race::shared_read_after_write, ""},  // by the order of the threads a race or an uninitialised read
    {Race::shared_write_after_read, "race on shared memory"},
    {Race::warp_without_syncwarp, ""},
    {Race::half_warp_mask, ""},
    {Race::named_barrier, ""},
    {Race::global_between_blocks, "race on global memory"},
    {Race::last_block_fence, "race on global memory (read after write)"},
    {Race::last_block_scope, "race on global memory (read after write)"},
    {Race::copy_without_wait, ""},
    {Race::copy_without_barrier, ""},
    {Race::copy_overwritten, "race on shared memory"},
    {Race::mbarrier_parity, ""},
    {Race::mbarrier_early_release, "race on shared memory"},
    {Race::proxy_fence, "missing proxy fence"},
    {Race::bulk_source_reuse, "race on shared memory"},
    {Race::cluster_exit, ""},
    {Race::uninitialised_shared, "uninitialised read"},
    {Race::uninitialised_global, "uninitialised read"},
    {Race::shared_bounds, "out of bounds"},
    {Race::static_bounds, "out of bounds"},
    {Race::global_bounds, "out of bounds"},
    {Race::misaligned_vector, "misaligned access"},
    {Race::misaligned_element, "misaligned access"},
    {Race::vectors_between_blocks, "race on global memory (write after write)"},
    {Race::vectors_shared, ""},
    {Race::vectors_zeroed, "uninitialised read"},
    {Race::vector_bounds, "out of bounds"},
    {Race::mbarrier_init, ""},
    {Race::plain_then_atomic, ""},
    {Race::spinlock, "race on global memory"},
    {Race::last_block_all_fence, "race on global memory (read after write)"},
};

std::string report_of(Race kind, bool wrong) {
  Watched<float> scratch(1024, kind == Race::uninitialised_global ? 512 + 32 : 1024);
  return error_of([&] { race(kind, wrong, scratch.data()); });
}

TEST_CASE("each planted fault is reported with its line, in every order", "[sim][check]") {
  for (const Case& test : kCases)
    in_every_mode([&] {
      const std::string report = report_of(test.kind, true);
      INFO(report);
      CHECK(!report.empty());
      CHECK(report.find(test.report) != std::string::npos);
      CHECK(report.find("core_races.cu:") != std::string::npos);
      CHECK(report.find("thread") != std::string::npos);
    });
}

TEST_CASE("a race names both accesses", "[sim][check]") {
  const std::string report = report_of(Race::shared_write_after_read, true);
  INFO(report);
  CHECK(report.find("4 bytes at 'tile'+") != std::string::npos);
  const size_t first = report.find("core_races.cu:");
  CHECK(report.find("core_races.cu:", first + 1) != std::string::npos);
}

TEST_CASE("no false report in 50 random orders", "[sim][check]") {
  for (const Case& test : kCases) {
    in_every_mode([&] { CHECK(report_of(test.kind, false) == ""); });
    for (uint64_t seed = 1; seed <= 50; ++seed) {
      const ScopedMode random(sim::AsyncMode::random, seed);
      REQUIRE(report_of(test.kind, false) == "");
    }
  }
}

TEST_CASE("neighbouring bytes never blame each other", "[sim][check]") {
  std::vector<unsigned char> out(64);
  in_every_mode([&] { CHECK(error_of([&] { neighbours(out.data()); }) == ""); });
  CHECK(out[0] == 1);
  CHECK(out[12] == 12 + 2);
}

TEST_CASE("counters see bank conflicts and the padding that cures them", "[sim][check]") {
  alignas(128) static float in[1024], out[1024];
  for (const int padding : {0, 1}) {
    sim::count_accesses(true);
    transpose_tile(in, out, padding);
    sim::count_accesses(false);
    uint64_t shared_reads = 0, extra = 0, global_extra = 0;
    for (const sim::AccessCount& count : sim::access_counts()) {
      INFO(count.file << ":" << count.line);
      CHECK(count.file.find("core_races.cu") != std::string::npos);  // the kernel's lines alone, not how its arguments reach it
      if (count.shared && !count.write) {
        shared_reads += count.warp_accesses;
        extra += count.extra();
      }
      if (!count.shared) global_extra += count.extra();
    }
    CHECK(shared_reads == 32);
    CHECK(extra == (padding == 0 ? 32 * 31 : 0));
    CHECK(global_extra == 0);
  }
}

}  // namespace
}  // namespace heddle::test
