#include <algorithm>
#include <bit>
#include <chrono>
#include <cstdio>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "app/bench.h"
#include "core/arena.h"
#include "core/autograd/engine.h"
#include "core/autograd/node.h"
#include "core/launch.h"
#include "core/ops/ops.h"
#include "kernels/api/random.h"
#include "optim/grad_norm.h"
#include "optim/muon.h"
#include "optim/optimizer.h"
#include "train/config/shape.h"
#include "train/memory_plan.h"
#include "train/threads.h"

namespace heddle::app {
namespace {

using Clock = std::chrono::steady_clock;

double median_seconds(const std::function<void()>& work, int64_t repeats, Device device) {
  work();
  std::vector<double> times;
  for (int64_t i = 0; i < repeats; ++i) {
    const Clock::time_point start = Clock::now();
    work();
    synchronize(device);
    times.push_back(std::chrono::duration<double>(Clock::now() - start).count());
  }
  std::nth_element(times.begin(), times.begin() + static_cast<ptrdiff_t>(times.size() / 2), times.end());
  return times[times.size() / 2];
}

Tensor random_tensor(Shape shape, DType dtype, Device device) {
  static uint32_t next = 0;
  Tensor t = Tensor::empty(shape, dtype, device);
  launch(kernels::normal, {.out = t.view(), .key = {.seed = 3, .purpose = RngPurpose::test, .name = ++next, .stream = 0}, .std = 0.5f}, device);
  return t;
}

// What a copy reaches, GB/s of bytes read and written: of few bytes more than of many, because caches hold them.
class CopyRate {
 public:
  explicit CopyRate(Device device)
      : device_(device), from_(Tensor::zeros({kMost}, DType::f32, device)), to_(Tensor::zeros({kMost}, DType::f32, device)) {}

  // Of `bytes` in all, or of a power of two somewhat below.
  double of(double bytes) {
    const int64_t half = std::clamp(static_cast<int64_t>(bytes / 2), kLeast, 4 * kMost);
    const auto size = std::bit_floor(static_cast<uint64_t>(half));
    double& rate = rates_[size];
    if (rate == 0) {
      const auto copies = static_cast<int64_t>(std::max<uint64_t>(1, (uint64_t{1} << 22) / size));  // enough to be timed
      const double seconds = median_seconds(
          [&] {
            for (int64_t i = 0; i < copies; ++i) copy_bytes(to_.impl().data, device_, from_.impl().data, device_, size);
          },
          5, device_);
      rate = 2e-9 * static_cast<double>(size) * static_cast<double>(copies) / seconds;
    }
    return rate;
  }
  double of_memory() { return of(8.0 * static_cast<double>(kMost)); }

 private:
  static constexpr int64_t kMost = int64_t{32} << 20, kLeast = 1024;  // elements of four bytes; bytes
  Device device_;
  Tensor from_, to_;
  std::map<uint64_t, double> rates_;
};

class Table {
 public:
  Table(MatmulRate matmul, CopyRate& copy, int64_t repeats, Device device) : matmul_(matmul), copy_(copy), repeats_(repeats), device_(device) {
    std::printf("%.1f GFLOP/s, the fastest %.1f; copy %.1f GB/s (read + write)\n", matmul.mean, matmul.best, copy.of_memory());
    std::printf("%-34s %10s %10s %8s %10s %9s\n", "op", "ms", "floor ms", "x floor", "GFLOP/s", "GB/s");
    std::fflush(stdout);
  }

  // flops and bytes: what the work must do at least, each input read once and each output written once.
  void row(const std::string& name, double flops, double bytes, const std::function<void()>& work) const {
    const double seconds = median_seconds(work, repeats_, device_);
    const double floor = std::max(flops / matmul_.best / 1e9, bytes / copy_.of(bytes) / 1e9);
    std::printf("%-34s %10.3f %10.3f %8s %10.1f %9.1f\n", name.c_str(), seconds * 1e3, floor * 1e3, times_floor(seconds, floor).c_str(),
                flops / seconds / 1e9, bytes / seconds / 1e9);
    std::fflush(stdout);
  }

