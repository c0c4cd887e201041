// The gradients of a norm, from the statistics that its forward pass stored: kernels/api/norm.h.
#include "bench/gpu/reference.cuh"

namespace heddle::bench {
namespace {

using kernels::NormBackwardArgs;
using kernels::NormKind;

struct NormBack {
  View x, gain, mean, rstd, dy, d_residual;
  bool layer;

  __device__ double centre(int64_t r) const { return layer ? load(mean, r) : 0; }
  __device__ double normal(int64_t r, int64_t c) const { return (load(x, r, c) - centre(r)) * load(rstd, r); }
  __device__ double normal_size(int64_t r, int64_t c) const { return (size_of_term(load(x, r, c)) + size_of_term(centre(r))) * load(rstd, r); }
  __device__ double g(int64_t r, int64_t c) const { return load(dy, r, c) * (gain.data != nullptr ? load(gain, c) : 1); }
};
struct NormDx : NormBack {
  __device__ Expected operator()(int64_t i) const {
    const int64_t columns = x.shape[1], r = i / columns, c = i % columns;
    Expected mean_g, mean_gn;
    for (int64_t j = 0; j < columns; ++j) {
      if (layer) mean_g.add(g(r, j));
      mean_gn.add(g(r, j) * normal(r, j), size_of_term(g(r, j)) * normal_size(r, j));
    }
    const double share = 1 / static_cast<double>(columns), residual = d_residual.data != nullptr ? load(d_residual, r, c) : 0;
    return {
        load(rstd, r) * (g(r, c) - mean_g.want * share - normal(r, c) * mean_gn.want * share) + residual,
        load(rstd, r) * (size_of_term(g(r, c)) + mean_g.magnitude * share + normal_size(r, c) * mean_gn.magnitude * share) + size_of_term(residual)};
  }
};
struct NormDGain : NormBack {
  __device__ Expected operator()(int64_t c) const {
    Expected sum;
    for (int64_t r = 0; r < x.shape[0]; ++r) sum.add(load(dy, r, c) * normal(r, c), size_of_term(load(dy, r, c)) * normal_size(r, c));
    return sum;
  }
};
struct NormDBias : NormBack {
  __device__ Expected operator()(int64_t c) const {
    Expected sum;
    for (int64_t r = 0; r < x.shape[0]; ++r) sum.add(load(dy, r, c));
    return sum;
  }
};

}  // namespace

std::vector<Output> outputs(const NormBackwardArgs& args, const Memory&) {
  const NormBack norm{args.x, args.gain, args.mean, args.rstd, args.dy, args.d_residual, args.kind == NormKind::layer};
  const auto rows = static_cast<double>(args.x.size(0)), columns = static_cast<double>(args.x.size(1));
  std::vector<Output> all;
  if (args.dx) all.push_back(what("dx", args.dx, columns + 12, 5 * columns, NormDx{norm}));
  if (args.d_gain) all.push_back(what("d_gain", args.d_gain, rows + 8, 4 * rows, NormDGain{norm}));
  if (args.d_bias) all.push_back(what("d_bias", args.d_bias, rows + 8, rows, NormDBias{norm}));
  return all;
}

}  // namespace heddle::bench
