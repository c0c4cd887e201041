#include "kernels/api/norm.h"

#include "core/ops/common.h"
#include "kernels/api/pointwise.h"

namespace heddle {
namespace {

// s = x + residual; y = norm(s) gain + bias. Two outputs, y and s: what reached s joins the norm's own dx in one kernel.
//   layer: xhat = (s - mean) rstd; g = dy gain; dx = rstd (g - mean(g) - xhat mean(g xhat)) + ds
//   rms:   xhat = s rstd;                       dx = rstd (g - xhat mean(g xhat)) + ds
class NormNode final : public Node {
 public:
  explicit NormNode(kernels::NormKind kind) : kind_(kind) {}
  std::string_view name() const override { return kind_ == kernels::NormKind::layer ? "layer_norm" : "rms_norm"; }
  void backward(std::span<const Tensor> dy, std::span<GradSlot> dx) override {
    if (!dy[0]) {  // only the sum was used
      dx[0].give(dy[1]), dx[1].give(dy[1]);
      return;
    }
    const Tensor& s = s_.get(name());
    const Device device = s.device();
    kernels::NormBackwardArgs args;
    args.kind = kind_;
    args.x = rows_of(s);
    const WeightUse gain(gain_ ? gain_.get(name()) : Weight());
    args.gain = gain.view();
    if (mean_) args.mean = mean_.get(name()).view();
    args.rstd = rstd_.get(name()).view();
    args.dy = rows_of(dy[0]);
    args.d_residual = rows_of(dy[1]);
    Tensor shared;  // x and residual have the same gradient; the kernel computes it even when only gain or bias want theirs
    if (dx[0].needed() == dx[1].needed()) {
      shared = Tensor::empty_like(s);
      args.dx = {rows_of(shared), false};
    } else {
      args.dx = rows_of(dx[0].needed() ? dx[0].sink() : dx[1].sink());
    }
    args.d_gain = dx[2].sink();
    args.d_bias = dx[3].sink();
    launch(kernels::norm_backward, args, device);
    if (shared) dx[0].give(shared), dx[1].give(shared);
  }
  void release_saved() override {
    for (Saved* s : {&s_, &mean_, &rstd_}) s->reset();
    gain_.reset();
  }

  Saved s_, mean_, rstd_;
  SavedWeight gain_;

 private:
  kernels::NormKind kind_;
};

NormOutput norm(kernels::NormKind kind, const Tensor& x, const Tensor& residual, const Weight& gain, const Weight& bias, float eps) {
  const std::string_view op = kind == kernels::NormKind::layer ? "layer_norm" : "rms_norm";
  check_floating(x, op, "x");
  for (const Tensor* t : {&residual, &gain.slot(), &bias.slot()}) check_same_dtype(x, *t, op);
  HEDDLE_CHECK(!residual || residual.shape() == x.shape(), op, "residual ", shape_text(residual.view()), " for x ", shape_text(x.view()));
  for (const Tensor* t : {&gain.slot(), &bias.slot()}) {
    HEDDLE_CHECK(!*t || (t->rank() == 1 && t->size(0) == x.size(-1)), op, "gain or bias ", shape_text(t->view()), " for x ", shape_text(x.view()));
  }
  const Device device = x.device();
  const int64_t rows = x.size(-1) ? x.numel() / x.size(-1) : 0;
  const bool recorded = recording({&x, &residual, &gain.slot(), &bias.slot()});
  Tensor y = Tensor::empty(x.shape(), x.dtype(), device);                          // (N, C)
  Tensor sum = residual ? Tensor::empty(x.shape(), x.dtype(), device) : Tensor();  // (N, C)
  Tensor rstd = Tensor::empty({rows}, accumulator_of(x.dtype()), device);          // (N)
  Tensor mean = kind == kernels::NormKind::layer ? Tensor::empty({rows}, accumulator_of(x.dtype()), device) : Tensor();
  {
    const WeightUse g(gain), b(bias);
    launch(kernels::norm_forward,
           {.kind = kind,
            .x = rows_of(x),
            .residual = rows_of(residual),
            .gain = g.view(),
            .bias = b.view(),
            .sum = rows_of(sum),
            .y = rows_of(y),
            .mean = mean.view(),
            .rstd = rstd.view(),
            .eps = eps},
           device);
  }
  if (!sum) sum = x.detach();
  if (recorded) {
    auto node = std::make_shared<NormNode>(kind);
    node->s_ = Saved(sum), node->gain_ = SavedWeight(gain), node->mean_ = Saved(mean), node->rstd_ = Saved(rstd);
    record(node, {&x, &residual, &gain.slot(), &bias.slot()}, {&y, &sum});
  }
  return {y, sum};
}

// RMSNorm of the q and k heads of packed qkv, v copied: two norms over strided views of one buffer.
class QkNormNode final : public Node {
 public:
  std::string_view name() const override { return "qk_norm"; }
  void backward(std::span<const Tensor> dy, std::span<GradSlot> dx) override;
  void release_saved() override {
    for (Saved* s : {&qkv_, &q_rstd_, &k_rstd_}) s->reset();
    q_gain_.reset(), k_gain_.reset();
  }

