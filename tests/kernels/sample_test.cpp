// Drawing tokens from logits: every draw against the definition in long double, its frequencies, ties, the ends of each option's range, logits that
// are not finite.
#include "kernels/api/sample.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>
#include <string>
#include <vector>

#include "kernels/api/sample_rules.h"
#include "tests/kernels/kernel_case.h"
#include "tests/support/buffer.h"
#include "tests/support/catch.h"

namespace heddle::kernels {
namespace {

using test::Buffer;
using test::kFloating;

struct Options {
  double temperature = 1;
  int64_t top_k = 0;
  double top_p = 1;
  uint64_t seed = 0;
  int64_t vocab = 0;
};

std::ostream& operator<<(std::ostream& out, const Options& o) {
  return out << "temperature " << o.temperature << " top_k " << o.top_k << " top_p " << o.top_p << " vocab " << o.vocab << " seed " << o.seed;
}

struct Draw {
  Buffer logits, number, text, tokens;
  SampleArgs args;

  // Row b is token `at` of text b.
  Draw(Buffer from, const Options& o, int64_t at)
      : logits(std::move(from)),
        number(DType::i32, {logits.view().size(0)}, {.padding = 1}),
        text(DType::i32, {logits.view().size(0)}, {.padding = 2}),
        tokens(DType::i32, {logits.view().size(0)}),
        args{.logits = logits.view(),
             .draw = number.view(),
             .text = text.view(),
             .tokens = tokens.view(),
             .temperature = o.temperature,
             .top_k = o.top_k,
             .top_p = o.top_p,
             .vocab = o.vocab} {
    args.key.seed = o.seed;
    text.fill([](int64_t row) { return static_cast<double>(row); });
    put(at);
    tokens.poison();
  }
  void put(int64_t at) {
    number.fill([&](int64_t) { return static_cast<double>(at); });
  }
  Draw(const Draw&) = delete;

