// Gradient checks as assertions (core/autograd/gradcheck.h has the function itself).
//
//   CHECK_GRADIENTS(one([](auto in) { return matmul(in[0], in[1]); }), random_input({3, 4}, 1), random_input({4, 5}, 2));
//
// Inputs go to the device of the test, where f64 exists there; what the function takes besides them must lie there.
// Fresh memory is filled with NaN meanwhile: a gradient or output element that no kernel writes shows.
#pragma once

#include <span>
#include <string>
#include <utility>
#include <vector>

#include "core/autograd/gradcheck.h"
#include "core/storage.h"
#include "kernels/api/kernel.h"
#include "tests/support/catch.h"
#include "tests/support/tensors.h"

namespace heddle::test {

class Poisoned {
 public:
  Poisoned() { poison_allocations(true); }
  ~Poisoned() { poison_allocations(false); }
  Poisoned(const Poisoned&) = delete;
  Poisoned& operator=(const Poisoned&) = delete;
};

// A function of one output as a GradFunction.
template <class F>
GradFunction one(F f) {
  return [f = std::move(f)](std::span<const Tensor> in) { return std::vector<Tensor>{f(in)}; };
}

// "" when the gradients are right, else what differs. A device without f64 is left to the comparisons with float64 oracles (op_case.h).
inline std::string gradient_errors(const GradFunction& f, std::vector<Tensor> inputs, const GradCheckOptions& options = {}) {
  kernels::register_cpu_kernels();
  if (!has_f64(device())) return "";
  const Poisoned poisoned;
  for (Tensor& t : inputs) t = on_device(t);
  return check_gradients(f, std::move(inputs), options).text;
}

}  // namespace heddle::test

#define CHECK_GRADIENTS(f, ...) CHECK(::heddle::test::gradient_errors((f), std::vector<::heddle::Tensor>{__VA_ARGS__}) == "")
