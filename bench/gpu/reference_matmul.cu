// Matrix products with their epilogues: kernels/api/matmul.h.
#include "bench/gpu/reference.cuh"
#include "bench/gpu/reference_functions.cuh"

namespace heddle::bench {
namespace {

using kernels::Epilogue;
using kernels::MatmulArgs;

struct Product {
  View a, b, bias, preact;
  bool trans_a, trans_b;
  int64_t n, k;
  Epilogue epilogue;

  __device__ Expected z(int64_t row, int64_t column) const {
    Expected sum;
    if (bias.data != nullptr) sum.add(load(bias, column));
    for (int64_t i = 0; i < k; ++i) sum.add((trans_a ? load(a, i, row) : load(a, row, i)) * (trans_b ? load(b, column, i) : load(b, i, column)));
    return sum;
  }
  // The magnitudes of tests/oracles/matmul.h.
  __device__ Expected c(int64_t row, int64_t column) const {
    const Expected sum = z(row, column);
    const double size = size_of_term(sum.want);
    switch (epilogue) {
      case Epilogue::none: return sum;
      case Epilogue::gelu: return {gelu(sum.want), 1.13 * sum.magnitude + size};
      case Epilogue::relu2: return {relu2(sum.want), 2 * size * sum.magnitude + sum.magnitude * sum.magnitude * 1e-6 + relu2(sum.want)};
      default: break;
    }
    const double x = load(preact, row, column);
    const double slope = epilogue == Epilogue::gelu_backward ? gelu_derivative(x) : relu2_derivative(x);
    return {sum.want * slope, sum.magnitude * (size_of_term(slope) > 2 ? size_of_term(slope) : 2)};
  }
};
struct ProductC : Product {
  __device__ Expected operator()(int64_t i) const { return c(i / n, i % n); }
};
struct ProductZ : Product {
  __device__ Expected operator()(int64_t i) const { return z(i / n, i % n); }
};
struct ProductColumn : Product {
  int64_t m;
  __device__ Expected operator()(int64_t column) const {
    Expected sum;
    for (int64_t row = 0; row < m; ++row) {
      const Expected each = c(row, column);
      sum.add(each.want, each.magnitude);
    }
    return sum;
  }
};

}  // namespace

std::vector<Output> outputs(const MatmulArgs& args, const Memory&) {
  const auto [m, n, k] = kernels::shape_of(args);
  const Product product{args.a, args.b, args.bias, args.preact, args.trans_a, args.trans_b, n, k, args.epilogue};
  const auto length = static_cast<double>(k);
  std::vector<Output> all = {what("c", args.c, length + 8, 2 * length, ProductC{product})};
  if (args.preact && !is_backward(args.epilogue)) all.push_back(what("preact", args.preact, length + 8, 2 * length, ProductZ{product}));
  if (args.column_sum)
    all.push_back(
        what("column_sum", args.column_sum, length + static_cast<double>(m) + 8, 2 * length * static_cast<double>(m), ProductColumn{product, m}));
  return all;
}

}  // namespace heddle::bench
