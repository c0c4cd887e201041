// Mutations: their notation, their sites, and that leaving a barrier out is noticed by what the kernels compute or by the check flavour.
#include <algorithm>
#include <string>
#include <vector>

#include "kernels/sim/core/mutation.h"
#include "tests/sim/core_kernels.h"
#include "tests/sim/core_modes.h"
#include "tests/support/catch.h"

namespace heddle::test {
namespace {

bool block_sum_is_right() {
  std::vector<float> x(256 * 2), sums(2);
  for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i % 5);
  const std::string error = error_of([&] { block_sum(x.data(), sums.data(), 2); });
  float expected = 0;
  for (size_t i = 0; i < 256; ++i) expected += x[i];
  return error.empty() && sums[0] == expected;
}

TEST_CASE("mutations are written file:line[#operation]:kind", "[sim]") {
  const sim::MutationSpec whole = sim::parse_mutation("kernels/cuda/norm.cu:31:drop");
  CHECK(whole.file == "kernels/cuda/norm.cu");
  CHECK(whole.line == 31);
  CHECK(whole.what.empty());
  CHECK(whole.kind == sim::Mutation::drop);
  const sim::MutationSpec one = sim::parse_mutation("a.cu:7#cp.async.bulk.shared::cluster:weaken");
  CHECK(one.file == "a.cu");
  CHECK(one.line == 7);
  CHECK(one.what == "cp.async.bulk.shared::cluster");
  CHECK(one.kind == sim::Mutation::weaken);
  const sim::MutationSpec elected = sim::parse_mutation("a.cu:7#__threadfence:elect");
  CHECK(elected.kind == sim::Mutation::drop);
  CHECK(elected.elect);
  CHECK(!one.elect);
  for (const char* bad :
       {"", "a.cu", "a.cu:7", "a.cu:x:drop", "a.cu:0:drop", "a.cu:7:forget", ":7:drop", "a.cu:7#bar.sync", "a.cu:99999999999:drop"}) {
    CAPTURE(bad);
    CHECK(!error_of([&] { sim::parse_mutation(bad); }).empty());
  }
}

TEST_CASE("sites that ran are listed", "[sim]") {
  sim::list_mutations(true);
  REQUIRE(block_sum_is_right());
  sim::list_mutations(false);
  const std::vector<sim::MutationSite> sites = sim::mutation_sites();
  REQUIRE(sites.size() == 1);
  CHECK(sites[0].file == "tests/sim/core_kernels.cu");
  CHECK(sites[0].what == "__syncthreads");
  CHECK(sites[0].kinds == sim::kMayDrop);
}

TEST_CASE("a dropped barrier is noticed, and only while it is dropped", "[sim]") {
  sim::list_mutations(true);
  REQUIRE(block_sum_is_right());
  sim::list_mutations(false);
  const sim::MutationSite site = sim::mutation_sites().at(0);
  sim::mutate({"core_kernels.cu", site.line, "", sim::Mutation::drop});
  CHECK(!block_sum_is_right());
  sim::mutate({"core_kernels.cu", site.line, "__syncthreads", sim::Mutation::drop});
  CHECK(!block_sum_is_right());
  sim::mutate({"core_kernels.cu", site.line, "bar.sync", sim::Mutation::drop});  // another operation
  CHECK(block_sum_is_right());
  sim::mutate({"re_kernels.cu", site.line, "", sim::Mutation::drop});  // half a file name
  CHECK(block_sum_is_right());
  sim::mutate_none();
  CHECK(block_sum_is_right());
}

}  // namespace
}  // namespace heddle::test
