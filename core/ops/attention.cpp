#include "kernels/api/attention.h"

#include <cmath>

#include "core/ops/common.h"

namespace heddle {
namespace {

// qkv (B, T, H + 2 Hkv, D) split by heads into q, k, v views.
struct Heads {
  View q, k, v;
};
Heads split(const View& packed, int64_t heads, int64_t kv_heads) {  // (B, T, H + 2 Hkv, D)
  Heads h;
  const int64_t head_bytes = packed.stride[2] * size_of(packed.dtype);
  h.q = h.k = h.v = packed;
  h.q.shape[2] = heads;
  h.k.shape[2] = h.v.shape[2] = kv_heads;
  h.k.data += heads * head_bytes;
  h.v.data += (heads + kv_heads) * head_bytes;
  return h;
}

View as_heads(const Tensor& t, int64_t heads) {  // (B, T, heads D) -> (B, T, heads, D)
  return make_view(t.impl().data, t.dtype(), {t.size(0), t.size(1), heads, t.size(2) / heads});
}

// out = softmax(scale q k^T + mask) v. Backward recomputes the probabilities p from q, k and the saved LSE:
//   dv = p^T dout; dp = dout v^T; ds = p (dp - rowsum(dout out)); dq = scale ds k; dk = scale ds^T q
class AttentionNode final : public Node {
 public:
  std::string_view name() const override { return "attention"; }
  void backward(std::span<const Tensor> dy, std::span<GradSlot> dx) override {
    const Tensor &out = out_.get(name()), &lse = lse_.get(name());
    kernels::AttentionBackwardArgs args;
    args.lse = lse.view();
    if (document_start_) args.document_start = document_start_.get(name()).view();
    args.scale = scale;
    args.window = window;
    const Device device = out.device();
    if (packed) {
      const Tensor& qkv = q_.get(name());
      const Heads in = split(as_heads(qkv, heads + 2 * kv_heads), heads, kv_heads);
      args.q = in.q, args.k = in.k, args.v = in.v;
      args.out = as_heads(out, heads);
      args.d_out = as_heads(dy[0], heads);
      Tensor dqkv = Tensor::empty_like(qkv);  // (B, T, (H + 2 Hkv) D)
      const Heads grad = split(as_heads(dqkv, heads + 2 * kv_heads), heads, kv_heads);
      args.dq = grad.q, args.dk = grad.k, args.dv = grad.v;
      launch(kernels::attention_backward, args, device);
      dx[0].give(dqkv);
    } else {
      const Tensor &q = q_.get(name()), &k = k_.get(name()), &v = v_.get(name());
      HEDDLE_CHECK(q.size(1) == k.size(1), "attention", "backward through a KV cache: ", q.size(1), " queries, ", k.size(1), " keys");
      args.q = q.view(), args.k = k.view(), args.v = v.view();
      args.out = out.view();
      args.d_out = dy[0].view();
      Tensor dq = Tensor::empty(q.shape(), q.dtype(), device), dk = Tensor::empty(k.shape(), k.dtype(), device),
             dv = Tensor::empty(v.shape(), v.dtype(), device);
      args.dq = dq.view(), args.dk = dk.view(), args.dv = dv.view();
      launch(kernels::attention_backward, args, device);
      dx[0].give(dq), dx[1].give(dk), dx[2].give(dv);
    }
  }
  void release_saved() override {
    for (Saved* s : {&q_, &k_, &v_, &out_, &lse_, &document_start_}) s->reset();
  }

