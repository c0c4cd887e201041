// What a call of each op must do at least, whatever computes it: arithmetic, and bytes to and from memory with every operand read once and every
// result written once. Floors follow from it: a kernel takes no less than its FLOPs at a device's peak, or its bytes at the rate of a copy.
//
// FLOPs count products of matrices and attention, a multiplication and an addition as two; arithmetic on single elements hides behind its bytes.
// A symmetric product counts one half and its diagonal. Attention counts the (query, key) pairs that causality and the window leave, documents apart:
// backward the five products it needs. What a candidate moves or multiplies beyond that, scratch or a second pass, is its own affair and no floor.
#pragma once

#include <string>

#include "kernels/api/operands.h"

namespace heddle::kernels {

struct Cost {
  double flops = 0, bytes = 0;
};

// By the list of operands alone, as most ops are.
template <class Args>
Cost cost_of_operands(const Args& args) {
  Cost cost;
  Args call = args;
  each_operand(call, [&](const View& view, Role role) {
    if (view) cost.bytes += static_cast<double>(view.bytes()) * (role == Role::updated || role == Role::moment ? 2 : 1);
  });
  return cost;
}
template <class Args>
Cost cost_of(const Args& args) {
  return cost_of_operands(args);
}
Cost cost_of(const MatmulArgs&);  // of a gram a is read once
Cost cost_of(const SwigluMatmulArgs&);
Cost cost_of(const AttentionForwardArgs&);
Cost cost_of(const AttentionBackwardArgs&);
Cost cost_of(const RopeArgs&);               // the table stays in a cache
Cost cost_of(const EmbeddingForwardArgs&);   // a row of the table for each token
Cost cost_of(const EmbeddingBackwardArgs&);  // what is added to: the rows of the tokens
Cost cost_of(const CrossEntropyArgs&);       // logits are read for the gradient alone
Cost cost_of(const AdamWArgs&);              // of `value` and `grad` the blocks that have moments
Cost cost_of(const NormalizeArgs&);          // nothing is written before all of it was read
Cost cost_of(const MuonApplyArgs&);

// "4096 x 2304 x 768 NT bf16, bias"; of most ops the sizes of the first operand.
std::string sizes_of(const View& view);
template <class Args>
std::string shape_of_call(const Args& args) {
  std::string text;
  Args call = args;
  each_operand(call, [&](const View& view, Role) {
    if (text.empty()) text = sizes_of(view);
  });
  return text;
}
std::string shape_of_call(const MatmulArgs&);
std::string shape_of_call(const SwigluMatmulArgs&);
std::string shape_of_call(const AttentionForwardArgs&);
std::string shape_of_call(const AttentionBackwardArgs&);
std::string shape_of_call(const EmbeddingForwardArgs&);
std::string shape_of_call(const EmbeddingBackwardArgs&);

}  // namespace heddle::kernels
