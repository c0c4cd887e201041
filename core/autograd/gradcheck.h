// Gradient checks: backward against central differences, in f64.
//
//   const auto f = [](std::span<const Tensor> in) { return std::vector<Tensor>{matmul(in[0], in[1])}; };
//   const GradCheck result = check_gradients(f, {random_input({3, 4}, 1), random_input({4, 5}, 2)});
//   if (!result.ok) std::cout << result.text;
//
// The scalar that is differentiated is sum_k <c_k, y_k> over all outputs y_k with random cotangents c_k, so that every element of every output counts
// and symmetric mistakes do not cancel. Differences take two step sizes h and h / 2 and extrapolate (Richardson): the error is of order h^4.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "core/tensor.h"

namespace heddle {

// The function under check: any number of inputs, any number of outputs. It is run many times and must depend on its inputs alone.
using GradFunction = std::function<std::vector<Tensor>(std::span<const Tensor> inputs)>;

struct GradCheckOptions {
  double step = 1e-3;       // h
  double tolerance = 1e-6;  // |g - g_fd| <= tolerance max(1, max |g|), per input
  uint64_t seed = 1;        // of the cotangents
  // Also: each input alone wanting a gradient gives the same gradient, and a second backward into the same gradients doubles them exactly.
  bool subsets = true, accumulation = true;
};

struct GradCheck {
  bool ok = true;
  double worst = 0;      // largest |g - g_fd| / max(1, max |g|) over the inputs
  int64_t elements = 0;  // how many derivatives were compared
  std::string text;      // what failed: one line an input; empty when ok
  explicit operator bool() const { return ok; }
};

// Checks the gradient of every input that requires one: f64 leaves in dense memory, on the CPU or a device that has kernels for f64. Their gradients
// are cleared before and after.
// A single output of one element is the root of backward itself (losses that must be one), without a cotangent.
// Throws Error when no input requires a gradient, one is not f64, or an output is not floating.
GradCheck check_gradients(const GradFunction& f, std::vector<Tensor> inputs, const GradCheckOptions& options = {});

// A leaf of N(mean, stddev) values keyed by seed; f64 leaves want a gradient unless told otherwise.
Tensor random_input(Shape shape, uint64_t seed, double mean = 0, double stddev = 1, DType dtype = DType::f64, bool requires_grad = true);

}  // namespace heddle
