// Sums: kernels/api/reduce.h; and what is divided by a norm: NormalizeArgs of optimizer.h.
#include "bench/gpu/reference.cuh"
#include "tests/sim/proving_kernels.h"

namespace heddle::bench {
namespace {

using kernels::ColumnSumArgs;
using kernels::NormalizeArgs;
using kernels::SumArgs;

constexpr int64_t kParts = 4096;

// parts[p] = sum of the elements p, p + kParts, ... or of their squares, parts[kParts + p] of the absolute values.
__global__ void sum_parts(View x, int64_t n, bool squares, double* parts) {
  const int64_t p = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  Expected sum;
  for (int64_t i = p; i < n; i += kParts) sum.add(squares ? element(x, i) * element(x, i) : element(x, i));
  parts[p] = sum.want;
  parts[kParts + p] = sum.magnitude;
}
double* parts_of(const View& x, bool squares) {
  static double* const parts = reinterpret_cast<double*>(test::device_allocate(2 * kParts * sizeof(double)));
  HEDDLE_LAUNCH(sum_parts, static_cast<unsigned>(kParts / 128), 128, 0, Stream{}, x, x.numel(), squares, parts);
  return parts;
}
__device__ Expected total_of(const double* parts) {
  Expected sum;
  for (int64_t p = 0; p < kParts; ++p) sum.add(parts[p], parts[kParts + p]);
  return sum;
}

struct Sum {
  const double* parts;
  double scale;
  __device__ Expected operator()(int64_t) const {
    const Expected sum = total_of(parts);
    return {scale * sum.want, size_of_term(scale) * sum.magnitude};
  }
};
struct Normalized {
  const double* parts;
  View x;
  double eps;
  __device__ Expected operator()(int64_t i) const {
    const double want = element(x, i) / (::sqrt(total_of(parts).want) + eps);
    return {want, size_of_term(want)};
  }
};
struct ColumnSum {
  View x;
  __device__ Expected operator()(int64_t column) const {
    Expected sum;
    for (int64_t row = 0; row < x.shape[0]; ++row) sum.add(load(x, row, column));
    return sum;
  }
};

}  // namespace

std::vector<Output> outputs(const SumArgs& args, const Memory&) {
  const auto n = static_cast<double>(args.x.numel());
  // Whatever a kernel's order is, an addend passes through few sums: 2^16 is more than a block's loop, tree and the sum of all blocks.
  Output output = what("out", args.out, std::min(n, 65536.0) + 4, n, Sum{nullptr, args.scale});
  output.reference = [args](const Sample& sample) { what("out", args.out, 0, 0, Sum{parts_of(args.x, args.squares), args.scale}).reference(sample); };
  return {output};
}
std::vector<Output> outputs(const NormalizeArgs& args, const Memory&) {
  Output output = what("out", args.out, 65536, static_cast<double>(kParts), Normalized{nullptr, args.x, static_cast<double>(args.eps)});
  output.reference = [args](const Sample& sample) {
    what("out", args.out, 0, 0, Normalized{parts_of(args.x, true), args.x, static_cast<double>(args.eps)}).reference(sample);
  };
  return {output};
}
std::vector<Output> outputs(const ColumnSumArgs& args, const Memory&) {
  const auto rows = static_cast<double>(args.x.size(0));
  return {what("out", args.out, rows + 2, rows, ColumnSum{args.x})};
}

}  // namespace heddle::bench
