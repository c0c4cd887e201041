// The operations on tensors. Every one checks its inputs, runs kernels on the current stream and, when recording, leaves a Node for backward.
// What is made of parameters comes as a Weight, which a Tensor or a Parameter is turned into.
// N stands for any leading sizes flattened: an op "over (N, C)" takes (B, T, C) as well and keeps the leading sizes.
#pragma once

#include <cstdint>
#include <functional>
#include <utility>
#include <vector>

#include "core/tensor.h"
#include "core/weight.h"
#include "kernels/api/philox.h"
#include "kernels/api/step_state.h"
#include "kernels/api/vocab_shard.h"

namespace heddle {

// ---- products -----------------------------------------------------------------------------------------------------------------------------
// op(a) (M, K) times op(b) (K, N), both of rank 2; trans_x transposes the stored matrix.
Tensor matmul(const Tensor& a, const Tensor& b, bool trans_a = false, bool trans_b = false);  // (M, N)
// y = x w^T + bias: x (N, K), w (M, K), bias (M) or undefined.
Tensor linear(const Tensor& x, const Weight& w, const Weight& bias = {});  // (N, M)

// y = f(x w1^T + b1) w2^T + b2: x (N, C), w1 (F, C), w2 (C, F); biases may be undefined.
Tensor gelu_mlp(const Tensor& x, const Weight& w1, const Weight& b1, const Weight& w2, const Weight& b2);   // (N, C)
Tensor relu2_mlp(const Tensor& x, const Weight& w1, const Weight& b1, const Weight& w2, const Weight& b2);  // (N, C)
// y = (silu(x wg^T) * (x wu^T)) w2^T: w1 (2F, C) holds wg over wu, w2 (C, F).
Tensor swiglu_mlp(const Tensor& x, const Weight& w1, const Weight& w2);  // (N, C)

// ---- attention ----------------------------------------------------------------------------------------------------------------------------
struct AttentionOptions {
  float scale = 0;        // 0: 1 / sqrt(D)
  int64_t window = 0;     // keys a query sees, itself included; 0: all before it
  Tensor document_start;  // (B, T) i32; undefined: one document
  Tensor position;        // (B) i32: where each sequence's first query stands in a cache; undefined: the queries end it
};
// Causal attention over the packed projection: qkv (B, T, (H + 2 Hkv) D) = [q heads, k heads, v heads]. The gradient comes back packed.
Tensor attention(const Tensor& qkv, int64_t heads, int64_t kv_heads, const AttentionOptions& options = {});  // (B, T, H D)
// The same from separate tensors, q (B, T, H, D), k and v (B, S, Hkv, D), S >= T (a KV cache; backward needs S == T).
// Last strides 1.
Tensor attention(const Tensor& q, const Tensor& k, const Tensor& v, const AttentionOptions& options = {});  // (B, T, H, D)

// cos and sin of position x frequency, f = theta^(-2i/D), for rope(): (positions, D) f32, [cos | sin].
Tensor rope_table(int64_t positions, int64_t head_dim, double theta, Device device = {});
// Turns heads [0, rotated) of x (B, T, H, D) by their positions first + t. In place: use the returned tensor, not x.
Tensor rope_(const Tensor& x, const Tensor& table, int64_t rotated, int64_t first = 0);

// ---- norms --------------------------------------------------------------------------------------------------------------------------------
struct NormOutput {
  Tensor y;    // (N, C)
  Tensor sum;  // (N, C) x + residual: what the next norm adds to, so that its gradient joins in the same backward kernel
};
// sum = x + residual (residual may be undefined: sum is x itself); y = normalised sum. gain, bias (C) may be undefined.
NormOutput layer_norm(const Tensor& x, const Tensor& residual, const Weight& gain, const Weight& bias, float eps = 1e-5f);
NormOutput rms_norm(const Tensor& x, const Tensor& residual, const Weight& gain, float eps = 1e-5f);
// RMSNorm of each head of the first heads + kv_heads heads of packed qkv; q_gain, k_gain (D) may be undefined. v passes through.
Tensor qk_norm(const Tensor& qkv, int64_t heads, int64_t kv_heads, const Weight& q_gain, const Weight& k_gain, float eps = 1e-5f);

// ---- embedding, loss ----------------------------------------------------------------------------------------------------------------------
// tokens (B, T) i32, weight (V, C), position (P, C) or undefined, document_start (B, T) i32 or undefined: positions restart there. Where the rows are
// a shard of a vocabulary, y is this shard's summand: zero for tokens of the others, positions added by the first.
Tensor embedding(const Tensor& tokens, const Weight& weight, const Weight& position = {}, const Tensor& document_start = {},
                 const VocabShard& shard = {});  // (B, T, C)

struct LossOptions {
  int32_t ignore_index = -1;
  float z_loss = 0;
  float scale = 1;                  // any factor of the loss goes here: the loss is the root of backward
  const StepState* step = nullptr;  // when given, also times step->loss_scale (1 / valid targets of the step)
  int64_t chunk_rows = 0;           // rows of logits that exist at a time; 0: chosen by size
  Tensor nll;                       // () of the loss's dtype: receives the same sum without the z term; undefined: not asked for
  Tensor weights;                   // (N) f32: a factor on a row's loss and gradient; undefined: 1
  VocabShard shard;                 // which tokens the rows of the head are
  // Of a head that holds a shard: brings the statistics of a chunk (R, 3), this shard's, to (shards, R, 3), all in order
  // (kernels/api/cross_entropy.h). Called once a chunk, so that every rank needs the same number of rows in its head; the result is used on the
  // current stream.
  std::function<Tensor(const Tensor& stats)> gather;
};
// scale * sum over rows of cross entropy(x weight^T, targets): x (N, C), weight (V, C), targets (N) i32. Logits exist only chunk by chunk: when
// recording, the forward pass also computes dx and adds the weight's gradient, so backward must start at this tensor. Of a head that holds a shard,
// the loss is that of all shards, the gradient of x this shard's summand.
Tensor linear_cross_entropy(const Tensor& x, const Weight& weight, const Tensor& targets, const LossOptions& options = {});  // ()
struct CrossEntropyOptions {
  int32_t ignore_index = -1;
  float z_loss = 0;
  Tensor weights;  // (N) f32: a factor on a row's loss and gradient, which has no gradient of its own; undefined: 1
};
// The cross entropy of logits (..., V) that exist, one for each target (...) i32, 0 where ignored; any function of it may follow.
// linear_cross_entropy does not keep the logits and reads them once less.
Tensor cross_entropy(const Tensor& logits, const Tensor& targets, const CrossEntropyOptions& options = {});  // (N) f32

// The negative log likelihood of every target, 0 where ignored; never recorded. z_loss, scale, step and nll do not apply.
Tensor token_losses(const Tensor& x, const Weight& weight, const Tensor& targets, const LossOptions& options = {});  // (N) f32

// ---- elementwise --------------------------------------------------------------------------------------------------------------------------
Tensor add(const Tensor& a, const Tensor& b, double alpha = 1, double beta = 1);  // alpha a + beta b
Tensor mul(const Tensor& a, const Tensor& b);                                     // a b, equal shapes
Tensor div(const Tensor& a, const Tensor& b);                                     // a / b, equal shapes
Tensor scale(const Tensor& x, double factor);
Tensor cast(const Tensor& x, DType dtype);
Tensor gelu(const Tensor& x);   // tanh form
Tensor relu2(const Tensor& x);  // max(x, 0)^2
Tensor silu(const Tensor& x);
Tensor sigmoid(const Tensor& x);
Tensor tanh(const Tensor& x);
Tensor exp(const Tensor& x);
Tensor log(const Tensor& x);
Tensor softcap(const Tensor& x, float cap);        // cap tanh(x / cap)
Tensor swiglu(const Tensor& x);                    // (N, 2F) -> (N, F)
Tensor softmax(const Tensor& x, float scale = 1);  // over the last axis
// Keeps element i with probability 1 - p, by Philox (key, first + i); step, when given, supplies key.stream.
Tensor dropout(const Tensor& x, float p, const RngKey& key, uint64_t first = 0, const StepState* step = nullptr);

// ---- reductions ---------------------------------------------------------------------------------------------------------------------------
Tensor sum(const Tensor& x);   // ()
Tensor mean(const Tensor& x);  // ()

// ---- geometry -----------------------------------------------------------------------------------------------------------------------------
Tensor reshape(const Tensor& x, Shape shape);                         // a view; x contiguous
Tensor slice(const Tensor& x, int axis, int64_t begin, int64_t end);  // a view
Tensor transpose(const Tensor& x, int axis_a, int axis_b);            // a copy with two axes exchanged
Tensor concat(const std::vector<Tensor>& parts, int axis);            // a copy
Tensor contiguous(const Tensor& x);                                   // x itself, or a dense copy

}  // namespace heddle
