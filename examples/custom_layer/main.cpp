// A layer of your own, and what the framework does for it: gradient check, save and load, bench.
//
// GatedAdapter finetunes a projection at low rank with a gate:  y = W x + U (silu(G x) * (D x)), W (out, in), G and D (rank, in), U (out, rank).
// U starts at zero, so training starts at the base model (Houlsby et al. 2019; Hu et al. 2021, "LoRA").
#include <iostream>

#include "core/nn/layer_check.h"
#include "core/nn/layers.h"
#include "kernels/api/kernel.h"

namespace {

class GatedAdapter final : public heddle::Module {
 public:
  GatedAdapter(int64_t in, int64_t out, int64_t rank)
      : base_(in, out, {.bias = true}), gate_(in, rank, {}), down_(in, rank, {}), up_(rank, out, {.init_std = 0}) {
    add("base", base_);
    add("adapter.gate", gate_);
    add("adapter.down", down_);
    add("adapter.up", up_);
  }

  heddle::Tensor forward(const heddle::Tensor& x) const {                            // (B, T, in)
    const heddle::Tensor h = mul(heddle::silu(gate_.forward(x)), down_.forward(x));  // (B, T, rank)
    return heddle::add(base_.forward(x), up_.forward(h));                            // (B, T, out)
  }

 private:
  heddle::Linear base_, gate_, down_, up_;
};

}  // namespace

int main() {
  using namespace heddle;
  kernels::register_cpu_kernels();
  const Shape x{2, 3, 8}, large{8, 256, 512};

  const GradCheck gradients = check_layer_gradients(layer_of<GatedAdapter>(8, 6, 2), x);
  std::cout << "gradients:  " << (gradients ? "ok" : gradients.text) << ", " << gradients.elements << " derivatives, worst error " << gradients.worst
            << "\n";

  const std::string changed = check_layer_round_trip(layer_of<GatedAdapter>(8, 6, 2), x);
  std::cout << "round trip: " << (changed.empty() ? "ok" : changed) << "\n";

  const LayerTiming time = bench_layer(layer_of<GatedAdapter>(512, 512, 16), large);
  std::cout << "bench:      forward " << time.forward_seconds * 1e3 << " ms, " << time.forward_gflops() << " GFLOP/s; with backward "
            << time.training_seconds * 1e3 << " ms, " << time.training_gflops() << " GFLOP/s\n";
  return gradients && changed.empty() ? 0 : 1;
}
