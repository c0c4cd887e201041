// A fused op beside its two oracles: the same function composed of primitive ops, and a plain loop over Ranged numbers that says how far off either
// may be. Values and the gradient of every input are compared, in every dtype that the device of the test has.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <vector>

#include "core/autograd/engine.h"
#include "core/autograd/gradcheck.h"
#include "core/ops/ops.h"
#include "tests/support/gradcheck.h"
#include "tests/support/running_error.h"

namespace heddle::test {

struct OpCase {
  std::string name;
  std::vector<Shape> shapes;                                    // of the inputs
  std::function<Tensor(std::span<const Tensor> in)> fused;      // y
  std::function<Tensor(std::span<const Tensor> in)> composite;  // y, from primitive ops; may be empty
  // From inputs and dy: y, then the gradient of every input.
  std::function<std::vector<Matrix>(const std::vector<Matrix>& in, const Matrix& dy)> oracle;
  Shape output;
};

// Checks one dtype; "" or what differs.
inline std::string compare(const OpCase& c, DType dtype) {
  if (dtype == DType::f64 && !has_f64(device())) return "";
  const Poisoned poisoned;
  rounding().dtype = dtype;
  std::vector<Tensor> in;
  std::vector<Matrix> values;
  for (size_t i = 0; i < c.shapes.size(); ++i) {
    in.push_back(random(c.shapes[i], 10 + i, 0, 1, dtype));  // rounded to dtype: exact for the oracle
    values.emplace_back(in.back());
  }
  const Tensor dy = random(c.output, 99, 0, 1, dtype, false);
  const std::vector<Matrix> want = c.oracle(values, Matrix(dy));
  std::string text;
  const auto check = [&](const char* which, const auto& f) {
    for (const Tensor& t : in) t.clear_grad();
    const Tensor y = f(in);
    backward_from(y, dy);
    const std::string value = difference(contiguous(y), want.at(0));
    if (!value.empty()) text += concat(which, " value: ", value, "\n");
    for (size_t i = 0; i < in.size(); ++i) {
      const std::string gradient = difference(in[i].grad(), want.at(1 + i));
      if (!gradient.empty()) text += concat(which, " gradient of input ", i, ": ", gradient, "\n");
    }
  };
  check("fused", c.fused);
  if (c.composite) check("composite", c.composite);
  return text;
}

}  // namespace heddle::test
