// The operands of a call of each op, one after the other: for who makes calls with memory of its own, and for what a call moves (cost.h).
//
// each_operand(args, visit): visit(view, role); absent views come too. Steps, scratch and fault words are the launch's. A new op's stands in the
// header of its own Args.
#pragma once

#include "kernels/api/role.h"
#include "kernels/api/slots.h"

namespace heddle::kernels {

template <class V>
void each_operand(MatmulArgs& a, V visit) {
  visit(a.a, Role::normal), visit(a.b, Role::normal), visit(a.bias, Role::normal);
  visit(a.preact, is_backward(a.epilogue) ? Role::normal : Role::written);
  visit_sink(a.c, visit), visit_sink(a.column_sum, visit);
}
template <class V>
void each_operand(SwigluMatmulArgs& a, V visit) {
  visit(a.x, Role::normal), visit(a.w, Role::normal), visit(a.both, Role::written), visit(a.out, Role::written);
}
template <class V>
void each_operand(AttentionForwardArgs& a, V visit) {
  visit(a.q, Role::normal), visit(a.k, Role::normal), visit(a.v, Role::normal), visit(a.document_start, Role::index);
  visit(a.position, Role::index), visit(a.out, Role::written), visit(a.lse, Role::written);
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
  visit(a.d_residual, Role::normal), visit_sink(a.dx, visit), visit_sink(a.d_gain, visit), visit_sink(a.d_bias, visit);
}
template <class V>
void each_operand(AxpbyArgs& a, V visit) {
  visit(a.a, Role::normal), visit(a.b, Role::normal), visit_sink(a.out, visit);
}
template <class V>
void each_operand(MultiplyArgs& a, V visit) {
  visit(a.a, Role::normal), visit(a.b, Role::normal), visit_sink(a.out, visit);
}
template <class V>
void each_operand(DivideArgs& a, V visit) {
  visit(a.a, Role::normal), visit(a.b, Role::positive), visit(a.c, Role::normal), visit_sink(a.out, visit);
}
template <class V>
void each_operand(MapArgs& a, V visit) {
  visit(a.x, a.map == Map::log ? Role::positive : Role::normal), visit(a.out, Role::written);
}
template <class V>
void each_operand(MapBackwardArgs& a, V visit) {
  visit(a.x, a.map == Map::log ? Role::positive : Role::normal), visit(a.dy, Role::normal), visit_sink(a.dx, visit);
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
  visit(a.tokens, Role::index), visit(a.start, Role::index), visit(a.d_out, Role::normal), visit_sink(a.d_weight, visit),
      visit_sink(a.d_position, visit);
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
  visit(a.x, Role::normal), visit_sink(a.out, visit);
}
template <class V>
void each_operand(ColumnSumArgs& a, V visit) {
  visit(a.x, Role::normal), visit_sink(a.out, visit);
}
template <class V>
void each_operand(SoftmaxArgs& a, V visit) {
  visit(a.x, Role::normal), visit(a.out, Role::written);
}
template <class V>
void each_operand(SoftmaxBackwardArgs& a, V visit) {
  visit(a.y, Role::positive), visit(a.dy, Role::normal), visit_sink(a.dx, visit);
}
template <class V>
void each_operand(NormalArgs& a, V visit) {
  visit(a.out, Role::written);
}
template <class V>
void each_operand(DropoutArgs& a, V visit) {
  visit(a.x, Role::normal), visit_sink(a.out, visit);
}
template <class V>
void each_operand(SampleArgs& a, V visit) {
  visit(a.logits, Role::normal), visit(a.draw, Role::index), visit(a.text, Role::index), visit(a.tokens, Role::written);
}
template <class V>
void each_operand(StoreRowsArgs& a, V visit) {
  visit(a.x, Role::normal), visit(a.rows, Role::index), visit(a.out, Role::written);
}
template <class V>
void each_operand(AdamWArgs& a, V visit) {
  visit(a.m, Role::updated), visit(a.v, Role::moment);
  visit(a.value, Role::updated), visit(a.master, Role::updated), visit(a.grad, Role::normal);
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

}  // namespace heddle::kernels
