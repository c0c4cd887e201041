// How long the proving kernels take on the simulated machine. A program, not a test:
//
//   sim_bench_plain [--repeats N] [--only TEXT]        sim_bench_check is the same for the check flavour
//
// One line per kernel: the median, the fastest, in milliseconds. Runs are interleaved, so that a machine that slows down does so for all.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "tests/sim/proving_kernels.h"
#include "tests/support/buffer.h"

namespace heddle::test {
namespace {

using namespace kernels;  // NOLINT: a program's own source

struct Timed {
  std::string name;
  std::function<void()> run;  // returns when the kernel has finished
  std::vector<double> milliseconds;
};

// Tensors of the bench live as long as it does.
View on_device(DType dtype, std::initializer_list<int64_t> shape, uint32_t seed) {
  Buffer host(dtype, shape);
  if (seed != 0) host.normal(seed);
  View view = host.view();
  std::byte* data = device_allocate(static_cast<size_t>(view.bytes()));
  copy_to_device(data, view.data, static_cast<size_t>(view.bytes()));
  view.data = data;
  return view;
}

void synchronise(const View& view) {
  float probe;
  copy_to_host(reinterpret_cast<std::byte*>(&probe), view.data, sizeof probe);
}

MatmulArgs product(int64_t n) {
  return {.a = on_device(DType::bf16, {n, n}, 1), .b = on_device(DType::bf16, {n, n}, 2), .trans_b = true, .c = {on_device(DType::bf16, {n, n}, 0)}};
}

std::vector<Timed> timed_kernels() {
  std::vector<Timed> all;
  const auto add = [&](std::string name, const View& result, std::function<void()> launch) {
    const auto run = [=] {
      launch();
      synchronise(result);
    };
    all.push_back({std::move(name), run, {}});
  };
  const MatmulArgs args = product(256);
  add("gemm_sm80 256^3, tiles 64 x 64", args.c.to, [=] { gemm_sm80(Sm80Tile::small, args); });
  add("gemm_sm80 256^3, tiles 128 x 256", args.c.to, [=] { gemm_sm80(Sm80Tile::large, args); });
  add("gemm_sm90 256^3, tiles 64 x 64", args.c.to, [=] { gemm_sm90(Sm90Tile::small, args, 16); });
  add("gemm_sm90 256^3, tiles 128 x 256 in pairs", args.c.to, [=] { gemm_sm90(Sm90Tile::large, args, 16); });

  AttentionForwardArgs attend;
  attend.q = on_device(DType::bf16, {1, 256, 2, 64}, 1);
  attend.k = on_device(DType::bf16, {1, 256, 2, 64}, 2);
  attend.v = on_device(DType::bf16, {1, 256, 2, 64}, 3);
  attend.out = on_device(DType::bf16, {1, 256, 2, 64}, 0);
  attend.scale = 0.125f;
  add("attention_fwd_sm80 B 1 H 2 T 256 D 64", attend.out, [=] { attention(attend); });

  NormForwardArgs norm{.kind = NormKind::layer, .x = on_device(DType::bf16, {256, 768}, 1)};
  norm.gain = on_device(DType::bf16, {768}, 2);
  norm.bias = on_device(DType::bf16, {768}, 3);
  norm.y = on_device(DType::bf16, {256, 768}, 0);
  add("norm_forward layer (256, 768)", norm.y, [=] { norm_rows(norm, 64); });

  constexpr int64_t kSummed = 1 << 18;
  SumArgs sum{.x = on_device(DType::bf16, {kSummed}, 1), .out = {on_device(DType::f32, {1}, 0)}, .squares = true};
  const std::vector<std::byte> zeros(16);
  sum.zeroed = {on_device(DType::u8, {16}, 0).data, zeros.size()};
  copy_to_device(sum.zeroed.data(), zeros.data(), zeros.size());
  sum.scratch = {on_device(DType::u8, {static_cast<int64_t>(sum_scratch(sum))}, 0).data, sum_scratch(sum)};
  add("sum of 262144 squares", sum.out.to, [=] { sum_up(sum); });
  return all;
}

double run_once(Timed& kernel) {
  const auto begin = std::chrono::steady_clock::now();
  kernel.run();
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin).count();
}

int bench(int argc, char** argv) {
  int repeats = 9;
  const char* only = "";
  for (int i = 1; i + 1 < argc; i += 2) {
    if (std::strcmp(argv[i], "--repeats") == 0) repeats = std::max(1, std::atoi(argv[i + 1]));
    if (std::strcmp(argv[i], "--only") == 0) only = argv[i + 1];
  }
  std::vector<Timed> all = timed_kernels();
  std::erase_if(all, [&](const Timed& kernel) { return kernel.name.find(only) == std::string::npos; });
  for (Timed& kernel : all) kernel.run();
  for (int i = 0; i < repeats; ++i)
    for (Timed& kernel : all) kernel.milliseconds.push_back(run_once(kernel));
  for (Timed& kernel : all) {
    std::sort(kernel.milliseconds.begin(), kernel.milliseconds.end());
    std::printf("%-44s median %8.2f ms   fastest %8.2f ms\n", kernel.name.c_str(), kernel.milliseconds[kernel.milliseconds.size() / 2],
                kernel.milliseconds.front());
  }
  return 0;
}

}  // namespace
}  // namespace heddle::test

int main(int argc, char** argv) {
  try {
    return heddle::test::bench(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