  std::vector<int32_t> run() {
    test::run(sample, args);
    CHECK(tokens.guards_intact());
    const int32_t* const from = tokens.view().as<const int32_t>();
    return {from, from + tokens.view().numel()};
  }
};

Buffer row_of(const std::vector<double>& logits, DType dtype = DType::f32) {
  Buffer row(dtype, {1, static_cast<int64_t>(logits.size())});
  row.fill([&](int64_t i) { return logits[static_cast<size_t>(i)]; });
  return row;
}
int32_t one(const std::vector<double>& logits, const Options& o, int64_t position) {
  return Draw(row_of(logits), o, position).run()[0];
}

// What may be drawn and how likely each is, the most likely first: the definition, in long double and without shortcuts.
struct Choice {
  int32_t id;
  long double probability;
};
std::vector<Choice> distribution(std::vector<double> logits, const Options& o) {
  if (o.vocab > 0 && o.vocab < static_cast<int64_t>(logits.size())) logits.resize(static_cast<size_t>(o.vocab));
  const long double best = *std::max_element(logits.begin(), logits.end());
  std::vector<Choice> all;
  for (size_t i = 0; i < logits.size(); ++i) all.push_back({static_cast<int32_t>(i), std::exp((logits[i] - best) / o.temperature)});
  std::stable_sort(all.begin(), all.end(),
                   [&](const Choice& a, const Choice& b) { return logits[static_cast<size_t>(a.id)] > logits[static_cast<size_t>(b.id)]; });
  const auto normalise = [&] {
    long double sum = 0;
    for (const Choice& c : all) sum += c.probability;
    for (Choice& c : all) c.probability /= sum;
  };
  if (o.top_k > 0 && static_cast<size_t>(o.top_k) < all.size()) all.resize(static_cast<size_t>(o.top_k));
  normalise();
  long double sum = 0;
  for (size_t i = 0; i < all.size(); ++i) {
    if ((sum += all[i].probability) >= o.top_p) all.resize(i + 1);
  }
  normalise();
  return all;
}

int32_t by_definition(const std::vector<double>& logits, const Options& o, int64_t position, uint64_t text = 0) {
  const RngKey key{.seed = o.seed + text, .purpose = RngPurpose::sample, .name = 0, .stream = static_cast<uint64_t>(position)};
  const long double target = Philox::uniform(Philox::draw(key, 0)[0]);
  const std::vector<Choice> choices = distribution(logits, o);
  long double passed = 0;
  for (const Choice& c : choices) {
    if (target < (passed += c.probability)) return c.id;
  }
  return choices.back().id;
}

std::vector<double> values_of_row(const Buffer& logits, int64_t row) {
  std::vector<double> values;
  const int64_t columns = logits.view().size(1);
  for (int64_t i = 0; i < columns; ++i) values.push_back(test::element(logits.view(), row * columns + i));
  return values;
}

// Normal; with `step`, multiples of it: many are equal, some are -0.
Buffer some_logits(DType dtype, int64_t rows, int64_t columns, uint64_t seed, double step, int64_t padding) {
  Buffer logits(dtype, {rows, columns}, {.padding = padding});
  logits.normal(static_cast<uint32_t>(seed), 0, 2);
  if (step > 0) {
    const std::vector<double> drawn = test::values(logits.view());
    logits.fill([&](int64_t i) { return std::round(drawn[static_cast<size_t>(i)] / step) * step; });
  }
  return logits;
}

}  // namespace

TEST_CASE("sample: every draw is the inverse of the distribution function at the draw of its number and text") {
  uint64_t seed = 0;
  for (const int64_t columns : {1, 2, 3, 7, 30, 31, 33, 64, 257, 500, 1000, 2049}) {
    for (const double temperature : {0.3, 1.0, 40.0}) {
      const DType dtype = kFloating[++seed % std::size(kFloating)];
      constexpr int64_t kTopK[] = {0, 1, 5, 40, 5000};
      constexpr double kTopP[] = {1.0, 0.71, 0.05, 0.97};
      const Options o{.temperature = temperature,
                      .top_k = kTopK[seed % 5],
                      .top_p = kTopP[seed % 4],
                      .seed = seed << 40 | seed,
                      .vocab = seed % 3 ? 0 : columns / 2 + 1};
      const int64_t rows = 1 + static_cast<int64_t>(seed % 3);
      Draw draw(some_logits(dtype, rows, columns, seed, seed % 4 == 1 ? 0.75 : 0, static_cast<int64_t>(seed % 2) * 5), o, 0);
      for (const int64_t position : {0, 77, 2147483647}) {
        INFO(name_of(dtype) << " (" << rows << ", " << columns << ") " << o << " position " << position);
        draw.put(position);
        const std::vector<int32_t> tokens = draw.run();
        for (int64_t row = 0; row < rows; ++row) {
          CAPTURE(row);
          CHECK(tokens[static_cast<size_t>(row)] == by_definition(values_of_row(draw.logits, row), o, position, static_cast<uint64_t>(row)));
        }
      }
    }
  }
}

TEST_CASE("sample: a vocabulary of a GPT-2") {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    const Options o{.temperature = 0.9, .top_k = dtype == DType::f32 ? 0 : 5000, .top_p = 0.95, .seed = 3, .vocab = 50257};
    Draw draw(some_logits(dtype, 1, 50304, 8, 0, 0), o, 4);
    CHECK(draw.run()[0] == by_definition(values_of_row(draw.logits, 0), o, 4));
  }
}

