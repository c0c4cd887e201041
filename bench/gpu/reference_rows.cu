// Operations on rows: norms, softmax, cross entropy.
#include "bench/gpu/reference.cuh"
#include "bench/gpu/reference_functions.cuh"

namespace heddle::bench {
namespace {

using kernels::NormForwardArgs;
using kernels::NormKind;

struct NormRow {
  double mean = 0, rstd = 0;
  double size = 0;                     // mean of |s|; 0 for rms
  __device__ double stretch() const {  // how much the mean's error moves 1 / deviation, relative
    return 1 + size * rstd;
  }
};
struct Norm {
  View x, residual, gain, bias;
  bool layer;
  double eps;

  __device__ double s(int64_t row, int64_t column) const {
    const double sum = load(x, row, column) + (residual.data != nullptr ? load(residual, row, column) : 0);
    return rounded(x.dtype, sum);
  }
  __device__ NormRow row(int64_t r) const {
    NormRow n;
    const int64_t columns = x.shape[1];
    for (int64_t c = 0; layer && c < columns; ++c) {
      n.mean += s(r, c);
      n.size += size_of_term(s(r, c));
    }
    n.mean /= static_cast<double>(columns);
    n.size /= static_cast<double>(columns);
    double squares = 0;
    for (int64_t c = 0; c < columns; ++c) squares += (s(r, c) - n.mean) * (s(r, c) - n.mean);
    n.rstd = 1 / ::sqrt(squares / static_cast<double>(columns) + eps);
    return n;
  }
};
struct NormY : Norm {
  __device__ Expected operator()(int64_t i) const {
    const int64_t r = i / x.shape[1], c = i % x.shape[1];
    const NormRow n = row(r);
    const double v = s(r, c), g = gain.data != nullptr ? load(gain, c) : 1, b = bias.data != nullptr ? load(bias, c) : 0;
    return {(v - n.mean) * n.rstd * g + b, (size_of_term(v) + n.size) * n.rstd * size_of_term(g) * n.stretch() + size_of_term(b)};
  }
};
struct NormSum : Norm {
  __device__ Expected operator()(int64_t i) const { return {s(i / x.shape[1], i % x.shape[1]), 0}; }
};
struct NormMean : Norm {
  __device__ Expected operator()(int64_t r) const {
    const NormRow n = row(r);
    return {n.mean, n.size};
  }
};
struct NormRstd : Norm {
  __device__ Expected operator()(int64_t r) const {
    const NormRow n = row(r);
    return {n.rstd, n.rstd * n.stretch()};
  }
};

}  // namespace

std::vector<Output> outputs(const NormForwardArgs& args, const Memory&) {
  const Norm norm{args.x, args.residual, args.gain, args.bias, args.kind == NormKind::layer, static_cast<double>(args.eps)};
  const auto columns = static_cast<double>(args.x.size(1));
  const double terms = columns + 10, cost = 3 * columns;
  std::vector<Output> all = {what("y", args.y, terms, cost, NormY{norm})};
  if (args.sum) all.push_back(what("sum", args.sum, 0, 1, NormSum{norm}));
  if (args.mean) all.push_back(what("mean", args.mean, terms, cost, NormMean{norm}));
  if (args.rstd) all.push_back(what("rstd", args.rstd, terms, cost, NormRstd{norm}));
  return all;
}

}  // namespace heddle::bench
