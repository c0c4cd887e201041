// ZeRO-1's values: every op sees them gathered, and none waits for what only later ones need.
#include "parallel/value_gather.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <memory>

#include "kernels/api/kernel.h"
#include "kernels/api/matmul.h"
#include "models/transformer.h"
#include "tests/models/support.h"
#include "tests/support/catch.h"
#include "tests/support/intercept.h"

namespace heddle {
namespace {

std::vector<std::string>* events = nullptr;  // of the test that runs

// Rank 1 of 2, whose partner's parts arrive when the stream joins, and not a moment before.
class Late final : public Communicator {
 public:
  Late(const Arena& arena, const std::vector<float>& truth) : arena_(arena), truth_(truth) {}
  int rank() const override { return 1; }
  int size() const override { return 2; }
  std::string_view name() const override { return "late"; }
  Work all_reduce(View, Stream) override { return {}; }
  Work reduce_scatter(View, View, std::span<const int64_t>, Stream) override { return {}; }
  Work all_gather(View, View out, std::span<const int64_t>, Stream) override { return arriving({out}); }
  Work broadcast(View, int, Stream) override { return {}; }
  Work grouped(std::span<const Transfer> transfers, Stream) override {
    std::vector<View> in;
    for (const Transfer& t : transfers) {
      if (!t.send) in.push_back(t.data);
    }
    return arriving(in);
  }
  void abort() override {}

 private:
  Work arriving(std::vector<View> views) {
    const std::string number = std::to_string(started_++);
    events->push_back("start " + number);
    return Work([this, views = std::move(views), number](Stream) {
      events->push_back("join " + number);
      for (const View& v : views) {
        const auto at = reinterpret_cast<const float*>(v.data) - reinterpret_cast<const float*>(arena_.values().impl().data);
        std::copy_n(truth_.begin() + at, v.numel(), reinterpret_cast<float*>(v.data));
      }
    });
  }
  const Arena& arena_;
  const std::vector<float>& truth_;
  int started_ = 0;
};

TEST_CASE("values arrive in the order of their use, each is joined where it is first used, and no op comes before them") {
  kernels::register_cpu_kernels();
  for (const test::Style& style : test::styles()) {
    for (const bool whole_matrices : {false, true}) {
      CAPTURE(style.name, whole_matrices);
      TransformerConfig config = style.config;
      config.layers = 3;
      const Transformer model(config);
      const Arena arena(model, Layout(model, {.dp = 2, .dp_rank = 1}, {.whole_matrices = whole_matrices, .bucket_elements = 1}), Device{},
                        DType::f32);
      test::randomize(arena);
      const Tensor tokens = test::random_tokens(2, 6, config.vocab, 1), targets = test::random_tokens(2, 6, config.vocab, 2);
      const test::Intercept<kernels::MatmulArgs> products(
          kernels::matmul,
          [](const kernels::MatmulArgs&) {
            if (events) events->push_back("product");
          },
          nullptr);
      const double wanted = model.loss(tokens, targets, {}, {}).item();
      auto* const values = reinterpret_cast<float*>(arena.values().impl().data);
      const std::vector<float> truth(values, values + arena.values().numel());

      std::vector<std::string> log;
      events = &log;
      Late comm(arena, truth);
      auto gathers = std::make_unique<ValueGather>(arena, comm);
      ValueGather& gather = *gathers;
      const auto joins_so_far = [&] {
        return static_cast<size_t>(std::count_if(log.begin(), log.end(), [](const std::string& e) { return e[0] == 'j'; }));
      };
      for (int step = 0; step < 2; ++step) {
        for (const Range& range : arena.layout().owned(0))
          std::fill(values + range.begin, values + range.end, std::numeric_limits<float>::quiet_NaN());
        log.clear();
        gather.start(current_stream(Device{}));
        const size_t buckets = log.size();
        CHECK(buckets == arena.layout().buckets().size());
        const std::vector<std::string> started = log;
        CHECK(model.loss(tokens, targets, {}, {}).item() == wanted);
        std::vector<std::string> joins;
        size_t alone = 0, since = 1;  // joins that some product came before, after the previous join
        for (size_t i = buckets; i < log.size(); ++i) {
          if (log[i] == "product") {
            ++since;
          } else {
            joins.push_back(log[i]);
            alone += since > 0;
            since = 0;
          }
        }
        // What was sent first is used first: nobody waits for a later bucket.
        REQUIRE(joins.size() == buckets);
        for (size_t i = 0; i < buckets; ++i) CHECK(joins[i] == "join" + started[i].substr(5));
        CHECK(alone > static_cast<size_t>(config.layers));  // a block computes before the next one waits
        gather.join(current_stream(Device{}));
        CHECK(joins_so_far() == buckets);
        Stream other = current_stream(Device{});
        other.native = &other;
        gather.join(other);  // another stream has waited for nothing yet
        CHECK(joins_so_far() == 2 * buckets);
      }
      // When it goes, ops ask for nothing any more.
      gather.start(current_stream(Device{}));
      gathers.reset();
      log.clear();
      CHECK(model.loss(tokens, targets, {}, {}).item() == wanted);
      CHECK(joins_so_far() == 0);
      events = nullptr;
      CHECK(std::equal(truth.begin(), truth.end(), values));
    }
  }
}

}  // namespace
}  // namespace heddle
