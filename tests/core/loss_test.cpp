// The chunked loss against a product, a log-softmax and a choice, within bounds that a plain loop derives (tests/support/running_error.h).
#include "core/autograd/engine.h"
#include "core/autograd/node.h"
#include "core/ops/ops.h"
#include "tests/support/gradcheck.h"
#include "tests/support/running_error.h"
#include "tests/support/stats_exchange.h"

namespace heddle {
namespace {

using namespace test;

const auto kDtypes = {DType::f64, DType::f32, DType::bf16};

DEVICE_TEST_CASE("linear_cross_entropy is a product, a log-softmax and a choice, chunk by chunk and shard by shard, a weight a row") {
  constexpr int64_t n = 7, k = 12, vocab = 23;
  constexpr double z_loss = 0.25, factor = 0.5;  // exact in every dtype
  const int64_t chunk = GENERATE(0, 3);
  const int64_t shards = GENERATE(1, 2, 3, 4, 23);
  const bool weighted = GENERATE(false, true);
  CAPTURE(chunk, shards, weighted);
  const std::vector<double> weight_of = weighted ? std::vector<double>{1, 0.5, 3, -2, 0, 1, 0.25} : std::vector<double>(n, 1);
  const Tensor weights = weighted ? tensor(weight_of, {n}) : Tensor();
  const std::vector<int32_t> target{4, 22, -1, 0, 9, -1, 4};
  const Poisoned poisoned;
  const Tensor targets = ints(target, {n});
  for (DType dtype : kDtypes) {
    if (dtype == DType::f64 && !has_f64(device())) continue;
    CAPTURE(name_of(dtype));
    rounding().dtype = dtype;
    const Tensor x = random({n, k}, 1, 0, 1, dtype), w = random({vocab, k}, 2, 0, 1, dtype);
    const Matrix mx(x), mw(w), z = product_t(mx, mw);
    Matrix dz(n, vocab);
    std::vector<Ranged> losses(n), nlls(n);
    for (int64_t r = 0; r < n; ++r) {
      if (target[r] < 0) continue;
      double largest = -1e300;
      for (int64_t v = 0; v < vocab; ++v) largest = std::max(largest, z(r, v).v);
      Ranged sum = total(vocab, [&](int64_t v) { return exp(z(r, v) - Ranged(largest)); });
      sum.e += gamma(4.0 * static_cast<double>(shards - 1), accumulator_of(dtype)) * sum.magnitude();  // joining: an exponent, exp, product and sum
      const Ranged lse = Ranged(std::log(sum.v), sum.e / (sum.v - sum.e) + 16 * rounding().u()) + Ranged(largest);
      const Ranged weight = weight_of[r], nll = lse - z(r, target[r]);
      nlls[r] = weight * nll;
      losses[r] = weight * (nll + Ranged(z_loss) * lse * lse);
      for (int64_t v = 0; v < vocab; ++v) {
        const Ranged p = exp(z(r, v) - lse);
        dz(r, v) = store(Ranged(factor) * weight * ((Ranged(1) + Ranged(2 * z_loss) * lse) * p - Ranged(v == target[r])));
      }
    }
    Matrix loss(1, 1), without_z_loss(1, 1);
    loss(0, 0) = total(n, [&](int64_t r) { return losses[r]; }) * Ranged(factor);
    without_z_loss(0, 0) = total(n, [&](int64_t r) { return nlls[r]; }) * Ranged(factor);

    const auto options = [&](const VocabShard& shard) {
      return LossOptions{.z_loss = static_cast<float>(z_loss),
                         .scale = static_cast<float>(factor),
                         .chunk_rows = chunk,
                         .nll = full({}, 1e9, accumulator_of(dtype)),
                         .weights = weights,
                         .shard = shard};
    };
    const int64_t piece = (vocab + shards - 1) / shards;  // rows of memory of each; what the last ones have too much is padding
    StatsExchange exchange;
    std::vector<Tensor> tables;
    const auto shard_of = [&](int64_t s) { return VocabShard{.first = s * piece, .vocabulary = vocab}; };
    for (int64_t s = 0; shards > 1 && s < shards; ++s) {
      std::vector<double> rows(static_cast<size_t>(piece * k), 0.0);
      for (int64_t i = 0; i < shard_of(s).held(piece) * k; ++i) rows[i] = mw.x[s * piece * k + i].v;
      tables.push_back(tensor(rows, {piece, k}, dtype).set_requires_grad(true));
      const NoGradGuard no_grad;
      linear_cross_entropy(x, tables.back(), targets, exchange.say(options(shard_of(s))));
    }
    for (int64_t s = 0; s < shards; ++s) {
      const Tensor table = shards > 1 ? tables[s] : w;
      const LossOptions mine = shards > 1 ? exchange.hear(options(shard_of(s))) : options({});
      const int64_t first = s * piece, held = shard_of(s).held(piece);
      x.clear_grad();
      const Tensor fused = linear_cross_entropy(x, table, targets, mine);
      backward(fused);
      CHECK(difference(reshape(fused.detach(), {1}), loss) == "");
      CHECK(difference(reshape(mine.nll, {1}), without_z_loss) == "");
      // This shard's summand of the gradient of x.
      const Matrix dx = tabulate(n, k, [&](int64_t r, int64_t j) {
        return dot(
            held, [&](int64_t v) { return dz(r, first + v); }, [&](int64_t v) { return mw(first + v, j); });
      });
      CHECK(difference(x.grad(), dx) == "");
      // Chunks add up in the weight's own dtype here (an arena would keep f32): each of the chunks rounds once more. Padding has no gradient.
      const int64_t step = chunk ? chunk : n;
      Matrix dw(table.size(0), k);
      for (int64_t begin = 0; begin < n; begin += step) {
        const int64_t rows = std::min(step, n - begin);
        for (int64_t v = 0; v < held; ++v) {
          for (int64_t j = 0; j < k; ++j) {
            dw(v, j) = store(dw(v, j) + store(dot(
                                            rows, [&](int64_t r) { return dz(begin + r, first + v); }, [&](int64_t r) { return mx(begin + r, j); })));
          }
        }
      }
      CHECK(difference(table.grad(), dw) == "");
    }

    // Composite, where there are primitive ops for it: softmax of the product, minus one at the target.
    if (chunk || shards > 1 || weighted) continue;
    const Tensor logits = linear(x.detach(), w.detach());
    const std::vector<double> p = softmax(logits).to_vector(), losses_of = token_losses(x.detach(), w.detach(), targets).to_vector();
    for (int64_t r = 0; r < n; ++r) {
      if (target[r] < 0) {
        CHECK(losses_of[r] == 0);
        continue;
      }
      // -log p of the target: p itself is stored, a relative error that log makes absolute.
      const double nll = -std::log(p[r * vocab + target[r]]), without_z = losses_of[r];
      CHECK(std::abs(nll - without_z) <= losses[r].e + 2 * rounding().stored() + 64 * rounding().u() * (1 + nll));
    }
  }
}

}  // namespace
}  // namespace heddle