TEST_CASE("sample: a text's token does not depend on what else is drawn, nor on where it lies") {
  const Options o{.temperature = 1.3, .top_k = 30, .top_p = 0.9, .seed = 11};
  Draw together(some_logits(DType::f32, 6, 300, 3, 0, 0), o, 0);
  constexpr int64_t kTexts[] = {4, 0, 4, 2147483647, 7, 1}, kNumbers[] = {3, 5, 4, 0, 2147483647, 5};
  together.text.fill([&](int64_t row) { return static_cast<double>(kTexts[row]); });
  together.number.fill([&](int64_t row) { return static_cast<double>(kNumbers[row]); });
  const std::vector<int32_t> tokens = together.run();
  for (int64_t row = 0; row < 6; ++row) {
    CAPTURE(row);
    const std::vector<double> logits = values_of_row(together.logits, row);
    Options own = o;
    own.seed += static_cast<uint64_t>(kTexts[row]);
    CHECK(tokens[static_cast<size_t>(row)] == one(logits, own, kNumbers[row]));
  }
}

TEST_CASE("sample: equals are taken in the order of their ids, and each as often as the others") {
  // All equal: draw u falls on token floor(u n), exactly.
  for (const int64_t columns : {1, 31, 512, 513, 3000}) {
    for (const int64_t top_k : {int64_t{0}, int64_t{1}, columns / 2 + 1}) {
      for (const double logit : {0.0, -7.25}) {
        const Options o{.temperature = 0.7, .top_k = top_k, .seed = 5};
        Buffer flat(DType::f32, {1, columns});
        flat.fill([&](int64_t i) { return logit == 0 && i % 2 ? -0.0 : logit; });
        Draw draw(std::move(flat), o, 0);
        for (int64_t position = 0; position < 5; ++position) {
          draw.put(position);
          const uint32_t word = Philox::draw({.seed = 5, .purpose = RngPurpose::sample, .stream = static_cast<uint64_t>(position)}, 0)[0] >> 8;
          const int64_t kept = top_k > 0 ? std::min(top_k, columns) : columns;
          CHECK(draw.run()[0] == static_cast<int64_t>(word) * kept >> 24);
        }
      }
    }
  }
  // top_p of equals: as few as reach it.
  std::set<int32_t> seen;
  for (int64_t position = 0; position < 40; ++position) seen.insert(one(std::vector<double>(8, 1.5), {.top_p = 0.5}, position));
  CHECK(seen == std::set<int32_t>{0, 1, 2, 3});
}

TEST_CASE("sample: the last token of a row, behind which nothing is read") {
  for (const size_t vocabulary : {1, 31, 100, 1025}) {
    std::vector<double> logits(vocabulary, 0);
    logits.back() = 90;
    for (int64_t position = 0; position < 4; ++position) CHECK(one(logits, {}, position) == static_cast<int32_t>(vocabulary) - 1);
  }
}

TEST_CASE("sample: another seed draws another text, the same seed the same") {
  const auto text = [&](uint64_t seed) {
    std::vector<int32_t> ids;
    for (int64_t position = 0; position < 16; ++position) ids.push_back(one(std::vector<double>(64, 0.5), {.seed = seed}, position));
    return ids;
  };
  const std::vector<int32_t> once = text(1);
  CHECK(text(1) == once);
  CHECK(text(2) != once);
  CHECK(std::set<int32_t>(once.begin(), once.end()).size() > 8);  // of 64 at 16 positions; one would mean one draw for all
}

