#include "core/autograd/gradcheck.h"

#include <algorithm>
#include <cmath>

#include "core/autograd/engine.h"
#include "core/autograd/node.h"
#include "core/ops/ops.h"
#include "kernels/api/check.h"
#include "kernels/api/philox.h"

namespace heddle {
namespace {

std::vector<double> normal_values(int64_t n, uint64_t seed, uint32_t layer) {
  std::vector<double> values(static_cast<size_t>(n));
  const RngKey key{.seed = seed, .purpose = RngPurpose::test, .name = layer};
  for (size_t i = 0; i < values.size(); i += 2) {
    const auto words = Philox::draw(key, i / 2);
    const auto pair = Philox::normal(words[0], words[1]);
    values[i] = pair[0];
    if (i + 1 < values.size()) values[i + 1] = pair[1];
  }
  return values;
}

class Checker {
 public:
  Checker(const GradFunction& f, std::vector<Tensor> inputs, const GradCheckOptions& options) : f_(f), inputs_(std::move(inputs)), options_(options) {
    for (size_t i = 0; i < inputs_.size(); ++i) {
      const Tensor& t = inputs_[i];
      if (!t || !t.requires_grad()) continue;
      HEDDLE_CHECK(t.is_leaf() && t.dtype() == DType::f64 && t.is_contiguous(), "check_gradients", "input ", i, ", ", shape_text(t.view()),
                   ", must be a dense f64 leaf");
      checked_.push_back(i);
    }
    HEDDLE_CHECK(!checked_.empty(), "check_gradients", "no input requires a gradient");
  }

  GradCheck run() {
    const std::vector<std::vector<double>> all = gradients();
    for (size_t c = 0; c < checked_.size(); ++c) compare_with_differences(checked_[c], all[c]);
    if (options_.accumulation) check_accumulation(all);
    if (options_.subsets && checked_.size() > 1) check_subsets(all);
    clear();
    result_.ok = result_.text.empty();
    return result_;
  }

 private:
  void clear() {
    for (size_t i : checked_) inputs_[i].clear_grad();
  }

  void forward_backward() {
    const std::vector<Tensor> outputs = f_(inputs_);
    HEDDLE_CHECK(!outputs.empty(), "check_gradients", "the function returned nothing");
    if (is_root(outputs)) return heddle::backward(outputs[0]);
    Tensor total;  // ()
    for (size_t k = 0; k < outputs.size(); ++k) {
      if (!outputs[k].requires_grad()) continue;
      const Tensor y = contiguous(outputs[k]);
      const Tensor c = Tensor::from(cotangent(k, y), y.shape(), y.dtype(), y.device());
      const Tensor part = sum(mul(y, c));
      total = total ? add(total, part) : part;
    }
    HEDDLE_CHECK(total, "check_gradients", "no output depends on an input that requires a gradient");
    heddle::backward(total);
  }

  std::vector<std::vector<double>> gradients() {
    clear();
    forward_backward();
    return read();
  }

  std::vector<std::vector<double>> read() const {
    std::vector<std::vector<double>> all;
    for (size_t i : checked_) {
      const Tensor g = inputs_[i].grad();
      all.push_back(g ? g.to_vector() : std::vector<double>(static_cast<size_t>(inputs_[i].numel()), 0.0));
    }
    return all;
  }

  static bool is_root(const std::vector<Tensor>& outputs) { return outputs.size() == 1 && outputs[0].numel() == 1; }

  std::vector<double> cotangent(size_t k, const Tensor& y) { return normal_values(y.numel(), options_.seed, static_cast<uint32_t>(k)); }

  // sum_k <c_k, y_k>, summed on the host: independent of the ops that forward_backward() uses for it.
  double value() {
    NoGradGuard no_grad;
    const std::vector<Tensor> outputs = f_(inputs_);
    if (is_root(outputs)) return outputs[0].item();
    long double total = 0;
    for (size_t k = 0; k < outputs.size(); ++k) {
      const std::vector<double> y = outputs[k].to_vector(), c = cotangent(k, outputs[k]);
      for (size_t i = 0; i < y.size(); ++i) total += static_cast<long double>(y[i]) * c[i];
    }
    return static_cast<double>(total);
  }

