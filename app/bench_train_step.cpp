#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "app/bench.h"
#include "core/launch.h"
#include "core/storage.h"
#include "kernels/api/check.h"
#include "kernels/api/matmul.h"
#include "kernels/api/philox.h"
#include "kernels/api/random.h"
#include "parallel/control.h"
#include "parallel/watchdog.h"
#include "train/config/shape.h"
#include "train/step_timer.h"

namespace heddle::app {
namespace {

using Clock = std::chrono::steady_clock;
double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// A line "<key>:  N kB" of /proc/self/status, in bytes; 0 where there is none.
int64_t process_bytes(const std::string& key) {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.compare(0, key.size() + 1, key + ":") == 0) return std::stoll(line.substr(key.size() + 1)) * 1024;
  }
  return 0;
}

Tensor random_matrix(int64_t rows, int64_t columns, DType dtype, Device device, uint32_t layer) {
  Tensor t = Tensor::empty({rows, columns}, dtype, device);
  launch(kernels::normal, {.out = t.view(), .key = {.seed = 1, .purpose = RngPurpose::test, .name = layer, .stream = 0}}, device);
  return t;
}

}  // namespace

double median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + static_cast<ptrdiff_t>(values.size() / 2), values.end());
  return values[values.size() / 2];
}

MatmulRate model_matmul_rate(const TransformerConfig& config, int64_t rows, DType dtype, Device device, int repeats) {
  const TransformerConfig c = config.resolved();
  struct Product {
    int64_t out, in;
    double count;  // in a step
  };
  const double layers = static_cast<double>(c.layers);
  const int64_t up = (mlp_kind(c.mlp).matrices() - 1) * c.mlp_dim;
  const Product products[] = {{(c.heads + 2 * c.kv_heads) * c.head_dim, c.dim, layers},
                              {c.dim, c.heads * c.head_dim, layers},
                              {up, c.dim, layers},
                              {c.dim, c.mlp_dim, layers},
                              {c.vocab, c.dim, 1}};
  double flops = 0, seconds = 0;
  MatmulRate rate;
  const DType acc = accumulator_of(dtype);
  for (const Product& p : products) {
    const Tensor x = random_matrix(rows, p.in, dtype, device, 1), w = random_matrix(p.out, p.in, dtype, device, 2);
    const Tensor y = random_matrix(rows, p.out, dtype, device, 3), dx = random_matrix(rows, p.in, dtype, device, 4);
    const Tensor dw = Tensor::zeros({p.out, p.in}, acc, device);
    const kernels::MatmulArgs calls[] = {{.a = x.view(), .b = w.view(), .trans_b = true, .c = {y.view(), false}},
                                         {.a = y.view(), .b = w.view(), .c = {dx.view(), false}},
                                         {.a = y.view(), .b = x.view(), .trans_a = true, .c = {dw.view(), false}}};
    for (const kernels::MatmulArgs& call : calls) {
      std::vector<double> times;
      for (int i = 0; i < repeats + 1; ++i) {
        const Clock::time_point start = Clock::now();
        launch(kernels::matmul, call, device);
        synchronize(device);
        if (i > 0) times.push_back(seconds_since(start));
      }
      const double once = 2.0 * static_cast<double>(rows) * static_cast<double>(p.out) * static_cast<double>(p.in);
      seconds += p.count * median(times);
      flops += p.count * once;
      rate.best = std::max(rate.best, once / *std::min_element(times.begin(), times.end()) / 1e9);
    }
  }
  rate.mean = flops / seconds / 1e9;
  return rate;
}

std::string bench_train_step(BenchOptions options) {
  const std::unique_ptr<Control> control = world_control();
  const int ranks = control->size();
  const Watchdog watchdog(*control);
  const int64_t idle = process_bytes("VmRSS");
  StepTimer session(options.config, options.shape, "bench",
                    ranks == 1 ? nullptr : control->communicator(choose_device(options.config.device), {.time_joins = true}));
  const RunConfig& c = session.run_config;
  std::vector<double> times, waits;
  uint64_t warm_allocations = 0;
  for (int64_t i = 0; i < options.warmup + options.repeats; ++i) {
    if (i == options.warmup) warm_allocations = memory_stats(session.device).device_allocations;
    const double seconds = session.step(), waited = session.comm->take_waited();
    if (i < options.warmup) continue;
    times.push_back(seconds);
    waits.push_back(waited);
  }
  const MemoryStats memory = memory_stats(session.device);
  const int64_t peak_rss = process_bytes("VmHWM") - idle;
  const int64_t tokens = session.tokens();
  const TransformerConfig& config = session.model.config();
  std::vector<double> mine(static_cast<size_t>(2 * ranks));
  mine[static_cast<size_t>(control->rank())] = median(times);
  mine[static_cast<size_t>(ranks + control->rank())] = median(waits);
  const std::vector<double> all = control->sum_in_rank_order(mine);  // each rank's
  const auto steps_end = all.begin() + ranks;
  const double step = *std::max_element(all.begin(), steps_end), flops = config.flops_per_token(c.seq) * static_cast<double>(tokens);
  const double matmul = model_matmul_rate(config, tokens, session.arena.values().dtype(), session.device, 5).mean;
  const double rate = flops / step / 1e9;
  char line[1024];
  std::snprintf(
      line, sizeof line,
      "{\"bench\": \"train-step\", \"dtype\": \"%s\", \"optimizer\": \"%s\", \"parameters\": %lld, \"vocab\": %lld, \"ranks\": %d, \"batch\": %lld, "
      "\"seq\": %lld, \"tokens_per_s\": %.1f, \"step_ms\": %.2f, \"step_ms_min\": %.2f, \"step_ms_max\": %.2f, \"exposed_comm_ms\": %.2f, "
      "\"waited_ms_max\": %.2f, \"gflops\": %.1f, \"matmul_gflops\": %.1f, "
      "\"matmul_fraction\": %.3f, \"peak_bytes\": %zu, \"peak_rss_above_idle_bytes\": %lld, \"allocations_after_warmup\": %llu, \"loss\": %.4f}",
      std::string(name_of(session.arena.values().dtype())).c_str(), c.optimizer == OptimizerChoice::muon ? "muon" : "adamw",
      static_cast<long long>(session.model.parameter_count()), static_cast<long long>(config.vocab), ranks, static_cast<long long>(c.batch),
      static_cast<long long>(c.seq), static_cast<double>(tokens * ranks) / step, step * 1e3, *std::min_element(times.begin(), times.end()) * 1e3,
      *std::max_element(times.begin(), times.end()) * 1e3, *std::min_element(steps_end, all.end()) * 1e3,
      *std::max_element(steps_end, all.end()) * 1e3, rate, matmul, rate / matmul, memory.peak_total, static_cast<long long>(peak_rss),
      static_cast<unsigned long long>(memory.device_allocations - warm_allocations), session.loss);
  return line;
}

}  // namespace heddle::app
