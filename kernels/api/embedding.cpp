// The contracts of the embedding's kernels, checked.
#include "kernels/api/embedding.h"

#include "kernels/api/rules.h"

namespace heddle::kernels {

Refusal contradiction(const EmbeddingForwardArgs& args) {
  Rules rules;
  rules.dtype("tokens", args.tokens, DType::i32).need(args.tokens.rank == 2, "tokens ", args.tokens, " must be (B, T)");
  rules.floating("weight", args.weight).need(args.weight.rank == 2, "weight ", args.weight, " must be (V, C)");
  if (rules.broken()) return rules;
  const int64_t columns = args.weight.size(1);
  rules.rows("out", args.out).same_dtype("out", args.out, "weight", args.weight);
  rules.shape("out", args.out, {args.tokens.size(0), args.tokens.size(1), columns});
  if (args.position) {
    rules.rows("position", args.position).same_dtype("position", args.position, "weight", args.weight);
    rules.need(args.position.rank == 2 && args.position.size(1) == columns, "position ", args.position, " must be (P, ", columns, ")");
  }
  if (args.start) rules.like("start", args.start, "tokens", args.tokens);
  return rules;
}

Refusal contradiction(const EmbeddingBackwardArgs& args) {
  Rules rules;
  rules.dtype("tokens", args.tokens, DType::i32).need(args.tokens.rank == 2, "tokens ", args.tokens, " must be (B, T)");
  rules.floating("d_out", args.d_out).need(args.d_out.rank == 3, "d_out ", args.d_out, " must be (B, T, C)");
  if (rules.broken()) return rules;
  const int64_t columns = args.d_out.size(2);
  rules.shape("d_out", args.d_out, {args.tokens.size(0), args.tokens.size(1), columns});
  rules.need(args.tokens.numel() <= INT32_MAX, "tokens ", args.tokens, ": more than 2^31 of them");
  if (args.start) rules.like("start", args.start, "tokens", args.tokens);
  for (const auto& [name, sink] : {std::pair{"d_weight", args.d_weight}, std::pair{"d_position", args.d_position}}) {
    if (!sink) continue;
    rules.sink_dtype(name, sink.to, "d_out", args.d_out);
    rules.need(sink.to.rank == 2 && sink.to.size(1) == columns, name, " ", sink.to, " must have ", columns, " columns");
  }
  return rules;
}

}  // namespace heddle::kernels
