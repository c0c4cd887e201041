#include "core/nn/layer_check.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <iomanip>
#include <sstream>
#include <system_error>

#include "core/arena.h"
#include "core/autograd/engine.h"
#include "core/autograd/node.h"
#include "core/io/safetensors_file.h"
#include "kernels/api/check.h"

namespace heddle {
namespace {

// Every parameter N(its init mean, 0.3).
void randomize(const Arena& arena) {
  uint64_t seed = 100;
  for (const Parameter& p : arena.parameters()) {
    const Tensor& t = p.tensor();
    const Tensor values = random_input(t.shape(), ++seed, p.spec().init_mean, 0.3, t.dtype(), false);
    std::memcpy(t.bytes().data(), values.bytes().data(), values.bytes().size());
  }
}

NamedViews named_views(const Module& module) {
  NamedViews views;
  for (const Parameter& p : module.parameters()) views.emplace_back(p.name(), p.tensor().view());
  return views;
}

// A file name of this process alone, removed at the end of the scope.
struct TemporaryFile {
  TemporaryFile() {
    static std::atomic<int> count{0};
    path = (std::filesystem::temp_directory_path() / concat("heddle-layer-", getpid(), "-", count++, ".safetensors")).string();
  }
  ~TemporaryFile() {
    std::error_code ignored;
    std::filesystem::remove(path, ignored);
  }
  std::string path;
};

double seconds_of(const std::function<void()>& run) {
  const auto begin = std::chrono::steady_clock::now();
  run();
  synchronize(Device{});
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

double median_seconds(const std::function<void()>& run, double budget, int& runs) {
  run();  // fills caches and the allocator
  std::vector<double> times;
  double total = 0;
  while (total < budget || times.size() < 3) {
    times.push_back(seconds_of(run));
    total += times.back();
  }
  runs += static_cast<int>(times.size());
  std::nth_element(times.begin(), times.begin() + static_cast<ptrdiff_t>(times.size() / 2), times.end());
  return times[times.size() / 2];
}

}  // namespace

GradCheck check_layer_gradients(const MakeLayer& make, Shape input, const GradCheckOptions& options) {
  const LayerUnderCheck layer = make();
  const Arena arena(*layer.module, Device{}, DType::f64);
  randomize(arena);
  std::vector<Tensor> inputs{random_input(input, 7)};
  for (const Parameter& p : layer.module->parameters()) inputs.push_back(p.tensor());
  GradCheck result = check_gradients([&](std::span<const Tensor> in) { return std::vector<Tensor>{layer.forward(in[0])}; }, inputs, options);
  if (!result.ok) {
    result.text += "input 0 is x";
    size_t i = 0;
    for (const Parameter& p : layer.module->parameters()) result.text += concat(", input ", ++i, " is ", p.name());
    result.text += "\n";
  }
  return result;
}

std::string check_layer_round_trip(const MakeLayer& make, Shape input, DType dtype) {
  NoGradGuard no_grad;
  const LayerUnderCheck saved = make(), loaded = make();
  const Arena from(*saved.module, Device{}, dtype), to(*loaded.module, Device{}, dtype);
  randomize(from);
  const TemporaryFile file;
  save_safetensors(file.path, named_views(*saved.module));
  load_safetensors(file.path, named_views(*loaded.module));  // strict: lists every name that does not fit
  std::string text;
  const auto before = saved.module->parameters(), after = loaded.module->parameters();
  for (size_t i = 0; i < before.size(); ++i) {
    const auto a = before[i].tensor().bytes(), b = after[i].tensor().bytes();
    if (!std::equal(a.begin(), a.end(), b.begin(), b.end())) text += concat(before[i].name(), " changed in the file\n");
  }
  const Tensor x = random_input(input, 7, 0, 1, dtype, false), y = saved.forward(x), again = loaded.forward(x);
  if (y.to_vector() != again.to_vector()) text += "the output changed: forward uses something that is not a parameter\n";
  return text;
}

LayerTiming bench_layer(const MakeLayer& make, Shape input, DType dtype, double seconds, double flops) {
  const LayerUnderCheck layer = make();
  const Arena arena(*layer.module, Device{}, dtype);
  randomize(arena);
  const Tensor x = random_input(input, 7, 0, 1, dtype);
  LayerTiming timing;
  timing.flops = flops;
  if (flops == 0) {
    const double rows = static_cast<double>(input.numel()) / static_cast<double>(std::max<int64_t>(input[-1], 1));
    for (const Parameter& p : layer.module->parameters()) {
      if (p.spec().kind == ParamKind::matrix) timing.flops += 2 * rows * static_cast<double>(p.tensor().numel());
    }
  }
  const auto live = [] { return memory_stats(Device{}).live[static_cast<size_t>(MemoryTag::activation)]; };
  Tensor seed;
  {
    const size_t before = live();
    const Tensor y = layer.forward(x);
    timing.saved_bytes = live() - before;
    seed = random_input(y.shape(), 8, 0, 1, y.dtype(), false);
  }
  timing.training_seconds = median_seconds(
      [&] {
        const Tensor y = layer.forward(x);
        backward_from(y, seed);
      },
      seconds / 2, timing.runs);
  NoGradGuard no_grad;
  timing.forward_seconds = median_seconds([&] { layer.forward(x); }, seconds / 2, timing.runs);
  return timing;
}

std::string LayerReport::text() const {
  std::ostringstream out;
  out << "gradients   " << (gradients.ok ? "ok" : "WRONG") << ", " << gradients.elements << " derivatives, worst error " << std::scientific
      << std::setprecision(1) << gradients.worst << "\n"
      << gradients.text << "round trip  " << (round_trip.empty() ? "ok, " : "WRONG, ") << parameters << " parameters\n"
      << round_trip << std::fixed << std::setprecision(2) << "bench       forward " << timing.forward_seconds * 1e3 << " ms, "
      << timing.forward_gflops() << " GFLOP/s; forward and backward " << timing.training_seconds * 1e3 << " ms, " << timing.training_gflops()
      << " GFLOP/s; " << static_cast<double>(timing.saved_bytes) / 1024 << " KiB kept for backward\n";
  return out.str();
}

LayerReport check_layer(const MakeLayer& make, Shape input, Shape bench_input) {
  LayerReport report;
  report.parameters = make().module->parameter_count();
  report.gradients = check_layer_gradients(make, input);
  report.round_trip = check_layer_round_trip(make, input);
  report.timing = bench_layer(make, bench_input.rank() ? bench_input : input);
  return report;
}

}  // namespace heddle
