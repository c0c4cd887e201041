// Operations on elements: kernels/api/pointwise.h, random.h. The magnitudes are those of tests/oracles/pointwise.h.
#include "bench/gpu/reference.cuh"
#include "bench/gpu/reference_functions.cuh"

namespace heddle::bench {
namespace {

using namespace kernels;  // NOLINT: a program's own source

struct Axpby {
  View a, b;
  double alpha, beta;
  __device__ Expected operator()(int64_t i) const {
    Expected sum;
    sum.add(alpha * element(a, i));
    if (b.data != nullptr) sum.add(beta * element(b, i));
    return sum;
  }
};
struct Multiply {
  View a, b;
  int64_t n;  // elements of b
  __device__ Expected operator()(int64_t i) const {
    Expected product;
    product.add(element(a, i) * element(b, i % n));
    return product;
  }
};
__device__ double least(double a, double b) {
  return a < b ? a : b;
}
struct MapElement {
  View x;
  Map map;
  __device__ Expected operator()(int64_t i) const {
    const double v = element(x, i);
    if (map == Map::gelu) return {gelu(v), size_of_term(v)};
    if (map == Map::silu) return {silu(v), size_of_term(v)};
    return {relu2(v), relu2(v)};
  }
};
struct MapGradient {
  View x, dy;
  Map map;
  __device__ Expected operator()(int64_t i) const {
    const double v = element(x, i), d = element(dy, i), near = least(size_of_term(v), 8);
    if (map == Map::gelu) return {d * gelu_derivative(v), size_of_term(d) * (1 + 1.6 * near * (1 + 0.135 * near * near))};
    if (map == Map::silu) return {d * silu_derivative(v), size_of_term(d) * (1 + least(size_of_term(v), 100))};
    return {d * relu2_derivative(v), size_of_term(d * relu2_derivative(v))};
  }
};
struct Swiglu {
  View x;
  __device__ Expected operator()(int64_t i) const {
    const int64_t f = x.shape[1] / 2;
    const double gate = load(x, i / f, i % f), up = load(x, i / f, i % f + f);
    return {silu(gate) * up, size_of_term(gate * up)};
  }
};
struct SwigluGradient {
  View x, d_out;
  __device__ Expected operator()(int64_t i) const {
    const int64_t f = x.shape[1] / 2, row = i / (2 * f), c = i % (2 * f), j = c % f;
    const double gate = load(x, row, j), up = load(x, row, j + f), d = load(d_out, row, j);
    if (c < f) return {d * up * silu_derivative(gate), size_of_term(d * up) * (1 + size_of_term(gate))};
    return {d * silu(gate), size_of_term(d * gate)};
  }
};
struct Constant {
  double value;
  __device__ Expected operator()(int64_t) const { return {value, 0}; }
};
struct Dropout {
  View x;
  RngKey key;
  uint64_t first;
  float p;
  __device__ Expected operator()(int64_t i) const {
    const uint64_t e = first + static_cast<uint64_t>(i);
    Expected out;
    if (Philox::uniform(Philox::draw(key, e / 4)[e % 4]) >= p) out.add(element(x, i) / (1.0 - static_cast<double>(p)));
    return out;
  }
};
// Philox::normal in device code.
struct Normal {
  RngKey key;
  uint64_t first;
  double mean, std;
  __device__ Expected operator()(int64_t i) const {
    const uint64_t e = first + static_cast<uint64_t>(i);
    const Philox::Block words = Philox::draw(key, e / 4);
    const size_t pair = e % 4 / 2 * 2;
    const double u = (static_cast<double>(words[pair]) + 1.0) * 0x1p-32, r = ::sqrt(-2.0 * ::log(u));
    const double phi = 6.283185307179586 * (static_cast<double>(words[pair + 1]) * 0x1p-32);
    Expected out;
    out.add(mean);
    out.add(std * r * (e % 2 == 0 ? ::cos(phi) : ::sin(phi)), std * (r + 1));
    return out;
  }
};

}  // namespace

std::vector<Output> outputs(const AxpbyArgs& args, const Memory&) {
  return {what("out", args.out, 5, 2, Axpby{args.a, args.b, args.alpha, args.beta})};
}
std::vector<Output> outputs(const MultiplyArgs& args, const Memory&) {
  return {what("out", args.out, 3, 2, Multiply{args.a, args.b, args.b.numel()})};
}
std::vector<Output> outputs(const MapArgs& args, const Memory&) {
  return {what("out", args.out, 8, 1, MapElement{args.x, args.map})};
}
std::vector<Output> outputs(const MapBackwardArgs& args, const Memory&) {
  return {what("dx", args.dx, 10, 2, MapGradient{args.x, args.dy, args.map})};
}
std::vector<Output> outputs(const SwigluArgs& args, const Memory&) {
  return {what("out", args.out, 9, 2, Swiglu{args.x})};
}
std::vector<Output> outputs(const SwigluBackwardArgs& args, const Memory&) {
  return {what("dx", args.dx, 12, 3, SwigluGradient{args.x, args.d_out})};
}
std::vector<Output> outputs(const FillArgs& args, const Memory&) {
  return {what("out", args.out, 1, 1, Constant{args.value})};
}
std::vector<Output> outputs(const DropoutArgs& args, const Memory& memory) {
  return {what("out", args.out, 4, 1, Dropout{memory.before(args.x), args.key, args.first, args.p})};
}
std::vector<Output> outputs(const NormalArgs& args, const Memory&) {
  return {what("out", args.out, 16, 4, Normal{args.key, args.first, static_cast<double>(args.mean), static_cast<double>(args.std)})};
}

}  // namespace heddle::bench