TEST_CASE("sample: frequencies are those of the softmax at that temperature, cut by top-k and top-p", "[cpu]") {
  const std::vector<double> logits = {1.0, -0.5, 0.25, 2.0, 0.0, -3.0, 1.5, 1.5};
  constexpr int64_t kDraws = 20000, kRows = 2000;  // rows of one draw are as independent as positions
  for (const Options& o : {Options{.seed = 3}, Options{.temperature = 2.5, .seed = 4}, Options{.top_k = 3, .seed = 5},
                           Options{.temperature = 0.6, .top_p = 0.8, .seed = 6}, Options{.seed = 7, .vocab = 5}}) {
    std::vector<int> counts(logits.size());
    Buffer same(DType::f32, {kRows, 8});
    same.fill([&](int64_t i) { return logits[static_cast<size_t>(i % 8)]; });
    Draw draw(std::move(same), o, 0);
    for (int64_t position = 0; position < kDraws / kRows; ++position) {
      draw.put(position);
      for (const int32_t id : draw.run()) ++counts[static_cast<size_t>(id)];
    }
    std::vector<double> expected(logits.size());
    for (const Choice& c : distribution(logits, o)) expected[static_cast<size_t>(c.id)] = static_cast<double>(c.probability);
    for (size_t id = 0; id < logits.size(); ++id) {
      CAPTURE(o.temperature, o.top_k, o.top_p, id, counts[id], expected[id] * kDraws);
      // A count is binomial: beyond six standard deviations once in 10^9.
      const double deviation = std::sqrt(kDraws * expected[id] * (1 - expected[id]));
      CHECK(std::abs(counts[id] - kDraws * expected[id]) <= 6 * deviation);  // never, where the probability is 0
    }
  }
}

TEST_CASE("sample: temperature 0 and next to it, top-k 1 and a small top-p take the most likely token, the first of equals") {
  const std::vector<double> logits = {0.5, 3.0, -1.0, 3.0, 2.5}, far = {-3e38, 3e38, 0.0, 3e38, -1e-40};
  for (const Options& o : {Options{.temperature = 0}, Options{.top_k = 1}, Options{.temperature = 9, .top_p = 1e-9}, Options{.top_p = 0}}) {
    for (int64_t position = 0; position < 5; ++position) {
      CHECK(one(logits, o, position) == 1);
      CHECK(one(far, o, position) == 1);
    }
  }
  std::set<int32_t> cold, hot;
  for (int64_t position = 0; position < 40; ++position) {
    cold.insert(one(logits, {.temperature = 5e-324}, position));
    hot.insert(one(logits, {.temperature = 1e300}, position));
  }
  CHECK(cold == std::set<int32_t>{1, 3});
  CHECK(hot == std::set<int32_t>{0, 1, 2, 3, 4});
}

TEST_CASE("sample: ids that pad the vocabulary are never chosen, however likely the model finds them") {
  std::vector<double> logits = values_of_row(some_logits(DType::f32, 1, 40, 1, 0, 0), 0);
  for (size_t id = 30; id < logits.size(); ++id) logits[id] = 50;
  for (const Options& o :
       {Options{.temperature = 0, .vocab = 30}, Options{.top_k = 35, .vocab = 30}, Options{.temperature = 1e3, .top_p = 0.9, .vocab = 30}}) {
    for (int64_t position = 0; position < 12; ++position) CHECK(one(logits, o, position) < 30);
  }
  CHECK(one(logits, {.temperature = 0}, 0) == 30);
  CHECK(one(logits, {.temperature = 0, .vocab = 99}, 0) == 30);  // a vocabulary smaller than the tokenizer's has no padding
}

TEST_CASE("sample: a logit that is not finite, wherever it stands, takes its row's token; other rows have theirs") {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  for (const double bad : {std::nan(""), kInfinity, -kInfinity}) {
    for (const int64_t id : {0, 1, 17, 30, 38}) {
      for (const Options& o : {Options{}, Options{.temperature = 0}, Options{.top_k = 3}, Options{.top_p = 0.5, .vocab = 30}}) {
        for (const DType dtype : {DType::f32, DType::bf16}) {
          Draw draw(some_logits(dtype, 3, 40, 2, 0, 0), o, 6);
          draw.logits.put(40 + id, bad);
          draw.logits.put(79, -bad);
          const std::vector<int32_t> tokens = draw.run();
          CHECK(tokens[1] == -1 - id);
          if (o.temperature == 0) continue;
          for (const size_t row : {0, 2}) CHECK(tokens[row] == by_definition(values_of_row(draw.logits, static_cast<int64_t>(row)), o, 6, row));
        }
      }
    }
  }
}

