// Attention in float64 from its formulas: one query at a time, the whole row of probabilities at once.
#pragma once

#include <cmath>
#include <vector>

#include "kernels/api/attention.h"
#include "tests/support/difference.h"

namespace heddle::oracle {

// A (B, N, H, D) tensor of doubles.
struct Heads {
  int64_t n = 0, heads = 0, d = 0;
  std::vector<double> data;
  Heads() = default;
  Heads(int64_t b, int64_t n_, int64_t h, int64_t d_) : n(n_), heads(h), d(d_), data(static_cast<size_t>(b * n_ * h * d_), 0) {}
  explicit Heads(const View& v) : n(v.size(1)), heads(v.size(2)), d(v.size(3)), data(test::values(v)) {}
  double* at(int64_t b, int64_t t, int64_t h) { return data.data() + ((b * n + t) * heads + h) * d; }
};

struct AttentionResult {
  Heads out;
  std::vector<double> lse;  // (B, H, T)
  Heads dq, dk, dv;
  // What rounding can act on. A score's error is relative to sum |q| |k|, and moves its probability by as much: `score` is the largest.
  double score = 0;
  Heads out_magnitude, dq_magnitude, dk_magnitude, dv_magnitude;
};

// d_out absent: forward only.
inline AttentionResult attention(const View& q_view, const View& k_view, const View& v_view, const View& start_view, double scale, int64_t window,
                                 const View& d_out_view = {}, const View& position_view = {}) {
  Heads q(q_view), k(k_view), v(v_view), d_out;
  if (d_out_view) d_out = Heads(d_out_view);
  const auto position = position_view ? test::values(position_view) : std::vector<double>{};
  const auto start = start_view ? test::values(start_view) : std::vector<double>{};
  const int64_t batch = q_view.size(0), queries = q.n, keys = k.n, d = q.d, group = q.heads / k.heads;
  AttentionResult r;
  r.out = r.dq = r.out_magnitude = r.dq_magnitude = Heads(batch, queries, q.heads, d);
  r.dk = r.dv = r.dk_magnitude = r.dv_magnitude = Heads(batch, keys, k.heads, d);
  r.lse.resize(static_cast<size_t>(batch * q.heads * queries));
  for (int64_t b = 0; b < batch; ++b) {
    for (int64_t h = 0; h < q.heads; ++h) {
      for (int64_t t = 0; t < queries; ++t) {
        const int64_t p = (position.empty() ? keys - queries : static_cast<int64_t>(position[static_cast<size_t>(b)])) + t, kv = h / group;
        int64_t first = 0;
        if (window > 0) first = std::max<int64_t>(first, p - window + 1);
        if (!start.empty()) first = std::max<int64_t>(first, static_cast<int64_t>(start[static_cast<size_t>(b * queries + t)]));
        const size_t count = static_cast<size_t>(p + 1 - first);
        std::vector<double> score(count), prob(count), dp(count), dp_size(count);
        double highest = -INFINITY, total = 0;
        for (size_t j = 0; j < count; ++j) {
          double size = 0;
          for (int64_t c = 0; c < d; ++c) {
            const double term = scale * q.at(b, t, h)[c] * k.at(b, first + static_cast<int64_t>(j), kv)[c];
            score[j] += term;
            size += std::abs(term);
          }
          highest = std::max(highest, score[j]);
          r.score = std::max(r.score, size);
        }
        for (size_t j = 0; j < count; ++j) total += prob[j] = std::exp(score[j] - highest);
        r.lse[static_cast<size_t>((b * q.heads + h) * queries + t)] = highest + std::log(total);
        double delta = 0, delta_size = 0;
        for (size_t j = 0; j < count; ++j) {
          prob[j] /= total;
          for (int64_t c = 0; c < d; ++c) {
            const double value = v.at(b, first + static_cast<int64_t>(j), kv)[c];
            r.out.at(b, t, h)[c] += prob[j] * value;
            r.out_magnitude.at(b, t, h)[c] += prob[j] * std::abs(value);
            if (!d_out_view) continue;
            dp[j] += d_out.at(b, t, h)[c] * value;
            dp_size[j] += std::abs(d_out.at(b, t, h)[c] * value);
          }
          delta += prob[j] * dp[j];
          delta_size += prob[j] * dp_size[j];
        }
        if (!d_out_view) continue;
        for (size_t j = 0; j < count; ++j) {
          const int64_t s = first + static_cast<int64_t>(j);
          const double ds = prob[j] * (dp[j] - delta) * scale, ds_size = prob[j] * (dp_size[j] + delta_size) * std::abs(scale);
          for (int64_t c = 0; c < d; ++c) {
            const double key = k.at(b, s, kv)[c], query = q.at(b, t, h)[c], gradient = d_out.at(b, t, h)[c];
            r.dq.at(b, t, h)[c] += ds * key;
            r.dq_magnitude.at(b, t, h)[c] += ds_size * std::abs(key);
            r.dk.at(b, s, kv)[c] += ds * query;
            r.dk_magnitude.at(b, s, kv)[c] += ds_size * std::abs(query);
            r.dv.at(b, s, kv)[c] += prob[j] * gradient;
            r.dv_magnitude.at(b, s, kv)[c] += prob[j] * std::abs(gradient);
          }
        }
      }
    }
  }
  return r;
}

}  // namespace heddle::oracle
