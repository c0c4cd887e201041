// Softmax cross entropy in its two phases, of one shard and of several, against float64.
#include "kernels/api/cross_entropy.h"

#include <limits>

#include "tests/kernels/kernel_case.h"
#include "tests/oracles/cross_entropy.h"

namespace heddle::kernels {
namespace {

using test::Bound;
using test::Buffer;
using test::kFloating;
using test::run;

constexpr double kInf = std::numeric_limits<double>::infinity();

Buffer make_targets(int64_t n, int64_t v, int32_t ignore_index) {
  Buffer targets(DType::i32, {n});
  return targets.fill([&](int64_t i) { return static_cast<double>(i % 5 == 3 ? ignore_index : (7 * i + 2) % v); });
}
Buffer make_weights(int64_t n) {
  Buffer weights(DType::f32, {n});
  return weights.fill([](int64_t i) { return i == 2 ? 0 : 1.75 - 0.6 * static_cast<double>(i); });
}

// What an operand's rounded exponent, the exp itself (2 ulp), its sum and the factors after it add up to.
double terms_of(int64_t v) {
  return static_cast<double>(v) + 16;
}

// Exponentials below 2^-126 may be 0 on a GPU; what stands before them here stays below 2^11.
std::vector<double> bounds_of(const oracle::Values& values, const Bound& bound) {
  std::vector<double> bounds;
  for (size_t i = 0; i < values.want.size(); ++i) {
    const double want = values.want[i];
    bounds.push_back(bound(want, values.magnitude[i]));
    if (test::kDevice == DeviceType::cuda && std::abs(want) < 0x1p-115) bounds.back() = std::max(bounds.back(), std::abs(want));
  }
  return bounds;
}

View row_stats(const View& stats) {  // (1, N, 3) as (N, 3)
  View v = stats;
  v.rank = 2;
  for (size_t axis : {0, 1}) v.shape[axis] = stats.shape[axis + 1], v.stride[axis] = stats.stride[axis + 1];
  return v;
}

// Both phases of a shard that is the whole vocabulary.
void run_both(CrossEntropyArgs args) {
  const Buffer stats(args.losses.dtype, {1, args.losses.size(0), 3});
  run(cross_entropy_stats,
      CrossEntropyStatsArgs{
          .logits = args.logits, .targets = args.targets, .stats = row_stats(stats.view()), .ignore_index = args.ignore_index, .shard = args.shard});
  args.stats = stats.view();
  run(cross_entropy, args);
}
CrossEntropyArgs args_of(const Buffer& logits, const Buffer& targets, const Buffer& losses, bool write_gradient) {
  return {.logits = logits.view(), .targets = targets.view(), .losses = losses.view(), .write_gradient = write_gradient};
}

TEST_CASE("cross entropy: loss, nll and gradient, dtypes, vocabularies, z-loss, weights, ignored rows", "[cross_entropy]") {
  StepState step;
  step.loss_scale = 0.125f;
  int variant = 0;
  for (DType dtype : kFloating) {
    for (const auto& [n, v] : std::vector<std::pair<int64_t, int64_t>>{{1, 1}, {6, 2}, {9, 65}, {4, 1024}, {5, 2051}, {2, 20011}}) {
      for (double spread : {1.0, 30.0, 1e4}) {
        for (float z_loss : {0.0f, 1e-2f}) {
          for (int options = 0; options < 4; ++options) {
            ++variant;
            const bool aligned = options & 1, write_gradient = options > 1;  // aligned: rows begin at multiples of 16 bytes
            const int32_t ignore_index = variant % 2 ? -1 : -100;
            Buffer logits(dtype, {n, v}, aligned ? test::BufferOptions{.padding = (8 - v % 8) % 8} : test::BufferOptions{.padding = 3, .offset = 1}),
                losses(accumulator_of(dtype), {n}), nll = losses;
            logits.normal(static_cast<uint32_t>(variant), 5, spread);
            const Buffer targets = make_targets(n, v, ignore_index), before = logits, weights = make_weights(n);
            CrossEntropyArgs args = args_of(logits, targets, losses, write_gradient);
            args.nll = nll.view(), args.ignore_index = ignore_index, args.z_loss = z_loss, args.scale = 0.5f;
            if (variant % 3) args.step = &step;
            if (variant % 4 > 1) args.weights = weights.view();
            const oracle::CrossEntropyResult want = oracle::cross_entropy(args);
            run_both(args);
            INFO(shape_text(logits.view()) << " z " << z_loss << " spread " << spread << (args.weights ? " weighted" : ""));
            const Bound sums{accumulator_of(dtype), terms_of(v)};
            CHECK_CLOSE(losses.view(), want.losses.want, want.losses.magnitude, sums);
            CHECK_CLOSE(nll.view(), want.nll.want, want.nll.magnitude, sums);
            if (write_gradient) {
              CHECK_CLOSE(logits.view(), want.gradient.want, bounds_of(want.gradient, Bound{dtype, terms_of(v)}));
              CHECK(logits.guards_intact());
            } else {
              CHECK(logits == before);
            }
            CHECK((losses.guards_intact() && nll.guards_intact()));
          }
        }
      }
    }
  }
}

// A vocabulary dealt over shards in equal pieces; what the last ones have too much stays full of NaN until a gradient is written there.
struct Shards {
  Shards(const Buffer& whole, int count) {
    const int64_t n = whole.view().size(0), v = whole.view().size(1), piece = (v + count - 1) / count;
    for (int s = 0; s < count; ++s) {
      shard.push_back({.first = s * piece, .vocabulary = v});
      logits.emplace_back(whole.view().dtype, std::vector<int64_t>{n, piece}, test::BufferOptions{.padding = 2});
      for (int64_t i = 0; i < n; ++i) {
        for (int64_t c = 0; c < shard.back().held(piece); ++c) {
          logits.back().put(i * piece + c, test::element(whole.view(), i * v + shard.back().first + c));
        }
      }
    }
  }
  std::vector<VocabShard> shard;
  std::vector<Buffer> logits;
};

TEST_CASE("cross entropy: a vocabulary in shards, ragged and empty ones, gives the whole one's loss and gradient", "[cross_entropy]") {
  for (DType dtype : kFloating) {
    const DType sum_type = accumulator_of(dtype);
    for (const int64_t v : {1, 2, 5, 65, 2051}) {
      for (const int count : {1, 2, 3, 4}) {
        for (const double spread : {2.0, 1e4}) {
          INFO(name_of(dtype) << ", " << v << " tokens over " << count << ", spread " << spread);
          const int64_t n = 7;
          Buffer whole(dtype, {n, v});
          whole.normal(static_cast<uint32_t>(v + count), -3, spread);
          const Buffer targets = make_targets(n, v, -1), weights = make_weights(n);
          CrossEntropyArgs args{.targets = targets.view(), .z_loss = 1e-3f, .scale = 0.5f, .write_gradient = true, .weights = weights.view()};
          args.logits = whole.view();
          const oracle::CrossEntropyResult want = oracle::cross_entropy(args);

          Shards shards(whole, count);
          Buffer stats(sum_type, {count, n, 3}, {.padding = 1});  // as an all-gather leaves them
          for (int s = 0; s < count; ++s) {
            const Buffer& logits = shards.logits[static_cast<size_t>(s)];
            const VocabShard& shard = shards.shard[static_cast<size_t>(s)];
            View mine = row_stats(stats.view());
            mine.data += s * stats.view().stride[0] * size_of(sum_type);
            run(cross_entropy_stats, CrossEntropyStatsArgs{.logits = logits.view(), .targets = targets.view(), .stats = mine, .shard = shard});
            for (int64_t i = 0; i < n; ++i) {
              const int64_t target = static_cast<int64_t>(test::element(targets.view(), i)), row = shard.row(target, logits.view().size(1));
              std::vector<double> x = oracle::row_of(logits.view(), i);
              x.resize(static_cast<size_t>(target < 0 ? 0 : shard.held(logits.view().size(1))));
              const oracle::SoftmaxRow softmax = oracle::softmax(x);
              double distances = 0;
              for (const double value : x) distances += std::exp(value - softmax.max) * (1 + softmax.max - value);
              CHECK(test::element(mine, 3 * i) == softmax.max);
              CHECK(std::abs(test::element(mine, 3 * i + 1) - softmax.sum) <= Bound{sum_type, terms_of(v)}(softmax.sum, x.empty() ? 0 : distances));
              CHECK(test::element(mine, 3 * i + 2) == (target < 0 || row < 0 ? -kInf : x[static_cast<size_t>(row)]));
            }
          }
          CHECK(stats.guards_intact());
          const double terms = terms_of(v) + 4 * count;  // joining rounds an exponent, an exp, a product and a sum
          std::vector<Buffer> losses;
          for (int s = 0; s < count; ++s) {
            const Buffer& logits = shards.logits[static_cast<size_t>(s)];
            losses.emplace_back(sum_type, std::vector<int64_t>{n});
            const Buffer nll(sum_type, {n});
            args.logits = logits.view(), args.stats = stats.view(), args.losses = losses.back().view(), args.nll = nll.view();
            args.shard = shards.shard[static_cast<size_t>(s)];
            run(cross_entropy, args);
            CHECK(losses.back() == losses[0]);  // the same bits on every rank
            CHECK_CLOSE(args.losses, want.losses.want, want.losses.magnitude, Bound{sum_type, terms});
            CHECK_CLOSE(args.nll, want.nll.want, want.nll.magnitude, Bound{sum_type, terms});
            const int64_t piece = logits.view().size(1), held = args.shard.held(piece);
            std::vector<double> gradient, magnitude;
            for (int64_t i = 0; i < n * piece; ++i) {
              const size_t from = static_cast<size_t>(i / piece * v + args.shard.first + i % piece);
              gradient.push_back(i % piece < held ? want.gradient.want[from] : 0);
              magnitude.push_back(i % piece < held ? want.gradient.magnitude[from] : 0);
            }
            CHECK_CLOSE(logits.view(), gradient, magnitude, Bound{dtype, terms});
            for (int64_t i = 0; i < n * piece; ++i) CHECK((i % piece < held || test::element(logits.view(), i) == 0));
            CHECK(logits.guards_intact());
          }
        }
      }
    }
  }
}

TEST_CASE("cross entropy: of no rows, nothing", "[cross_entropy]") {
  const Buffer logits(DType::f32, {0, 5}), targets(DType::i32, {0}), losses(DType::f32, {0});
  for (bool write_gradient : {false, true}) run_both(args_of(logits, targets, losses, write_gradient));
  CHECK((logits.guards_intact() && losses.guards_intact()));
}

TEST_CASE("cross entropy: joining what shards know is exact where one knows nothing, and loses no NaN", "[cross_entropy]") {
  const auto joined = [](RowStats<double> a, const RowStats<double>& b) {
    a.join(b);
    return std::vector<double>{a.max, a.sum, a.target};
  };
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const RowStats<double> nothing{-kInf, 0, -kInf}, some{-1e4, 1.0 / 3, -1.25e4};
  CHECK(joined(nothing, nothing) == std::vector<double>{-kInf, 0, -kInf});
  CHECK(joined(nothing, some) == std::vector<double>{-1e4, 1.0 / 3, -1.25e4});
  CHECK(joined(some, nothing) == std::vector<double>{-1e4, 1.0 / 3, -1.25e4});
  CHECK(joined({2, 3, -kInf}, {2, 4, 1}) == std::vector<double>{2, 7, 1});
  CHECK(joined({1e4, 3, 7}, {-1e4, 4, -kInf}) == std::vector<double>{1e4, 3, 7});
  CHECK(joined({-1e4, 4, -kInf}, {1e4, 3, 7}) == std::vector<double>{1e4, 3, 7});
  CHECK(std::abs(joined({0, 2, 0}, {1, 3, -kInf})[1] - (2 * std::exp(-1.0) + 3)) <= 0x1p-50);
  for (const RowStats<double>& bad : {RowStats<double>{-kInf, nan, -kInf}, {3, nan, 1}, {kInf, nan, -kInf}}) {
    for (const RowStats<double>& other : {nothing, some, RowStats<double>{1e4, 1, 0}, {kInf, 1, 0}}) {
      CHECK(std::isnan(joined(bad, other)[1]));
      CHECK(std::isnan(joined(other, bad)[1]));
    }
  }
}

TEST_CASE("cross entropy: the gradient is that of the weighted loss, by central differences in f64", "[cross_entropy][cpu]") {
  const int64_t n = 2, v = 6;
  const int32_t targets[] = {4, 0};
  const float weights[] = {2.5f, -0.75f};
  Buffer logits(DType::f64, {n, v}), losses(DType::f64, {n});
  logits.normal(1, 0, 2);
  CrossEntropyArgs args{
      .logits = logits.view(), .targets = make_view(targets, {n}), .losses = losses.view(), .z_loss = 0.05f, .weights = make_view(weights, {n})};
  const auto total = [&] {
    run_both(args);
    return test::element(losses.view(), 0) + test::element(losses.view(), 1);
  };
  std::vector<double> slopes;
  for (int64_t i = 0; i < n * v; ++i) {
    const double at = test::element(logits.view(), i), h = 1e-5;
    logits.put(i, at + h);
    const double above = total();
    logits.put(i, at - h);
    slopes.push_back((above - total()) / (2 * h));
    logits.put(i, at);
  }
  args.write_gradient = true;
  run_both(args);
  for (int64_t i = 0; i < n * v; ++i) CHECK(std::abs(test::element(logits.view(), i) - slopes[static_cast<size_t>(i)]) < 1e-8);
}

TEST_CASE("cross entropy: weights of one have the bits of none, a weight of two doubles them", "[cross_entropy]") {
  for (DType dtype : kFloating) {
    const int64_t n = 9, v = 70;
    const Buffer targets = make_targets(n, v, -1);
    Buffer start(dtype, {n, v}), weights(DType::f32, {n});
    start.normal(3, 0, 3);
    const auto outcome = [&](double weight) {
      Buffer logits = start, losses(accumulator_of(dtype), {n}), nll = losses;
      CrossEntropyArgs args = args_of(logits, targets, losses, true);
      args.nll = nll.view(), args.z_loss = 1e-3f;
      weights.fill([&](int64_t) { return weight; });
      if (weight != 0) args.weights = weights.view();
      run_both(args);
      return std::vector{logits, losses, nll};
    };
    const std::vector<Buffer> none = outcome(0), twice = outcome(2);
    CHECK(none == outcome(1));
    for (size_t k = 0; k < none.size(); ++k) {
      for (int64_t i = 0; i < none[k].view().numel(); ++i) CHECK(test::element(twice[k].view(), i) == 2 * test::element(none[k].view(), i));
    }
  }
}

TEST_CASE("cross entropy: masked entries, overflow and NaN", "[cross_entropy]") {
  constexpr float inf = std::numeric_limits<float>::infinity();
  const int64_t v = 2100;  // masked entries fill whole chunks
  const auto loss_of = [&](std::vector<float>& row, int32_t target) {
    float loss = 0;
    run_both({.logits = make_view(row.data(), {1, v}), .targets = make_view(&target, {1}), .losses = make_view(&loss, {1}), .write_gradient = true});
    return loss;
  };
  std::vector<float> row(static_cast<size_t>(v), -inf);
  row[2000] = 3e38f;
  row[2001] = 3e38f;
  CHECK(std::abs(loss_of(row, 2001) - std::log(2.0f)) < 1e-6f);
  CHECK(row[0] == 0);
  CHECK(row[2000] == 0.5f);
  CHECK(row[2001] == -0.5f);
  for (size_t place : {size_t{0}, size_t{1030}, size_t{2099}}) {
    std::vector<float> bad(static_cast<size_t>(v), 1.0f);
    bad[place] = std::numeric_limits<float>::quiet_NaN();
    CHECK(std::isnan(loss_of(bad, 5)));
    std::vector<float> alone(static_cast<size_t>(v), -inf);
    alone[place] = std::numeric_limits<float>::quiet_NaN();
    CHECK(std::isnan(loss_of(alone, 5)));
  }
}

TEST_CASE("cross entropy: more rows than the blocks of a GPU take at once", "[cross_entropy]") {
  for (DType dtype : kFloating) {
    const int64_t n = 9000, v = 3;
    Buffer logits(dtype, {n, v}), losses(accumulator_of(dtype), {n});
    logits.normal(1, 0, 3);
    const Buffer targets = make_targets(n, v, -1);
    const CrossEntropyArgs args = args_of(logits, targets, losses, true);
    const oracle::CrossEntropyResult want = oracle::cross_entropy(args);
    run_both(args);
    CHECK_CLOSE(losses.view(), want.losses.want, want.losses.magnitude, Bound{accumulator_of(dtype), terms_of(v)});
    CHECK_CLOSE(logits.view(), want.gradient.want, want.gradient.magnitude, Bound{dtype, terms_of(v)});
  }
}

TEST_CASE("cross entropy: bits do not depend on where rows begin", "[cross_entropy]") {
  for (DType dtype : kFloating) {
    for (const int64_t v : {70, 3001}) {
      const int64_t n = 5;
      std::vector<std::vector<double>> outcomes;
      for (const test::BufferOptions& options : {test::BufferOptions{.padding = (8 - v % 8) % 8}, {.padding = 3, .offset = 1}}) {
        const Buffer targets = make_targets(n, v, -1);
        Buffer logits(dtype, {n, v}, options), losses(accumulator_of(dtype), {n});
        logits.normal(1, 0, 3);
        run_both(args_of(logits, targets, losses, true));
        outcomes.push_back(test::values(logits.view()));
        for (double loss : test::values(losses.view())) outcomes.back().push_back(loss);
      }
      CHECK(outcomes[0] == outcomes[1]);
    }
  }
}

TEST_CASE("cross entropy: bits do not depend on the number of threads", "[cross_entropy]") {
  for (const auto& [n, v] : std::vector<std::pair<int64_t, int64_t>>{{700, 65}, {11, 5003}}) {
    const Buffer targets = make_targets(n, v, -1);
    Buffer start(DType::f32, {n, v});
    start.normal(1, 0, 3);
    CHECK(test::same_on_any_thread_count([&, n = n] {
      Buffer logits = start, losses(DType::f32, {n});
      CrossEntropyArgs args = args_of(logits, targets, losses, true);
      args.z_loss = 1e-4f;
      run_both(args);
      return std::vector{logits, losses};
    }));
  }
}

TEST_CASE("cross entropy: a bad target is an Error that names the row, and nothing is written on a CPU", "[cross_entropy]") {
  Buffer logits(DType::f32, {4, 9}), stats(DType::f32, {4, 3});
  logits.normal(1);
  const Buffer before = stats;
  // Of a shard only what is outside the whole vocabulary is bad: not what another one holds, but what its own padding would be.
  for (const auto& [shard, vocabulary] : std::vector<std::pair<VocabShard, int32_t>>{{{}, 9}, {{9, 18}, 18}, {{9, 14}, 14}, {{18, 15}, 15}}) {
    for (int32_t bad : {vocabulary, -2}) {
      const int32_t targets[] = {0, -1, vocabulary - 1, bad};
      const CrossEntropyStatsArgs args{.logits = logits.view(), .targets = make_view(targets, {4}), .stats = stats.view(), .shard = shard};
      CHECK(test::contains(test::error_of(cross_entropy_stats, args), concat("targets[3] = ", bad, ", V = ", vocabulary)));
      if (test::kDevice == DeviceType::cpu) CHECK(stats == before);
    }
  }
}

TEST_CASE("cross entropy: arguments that contradict the contract are refused by name", "[cross_entropy]") {
  const Buffer logits(DType::f32, {4, 9}), targets = make_targets(4, 9, -1), losses(DType::f32, {4}), wide(DType::f64, {4}),
                                           stats(DType::f32, {1, 4, 3}), few(DType::f32, {2, 3, 3});
  const auto first = [&](CrossEntropyStatsArgs args) { return test::error_of(cross_entropy_stats, args); };
  CHECK(test::contains(first({logits.view(), losses.view(), row_stats(stats.view())}), "targets f32 (4) must be i32"));
  CHECK(test::contains(first({logits.view(), targets.view(), losses.view()}), "stats f32 (4) must have shape (4, 3)"));
  CHECK(test::contains(first({logits.view(), targets.view(), row_stats(stats.view()), -1, {.first = -1}}), "begins at -1"));
  const auto second = [&](const View& stats_view, const View& weights, const View& to) {
    CrossEntropyArgs args = args_of(logits, targets, losses, true);
    args.stats = stats_view, args.weights = weights, args.losses = to;
    return test::error_of(cross_entropy, args);
  };
  CHECK(test::contains(second({}, {}, losses.view()), "stats is absent"));
  CHECK(test::contains(second(few.view(), {}, losses.view()), "stats f32 (2, 3, 3) must have shape (2, 4, 3)"));
  CHECK(test::contains(second(stats.view(), wide.view(), losses.view()), "weights f64 (4) must be f32"));
  CHECK(test::contains(second(stats.view(), {}, wide.view()), "losses f64 (4) of logits f32 (4, 9)"));
}

}  // namespace
}  // namespace heddle::kernels
