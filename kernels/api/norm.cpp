// The contracts of the norms, checked.
#include "kernels/api/norm.h"

#include "kernels/api/rules.h"

namespace heddle::kernels {
namespace {

Rules& statistic(Rules& rules, std::string_view name, const View& v, const View& x) {
  return rules.dense(name, v)
      .need(v.dtype == accumulator_of(x.dtype), name, " ", v, " must be ", name_of(accumulator_of(x.dtype)))
      .need(x.rank > 0 && v.numel() == row_count(x), name, " ", v, " must have one element a row of x ", x);
}

}  // namespace

Refusal contradiction(const NormForwardArgs& args) {
  Rules rules;
  rules.floating("x", args.x).need(args.x.rank > 0, "x is a scalar").like("y", args.y, "x", args.x);
  rules.like_if_present("residual", args.residual, "x", args.x).like_if_present("sum", args.sum, "x", args.x);
  rules.need(!args.residual || args.sum, "residual is given but not sum");
  if (args.x.rank == 0) return rules;
  const int64_t columns = args.x.size(-1);
  if (args.gain) rules.shape("gain", args.gain, {columns}).same_dtype("gain", args.gain, "x", args.x);
  if (args.bias) rules.shape("bias", args.bias, {columns}).same_dtype("bias", args.bias, "x", args.x);
  if (args.kind == NormKind::layer) statistic(rules, "mean", args.mean, args.x);
  return statistic(rules, "rstd", args.rstd, args.x);
}

Refusal contradiction(const NormBackwardArgs& args) {
  Rules rules;
  rules.floating("x", args.x).need(args.x.rank > 0, "x is a scalar").like("dy", args.dy, "x", args.x);
  rules.like_if_present("d_residual", args.d_residual, "x", args.x);
  if (args.dx) rules.same_shape("dx", args.dx.to, "x", args.x).sink_dtype("dx", args.dx.to, "x", args.x);
  if (args.x.rank == 0) return rules;
  const int64_t columns = args.x.size(-1);
  if (args.gain) rules.shape("gain", args.gain, {columns}).same_dtype("gain", args.gain, "x", args.x);
  if (args.d_gain) rules.shape("d_gain", args.d_gain.to, {columns}).sink_dtype("d_gain", args.d_gain.to, "x", args.x);
  if (args.d_bias) rules.shape("d_bias", args.d_bias.to, {columns}).sink_dtype("d_bias", args.d_bias.to, "x", args.x);
  if (args.kind == NormKind::layer) statistic(rules, "mean", args.mean, args.x);
  return statistic(rules, "rstd", args.rstd, args.x);
}

}  // namespace heddle::kernels