  Saved q_, k_, v_, out_, lse_, document_start_;  // packed: q_ is qkv
  bool packed = false;
  int64_t heads = 0, kv_heads = 0, window = 0;
  float scale = 0;
};

float scale_of(const AttentionOptions& options, int64_t head_dim) {
  return options.scale != 0 ? options.scale : 1.0f / std::sqrt(static_cast<float>(head_dim));
}

void finish(AttentionNode& node, const Tensor& out, const Tensor& lse, const AttentionOptions& options, float scale) {
  node.out_ = Saved(out), node.lse_ = Saved(lse), node.document_start_ = Saved(options.document_start);
  node.window = options.window, node.scale = scale;
}

}  // namespace

Tensor attention(const Tensor& qkv, int64_t heads, int64_t kv_heads, const AttentionOptions& options) {
  check_floating(qkv, "attention", "qkv");
  HEDDLE_CHECK(heads > 0 && kv_heads > 0 && heads % kv_heads == 0, "attention", heads, " heads do not share ", kv_heads, " KV heads evenly");
  HEDDLE_CHECK(qkv.rank() == 3 && qkv.is_contiguous() && qkv.size(2) % (heads + 2 * kv_heads) == 0, "attention", "packed qkv must be (B, T, (", heads,
               " + 2 x ", kv_heads, ") D), not ", shape_text(qkv.shape()));
  const int64_t b = qkv.size(0), t = qkv.size(1), d = qkv.size(2) / (heads + 2 * kv_heads);
  const float scale = scale_of(options, d);
  Tensor out = Tensor::empty({b, t, heads * d}, qkv.dtype(), qkv.device());  // (B, T, H D)
  const bool recorded = recording({&qkv});
  Tensor lse = recorded ? Tensor::empty({b, heads, t}, accumulator_of(qkv.dtype()), qkv.device()) : Tensor();  // (B, H, T)
  const Heads in = split(as_heads(qkv, heads + 2 * kv_heads), heads, kv_heads);
  kernels::AttentionForwardArgs args;
  args.q = in.q, args.k = in.k, args.v = in.v;
  args.out = as_heads(out, heads);
  args.lse = lse.view();
  args.document_start = options.document_start.view();
  args.scale = scale;
  args.window = options.window;
  launch(kernels::attention_forward, args, qkv.device());
  if (recorded) {
    auto node = std::make_shared<AttentionNode>();
    node->packed = true, node->heads = heads, node->kv_heads = kv_heads;
    node->q_ = Saved(qkv);
    finish(*node, out, lse, options, scale);
    record(node, {&qkv}, {&out});
  }
  return out;
}

Tensor attention(const Tensor& q, const Tensor& k, const Tensor& v, const AttentionOptions& options) {
  check_floating(q, "attention", "q");
  check_same_dtype(q, k, "attention");
  check_same_dtype(q, v, "attention");
  HEDDLE_CHECK(k && v && q.rank() == 4 && k.rank() == 4 && v.rank() == 4, "attention", "q (B, T, H, D), k and v (B, S, Hkv, D) are needed, not ",
               shape_text(q.view()), ", ", shape_text(k.view()), ", ", shape_text(v.view()));
  const float scale = scale_of(options, q.size(3));
  Tensor out = Tensor::empty(q.shape(), q.dtype(), q.device());  // (B, T, H, D)
  const bool recorded = recording({&q, &k, &v});
  HEDDLE_CHECK(!recorded || !options.position, "attention", "positions in a cache have no backward pass");
  Tensor lse = recorded ? Tensor::empty({q.size(0), q.size(2), q.size(1)}, accumulator_of(q.dtype()), q.device()) : Tensor();  // (B, H, T)
  kernels::AttentionForwardArgs args;
  args.q = q.view(), args.k = k.view(), args.v = v.view();
  args.out = out.view();
  args.lse = lse.view();
  args.document_start = options.document_start.view();
  args.position = options.position.view();
  args.scale = scale;
  args.window = options.window;
  launch(kernels::attention_forward, args, q.device());
  if (recorded) {
    auto node = std::make_shared<AttentionNode>();
    node->q_ = Saved(q), node->k_ = Saved(k), node->v_ = Saved(v);
    finish(*node, out, lse, options, scale);
    record(node, {&q, &k, &v}, {&out});
  }
  return out;
}

}  // namespace heddle
