// What a new layer owes its author, one call each: right gradients, parameters that survive a file, and a time.
//
//   const MakeLayer make = layer_of<MyLayer>(64, 8);       // MyLayer(64, 8), with Tensor forward(const Tensor& x) const
//   std::cout << check_layer(make, {2, 16, 64}).text();    // all three for inputs x (2, 16, 64)
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "core/autograd/gradcheck.h"
#include "core/nn/module.h"

namespace heddle {

// A module and how it maps x to y. forward() owns a share of the module.
struct LayerUnderCheck {
  std::shared_ptr<Module> module;
  std::function<Tensor(const Tensor& x)> forward;
};
// Makes the same layer every time it is called, parameters without memory yet.
using MakeLayer = std::function<LayerUnderCheck()>;

template <class Layer, class... Args>
MakeLayer layer_of(Args... args) {
  return [=] {
    auto layer = std::make_shared<Layer>(args...);
    return LayerUnderCheck{layer, [layer](const Tensor& x) { return layer->forward(x); }};
  };
}

// Backward against central differences for x and every parameter that requires a gradient, in f64. Parameters are drawn at random whatever their
// init says: a zero-initialised projection would hide every gradient behind it. Use small shapes: each element costs four forward passes.
GradCheck check_layer_gradients(const MakeLayer& make, Shape input, const GradCheckOptions& options = {});

// Saves the parameters of one instance as safetensors (in the temporary directory), loads them into another, and compares names, values and the
// output bit by bit. Empty: all equal; otherwise what differs.
std::string check_layer_round_trip(const MakeLayer& make, Shape input, DType dtype = DType::f32);

struct LayerTiming {
  double forward_seconds = 0;   // median, nothing recorded
  double training_seconds = 0;  // median of forward and backward together
  double flops = 0;             // of one forward pass
  size_t saved_bytes = 0;       // activations alive between forward and backward, the output included
  int runs = 0;
  double forward_gflops() const { return flops / forward_seconds * 1e-9; }
  double training_gflops() const { return 3 * flops / training_seconds * 1e-9; }  // backward does two products for each of forward's
};
// Times the layer for `seconds` after a warm-up. flops 0: 2 x rows of x x elements of all parameters of kind matrix, the usual count.
LayerTiming bench_layer(const MakeLayer& make, Shape input, DType dtype = DType::f32, double seconds = 0.3, double flops = 0);

struct LayerReport {
  GradCheck gradients;
  std::string round_trip;  // empty: fine
  LayerTiming timing;
  int64_t parameters = 0;
  bool ok() const { return gradients.ok && round_trip.empty(); }
  std::string text() const;  // three lines for people
};
// The three above. The timing uses `bench_input` when it has a rank, as gradient checks want small shapes and benches large ones.
LayerReport check_layer(const MakeLayer& make, Shape input, Shape bench_input = {});

}  // namespace heddle
