// Embedding and its gradient in float64.
#pragma once

#include "kernels/api/embedding.h"
#include "tests/oracles/values.h"

namespace heddle::oracle {

inline int64_t position_of(const View& start, int64_t token, int64_t length) {
  return token % length - (start ? static_cast<int64_t>(test::element(start, token)) : 0);
}

inline Values embedding_forward(const kernels::EmbeddingForwardArgs& args) {
  Values out(args.out.numel());
  const int64_t columns = args.out.size(2), length = args.tokens.size(1);
  for (int64_t i = 0; i < args.out.numel(); ++i) {
    const int64_t n = i / columns, c = i % columns;
    const int64_t row = static_cast<int64_t>(test::element(args.tokens, n)) - args.shard.first;
    if (row >= 0 && row < args.weight.size(0)) out.add(i, test::element(args.weight, row * columns + c));
    if (args.position) out.add(i, test::element(args.position, position_of(args.start, n, length) * columns + c));
  }
  return out;
}

struct EmbeddingGradient {
  Values d_weight, d_position;
};

inline EmbeddingGradient embedding_backward(const kernels::EmbeddingBackwardArgs& args) {
  EmbeddingGradient out;
  if (args.d_weight) out.d_weight = Values(args.d_weight);
  if (args.d_position) out.d_position = Values(args.d_position);
  const int64_t columns = args.d_out.size(2), length = args.tokens.size(1);
  for (int64_t i = 0; i < args.d_out.numel(); ++i) {
    const int64_t n = i / columns, c = i % columns;
    const double d = test::element(args.d_out, i);
    const int64_t row = static_cast<int64_t>(test::element(args.tokens, n)) - args.shard.first;
    if (args.d_weight && row >= 0 && row < args.d_weight.to.size(0)) out.d_weight.add(row * columns + c, d);
    if (args.d_position) out.d_position.add(position_of(args.start, n, length) * columns + c, d);
  }
  return out;
}

}  // namespace heddle::oracle
