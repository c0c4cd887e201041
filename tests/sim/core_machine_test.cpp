// What each operation of the machine does, in every mode; then what is said when a kernel misuses it.
#include <algorithm>
#include <numeric>
#include <stdexcept>
#include <string>
#include <vector>

#include "kernels/api/check.h"
#include "tests/sim/core_kernels.h"
#include "tests/sim/core_modes.h"
#include "tests/sim/in_child.h"
#include "tests/support/catch.h"

namespace heddle::test {
namespace {

std::vector<float> ramp(size_t n) {
  std::vector<float> x(n);
  for (size_t i = 0; i < n; ++i) x[i] = static_cast<float>(i % 7);
  return x;
}

TEST_CASE("a block sums through shuffles and shared memory", "[sim][mutate]") {
  constexpr size_t kBlocks = 5;
  const std::vector<float> x = ramp(kBlocks * 256);
  in_every_mode([&] {
    std::vector<float> sums(kBlocks, -1.0f);
    block_sum(x.data(), sums.data(), kBlocks);
    for (size_t b = 0; b < kBlocks; ++b) CHECK(sums[b] == std::accumulate(&x[b * 256], &x[b * 256] + 256, 0.0f));
  });
}

TEST_CASE("warp collectives give what the CUDA guide says", "[sim]") {
  const auto square = [](int lane) { return static_cast<uint32_t>(lane * lane); };
  in_every_mode([&] {
    std::vector<uint32_t> out(kWarpResults * 32);
    warp_collectives(out.data());
    for (int lane = 0; lane < 32; ++lane) {
      CAPTURE(lane);
      const uint32_t own = square(lane);
      int row = 0;
      const auto got = [&] { return out[static_cast<size_t>(row++ * 32 + lane)]; };
      CHECK(got() == 25);
      CHECK(got() == square(lane / 8 * 8 + 3));
      CHECK(got() == (lane >= 3 ? square(lane - 3) : own));
      CHECK(got() == (lane % 16 >= 3 ? square(lane - 3) : own));
      CHECK(got() == (lane < 2 ? square(lane + 30) : own));
      CHECK(got() == (lane % 4 < 2 ? square(lane + 2) : own));
      CHECK(got() == square(lane ^ 7));
      CHECK(got() == square(lane ^ 1));
      CHECK(got() == 0x49249249u);
      CHECK(got() == 1);  // any, not all
      CHECK(got() == 31 * 32 / 2);
      CHECK(got() == static_cast<uint32_t>(-31));
      CHECK(got() == (31u | 0x80000000u));
      CHECK(got() == 15u << lane / 4 * 4);
      CHECK(got() == (lane < 16 ? 0x0000aaaau : 0xaaaa0000u));
      CHECK(got() == (lane < 16 ? 0x0000ffffu : 0xffff0000u));
    }
  });
}

TEST_CASE("barriers that vote count the threads that said yes", "[sim]") {
  for (const int threads : {32, 48, 160})
    for (const int limit : {0, 1, 33, 200}) {
      CAPTURE(threads, limit);
      std::vector<int> out(static_cast<size_t>(threads));
      count_true(out.data(), threads, limit);
      const int count = std::min(threads, limit);
      for (const int got : out) CHECK(got == count * 4 + (count > 0 ? 2 : 0) + (count == threads ? 1 : 0));
    }
}

TEST_CASE("named barriers hand a value from warp to warp", "[sim][mutate]") {
  in_every_mode([] {
    Watched<int> out(9);
    named_barriers(out.data(), 9);
    for (int r = 0; r < 9; ++r) CHECK(out[static_cast<size_t>(r)] == r * r);
  });
}

TEST_CASE("a ring of buffers guarded by mbarriers loses and repeats nothing", "[sim][mutate]") {
  std::vector<int> in(64 * 11);
  std::iota(in.begin(), in.end(), 3);
  for (const bool bulk : {false, true})
    in_every_mode([&] {
      CAPTURE(bulk);
      Watched<int> out(in.size());
      mbarrier_ring(in.data(), out.data(), static_cast<int>(in.size()), bulk);
      for (size_t i = 0; i < in.size(); ++i) REQUIRE(out[i] == 2 * in[i]);
    });
}

TEST_CASE("each lane fences its own stores", "[sim][mutate]") {
  in_every_mode([] {
    Watched<int> out(32);
    fenced_arrivals(out.data());
    for (int i = 0; i < 32; ++i) CHECK(out[static_cast<size_t>(i)] == 31 - i + 7);
  });
}

TEST_CASE("one lane arrives for the stores of its warp", "[sim][mutate]") {
  in_every_mode([] {
    Watched<int> out(32);
    elected_arrival(out.data());
    for (int i = 0; i < 32; ++i) CHECK(out[static_cast<size_t>(i)] == (31 - i) * (31 - i));
  });
}

TEST_CASE("cp.async lands by its wait; without one, lazy copies have not", "[sim][mutate]") {
  constexpr int kTiles = 10;
  const std::vector<float> in = ramp(kTiles * 128);
  in_every_mode([&] {
    Watched<float> out(in.size());
    copy_pipeline(in.data(), out.data(), kTiles, true);
    for (size_t i = 0; i < in.size(); ++i) REQUIRE(out[i] == in[i] + 1);
  });
  if (sim::checking) return;
  const ScopedMode lazy(sim::AsyncMode::lazy, 1);
  std::vector<float> out(in.size());
  copy_pipeline(in.data(), out.data(), kTiles, false);
  CHECK(!(out[0] == in[0] + 1));  // NaN: nothing has been written there
}

TEST_CASE("blocks of a cluster read each other's shared memory", "[sim][mutate]") {
  in_every_mode([] {
    Watched<int> out(12);
    cluster_exchange(out.data(), 12);
    for (int b = 0; b < 12; ++b) CHECK(out[static_cast<size_t>(b)] == b * 100 + b / 4 * 4 + (b + 1) % 4);
  });
}

TEST_CASE("a cooperative grid meets", "[sim][mutate]") {
  constexpr int kBlocks = 70;
  in_every_mode([] {
    Watched<int> out(kBlocks);
    grid_exchange(out.data(), kBlocks, true);
    for (int b = 0; b < kBlocks; ++b) CHECK(out[static_cast<size_t>(b)] == ((b + 1) % kBlocks) * ((b + 1) % kBlocks));
  });
  std::vector<int> out(4);
  CHECK(error_of([&] { grid_exchange(out.data(), 4, false); }).find("not cooperative") != std::string::npos);
}

TEST_CASE("the last block to finish sees what the others wrote", "[sim][mutate]") {
  constexpr size_t kBlocks = 9;
  const std::vector<float> x = ramp(kBlocks * 128);
  in_every_mode([&] {
    Watched<float> partial(kBlocks), total(1);
    Watched<unsigned> finished(1);
    last_block_sum(x.data(), partial.data(), finished.data(), total.data(), kBlocks);
    CHECK(total[0] == std::accumulate(x.begin(), x.end(), 0.0f));
  });
}

TEST_CASE("a block may wait for lower blocks, not for higher ones", "[sim]") {
  in_every_mode([] {
    std::vector<int> flags(40);
    chained_blocks(flags.data(), 40, false);
    CHECK(std::accumulate(flags.begin(), flags.end(), 0) == 40);
  });
  const ScopedThreads one(1);
  std::vector<int> flags(3);
  const std::string error = error_of([&] { chained_blocks(flags.data(), 3, true); });
  CHECK(error.find("deadlock") != std::string::npos);
  CHECK(error.find("spin_until") != std::string::npos);
}

TEST_CASE("an exception of any type ends the launch", "[sim]") {
  in_every_mode([] {
    CHECK(error_of([] { misbehave(Fault::throws_number); }) ==
          "[sim] kernel misbehave_kernel: thread (3,0,0) of block (0,0,0): the kernel threw something that is no std::exception");
    CHECK(error_of([] { misbehave(Fault::none); }).empty());
  });
}

TEST_CASE("a thread that touches no memory of ours is named before the program dies", "[sim]") {
  const auto last_words = [](Fault fault) { return in_child([&] { misbehave(fault); }).text; };
  const std::string null = last_words(Fault::null_pointer);
  INFO(null);
  CHECK(null.find("core_faults.cu:") != std::string::npos);
  if (null.find("runtime error: store to null pointer") != std::string::npos) return;  // the asan flavour has its own words
  CHECK(null.find("[sim] kernel misbehave_kernel: thread (3,0,0) of block (0,0,0): write of 0, where no memory is") != std::string::npos);
  for (const Fault fault : {Fault::deep_recursion, Fault::large_frame}) {
    const std::string deep = last_words(fault);
    INFO(deep);
    CHECK(deep.find("of block (0,0,0): its stack of") != std::string::npos);
  }
}

TEST_CASE("bad launches are refused before anything runs", "[sim]") {
  const auto refusal = [](sim::Geometry geometry, size_t shared, bool cooperative = false) {
    bool ran = false;
    const sim::Launch launch{"kernel", geometry, shared, cooperative, [&ran] { ran = true; }};
    const std::string error = error_of([&] { sim::run(launch); });
    CHECK(ran == error.empty());
    return error;
  };
  CHECK(refusal({{1, 1, 1}, {1, 1, 1}, {1, 1, 1}}, 0).empty());
  CHECK(refusal({{0, 1, 1}, {1, 1, 1}, {1, 1, 1}}, 0).find("grid") != std::string::npos);
  CHECK(refusal({{1, 65536, 1}, {1, 1, 1}, {1, 1, 1}}, 0).find("grid") != std::string::npos);
  CHECK(refusal({{1, 1, 1}, {1025, 1, 1}, {1, 1, 1}}, 0).find("1024 threads") != std::string::npos);
  CHECK(refusal({{1, 1, 1}, {1, 1, 65}, {1, 1, 1}}, 0).find("64 in z") != std::string::npos);
  CHECK(refusal({{3, 1, 1}, {1, 1, 1}, {2, 1, 1}}, 0).find("does not divide") != std::string::npos);
  CHECK(refusal({{9, 1, 1}, {1, 1, 1}, {9, 1, 1}}, 0).find("beyond 8") != std::string::npos);
  CHECK(refusal({{1, 1, 1}, {1, 1, 1}, {1, 1, 1}}, 227 * 1024 + 1).find("dynamic shared memory") != std::string::npos);
  CHECK(refusal({{1000, 1, 1}, {1024, 1, 1}, {1, 1, 1}}, 0, true).find("at once") != std::string::npos);
}

TEST_CASE("an exception in a kernel reaches the launch", "[sim]") {
  const sim::Launch launch{"kernel", {{2, 1, 1}, {64, 1, 1}, {1, 1, 1}}, 0, false, [] { throw std::runtime_error("from within"); }};
  const std::string error = error_of([&] { sim::run(launch); });
  CHECK(error.find("from within") != std::string::npos);
  CHECK(error.find("block (") != std::string::npos);
}

TEST_CASE("every misuse is named, with kernel, thread and line", "[sim]") {
  struct Expected {
    Fault fault;
    const char* text;
  };
  const Expected all[] = {
      {Fault::missing_arrive, "64 thread(s) in bar.sync"},
      {Fault::divergent_barrier, "divergent barrier"},
      {Fault::divergent_shuffle, "divergent warp"},
      {Fault::other_collective, "divergent warp"},
      {Fault::lane_not_in_mask, "is not in its own mask"},
      {Fault::returned_lane, "divergent warp"},
      {Fault::shuffle_from_outside, "reads from lane 20, which takes no part"},
      {Fault::barrier_count, "barrier 1 expects"},
      {Fault::barrier_id, "id 16"},
      {Fault::mbarrier_uninitialised, "holds no initialised mbarrier"},
      {Fault::mbarrier_twice, "there is one already"},
      {Fault::mbarrier_overwritten, "mbarrier overwritten"},
      {Fault::mbarrier_misaligned, "misaligned mbarrier"},
      {Fault::mbarrier_arrivals, "3 more than the phase expects"},
      {Fault::mbarrier_bytes, "64 bytes missing"},
      {Fault::mbarrier_unfenced, "not visible to the async proxy"},
      {Fault::copy_misaligned, "misaligned access"},
      {Fault::shared_too_large, "49152 static"},
      {Fault::address_outside, "out of bounds"},
      {Fault::incomplete_warpgroup, "incomplete warpgroup"},
      {Fault::bulk_unread, "returns too early"},
      {Fault::cluster_twice, "arrives twice"},
      {Fault::trap, "the kernel gave up"},
      {Fault::spin_for_ever, "spin_until"},
  };
  CHECK(error_of([] { misbehave(Fault::none); }).empty());
  for (const Expected& expected : all)
    in_every_mode([&] {
      const std::string error = error_of([&] { misbehave(expected.fault); });
      INFO(error);
      CHECK(error.find(expected.text) != std::string::npos);
      CHECK(error.find("[sim] kernel misbehave_kernel: ") == 0);
      CHECK(error.find("core_faults.cu:") != std::string::npos);
      // The machine is whole again.
      CHECK(error_of([] { misbehave(Fault::none); }).empty());
    });
}

}  // namespace
}  // namespace heddle::test
