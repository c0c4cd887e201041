#include "kernels/api/cost.h"

#include <algorithm>
#include <initializer_list>

namespace heddle::kernels {
namespace {

double bytes_of(const View& v) {
  return v ? static_cast<double>(v.bytes()) : 0;
}

// Pairs of a query and a key that it sees, of one head.
double visible_pairs(int64_t queries, int64_t keys, int64_t window) {
  const auto up_to = [](int64_t n) { return 0.5 * static_cast<double>(n) * static_cast<double>(n + 1); };
  const int64_t before = keys - queries;  // the first query sees one key more
  const double all = up_to(keys) - up_to(before);
  if (window <= 0 || window >= keys) return all;
  const int64_t cut = std::max(before, window);  // from this position on a query sees `window` keys
  return up_to(cut) - up_to(before) + static_cast<double>(keys - cut) * static_cast<double>(window);
}
double attention_flops(const View& q, const View& k, int64_t window, int products) {
  const double heads = static_cast<double>(q.size(0)) * static_cast<double>(q.size(2));
  return 2.0 * products * heads * static_cast<double>(q.size(3)) * visible_pairs(q.size(1), k.size(1), window);
}
std::string attention_shape(const View& q, const View& k, int64_t window) {
  return concat("B ", q.size(0), ", T ", q.size(1), k.size(1) != q.size(1) ? concat(" of ", k.size(1)) : "", ", H ", q.size(2),
                k.size(2) != q.size(2) ? concat(" over ", k.size(2)) : "", ", D ", q.size(3), window > 0 ? concat(", window ", window) : "", " ",
                name_of(q.dtype));
}

double product_flops(int64_t m, int64_t n, int64_t k) {
  return 2.0 * static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(k);
}

}  // namespace

std::string sizes_of(const View& v) {
  std::string text;
  for (int axis = 0; axis < v.rank; ++axis) text += concat(axis == 0 ? "" : " x ", v.size(axis));
  return concat(v.rank == 0 ? "1" : text, " ", name_of(v.dtype));
}

Cost cost_of(const MatmulArgs& a) {
  const MatmulShape s = shape_of(a);
  Cost cost = cost_of_operands(a);
  cost.flops = product_flops(s.m, s.n, s.k);
  if (is_gram(a)) {
    cost.flops = product_flops(s.m, s.m + 1, s.k) / 2;
    cost.bytes -= bytes_of(a.b);
  }
  return cost;
}
std::string shape_of_call(const MatmulArgs& a) {
  const MatmulShape s = shape_of(a);
  constexpr std::string_view kEpilogues[] = {"", ", gelu", ", gelu backward", ", relu2", ", relu2 backward"};
  return concat(s.m, " x ", s.n, " x ", s.k, " ", a.trans_a ? "T" : "N", a.trans_b ? "T" : "N", " ", name_of(a.a.dtype),
                a.c.to.dtype != a.a.dtype ? concat(" to ", name_of(a.c.to.dtype)) : "", is_gram(a) ? ", symmetric" : "", a.bias ? ", bias" : "",
                kEpilogues[static_cast<size_t>(a.epilogue)], a.column_sum ? ", column sum" : "", a.c.accumulate ? ", added" : "");
}
Cost cost_of(const SwigluMatmulArgs& a) {
  Cost cost = cost_of_operands(a);
  cost.flops = product_flops(a.x.size(0), a.w.size(0), a.x.size(1));
  return cost;
}
std::string shape_of_call(const SwigluMatmulArgs& a) {
  return concat(a.x.size(0), " x ", a.w.size(0), " x ", a.x.size(1), " ", name_of(a.x.dtype));
}

Cost cost_of(const AttentionForwardArgs& a) {
  Cost cost = cost_of_operands(a);
  cost.flops = attention_flops(a.q, a.k, a.window, 2);
  return cost;
}
std::string shape_of_call(const AttentionForwardArgs& a) {
  return attention_shape(a.q, a.k, a.window);
}
Cost cost_of(const AttentionBackwardArgs& a) {
  Cost cost = cost_of_operands(a);
  cost.flops = attention_flops(a.q, a.k, a.window, 5);
  return cost;
}
std::string shape_of_call(const AttentionBackwardArgs& a) {
  return attention_shape(a.q, a.k, a.window);
}

Cost cost_of(const RopeArgs& a) {
  return {0, bytes_of(a.x) + bytes_of(a.out)};
}

// A row of the table for each token, and the tokens of another rank's part of it none: counted as if there were one rank.
Cost cost_of(const EmbeddingForwardArgs& a) {
  return {0, bytes_of(a.tokens) + 2 * bytes_of(a.out) + bytes_of(a.position)};
}
Cost cost_of(const EmbeddingBackwardArgs& a) {
  double table = bytes_of(a.d_weight.to);
  if (a.d_weight.accumulate && a.d_weight.to) {  // the rows that have tokens
    const double rows = static_cast<double>(std::min(a.tokens.numel(), a.d_weight.to.size(0)));
    table = 2 * rows * static_cast<double>(a.d_weight.to.size(1) * size_of(a.d_weight.to.dtype));
  }
  return {0, bytes_of(a.tokens) + bytes_of(a.d_out) + table + (a.d_position.accumulate ? 2 : 1) * bytes_of(a.d_position.to)};
}

Cost cost_of(const CrossEntropyArgs& a) {
  Cost cost = cost_of_operands(a);
  if (!a.write_gradient) cost.bytes -= bytes_of(a.logits);
  return cost;
}

// Of `value` and `grad` the blocks that have moments: the buffers may hold others'.
Cost cost_of(const AdamWArgs& a) {
  const auto n = static_cast<double>(a.m.numel());
  const bool in_place = a.value.data == a.master.data;
  const auto of = [&](const View& v) { return n * static_cast<double>(size_of(v.dtype)); };
  return {0, of(a.grad) + 2 * (of(a.master) + of(a.m) + of(a.v)) + (in_place ? 0 : of(a.value))};
}
Cost cost_of(const NormalizeArgs& a) {
  return {0, 2 * bytes_of(a.x) + bytes_of(a.out)};  // nothing is written before all of it was read
}
Cost cost_of(const MuonApplyArgs& a) {
  return {0, bytes_of(a.update) + 2 * bytes_of(a.master) + (a.value.data == a.master.data ? 0 : bytes_of(a.value))};
}

std::string shape_of_call(const EmbeddingForwardArgs& a) {
  return sizes_of(a.out);
}
std::string shape_of_call(const EmbeddingBackwardArgs& a) {
  return sizes_of(a.d_out);
}

}  // namespace heddle::kernels
