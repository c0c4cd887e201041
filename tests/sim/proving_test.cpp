// Whole kernels of kernels/cuda on the simulated machine: right in float64 terms, whatever the order of threads and asynchronous operations, and free
// of races, uninitialised reads and accesses out of bounds (check flavour).
#include <string>
#include <vector>

#include "kernels/sim/check/check.h"
#include "kernels/sim/core/machine.h"
#include "tests/sim/proving_cases.h"
#include "tests/support/catch.h"

namespace heddle::test {
namespace {

void in_mode(sim::AsyncMode mode, uint64_t seed, const std::vector<ProvingCase>& cases, const std::string& only) {
  const sim::Options before = sim::options();
  sim::Options options = before;
  options.mode = mode;
  options.seed = seed;
  sim::set_options(options);
  for (const ProvingCase& c : cases) {
    if (c.name.find(only) != 0) continue;
    INFO(c.name << ", mode " << static_cast<int>(mode) << ", seed " << seed);
    CHECK(c.run() == "");
  }
  sim::set_options(before);
}

void proven(const std::string& only) {
  const std::vector<ProvingCase> cases = proving_cases();
  in_mode(sim::AsyncMode::eager, 1, cases, only);
  in_mode(sim::AsyncMode::lazy, 1, cases, only);
  in_mode(sim::AsyncMode::random, 1, cases, only);
}

TEST_CASE("gemm_simt against float64", "[proving]") {
  proven("gemm_simt");
}
TEST_CASE("gemm_sm80 against float64", "[proving]") {
  proven("gemm_sm80");
}
TEST_CASE("gemm_sm90 against float64", "[proving]") {
  proven("gemm_sm90");
}
TEST_CASE("attention_fwd_sm80 against float64", "[proving]") {
  proven("attention_fwd_sm80");
}
TEST_CASE("attention_bwd_sm80 against float64", "[proving]") {
  proven("attention_bwd_sm80");
}
TEST_CASE("norm_forward against float64", "[proving]") {
  proven("norm_forward");
}
TEST_CASE("sum against float64", "[proving]") {
  proven("sum of");
}

TEST_CASE("no order of threads changes a result, of 50", "[proving]") {
  const std::vector<ProvingCase> cases = short_proving_cases();
  for (uint64_t seed = 1; seed <= 50; ++seed) in_mode(sim::AsyncMode::random, seed, cases, "");
}

// What heddle-mutate runs once per synchronisation: every kernel, in each mode once.
TEST_CASE("short cases in every mode", "[.mutate]") {
  const std::vector<ProvingCase> cases = short_proving_cases();
  for (const sim::AsyncMode mode : {sim::AsyncMode::eager, sim::AsyncMode::lazy, sim::AsyncMode::random}) in_mode(mode, 1, cases, "");
}

// Wavefronts beyond what the number of bytes needs, in the kernels of one source.
std::string bank_conflicts(const std::string& source) {
  std::string text;
  for (const sim::AccessCount& count : sim::access_counts()) {
    if (count.shared && count.extra() > 0 && count.file.find(source) != std::string::npos)
      text +=
          count.file + ":" + std::to_string(count.line) + " " + std::to_string(count.extra()) + " of " + std::to_string(count.transactions) + "; ";
  }
  return text;
}

TEST_CASE("swizzled shared memory meets no bank conflict", "[proving]") {
  if (!sim::checking) return;  // only the check flavour counts
  sim::count_accesses(true);
  for (const ProvingCase& c : layout_proving_cases()) CHECK(c.run() == "");
  sim::count_accesses(false);
  CHECK(bank_conflicts("epilogue.cuh") == "");
  CHECK(bank_conflicts("gemm_simt.cuh") == "");
  CHECK(bank_conflicts("gemm_sm80.cuh") == "");
  CHECK(bank_conflicts("tile.cuh") == "");
  CHECK(bank_conflicts("attention_mma.cuh") == "");
  CHECK(bank_conflicts("attention_fwd_sm80.cuh") == "");
  CHECK(bank_conflicts("attention_bwd_sm80.cuh") == "");
  CHECK(bank_conflicts("gemm_sm90.cuh") == "");
}

}  // namespace
}  // namespace heddle::test
