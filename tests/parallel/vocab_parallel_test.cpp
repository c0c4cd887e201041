// A vocabulary dealt over tensor-parallel ranks against the whole one, without collectives: what the ranks hold, embed and lose adds up.
#include "parallel/vocab_parallel.h"

#include <cmath>
#include <cstring>
#include <memory>

#include "core/arena.h"
#include "core/autograd/engine.h"
#include "core/autograd/node.h"
#include "kernels/api/check.h"
#include "kernels/api/kernel.h"
#include "tests/support/gradcheck.h"
#include "tests/support/stats_exchange.h"
#include "tests/support/tensors.h"

namespace heddle {
namespace {

using Catch::Matchers::Contains;

constexpr int64_t kDim = 6, kPositions = 5;

// Embedding, positions and head of one rank, with memory.
class Ends final : public Module {
 public:
  Ends(int64_t vocab, bool tied, const MeshShape& mesh, DType dtype)
      : tok({.vocab = vocab, .dim = kDim, .init_std = 0.5f}, mesh),
        head(tied ? VocabParallelHead(tok) : VocabParallelHead({.vocab = vocab, .dim = kDim, .init_std = 0.5f}, mesh)) {
    begin_bucket("embedding");
    add("tok", tok);
    pos = add("pos.weight", {.kind = ParamKind::embedding, .parts = {{.global = {kPositions, kDim}}}, .init_std = 0.5f});
    begin_bucket("head");
    add("head", head);
    kernels::register_cpu_kernels();
    const Layout layout(*this, mesh);
    arena = std::make_unique<Arena>(*this, layout, Device{}, dtype);
    arena->init(7);
  }
  VocabParallelEmbedding tok;
  VocabParallelHead head;
  Parameter pos;
  std::unique_ptr<Arena> arena;
};

struct Case {
  int64_t vocab;
  int tp;
};
// Ragged ones, one token, fewer tokens than ranks.
const Case kCases[] = {{1, 1}, {7, 1}, {1, 2}, {8, 2}, {7, 2}, {7, 3}, {10, 3}, {64, 4}, {65, 4}, {5, 4}, {2, 4}};

std::vector<std::unique_ptr<Ends>> ranks_of(const Case& c, bool tied, DType dtype) {
  std::vector<std::unique_ptr<Ends>> ranks;
  for (int rank = 0; rank < c.tp; ++rank) ranks.push_back(std::make_unique<Ends>(c.vocab, tied, MeshShape{.tp = c.tp, .tp_rank = rank}, dtype));
  return ranks;
}

// The rank's rows of a whole (vocab, kDim) table, zeros where its memory is padding.
std::vector<double> rows_of_rank(const Tensor& whole, const VocabRows& rows) {
  const std::vector<double> all = whole.to_vector();
  std::vector<double> mine(static_cast<size_t>(rows.memory() * kDim), 0.0);
  for (int64_t i = 0; i < rows.held() * kDim; ++i) mine[static_cast<size_t>(i)] = all[static_cast<size_t>(rows.shard().first * kDim + i)];
  return mine;
}

Tensor tokens_of(int64_t vocab, int64_t b, int64_t t, int stride) {
  std::vector<int32_t> values;
  for (int64_t i = 0; i < b * t; ++i) values.push_back(static_cast<int32_t>((i * i + stride * i + 1) % vocab));
  return test::ints(values, {b, t});
}

TEST_CASE("rows are dealt in equal pieces in order: the boxes tile the table, ranks have one layout, padding is in no box") {
  for (const Case& c : kCases) {
    for (const bool tied : {false, true}) {
      CAPTURE(c.vocab, c.tp, tied);
      const auto ranks = ranks_of(c, tied, DType::f32);
      const Layout& first = ranks[0]->arena->layout();
      int64_t held = 0, counted = 0;
      std::vector<Box> boxes;
      for (const auto& rank : ranks) {
        const VocabRows& rows = rank->tok.rows();
        CHECK(rows.memory() == (c.vocab + c.tp - 1) / c.tp);
        CHECK(rank->tok.weight().tensor().shape() == Shape{rows.memory(), kDim});
        CHECK(rank->tok.weight().spec().padding == rows.memory() - rows.held());
        CHECK(rank->head.rows().shard().first == rows.shard().first);
        boxes.push_back(rank->tok.weight().parts()[0].box);
        CHECK(boxes.back() == Box{{held, held + rows.held()}, {0, kDim}});
        held += rows.held();
        counted += rank->parameter_count() - kPositions * kDim;
        const Layout& layout = rank->arena->layout();
        REQUIRE(layout.slots().size() == first.slots().size());
        CHECK(layout.size() == first.size());
        for (size_t i = 0; i < first.slots().size(); ++i) {
          CHECK(layout.slots()[i].name == first.slots()[i].name);
          CHECK(layout.slots()[i].range == first.slots()[i].range);
          CHECK(layout.slots()[i].spec.parts[0].global == first.slots()[i].spec.parts[0].global);
        }
        for (size_t i = 0; i < first.buckets().size(); ++i) CHECK(layout.buckets()[i].range == first.buckets()[i].range);
      }
      CHECK(held == c.vocab);
      CHECK(counted == c.vocab * kDim * (tied ? 1 : 2));
      std::vector<const Box*> pointers;
      for (const Box& box : boxes) pointers.push_back(&box);
      CHECK(tiles_exactly(std::vector<int64_t>{c.vocab, kDim}, pointers));
      std::vector<std::string> names;
      for (const Parameter& p : ranks[0]->parameters()) names.push_back(p.name());
      CHECK(names ==
            (tied ? std::vector<std::string>{"tok.weight", "pos.weight"} : std::vector<std::string>{"tok.weight", "pos.weight", "head.weight"}));
      CHECK(ranks[0]->head.weight().same(ranks[0]->tok.weight()) == tied);
      CHECK(ranks[0]->head.parameters().size() == 1);
    }
  }
  CHECK_THROWS_WITH(VocabRows(0, {}), Contains("0 tokens"));
  CHECK_THROWS_WITH(VocabRows(5, {.tp = 2, .tp_rank = 2}), Contains("rank 2 of 2"));
}

TEST_CASE("the ranks' initial values are their rows of the whole table's, and padding is zero") {
  for (const Case& c : kCases) {
    CAPTURE(c.vocab, c.tp);
    const Ends whole(c.vocab, false, {}, DType::f32);
    for (const auto& rank : ranks_of(c, false, DType::f32)) {
      CHECK(rank->tok.weight().tensor().to_vector() == rows_of_rank(whole.tok.weight().tensor(), rank->tok.rows()));
      CHECK(rank->head.weight().tensor().to_vector() == rows_of_rank(whole.head.weight().tensor(), rank->head.rows()));
      CHECK(rank->pos.tensor().to_vector() == whole.pos.tensor().to_vector());
    }
    CHECK(whole.tok.weight().tensor().to_vector() != whole.head.weight().tensor().to_vector());
  }
}

TEST_CASE("the sum of the ranks' embeddings is the embedding, and each gives its own rows their gradient") {
  for (const DType dtype : {DType::f32, DType::bf16, DType::f64}) {
    for (const Case& c : kCases) {
      for (const bool documents : {false, true}) {
        CAPTURE(name_of(dtype), c.vocab, c.tp, documents);
        const test::Poisoned poisoned;
        const Tensor tokens = tokens_of(c.vocab, 2, kPositions, 3), start = documents ? test::ints({0, 0, 2, 2, 2, 0, 1, 1, 1, 4}, {2, 5}) : Tensor();
        const Tensor dy = test::random({2, kPositions, kDim}, 5, 0, 1, dtype, false);
        const Ends whole(c.vocab, true, {}, dtype);
        const Tensor want = whole.tok.forward(tokens, whole.pos, start);
        backward_from(want, dy);
        std::vector<double> sum(static_cast<size_t>(want.numel()), 0.0);
        for (const auto& rank : ranks_of(c, true, dtype)) {
          const Tensor y = rank->tok.forward(tokens, rank->pos, start);
          const std::vector<double> summand = y.to_vector();
          for (size_t i = 0; i < sum.size(); ++i) sum[i] += summand[i];
          backward_from(y, dy);
          CHECK(rank->tok.weight().tensor().grad().to_vector() == rows_of_rank(whole.tok.weight().tensor().grad(), rank->tok.rows()));
          CHECK(rank->pos.tensor().grad().to_vector() == whole.pos.tensor().grad().to_vector());  // whole on every rank
        }
        // In the dtype, as ranks add: a row and a position are two numbers at most.
        CHECK(test::tensor(sum, want.shape(), dtype).to_vector() == want.to_vector());
      }
    }
  }
}

// A logit is a product of C terms, which kernels add in the order that suits their shape: two of them differ by 2 gamma_C times the magnitude of the
// terms. exp passes that on as a relative error; its sum, the joining (4 roundings a rank) and the factors behind it are gamma of their count.
struct Tolerance {
  Tolerance(const Tensor& x, const Tensor& weight, int tp, DType dtype) {
    double largest_x = 0, largest_w = 0;
    for (const double v : x.to_vector()) largest_x = std::max(largest_x, std::abs(v));
    for (const double v : weight.to_vector()) largest_w = std::max(largest_w, std::abs(v));
    const double logit = static_cast<double>(kDim) * largest_x * largest_w;
    relative = 2 * test::gamma(static_cast<double>(kDim), dtype) * logit +
               2 * test::gamma(static_cast<double>(weight.size(0) + 4 * tp + 16), dtype) * (1 + 2 * logit);
    this->logit = logit;
  }
  double relative, logit;
};

TEST_CASE("the ranks' losses are the loss, their gradients its rows and its summands: tied and own heads, weights, z-loss, chunks") {
  for (const DType dtype : {DType::f32, DType::f64}) {
    for (const Case& c : kCases) {
      for (const bool tied : {false, true}) {
        CAPTURE(name_of(dtype), c.vocab, c.tp, tied);
        const test::Poisoned poisoned;
        const int64_t n = 7;
        std::vector<int32_t> wanted;
        for (int64_t i = 0; i < n; ++i) wanted.push_back(i == 3 ? -1 : static_cast<int32_t>((5 * i + 3) % c.vocab));
        const Tensor targets = test::ints(wanted, {n}), weights = test::tensor({1, 0.5, -2, 1, 3, 0, 1}, {n});
        const Tensor x = test::random({n, kDim}, 9, 0, 1, dtype);
        constexpr float kScale = 0.5f, kZLoss = 0.01f;
        const auto options = [&] {
          return LossOptions{.z_loss = kZLoss, .scale = kScale, .chunk_rows = 3, .nll = Tensor::zeros({}, dtype), .weights = weights};
        };

        const Ends whole(c.vocab, tied, {}, dtype);
        const LossOptions all = options();
        const Tensor loss = whole.head.loss(x, targets, all);
        backward(loss);
        const std::vector<double> dx = x.grad().to_vector(), losses = whole.head.token_losses(x.detach(), targets, {.chunk_rows = 3}).to_vector();
        const Tensor dw = whole.head.weight().tensor().grad();

        const auto ranks = ranks_of(c, tied, dtype);
        test::StatsExchange exchange;
        for (const auto& rank : ranks) {
          const NoGradGuard no_grad;
          rank->head.loss(x, targets, exchange.say(options()));
        }
        const Tolerance tolerance(x, whole.head.weight().tensor(), c.tp, dtype);
        // A row gives weight (lse - logit + z lse^2): its derivative by the logits is below 1 + 2 z lse, and the weights' magnitudes add up to 7.5.
        const double lse = tolerance.logit + std::log(static_cast<double>(c.vocab)), factor = kScale * 7.5 * (1 + 2 * kZLoss * lse);
        const double in_loss = 2 * factor * (1 + lse) * tolerance.relative;
        std::vector<double> dx_sum(dx.size(), 0.0);
        for (const auto& rank : ranks) {
          x.clear_grad();
          const LossOptions mine = exchange.hear(options());
          const Tensor y = rank->head.loss(x, targets, mine);
          backward(y);
          CHECK(std::abs(y.item() - loss.item()) <= in_loss);
          CHECK(std::abs(mine.nll.item() - all.nll.item()) <= in_loss);
          const std::vector<double> nlls = rank->head.token_losses(x.detach(), targets, exchange.hear({.chunk_rows = 3})).to_vector();
          for (size_t i = 0; i < losses.size(); ++i) CHECK(std::abs(nlls[i] - losses[i]) <= 2 * (1 + lse) * tolerance.relative);

          const std::vector<double> summand = x.grad().to_vector(), got = rank->head.weight().tensor().grad().to_vector();
          for (size_t i = 0; i < dx_sum.size(); ++i) dx_sum[i] += summand[i];
          const std::vector<double> want = rows_of_rank(dw, rank->head.rows());
          // dlogits, at most 2 factor, times x or weight (both below their largest, `logit` bounds the product): sums of 7 rows, or of the
          // vocabulary.
          for (size_t i = 0; i < want.size(); ++i) CHECK(std::abs(got[i] - want[i]) <= 2 * factor * 8 * tolerance.relative);
          for (size_t i = static_cast<size_t>(rank->head.rows().held() * kDim); i < got.size(); ++i) CHECK(got[i] == 0);
        }
        for (size_t i = 0; i < dx.size(); ++i) CHECK(std::abs(dx_sum[i] - dx[i]) <= 2 * factor * 8 * tolerance.relative);
        CHECK(ranks.size() == static_cast<size_t>(c.tp));
      }
    }
  }
}

TEST_CASE("logits are those of the tokens a rank holds; a head of several ranks refuses a loss of its own") {
  const Tensor x = test::random({3, kDim}, 2);
  const Ends whole(7, false, {}, DType::f32);
  const std::vector<double> all = linear(x, whole.head.weight()).to_vector();  // (3, 7)
  int64_t first = 0;
  for (const auto& rank : ranks_of({7, 3}, false, DType::f32)) {
    const Tensor logits = rank->head.logits(x);
    REQUIRE(logits.shape() == Shape{3, rank->head.rows().held()});
    CHECK_FALSE(logits.requires_grad());
    const std::vector<double> mine = logits.to_vector();
    const int64_t held = logits.size(1);
    for (int64_t i = 0; i < 3 * held; ++i) {
      CHECK(std::abs(mine[static_cast<size_t>(i)] - all[static_cast<size_t>(i / held * 7 + first + i % held)]) <=
            2 * test::gamma(kDim, DType::f32) * 100);
    }
    first += held;
    CHECK_THROWS_WITH(rank->head.loss(x, test::ints({1, 2, 3}, {3})), Contains("LossOptions::gather"));
    CHECK_THROWS_WITH(rank->head.token_losses(x, test::ints({1, 2, 3}, {3})), Contains("of 7 tokens"));
  }
  CHECK(first == 7);
}

}  // namespace
}  // namespace heddle
