// The operands of a call of each op, one after the other, for who makes calls of it with memory of its own.
//
// each_operand(args, visit): visit(view, role). Absent views come too. Steps, scratch and fault words are the launch's.
#pragma once

#include "kernels/api/slots.h"

namespace heddle::app {

// What may stand in it before the call, and whether the call writes it.
enum class Role : uint8_t {
  normal,    // any numbers
  positive,  // above zero: sums, second moments, divisors
  index,     // i32 or u8: 0 is a sound one, and so are those below the rows of what they choose from, which are spread over it
  updated,   // any numbers, and written: what is added to, or changed in place
  moment,    // above zero and changed in place
  written    // whatever stood there
};

namespace operands {
using namespace kernels;

template <class Visit>
void sink(Sink& s, Visit& visit) {
  visit(s.to, s.accumulate ? Role::updated : Role::written);
}

template <class V>
void each_operand(MatmulArgs& a, V visit) {
  visit(a.a, Role::normal), visit(a.b, Role::normal), visit(a.bias, Role::normal);
  visit(a.preact, is_backward(a.epilogue) ? Role::normal : Role::written);
  sink(a.c, visit), sink(a.column_sum, visit);
}
template <class V>
void each_operand(SwigluMatmulArgs& a, V visit) {
  visit(a.x, Role::normal), visit(a.w, Role::normal), visit(a.both, Role::written), visit(a.out, Role::written);
}
template <class V>
void each_operand(AttentionForwardArgs& a, V visit) {
  visit(a.q, Role::normal), visit(a.k, Role::normal), visit(a.v, Role::normal), visit(a.document_start, Role::index);
  visit(a.out, Role::written), visit(a.lse, Role::written);
}
template <class V>
void each_operand(AttentionBackwardArgs& a, V visit) {
  visit(a.q, Role::normal), visit(a.k, Role::normal), visit(a.v, Role::normal), visit(a.out, Role::normal), visit(a.d_out, Role::normal);
  visit(a.lse, Role::positive), visit(a.document_start, Role::index);
  visit(a.dq, Role::written), visit(a.dk, Role::written), visit(a.dv, Role::written);
}
template <class V>
void each_operand(NormForwardArgs& a, V visit) {
  visit(a.x, Role::normal), visit(a.residual, Role::normal), visit(a.gain, Role::normal), visit(a.bias, Role::normal);
  visit(a.sum, Role::written), visit(a.y, Role::written), visit(a.mean, Role::written), visit(a.rstd, Role::written);
}
template <class V>
void each_operand(NormBackwardArgs& a, V visit) {
  visit(a.x, Role::normal), visit(a.gain, Role::normal), visit(a.mean, Role::normal), visit(a.rstd, Role::positive), visit(a.dy, Role::normal);
  visit(a.d_residual, Role::normal), sink(a.dx, visit), sink(a.d_gain, visit), sink(a.d_bias, visit);
}
template <class V>
void each_operand(AxpbyArgs& a, V visit) {
  visit(a.a, Role::normal), visit(a.b, Role::normal), sink(a.out, visit);
}
template <class V>
void each_operand(MultiplyArgs& a, V visit) {
  visit(a.a, Role::normal), visit(a.b, Role::normal), sink(a.out, visit);
}
template <class V>
void each_operand(DivideArgs& a, V visit) {
  visit(a.a, Role::normal), visit(a.b, Role::positive), visit(a.c, Role::normal), sink(a.out, visit);
}
template <class V>
void each_operand(MapArgs& a, V visit) {
  visit(a.x, a.map == Map::log ? Role::positive : Role::normal), visit(a.out, Role::written);
}
template <class V>
void each_operand(MapBackwardArgs& a, V visit) {
  visit(a.x, a.map == Map::log ? Role::positive : Role::normal), visit(a.dy, Role::normal), sink(a.dx, visit);
}
template <class V>
void each_operand(SwigluArgs& a, V visit) {
  visit(a.x, Role::normal), visit(a.out, Role::written);
}
template <class V>
void each_operand(SwigluBackwardArgs& a, V visit) {
  visit(a.x, Role::normal), visit(a.d_out, Role::normal), visit(a.dx, Role::written);
}
template <class V>
void each_operand(FillArgs& a, V visit) {
  visit(a.out, Role::written);
}
template <class V>
void each_operand(RopeArgs& a, V visit) {
  visit(a.x, Role::normal), visit(a.table, Role::normal), visit(a.out, Role::written);
}
template <class V>
void each_operand(EmbeddingForwardArgs& a, V visit) {
  visit(a.tokens, Role::index), visit(a.weight, Role::normal), visit(a.position, Role::normal), visit(a.start, Role::index);
  visit(a.out, Role::written);
}
template <class V>
void each_operand(EmbeddingBackwardArgs& a, V visit) {
  visit(a.tokens, Role::index), visit(a.start, Role::index), visit(a.d_out, Role::normal), sink(a.d_weight, visit), sink(a.d_position, visit);
}
template <class V>
void each_operand(CrossEntropyStatsArgs& a, V visit) {
  visit(a.logits, Role::normal), visit(a.targets, Role::index), visit(a.stats, Role::written);
}
template <class V>
void each_operand(CrossEntropyArgs& a, V visit) {
  visit(a.logits, a.write_gradient ? Role::updated : Role::normal), visit(a.targets, Role::index), visit(a.stats, Role::positive);
  visit(a.losses, Role::written), visit(a.nll, Role::written), visit(a.weights, Role::normal);
}
template <class V>
void each_operand(SumArgs& a, V visit) {
  visit(a.x, Role::normal), sink(a.out, visit);
}
template <class V>
void each_operand(ColumnSumArgs& a, V visit) {
  visit(a.x, Role::normal), sink(a.out, visit);
}
template <class V>
void each_operand(SoftmaxArgs& a, V visit) {
  visit(a.x, Role::normal), visit(a.out, Role::written);
}
template <class V>
void each_operand(SoftmaxBackwardArgs& a, V visit) {
  visit(a.y, Role::positive), visit(a.dy, Role::normal), sink(a.dx, visit);
}
template <class V>
void each_operand(NormalArgs& a, V visit) {
  visit(a.out, Role::written);
}
template <class V>
void each_operand(DropoutArgs& a, V visit) {
  visit(a.x, Role::normal), sink(a.out, visit);
}
template <class V>
void each_operand(SampleArgs& a, V visit) {
  visit(a.logits, Role::normal), visit(a.position, Role::index), visit(a.tokens, Role::written);
}
template <class V>
void each_operand(AdamWArgs& a, V visit) {
  visit(a.value, Role::updated), visit(a.master, Role::updated), visit(a.grad, Role::normal), visit(a.m, Role::updated), visit(a.v, Role::moment);
  visit(a.group_of_block, Role::index), visit(a.arena_block, Role::index);
}
template <class V>
void each_operand(MuonMomentumArgs& a, V visit) {
  visit(a.grad, Role::normal), visit(a.momentum, Role::updated), visit(a.out, Role::written);
}
template <class V>
void each_operand(NormalizeArgs& a, V visit) {
  visit(a.x, Role::normal), visit(a.out, Role::written);
}
template <class V>
void each_operand(MuonApplyArgs& a, V visit) {
  visit(a.value, Role::updated), visit(a.master, Role::updated), visit(a.update, Role::normal);
}
template <class V>
void each_operand(FinishNormArgs& a, V visit) {
  visit(a.squared_norm, Role::positive), visit(a.loss, Role::positive), visit(a.faults, Role::index);
}
template <class V>
void each_operand(AdvanceStepArgs&, V) {}

}  // namespace operands
using operands::each_operand;

}  // namespace heddle::app
