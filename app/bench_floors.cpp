#include <algorithm>
#include <array>
#include <cstdio>
#include <string>
#include <string_view>

#include "app/bench.h"
#include "kernels/api/check.h"
#include "kernels/api/printable.h"
#include "train/config/shape.h"
#include "train/report/utilisation.h"
#include "train/step_count.h"

namespace heddle::app {
namespace {

// What bounds a kernel on a card: dense products of bf16 and of f32 (TFLOP/s, of their data sheets), and a copy, read and write together (TB/s, as
// measured: Jia et al. for A100, vendors' own copies for the others; kernels/cuda/README.md has the same).
struct Card {
  std::string_view name, full;  // as utilisation.h knows it
  double f32, copy;
  bool hopper;
};
constexpr std::array kCards{Card{"a100", "A100", 19.5, 1.8, false}, Card{"h100", "H100", 67, 3.0, true}, Card{"h200", "H200", 67, 4.3, true}};

// The shares of both rates that a kernel is expected to reach, by what its main loop is bound by: the reasons stand in kernels/cuda/README.md.
constexpr double kOfCopy = 0.85;
double expected_of_peak(const KernelCalls& k, const Card& card) {
  if (k.op == "attention_forward") return card.hopper ? 0.2 : 0.6;
  if (k.op == "attention_backward") return card.hopper ? 0.13 : 0.42;
  if (k.shape.find("gelu") != std::string::npos) return card.hopper ? 0.45 : 0.65;
  return card.hopper ? 0.68 : 0.75;
}
// Between the ends of two kernels of a graph, and to fill and drain a grid.
constexpr double kLeast = 3e-6;

const Card& card_named(std::string_view name) {
  std::string known;
  for (const Card& card : kCards) {
    if (card.name == name) return card;
    known += concat(known.empty() ? "" : ", ", card.name);
  }
  fail("bench", concat("--card ", printable(name), " is none of ", known), ExitCode::usage);
}

}  // namespace

void bench_floors(const BenchOptions& options) {
  const Card& card = card_named(options.card);
  RunConfig config = options.config;
  config.device = DeviceChoice::cuda;
  config.total_batch_tokens = config.batch * config.seq * options.micro_steps;
  const bool bf16 = config.precision != PrecisionChoice::fp32;
  config.precision = bf16 ? PrecisionChoice::bf16 : PrecisionChoice::fp32;
  const double peak = bf16 ? peak_flops(card.full) : card.f32 * 1e12, copy = card.copy * 1e12;

  struct Row {
    KernelCalls kernel;
    double floor, expected;  // seconds of one call
    double all() const { return kernel.calls * expected; }
  };
  std::vector<Row> rows;
  double floor = 0, expected = 0, launches = 0;
  for (KernelCalls& k : count_kernels(config, options.shape, 1, DeviceType::cuda)) {
    const double by_flops = k.cost.flops / peak, by_bytes = k.cost.bytes / copy;
    const double most_likely = std::max(by_flops / expected_of_peak(k, card), by_bytes / kOfCopy);
    const Row row{std::move(k), std::max(by_flops, by_bytes), std::max(most_likely, kLeast)};
    floor += row.kernel.calls * row.floor, expected += row.all(), launches += row.kernel.calls;
    rows.push_back(row);
  }
  std::stable_sort(rows.begin(), rows.end(), [](const Row& a, const Row& b) { return a.all() > b.all(); });

  const auto micro = static_cast<double>(options.micro_steps);
  const double tokens = micro * static_cast<double>(config.batch * config.seq);
  const double flops = options.shape.flops_per_token(config.seq) * tokens;
  std::printf("%s at %.0f TFLOP/s and %.1f TB/s; a step of %.0f tokens in %s of %lld x %lld, counted in a rehearsal. Nothing here is measured.\n\n",
              std::string(card.full).c_str(), peak / 1e12, card.copy, tokens, counted(options.micro_steps, "micro-step").c_str(),
              static_cast<long long>(config.batch), static_cast<long long>(config.seq));
  std::printf("%-20s %-14s %-58s %6s %8s %8s %9s %9s %9s %6s\n", "op", "kernel", "shape", "calls", "GFLOP", "MB", "floor us", "expected", "ms in all",
              "%");
  constexpr size_t kShown = 40;
  double rest = 0, rest_calls = 0;
  for (size_t i = 0; i < rows.size(); ++i) {
    const Row& row = rows[i];
    if (i >= kShown) {
      rest += row.all(), rest_calls += row.kernel.calls;
      continue;
    }
    std::printf("%-20s %-14s %-58s %6.0f %8.2f %8.2f %9.1f %9.1f %9.3f %6.1f\n", row.kernel.op.c_str(), row.kernel.candidate.c_str(),
                row.kernel.shape.c_str(), row.kernel.calls, row.kernel.cost.flops / 1e9, row.kernel.cost.bytes / 1e6, row.floor * 1e6,
                row.expected * 1e6, row.all() * 1e3, 100 * row.all() / expected);
  }
  if (rest_calls > 0) std::printf("%-94s %6.0f %47.3f %6.1f\n", "all others", rest_calls, rest * 1e3, 100 * rest / expected);
  const auto line = [&](const char* what, double seconds) {
    std::printf("%-9s %10.2f ms  %10.0f tokens/s  %5.1f %% of the peak\n", what, seconds * 1e3, tokens / seconds, 100 * flops / seconds / peak);
  };
  std::printf("\na step of one GPU, %.0f launches:\n", launches);
  line("floors", floor);
  line("expected", expected);
}

}  // namespace heddle::app