  // The value with element i of the input, which is `at`, moved to `x`.
  double value_at(const Tensor& input, size_t i, double at, double x) {
    const auto put = [&](double v) { copy_bytes(input.view().as<double>() + i, input.device(), &v, Device{}, sizeof v); };
    put(x);
    const double result = value();
    put(at);
    return result;
  }

  double central(const Tensor& input, size_t i, double at, double h) {
    const double up = value_at(input, i, at, at + h), down = value_at(input, i, at, at - h);
    return (up - down) / (2 * h);
  }

  void compare_with_differences(size_t input, const std::vector<double>& g) {
    const std::vector<double> x = inputs_[input].to_vector();
    const size_t n = x.size();
    std::vector<double> fd(n);
    double largest = 1;
    for (size_t i = 0; i < n; ++i) {
      const double coarse = central(inputs_[input], i, x[i], options_.step), fine = central(inputs_[input], i, x[i], options_.step / 2);
      fd[i] = (4 * fine - coarse) / 3;
      if (std::isfinite(g[i])) largest = std::max(largest, std::abs(g[i]));
    }
    report(input, "backward and central differences", g, fd, options_.tolerance * largest, largest);
    result_.elements += static_cast<int64_t>(n);
  }

  void report(size_t input, std::string_view what, const std::vector<double>& got, const std::vector<double>& want, double allowed, double unit) {
    size_t wrong = 0, worst = 0;
    double worst_error = 0;
    for (size_t i = 0; i < got.size(); ++i) {
      const double error = std::isfinite(got[i]) ? std::abs(got[i] - want[i]) : INFINITY;
      if (!(error <= allowed)) ++wrong;
      if (!(error <= worst_error)) worst = i, worst_error = error;
    }
    result_.worst = std::max(result_.worst, worst_error / unit);
    if (wrong == 0) return;
    result_.text += concat("input ", input, " ", shape_text(inputs_[input].shape()), ": ", what, " differ in ", wrong, " of ", got.size(),
                           " elements; worst at flat index ", worst, ": ", got[worst], " against ", want[worst], ", allowed ", allowed, "\n");
  }

  // "=" on the first write, "+=" on the second: twice the gradient. Adding g to g is exact; an op that reaches an input by several edges adds in
  // another order the second time, which costs a few roundings.
  void check_accumulation(const std::vector<std::vector<double>>& all) {
    clear();
    forward_backward();
    forward_backward();
    const auto twice = read();
    for (size_t c = 0; c < checked_.size(); ++c) {
      std::vector<double> want = all[c];
      for (double& v : want) v *= 2;
      report(checked_[c], "a second backward and twice the first", twice[c], want, rounding(all[c]), 1e6);
    }
  }

  void check_subsets(const std::vector<std::vector<double>>& all) {
    for (size_t c = 0; c < checked_.size(); ++c) {
      for (size_t i : checked_) inputs_[i].set_requires_grad(i == checked_[c]);
      const auto alone = gradients();
      for (size_t i : checked_) inputs_[i].set_requires_grad(true);
      report(checked_[c], "the gradient wanted alone and with the others", alone[c], all[c], rounding(all[c]), 1e6);
    }
  }

  static double rounding(const std::vector<double>& g) {
    double largest = 1;
    for (double v : g) largest = std::max(largest, std::abs(v));
    return 1e-13 * largest;
  }

  const GradFunction& f_;
  std::vector<Tensor> inputs_;
  GradCheckOptions options_;
  std::vector<size_t> checked_;
  GradCheck result_;
};

}  // namespace

GradCheck check_gradients(const GradFunction& f, std::vector<Tensor> inputs, const GradCheckOptions& options) {
  return Checker(f, std::move(inputs), options).run();
}

Tensor random_input(Shape shape, uint64_t seed, double mean, double stddev, DType dtype, bool requires_grad) {
  std::vector<double> values = normal_values(shape.numel(), seed, 0x7e57);
  for (double& v : values) v = mean + stddev * v;
  Tensor t = Tensor::from(values, shape, dtype);
  if (requires_grad) t.set_requires_grad(true);
  return t;
}

}  // namespace heddle
