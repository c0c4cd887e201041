#include <omp.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "app/bench.h"
#include "core/io/strict_json.h"
#include "data/file.h"
#include "kernels/api/printable.h"
#include "train/config/shape.h"
#include "train/environment.h"
#include "train/kernel_case.h"
#include "train/report/console.h"
#include "train/report/utilisation.h"
#include "train/step_count.h"
#include "train/threads.h"

namespace heddle::app {
namespace {

using Clock = std::chrono::steady_clock;

constexpr double kLeastSample = 2e-3;  // seconds of calls between two looks at the clock
constexpr double kMostChecked = 4e10;  // FLOPs that a call is checked against float64 on the CPU for
constexpr double kSlower = 1.1;        // --compare: a regression

struct Result {
  std::string op, shape, kernel;
  double calls = 0, us = 0, least = 0, most = 0, tflops = 0, gbs = 0;
  std::optional<double> error;
  double limit = 0;

  bool wrong() const { return error && !(*error <= limit); }
  std::string key() const { return concat(op, ", ", shape, ", ", kernel); }
};

std::unique_ptr<KernelCase> case_of(const kernels::RehearsedKernels::Call& call) {
#define HEDDLE_CASE(Args, slot)      \
  if (call.op == kernels::slot.op()) \
    return std::make_unique<KernelCaseOf<kernels::Args>>(kernels::slot, *static_cast<const kernels::Args*>(call.args));
  HEDDLE_KERNEL_SLOTS(HEDDLE_CASE)
#undef HEDDLE_CASE
  return nullptr;
}

void measure(KernelCase& kernel, Result& result, int64_t copies, int64_t repeats, Device device) {
  int64_t next = 0;
  const auto seconds = [&](int64_t n) {
    const Clock::time_point begin = Clock::now();
    for (int64_t i = 0; i < n; ++i) kernel.run(result.kernel, next++ % copies);
    synchronize(device);
    return std::chrono::duration<double>(Clock::now() - begin).count();
  };
  seconds(1);
  const double once = std::max(seconds(1), 1e-7);
  const int64_t calls = std::clamp<int64_t>(static_cast<int64_t>(kLeastSample / once), 1, 10000);
  std::vector<double> times;
  for (int64_t i = 0; i < repeats; ++i) times.push_back(1e6 * seconds(calls) / static_cast<double>(calls));
  result.us = median(times);
  result.least = *std::min_element(times.begin(), times.end());
  result.most = *std::max_element(times.begin(), times.end());
  result.tflops = kernel.cost().flops / result.us / 1e6;
  result.gbs = kernel.cost().bytes / result.us / 1e3;
}

nlohmann::json to_json(const std::vector<Result>& results, const std::string& device, bool simulated) {
  nlohmann::json rows = nlohmann::json::array();
  for (const Result& r : results) {
    nlohmann::json row = {{"op", r.op},        {"shape", r.shape}, {"kernel", r.kernel}, {"calls", r.calls}, {"us", r.us},
                          {"us_min", r.least}, {"us_max", r.most}, {"tflops", r.tflops}, {"gbs", r.gbs}};
    if (r.error) row["error"] = *r.error;
    rows.push_back(std::move(row));
  }
  return {{"bench", "kernels"}, {"heddle", HEDDLE_VERSION}, {"device", device}, {"simulated", simulated}, {"kernels", std::move(rows)}};
}

// What an earlier run wrote, by key(): us, us_max. Error(bad_data) when it is no such file, or was measured elsewhere.
using Before = std::map<std::string, std::pair<double, double>>;
Before read_before(const std::string& path, const std::string& device) {
  const auto wrong = [&](const std::string& why) { fail("bench", concat(printable(path), ": ", why), ExitCode::bad_data); };
  const nlohmann::json file = parse_strict_json(read_small_file(path, size_t{16} << 20), path);
  Before before;
  try {
    if (file.at("bench") != "kernels") wrong("not written by bench kernels");
    if (file.at("device") != device) wrong(concat("measured on ", printable(file.at("device").get<std::string>()), ", this is ", device));
    for (const nlohmann::json& row : file.at("kernels")) {
      const Result r{row.at("op").get<std::string>(), row.at("shape").get<std::string>(), row.at("kernel").get<std::string>()};
      before[r.key()] = {row.at("us").get<double>(), row.at("us_max").get<double>()};
    }
  } catch (const nlohmann::json::exception& e) {
    wrong(concat("not written by bench kernels: ", e.what()));
  }
  return before;
}

// Which kernels have become slower, beyond what either run itself varies by.
std::vector<std::string> slower_than(const Before& before, const std::vector<Result>& results, const std::string& path) {
  std::vector<std::string> slower;
  size_t met = 0;
  for (const Result& r : results) {
    const auto it = before.find(r.key());
    if (it == before.end()) continue;
    ++met;
    const auto [us, most] = it->second;
    if (r.us > kSlower * us && r.least > most) {
      char text[64];
      std::snprintf(text, sizeof text, ": %.1f us, was %.1f (x %.2f)", r.us, us, r.us / us);
      slower.push_back(r.key() + text);
    }
  }
  if (met == 0) fail("bench", concat(printable(path), ": none of its kernels was measured now: another model, batch or --op?"), ExitCode::bad_data);
  return slower;
}

}  // namespace

void bench_kernels(const BenchOptions& options) {
  RunConfig config = options.config;
  use_threads(config.threads);
  const Device device = choose_device(config.device);
  Runtime& here = runtime(device.type);
  const bool gpu = device.type == DeviceType::cuda;
  const std::string name = gpu ? here.describe(device.index) : concat(processor(), ", ", counted(int64_t{omp_get_max_threads()}, "thread"));

  const Before before = options.compare.empty() ? Before() : read_before(options.compare, name);
  if (!config.kernel.empty())
    fail("bench", "kernels runs every candidate: --kernel chooses one for the other benches, --op one op for this", ExitCode::usage);

  std::map<std::string, std::unique_ptr<KernelCase>> cases;
  const auto key = [](std::string_view op, std::string_view shape, double bytes) { return concat(op, '\n', shape, '\n', bytes); };
  const std::vector<KernelCalls> kernels = count_kernels(config, options.shape, 1, device.type, [&](const kernels::RehearsedKernels::Call& call) {
    cases.emplace(key(call.op, call.shape, call.cost.bytes), case_of(call));
  });
  std::fprintf(stderr, "heddle: %zu kernels of a step on %s%s\n", kernels.size(), name.c_str(),
               here.simulated() ? ", simulated on the CPU: its times say nothing of a GPU" : "");

  std::vector<Result> results;
  for (const KernelCalls& k : kernels) {
    KernelCase& one = *cases.at(key(k.op, k.shape, k.cost.bytes));
    if (!options.op.empty() && k.op != options.op) continue;
    if (one.bytes() > kMostCaseBytes) {
      std::fprintf(stderr, "heddle: left out: %s, %s: operands of %s\n", k.op.c_str(), k.shape.c_str(),
                   bytes_text(static_cast<double>(one.bytes())).c_str());
      continue;
    }
    const int64_t copies = copies_beyond_caches(one);
    one.make(device, copies);
    for (const std::string_view candidate : one.candidates(device.type)) {
      Result result{k.op, k.shape, std::string(candidate), k.calls};
      result.limit = one.in_bf16() ? 0.02 : 1e-4;
      if (k.cost.flops <= kMostChecked) {
        result.error = one.error(candidate);  // before it is timed
      } else {
        one.run(candidate, 0);
      }
      const auto left = one.candidates(device.type);  // a vendor's kernel that failed was done by another, and refuses from now on
      if (std::find(left.begin(), left.end(), candidate) == left.end()) continue;
      if (!result.wrong()) measure(one, result, copies, options.repeats, device);
      results.push_back(std::move(result));
    }
    one.make(device, 0);
  }
  if (results.empty()) {
    std::vector<std::string> names;
    std::string ops;
    for (const KernelCalls& k : kernels) {
      if (std::find(names.begin(), names.end(), k.op) != names.end()) continue;
      ops += concat(names.empty() ? "" : ", ", k.op);
      names.push_back(k.op);
    }
    fail("bench", concat("a step of this model has no op ", printable(options.op), "; it has ", ops), ExitCode::usage);
  }

  // What the device can do: its data sheet's products where it is known, else the fastest here; bytes by the fastest copy-like kernel is no roof.
  double best = 0;
  for (const Result& r : results) best = std::max(best, r.tflops);
  const double sheet = gpu && !here.simulated() ? peak_flops(name) / 1e12 : 0;
  const double roof = sheet > 0 ? sheet : best;
  std::printf("%-20s %-14s %-58s %6s %10s %15s %9s %9s %6s %9s\n", "op", "kernel", "shape", "calls", "us", "from - to", "TFLOP/s", "GB/s", "% peak",
              "error");
  for (const Result& r : results) {
    char range[32], error[16] = "-", percent[16] = "";
    std::snprintf(range, sizeof range, "%.1f - %.1f", r.least, r.most);
    if (r.error) std::snprintf(error, sizeof error, "%.1e", *r.error);
    if (r.tflops > 0 && roof > 0) std::snprintf(percent, sizeof percent, "%.1f", 100 * r.tflops / roof);
    std::printf("%-20s %-14s %-58s %6.0f %10.1f %15s %9.3f %9.1f %6s %9s%s\n", r.op.c_str(), r.kernel.c_str(), r.shape.c_str(), r.calls, r.us, range,
                r.tflops, r.gbs, percent, error, r.wrong() ? " WRONG" : "");
  }
  std::printf("%% peak: of %.2f TFLOP/s, %s; error: of the results' size, beside float64 on the CPU (-: not compared)\n", roof,
              sheet > 0 ? "the card's data sheet" : "the fastest product here");
  std::fflush(stdout);

  if (!options.json.empty()) {
    const std::string text = to_json(results, name, here.simulated()).dump(1) + "\n";
    replace_file(options.json, text);
  }
  std::string wrong;
  for (const Result& r : results) {
    if (r.wrong()) wrong += concat(wrong.empty() ? "" : "; ", r.key(), " is off by ", *r.error);
  }
  if (!wrong.empty()) fail("bench", concat("wrong results, which were not timed: ", wrong));
  if (options.compare.empty()) return;
  const std::vector<std::string> slower = slower_than(before, results, options.compare);
  for (const std::string& line : slower) std::printf("slower: %s\n", line.c_str());
  std::fflush(stdout);
  if (!slower.empty()) fail("bench", concat(counted(static_cast<int64_t>(slower.size()), "kernel"), " slower than in ", printable(options.compare)));
}

}  // namespace heddle::app
