// Causal attention (Vaswani et al. 2017) computed tile by tile with an online softmax (Dao et al. 2022, 2023): no T x S matrix exists.
//
//   q (B, T, H, D), k and v (B, S, Hkv, D), S >= T; query t stands at key position p = S - T + t (S > T: a KV cache)
//   position (B) i32: query t of sequence b stands at p = position[b] + t instead, and what lies behind its last query is not there: texts of any
//   length in one cache. One outside [0, S - T] is a Fault; what is written then is of no use. Forward only, and without document_start
//   head h reads KV head h / (H / Hkv) (GQA, Ainslie et al. 2023)
//   visible keys of p:  max(document_start[b][t], p - window + 1) <= j <= p          window <= 0: no limit
//   out (B, T, H, D) = softmax(scale q k^T) v;  lse (B, H, T) = log sum exp over the visible keys, natural log
//   document_start (B, T) i32, in key positions (S == T when given); absent: one document. One outside [0, t] is a Fault; what is written then is of
//   no use
//
// Backward (S == T): dq, dk, dv are written ("="), like q, k, v views of a packed buffer. Needs out, lse and d_out.
// dtypes: f32, bf16, f64 alike for q, k, v, out and the gradients; lse f32 (f64 for f64). Strides free, last stride 1.
// Deterministic: no result depends on the number of threads.
#pragma once

#include <span>

#include "kernels/api/fault.h"
#include "kernels/api/kernel.h"
#include "kernels/api/types.h"

namespace heddle::kernels {

struct AttentionForwardArgs {
  View q, k, v;
  View out, lse;        // lse may be absent
  View document_start;  // may be absent
  View position;        // may be absent
  float scale = 0;
  int64_t window = 0;
  std::span<std::byte> scratch;
  Fault* fault = nullptr;
};

struct AttentionBackwardArgs {
  View q, k, v, out, lse, d_out;
  View dq, dk, dv;
  View document_start;
  float scale = 0;
  int64_t window = 0;
  std::span<std::byte> scratch;
  Fault* fault = nullptr;
};

extern Kernel<AttentionForwardArgs> attention_forward;
extern Kernel<AttentionBackwardArgs> attention_backward;

void check(const AttentionForwardArgs&);
void check(const AttentionBackwardArgs&);

}  // namespace heddle::kernels