  Saved qkv_, q_rstd_, k_rstd_;
  SavedWeight q_gain_, k_gain_;
  int64_t heads = 0, kv_heads = 0;
};

// Heads [first, first + count) of packed (B, T, (H + 2 Hkv) D) as (B, T, count, D).
View head_range(const Tensor& packed, int64_t all, int64_t first, int64_t count) {
  const int64_t b = packed.size(0), t = packed.size(1), d = packed.size(2) / all;
  View v = make_view(packed.impl().data, packed.dtype(), {b, t, all, d});
  v.data += first * d * size_of(packed.dtype());
  v.shape[2] = count;
  return v;
}

View flat(const Tensor& t) {
  return t ? make_view(t.impl().data, t.dtype(), {t.numel()}) : View{};
}

void QkNormNode::backward(std::span<const Tensor> dy, std::span<GradSlot> dx) {
  const Tensor& qkv = qkv_.get(name());
  const Device device = qkv.device();
  const int64_t all = heads + 2 * kv_heads;
  Tensor grad = Tensor::empty_like(qkv);  // (B, T, (H + 2 Hkv) D)
  const auto part = [&](int64_t first, int64_t count, const SavedWeight& gain, const Saved& rstd, Sink d_gain) {
    const WeightUse g(gain ? gain.get(name()) : Weight());
    kernels::NormBackwardArgs args;
    args.kind = kernels::NormKind::rms;
    args.x = head_range(qkv, all, first, count);
    args.gain = g.view();
    args.rstd = flat(rstd.get(name()));
    args.dy = head_range(dy[0], all, first, count);
    args.dx = {head_range(grad, all, first, count), false};
    args.d_gain = d_gain;
    launch(kernels::norm_backward, args, device);
  };
  part(0, heads, q_gain_, q_rstd_, dx[1].sink());
  part(heads, kv_heads, k_gain_, k_rstd_, dx[2].sink());
  launch(kernels::axpby, {.a = head_range(dy[0], all, heads + kv_heads, kv_heads), .out = {head_range(grad, all, heads + kv_heads, kv_heads), false}},
         device);
  dx[0].give(grad);
}

}  // namespace

NormOutput layer_norm(const Tensor& x, const Tensor& residual, const Weight& gain, const Weight& bias, float eps) {
  return norm(kernels::NormKind::layer, x, residual, gain, bias, eps);
}

NormOutput rms_norm(const Tensor& x, const Tensor& residual, const Weight& gain, float eps) {
  return norm(kernels::NormKind::rms, x, residual, gain, {}, eps);
}

Tensor qk_norm(const Tensor& qkv, int64_t heads, int64_t kv_heads, const Weight& q_gain, const Weight& k_gain, float eps) {
  check_floating(qkv, "qk_norm", "qkv");
  HEDDLE_CHECK(heads > 0 && kv_heads > 0, "qk_norm", heads, " heads and ", kv_heads, " KV heads");
  const int64_t all = heads + 2 * kv_heads;
  HEDDLE_CHECK(qkv.rank() == 3 && qkv.is_contiguous() && qkv.size(2) % all == 0, "qk_norm", "packed qkv must be (B, T, (", heads, " + 2 x ", kv_heads,
               ") D), not ", shape_text(qkv.shape()));
  for (const Tensor* gain : {&q_gain.slot(), &k_gain.slot()}) {
    check_same_dtype(qkv, *gain, "qk_norm");
    HEDDLE_CHECK(!*gain || (gain->rank() == 1 && gain->size(0) * all == qkv.size(2)), "qk_norm", "gain ", shape_text(gain->view()),
                 " for heads of size ", qkv.size(2) / all);
  }
  const Device device = qkv.device();
  const DType acc = accumulator_of(qkv.dtype());
  Tensor out = Tensor::empty_like(qkv);  // (B, T, (H + 2 Hkv) D)
  Tensor q_rstd = Tensor::empty({qkv.size(0), qkv.size(1), heads}, acc, device),
         k_rstd = Tensor::empty({qkv.size(0), qkv.size(1), kv_heads}, acc, device);
  const auto part = [&](int64_t first, int64_t count, const Weight& gain, const Tensor& rstd) {
    const WeightUse g(gain);
    kernels::NormForwardArgs args;
    args.kind = kernels::NormKind::rms;
    args.x = head_range(qkv, all, first, count);
    args.gain = g.view();
    args.y = head_range(out, all, first, count);
    args.rstd = flat(rstd);
    args.eps = eps;
    launch(kernels::norm_forward, args, device);
  };
  part(0, heads, q_gain, q_rstd);
  part(heads, kv_heads, k_gain, k_rstd);
  launch(kernels::axpby, {.a = head_range(qkv, all, heads + kv_heads, kv_heads), .out = {head_range(out, all, heads + kv_heads, kv_heads), false}},
         device);
  if (recording({&qkv, &q_gain.slot(), &k_gain.slot()})) {
    auto node = std::make_shared<QkNormNode>();
    node->heads = heads, node->kv_heads = kv_heads;
    node->qkv_ = Saved(qkv), node->q_gain_ = SavedWeight(q_gain), node->k_gain_ = SavedWeight(k_gain), node->q_rstd_ = Saved(q_rstd),
    node->k_rstd_ = Saved(k_rstd);
    record(node, {&qkv, &q_gain.slot(), &k_gain.slot()}, {&out});
  }
  return out;
}

}  // namespace heddle
