// Wide accesses, atomics, cp.async, conversions, approximations; barriers and clusters.
#include <algorithm>

#include "bench/gpu/conformance_support.h"

namespace heddle::bench {
namespace {

Words approximated() {
  constexpr int kN = 48;
  const Array<float> x(positive_reals(kN, 31)), out(kN * test::kUnary, 0);
  launch(one_block(32), test::approximations, x, kN, out);
  return out.words();
}
Words converted() {
  constexpr int kN = 256;
  std::vector<float> y = positive_reals(kN, 32);
  for (size_t i = 0; i < y.size(); ++i) y[i] *= i % 2 ? -1e-3f : 777.0f;
  const Array<float> x(positive_reals(kN, 33)), device_y(y);
  const Array<uint32_t> out(kN * 3, 0);
  launch(one_block(256), test::conversions, x, device_y, kN, out);
  return out.words();
}
Words moved_wide() {
  constexpr int kN = 32, kForms = 6;
  const Array<uint32_t> in(random_words(kN * 4, 34)), out(kN * 4 * kForms, 0);
  launch(one_block(kN, kN * 16), test::wide_accesses, reinterpret_cast<const uint4*>(static_cast<uint32_t*>(in)), kN,
         reinterpret_cast<uint4*>(static_cast<uint32_t*>(out)));
  return out.words();
}
// What one thread sees depends on the order of all; as a set it does not.
Words atomic() {
  constexpr uint32_t kThreads = 64;
  const Array<uint32_t> words(8, 0), old(3 * kThreads, 0);
  const Array<float> reals(3, 0), old_real(kThreads, 0);
  launch(one_block(kThreads, 64), test::atomics, words, reals, old, old_real);
  Words out = words.words(), seen = old.words(), seen_real = old_real.words();
  const bool one_winner = out[3] == out[4] && out[3] >= 1 && out[3] <= kThreads;
  out[3] = out[4] = one_winner ? 1 : 0;
  for (auto from = seen.begin(); from != seen.end(); from += kThreads) std::sort(from, from + kThreads);
  std::sort(seen_real.begin(), seen_real.end());
  append(out, reals.words());
  append(out, seen);
  append(out, seen_real);
  return out;
}
Words atomic_vectors() {
  const Array<float> reals(4, 0);
  LaunchShape shape = one_block(32);
  shape.grid = dim3(3);
  launch(shape, test::vector_atomics, reals);
  return reals.words();
}
Words copied_async(int bytes) {
  constexpr uint32_t kThreads = 64;
  Words sizes(kThreads);
  for (uint32_t i = 0; i < kThreads; ++i) sizes[i] = i % (static_cast<uint32_t>(bytes) + 1);
  const Array<uint32_t> in(random_words(kThreads * 4, 35)), size(sizes), out(static_cast<size_t>(2 * bytes) * kThreads / 4, 0);
  launch(one_block(kThreads, 2 * static_cast<size_t>(bytes) * kThreads), test::cp_asyncs(bytes),
         reinterpret_cast<const std::byte*>(static_cast<uint32_t*>(in)), size, out);
  return out.words();
}
Words waited_for_one_group() {
  const Array<uint32_t> in(random_words(8, 36)), out(12, 0);
  launch(one_block(1, 64), test::one_group_pending, reinterpret_cast<const uint4*>(static_cast<uint32_t*>(in)),
         reinterpret_cast<uint4*>(static_cast<uint32_t*>(out)));
  Words words = out.words();
  words.erase(words.begin() + 4, words.begin() + 8);  // the group that may be pending: done or not
  return words;
}
Words copies_announced() {
  const Array<uint32_t> in(random_words(64, 37)), out(64, 0);
  launch(one_block(64, 512), test::announced_copies, in, out);
  return out.words();
}

// ---- barriers ----

Words handed_over() {
  constexpr uint32_t kRounds = 7;
  const Array<uint32_t> out(kRounds * 64, 0);
  launch(one_block(128, 256), test::named_barriers, out, kRounds);
  return out.words();
}
Words pipelined(uint32_t stages, uint32_t consumers) {
  const uint32_t tiles = 3 * stages + 1;
  const Array<uint32_t> in(random_words(tiles * 32, 38)), out(static_cast<size_t>(tiles) * consumers * 32, 0);
  launch(one_block(32 * (1 + consumers), stages * 144), test::pipeline, in, tiles, stages, consumers, out);
  return out.words();
}
Words around_the_ring(unsigned blocks) {
  const Array<uint32_t> in(random_words(blocks * 4, 39)), out(4 * blocks, 0);
  launch(one_cluster(blocks, 64, 128), test::ring, reinterpret_cast<const uint4*>(static_cast<uint32_t*>(in)), out);
  return out.words();
}
Words fenced() {
  const Array<uint32_t> out(256, 0);
  launch(one_block(256), test::fences_and_registers, out);
  return out.words();
}

}  // namespace

std::vector<ConformanceCase> memory_cases() {
  std::vector<ConformanceCase> cases;
  // The PTX ISA's bounds for ex2, lg2, rcp, rsqrt are about 2^-22; for tanh 2^-11. The simulated machine rounds the exact value.
  cases.push_back({"approximations", 80, approximated, {0x1p-21, 0x1p-21, 0x1p-21, 0x1p-21, 0x1p-10}});
  cases.push_back({"conversions", 80, converted});
  cases.push_back({"wide_accesses", 80, moved_wide});
  cases.push_back({"atomics", 80, atomic});
  cases.push_back({"vector_atomics", 90, atomic_vectors});
  for (int bytes : {4, 8, 16}) cases.push_back({concat("cp_async_", bytes), 80, [=] { return copied_async(bytes); }});
  cases.push_back({"cp_async_one_group_pending", 80, waited_for_one_group});
  cases.push_back({"cp_async_arrive", 90, copies_announced});
  return cases;
}

std::vector<ConformanceCase> barrier_cases() {
  std::vector<ConformanceCase> cases;
  cases.push_back({"named_barriers", 80, handed_over});
  for (uint32_t stages : {1u, 2u, 4u}) {
    for (uint32_t consumers : {1u, 2u})
      cases.push_back({concat("mbarrier_ring_", stages, "_stages_", consumers, "_consumers"), 90, [=] { return pipelined(stages, consumers); }});
  }
  for (unsigned blocks : {2u, 4u, 8u}) cases.push_back({concat("cluster_of_", blocks), 90, [=] { return around_the_ring(blocks); }});
  cases.push_back({"fences_and_registers", 90, fenced});
  return cases;
}

std::vector<ConformanceCase> conformance_cases() {
  std::vector<ConformanceCase> cases = warp_cases();
  for (auto more : {memory_cases, barrier_cases, tma_cases, wgmma_cases}) {
    for (ConformanceCase& c : more()) cases.push_back(std::move(c));
  }
  return cases;
}

}  // namespace heddle::bench
