// Sampling: see kernels/api/sample.h.
#include "kernels/api/sample.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <span>
#include <vector>

#include "kernels/api/sample_rules.h"

namespace heddle::kernels::cpu {
namespace {

void read_row(const View& logits, int64_t row, std::span<double> to) {
  const auto read = [&](const auto* from) {
    for (size_t id = 0; id < to.size(); ++id) to[id] = static_cast<double>(static_cast<float>(from[id]));
  };
  const int64_t at = row * logits.step(0);
  if (logits.dtype == DType::f64) {
    std::copy_n(logits.as<const double>() + at, to.size(), to.begin());
  } else {
    logits.dtype == DType::f32 ? read(logits.as<const float>() + at) : read(logits.as<const bf16>() + at);
  }
}

// `word`: what the row's draw is made from.
int32_t choose(std::span<const double> logits, const SampleArgs& args, uint32_t word) {
  const auto best = static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
  if (args.temperature == 0) return best;
  std::vector<int32_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  const auto logit = [&](int32_t id) { return logits[static_cast<size_t>(id)]; };
  const auto more_likely = [&](int32_t a, int32_t b) {  // ties by id, so the order is total
    return logit(a) != logit(b) ? logit(a) > logit(b) : a < b;
  };
  size_t kept = order.size();
  if (args.top_k > 0) kept = std::min(kept, static_cast<size_t>(args.top_k));
  std::partial_sort(order.begin(), order.begin() + static_cast<ptrdiff_t>(kept), order.end(), more_likely);
  const SampleRules rules = SampleRules::of(args.temperature, static_cast<int64_t>(logits.size()));
  std::vector<uint64_t> sums(kept);  // running
  uint64_t sum = 0;
  for (size_t i = 0; i < kept; ++i) sums[i] = sum += rules.weight(logit(order[i]), logit(best));
  const uint64_t cut = *std::lower_bound(sums.begin(), sums.end(), SampleRules::kept(sum, args.top_p));
  return order[static_cast<size_t>(std::upper_bound(sums.begin(), sums.end(), SampleRules::drawn(cut, word)) - sums.begin())];
}

}  // namespace

Refusal refuses(const SampleArgs& args) {
  return contradiction(args);
}
void run(const SampleArgs& args, Stream) {
  std::vector<double> logits(static_cast<size_t>(args.logits.size(1)));
  const size_t known = args.vocab > 0 ? std::min(logits.size(), static_cast<size_t>(args.vocab)) : logits.size();
  const auto of_row = [](const View& v, int64_t row) { return static_cast<uint64_t>(v.as<const int32_t>()[row * v.step(0)]); };
  for (int64_t row = 0; row < args.logits.size(0); ++row) {
    read_row(args.logits, row, logits);
    int32_t& token = args.tokens.as<int32_t>()[row];
    // A NaN compares with nothing: no order would hold.
    RngKey key = args.key;
    key.seed += of_row(args.text, row);
    key.stream = of_row(args.draw, row);
    const auto bad = std::find_if(logits.begin(), logits.end(), [](double x) { return !std::isfinite(x); });
    token = bad != logits.end() ? static_cast<int32_t>(-1 - (bad - logits.begin()))
                                : choose(std::span(logits).first(known), args, Philox::draw(key, 0)[0]);
  }
}

}  // namespace heddle::kernels::cpu