TEST_CASE("sample: the same tokens in any order of threads") {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    CHECK(test::same_on_any_thread_count(
        [&] { return Draw(some_logits(dtype, 4, 1500, 3, 0.5, 3), {.top_k = 300, .top_p = 0.9, .seed = 1}, 2).run(); }));
  }
}

TEST_CASE("sample: weights are the exponential's nearest whole numbers, their sums and shares exact") {
  for (const int64_t ids : {int64_t{1}, int64_t{50257}, int64_t{1} << 30}) {
    const SampleRules rules = SampleRules::of(1, ids);
    const long double unit = std::ldexp(1.0L, rules.bits);
    CHECK(rules.bits >= 31);
    CHECK(unit * static_cast<long double>(ids) < std::ldexp(1.0L, 62));
    CHECK(rules.weight(3, 3) == uint64_t{1} << rules.bits);
    for (int i = 0; i < 4000; ++i) {
      const double z = -i * 0.0173;
      // Half a unit of rounding, and 2^-52 of the value from the arithmetic.
      const long double want = std::exp(static_cast<long double>(z)) * unit;
      CHECK(std::abs(static_cast<long double>(rules.weight(z, 0)) - want) <= 0.5L + std::ldexp(want, -52));
    }
    CHECK(rules.weight(-std::numeric_limits<double>::max(), std::numeric_limits<double>::max()) == 0);
  }
  CHECK(SampleRules::kept(1000, 0) == 1);
  CHECK(SampleRules::kept(1000, -1) == 1);
  CHECK(SampleRules::kept(1000, 0.5) == 500);
  CHECK(SampleRules::kept(1001, 0.5) == 501);
  CHECK(SampleRules::kept(1000, 1) == 1000);
  CHECK(SampleRules::kept(1000, 7) == 1000);
  CHECK(SampleRules::kept((uint64_t{1} << 62) - 1, 1 - 0x1p-53) <= (uint64_t{1} << 62) - 1);
  for (const uint64_t sum : {uint64_t{1}, uint64_t{16777217}, (uint64_t{1} << 62) - 1}) {
    CHECK(SampleRules::drawn(sum, 0) == 0);
    CHECK(SampleRules::drawn(sum, 0xFFFFFFFFu) < sum);
    CHECK(SampleRules::drawn(sum, 0x80000000u) == sum / 2);
  }
}

TEST_CASE("sample: arguments that contradict the contract are refused in words") {
  test::register_kernels();
  const auto refused = [](const std::function<void(SampleArgs&)>& change, const std::string& text) {
    Draw draw(some_logits(DType::f32, 2, 9, 1, 0, 0), {}, 0);
    change(draw.args);
    CHECK_THROWS_WITH(sample.choose(test::kDevice, draw.args), Catch::Matchers::Contains(text));
  };
  refused([](SampleArgs& a) { a.logits.rank = 3; }, "must be (B, V)");
  refused([](SampleArgs& a) { a.logits.shape[1] = 0; }, "of no token");
  refused([](SampleArgs& a) { a.logits.dtype = DType::i32; }, "logits i32 (2, 9)");
  refused([](SampleArgs& a) { a.tokens.shape[0] = 3; }, "tokens i32 (3) must have shape (2)");
  refused([](SampleArgs& a) { a.draw.dtype = DType::f32; }, "draw f32 (2) must be i32");
  refused([](SampleArgs& a) { a.text.shape[0] = 1; }, "text i32 (1) must have shape (2)");
  refused([](SampleArgs& a) { a.temperature = -1; }, "temperature is -1");
  refused([](SampleArgs& a) { a.temperature = std::nan(""); }, "temperature is nan");
  refused([](SampleArgs& a) { a.vocab = -2; }, "vocab is -2");
  Draw empty(Buffer(DType::f32, {0, 9}), {}, 0);
  CHECK(empty.run().empty());
}

}  // namespace heddle::kernels
