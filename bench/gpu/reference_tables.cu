// Rotary positions and embeddings: kernels/api/rope.h, embedding.h. Of a whole vocabulary, documents from their first token.
#include "bench/gpu/reference.cuh"

namespace heddle::bench {
namespace {

using kernels::EmbeddingBackwardArgs;
using kernels::EmbeddingForwardArgs;
using kernels::RopeArgs;

struct Rope {
  View x, table;
  int64_t first, rotated;
  bool inverse;
  __device__ Expected operator()(int64_t i) const {
    const int64_t d = x.shape[3], c = i % d, h = i / d % x.shape[2], t = i / d / x.shape[2] % x.shape[1], half = d / 2;
    const int64_t row = i - c;
    if (h >= rotated) return {element(x, i), 0};
    const double re = element(x, row + c % half), im = element(x, row + c % half + half), angle_cos = load(table, first + t, c % half);
    const double angle_sin = load(table, first + t, c % half + half) * (inverse ? -1 : 1);
    return {c < half ? re * angle_cos - im * angle_sin : re * angle_sin + im * angle_cos, size_of_term(re) + size_of_term(im)};
  }
};

struct Embedded {
  View tokens, weight, position;
  __device__ Expected operator()(int64_t i) const {
    const int64_t columns = weight.shape[1], n = i / columns, c = i % columns;
    Expected sum;
    sum.add(load(weight, static_cast<int64_t>(element(tokens, n)), c));
    if (position.data != nullptr) sum.add(load(position, n % tokens.shape[1], c));
    return sum;
  }
};
struct EmbeddingGradient {
  View tokens, d_out;
  bool of_position;
  __device__ Expected operator()(int64_t i) const {
    const int64_t columns = d_out.shape[2], row = i / columns, c = i % columns, length = tokens.shape[1], n = tokens.shape[0] * length;
    Expected sum;
    for (int64_t token = of_position ? row : 0; token < n; token += of_position ? length : 1) {
      if (of_position || static_cast<int64_t>(element(tokens, token)) == row) sum.add(element(d_out, token * columns + c));
    }
    return sum;
  }
};

}  // namespace

std::vector<Output> outputs(const RopeArgs& args, const Memory& memory) {
  return {what("out", args.out, 3, 4, Rope{memory.before(args.x), args.table, args.first, args.rotated, args.inverse})};
}
std::vector<Output> outputs(const EmbeddingForwardArgs& args, const Memory&) {
  return {what("out", args.out, 1, 2, Embedded{args.tokens, args.weight, args.position})};
}
std::vector<Output> outputs(const EmbeddingBackwardArgs& args, const Memory&) {
  const auto n = static_cast<double>(args.tokens.numel());
  std::vector<Output> all;
  if (args.d_weight) all.push_back(what("d_weight", args.d_weight, n + 1, n, EmbeddingGradient{args.tokens, args.d_out, false}));
  if (args.d_position)
    all.push_back(what("d_position", args.d_position, static_cast<double>(args.tokens.size(0)) + 1, static_cast<double>(args.tokens.size(0)),
                       EmbeddingGradient{args.tokens, args.d_out, true}));
  return all;
}

}  // namespace heddle::bench