 private:
  MatmulRate matmul_;
  CopyRate& copy_;
  int64_t repeats_;
  Device device_;
};

}  // namespace

std::string times_floor(double seconds, double floor) {
  if (seconds < floor) return "n/a";
  char text[32];
  std::snprintf(text, sizeof text, "%.2f", seconds / floor);
  return text;
}

void bench_ops(BenchOptions options) {
  const RunConfig& run = options.config;
  use_threads(run.threads);
  const Device device = choose_device(run.device);
  const DType dtype = compute_dtype(run.precision, device);
  const TransformerConfig& c = options.shape;
  const int64_t b = run.batch, t = run.seq, n = b * t, d = c.head_dim, h = c.heads, kv = c.kv_heads, width = (h + 2 * kv) * d;
  const double e = static_cast<double>(size_of(dtype));
  const auto elements = [](int64_t x, int64_t y) { return static_cast<double>(x) * static_cast<double>(y); };

  require_batch_memory("bench", c, b, t, dtype, device);
  std::printf("matmul over this model's shapes ");  // what follows takes seconds, or minutes of a large model
  std::fflush(stdout);
  CopyRate copy(device);
  const Table table(model_matmul_rate(c, n, dtype, device, 5), copy, options.repeats, device);

  const auto leaf = [&](Shape shape) { return random_tensor(shape, dtype, device).set_requires_grad(true); };
  // Forward without recording, then forward + backward with a gradient of ones.
  const auto both = [&](const std::string& name, double flops, double bytes, const std::function<Tensor()>& op) {
    table.row(name + " forward", flops, bytes, [&] {
      NoGradGuard no_grad;
      op();
    });
    table.row(name + " forward + backward", 3 * flops, 3 * bytes, [&] {
      const Tensor y = op();
      if (y.numel() == 1) {
        backward(y);
      } else {
        backward_from(y, y.detach());
      }
    });
  };

  const Tensor x = leaf({b, t, c.dim});
  const auto product = [&](const std::string& name, int64_t in, int64_t out) {
    const Tensor a = leaf({b, t, in}), w = leaf({out, in});
    both("linear " + name, 2 * elements(n, in) * static_cast<double>(out), e * (elements(n, in) + elements(n, out) + elements(in, out)),
         [=] { return linear(a, w); });
  };
  product("qkv", c.dim, width);
  product("out", h * d, c.dim);
  {
    const MlpKind& kind = mlp_kind(c.mlp);
    const int64_t gates = kind.gated ? 2 : 1;
    const Tensor w1 = leaf({gates * c.mlp_dim, c.dim}), w2 = leaf({c.dim, c.mlp_dim});
    const double flops = 2 * elements(n, c.dim) * static_cast<double>((gates + 1) * c.mlp_dim);
    both("mlp", flops, e * (2 * elements(n, c.dim) + elements(gates + 1, c.dim * c.mlp_dim)), [&] { return kind.forward(x, {w1, {}, w2, {}}); });
  }
  {
    const Tensor qkv = leaf({b, t, width});
    const double span = c.window > 0 ? static_cast<double>(std::min(c.window, t)) : static_cast<double>(t) / 2;
    both("attention", 4 * elements(n, h * d) * span, e * (elements(n, width) + elements(n, h * d)),
         [&] { return attention(qkv, h, kv, {.window = c.window}); });
    if (c.qk_norm) {
      const Tensor gain = leaf({d});
      both("qk_norm", 0, 2 * e * elements(n, width), [&] { return qk_norm(qkv, h, kv, gain, gain); });
    }
    if (c.position == Position::rope) {
      const Tensor turned = random_tensor({b, t, h + 2 * kv, d}, dtype, device), angles = rope_table(t, d, c.rope_theta, device);
      table.row("rope, in place", 0, 2 * e * elements(n, (h + kv) * d), [&] {
        NoGradGuard no_grad;
        rope_(turned, angles, h + kv);
      });
    }
  }
  {
    const Tensor gain = leaf({c.dim}), bias = leaf({c.dim});
    both("layer_norm", 0, 2 * e * elements(n, c.dim), [&] { return layer_norm(x, {}, gain, bias).y; });
    both("rms_norm", 0, 2 * e * elements(n, c.dim), [&] { return rms_norm(x, {}, gain).y; });
  }
  std::vector<int32_t> ids(static_cast<size_t>(n));
  for (size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<int32_t>((i * 2654435761u >> 8) % static_cast<uint64_t>(c.vocab));
  const Tensor tokens = Tensor::from(ids, {b, t}, device);
  const Tensor head = leaf({c.vocab, c.dim});
  both("embedding", 0, 2 * e * elements(n, c.dim), [&] { return embedding(tokens, head); });
  table.row("linear_cross_entropy + gradients", 6 * elements(n, c.dim) * static_cast<double>(c.vocab), e * 3 * elements(n, c.dim),
            [&] { backward(linear_cross_entropy(x, head, tokens)); });

  Transformer model(c);
  Arena arena(model, device, dtype);
  arena.init(1);
  StepControl control(device);
  const double size = static_cast<double>(arena.layout().size());
  const auto adamw = make_adamw(arena, {});
  table.row("gradient norm", 0, 4 * size, [&] { control.finish_norm(arena); });
  table.row("adamw", 0, size * (7 * 4 + (dtype == DType::f32 ? 0 : e)), [&] { adamw->step(control.device_state()); });
  const MuonOptions muon_options;
  Muon muon(arena, muon_options, {}, {}, {});
  double products = 0;  // of each iteration two that are symmetric, and one
  for (const Muon::Matrix& matrix : muon.matrices()) {
    const int64_t less = std::min(matrix.rows, matrix.columns), more = std::max(matrix.rows, matrix.columns);
    products += static_cast<double>(muon_options.iterations) *
                (elements(less, less + 1) * static_cast<double>(more + less) + 2 * elements(less, less) * static_cast<double>(more));
  }
  table.row("muon", products, size * (5 * 4 + (dtype == DType::f32 ? 0 : e)), [&] { muon.step(control.device_state()); });
}

}  // namespace heddle::app
