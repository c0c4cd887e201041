// What the check flavour finds, and that it finds nothing where nothing is: each kernel of core_races.cu right and wrong, in many orders.
#include <string>
#include <vector>

#include "kernels/sim/check.h"
#include "kernels/sim/machine.h"
#include "tests/sim/core_kernels.h"
#include "tests/sim/core_modes.h"
#include "tests/support/catch.h"

namespace heddle::test {
namespace {

// Device memory that the check flavour watches: n floats with unused guards around, the first `written` of them set to zero.
class Watched {
 public:
  Watched(size_t n, size_t written) : memory_(n + 2 * kGuard) {
    sim::register_global(data(), n * sizeof(float));
    sim::note_host_write(data(), written * sizeof(float));
  }
  ~Watched() { sim::unregister_global(data()); }
  Watched(const Watched&) = delete;
  Watched& operator=(const Watched&) = delete;
  float* data() { return memory_.data() + kGuard; }

 private:
  static constexpr size_t kGuard = sim::kGuardBytes / sizeof(float);
  std::vector<float> memory_;
};

struct Case {
  Race kind;
  const char* report;  // part of what is said of the wrong one
};

const Case kCases[] = {
    {Race::shared_read_after_write, "race on shared memory (read after write)"},
    {Race::shared_write_after_read, "race on shared memory (write after read)"},
    {Race::warp_without_syncwarp, "race on shared memory (read after write)"},
    {Race::half_warp_mask, "race on shared memory (read after write)"},
    {Race::named_barrier, ""},  // a race or an uninitialised read, by the order of the warps
    {Race::global_between_blocks, "race on global memory"},
    {Race::last_block_fence, "race on global memory (read after write)"},
    {Race::last_block_scope, "race on global memory (read after write)"},
    {Race::copy_without_wait, ""},
    {Race::copy_without_barrier, ""},
    {Race::copy_overwritten, "race on shared memory (write after read)"},
    {Race::mbarrier_parity, ""},
    {Race::mbarrier_early_release, "race on shared memory"},
    {Race::proxy_fence, "missing proxy fence"},
    {Race::bulk_source_reuse, "race on shared memory (write after read)"},
    {Race::cluster_exit, ""},
    {Race::uninitialised_shared, "uninitialised read"},
    {Race::uninitialised_global, "uninitialised read"},
    {Race::shared_bounds, "out of bounds"},
    {Race::static_bounds, "out of bounds"},
    {Race::global_bounds, "out of bounds"},
    {Race::misaligned_vector, "misaligned access"},
};

std::string report_of(Race kind, bool wrong) {
  Watched scratch(1024, kind == Race::uninitialised_global ? 512 + 32 : 1024);
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
      CHECK(report.find("thread (") != std::string::npos);
    });
}

TEST_CASE("a race names both accesses", "[sim][check]") {
  const std::string report = report_of(Race::shared_write_after_read, true);
  INFO(report);
  CHECK(report.find("writes 4 bytes at 'tile'+") != std::string::npos);
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
      if (count.shared && !count.write) {
        shared_reads += count.warp_accesses;
        extra += count.extra();
        CHECK(count.file.find("core_races.cu") != std::string::npos);
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
