// Buckets partition the gradients, and each starts to reduce at the very hook that completes it.
#include "parallel/grad_buckets.h"

#include <algorithm>
#include <cstring>
#include <map>

#include "core/autograd/engine.h"
#include "kernels/api/check.h"
#include "kernels/api/kernel.h"
#include "models/transformer.h"
#include "tests/models/support.h"
#include "tests/support/catch.h"

namespace heddle {
namespace {

// Stands for one of two ranks with equal gradients: a reduction doubles what it is given, at once.
class Doubling final : public Communicator {
 public:
  explicit Doubling(std::vector<std::string>& events) : events_(events) {}
  int rank() const override { return 0; }
  int size() const override { return 2; }
  std::string_view name() const override { return "doubling"; }
  Work all_reduce(View data, Stream) override {
    for (int64_t i = 0; i < data.numel(); ++i) data.as<float>()[i] *= 2;
    events_.push_back(concat("start ", static_cast<const void*>(data.data), " ", data.numel()));
    return Work([this, data](Stream) { events_.push_back(concat("join ", static_cast<const void*>(data.data))); });
  }
  Work reduce_scatter(View in, View out, std::span<const int64_t>, Stream) override {  // of rank 0, whose part comes first
    for (int64_t i = 0; i < out.numel(); ++i) out.as<float>()[i] = 2 * in.as<float>()[i];
    return told();
  }
  Work all_gather(View, View, std::span<const int64_t>, Stream) override { return {}; }
  Work broadcast(View, int, Stream) override { return {}; }
  // What the other rank sends of a bucket is what this one has in the same places: its own part, range after range.
  Work grouped(std::span<const Transfer> transfers, Stream) override {
    std::vector<float> theirs;
    for (const Range& range : layout->owned(next_bucket, 0)) theirs.insert(theirs.end(), grads + range.begin, grads + range.end);
    size_t at = 0;
    for (const Transfer& t : transfers) {
      if (t.send) continue;
      for (int64_t i = 0; i < t.data.numel(); ++i) {
        if (t.data.dtype == DType::bf16) {
          t.data.as<bf16>()[i] = bf16(theirs[at++]);
        } else {
          t.data.as<float>()[i] = theirs[at++];
        }
      }
    }
    return told();
  }
  void abort() override {}

  const Layout* layout = nullptr;
  const float* grads = nullptr;
  size_t next_bucket = 0;  // that is about to start

 private:
  Work told() {
    events_.push_back("start");
    return Work([this](Stream) { events_.push_back("join"); });
  }
  std::vector<std::string>& events_;
};

struct Case {
  Transformer model;
  Arena arena;
  Tensor tokens, targets;
  std::vector<std::string> events;
  Doubling comm{events};

  explicit Case(const TransformerConfig& config)
      : model((kernels::register_cpu_kernels(), config)),
        arena(model, Layout(model, {}, {.bucket_elements = 1}), Device{}, DType::f32),
        tokens(test::random_tokens(2, 6, config.vocab, 1)),
        targets(test::random_tokens(2, 6, config.vocab, 2)) {
    test::randomize(arena);
  }
  std::string start_of(size_t b) const {
    const Range range = arena.layout().buckets()[b].range;
    return concat("start ", static_cast<const void*>(arena.grads().impl().data + range.begin * 4), " ", range.size());
  }
  size_t bucket_of(const Parameter& p) const {
    for (size_t i = 0; i < arena.parameters().size(); ++i) {
      if (arena.parameters()[i].same(p)) return arena.layout().slots()[i].bucket;
    }
    FAIL("no bucket holds " << p.name());
    return 0;
  }
};

TEST_CASE("each bucket starts at the hook of its last parameter, once, and with final gradients") {
  for (const test::Style& style : test::styles()) {
    CAPTURE(style.name);
    Case c(style.config);
    c.arena.begin_step();
    backward(c.model.loss(c.tokens, c.targets, {}, {}), c.arena.leaves());
    const std::vector<double> alone = c.arena.grads().to_vector();

    GradBuckets buckets(c.arena, c.comm);
    std::map<const TensorImpl*, Parameter> by_leaf;
    std::vector<int> waiting(c.arena.layout().buckets().size());
    for (const Parameter& p : c.arena.parameters()) {
      by_leaf.emplace(p.tensor().shared().get(), p);
      ++waiting[c.bucket_of(p)];
    }
    size_t hooks = 0, started_early = 0;
    for (int repeat = 0; repeat < 2; ++repeat) {  // the same buckets serve every step
      auto pending = waiting;
      c.events.clear();
      hooks = started_early = 0;
      c.arena.begin_step();
      buckets.begin();
      backward(c.model.loss(c.tokens, c.targets, {}, {}), c.arena.leaves(), [&](const Tensor& leaf) {
        const size_t b = c.bucket_of(by_leaf.at(leaf.shared().get())), before = c.events.size();
        buckets.ready(leaf);
        ++hooks;
        if (--pending[b] > 0) {
          CHECK(c.events.size() == before);
        } else {
          REQUIRE(c.events.size() == before + 1);
          CHECK(c.events.back() == c.start_of(b));
          started_early += hooks < by_leaf.size();
        }
      });
      CHECK(c.events.size() == c.arena.layout().buckets().size());
      const std::vector<std::string> started = c.events;
      buckets.finish(Stream{});
      REQUIRE(c.events.size() == 2 * started.size());  // every one is joined, once
      for (size_t i = 0; i < started.size(); ++i) {
        const std::string joined = "join" + started[i].substr(5, started[i].rfind(' ') - 5);
        CHECK(std::count(c.events.begin(), c.events.end(), joined) == 1);
      }
      // A write after the start would not have been doubled.
      const std::vector<double> reduced = c.arena.grads().to_vector();
      for (size_t i = 0; i < alone.size(); ++i) REQUIRE(reduced[i] == 2 * alone[i]);
    }
    CHECK(hooks == by_leaf.size());
    CHECK(started_early + 1 >= c.arena.layout().buckets().size());  // all but the last one overlap with backward
  }
}

// One rank of two: its part of every bucket comes to twice its own, and starts at the hook that completes the bucket, whatever the way there.
TEST_CASE("the parts of ZeRO and the tree start with their last gradient too") {
  struct Way {
    const char* name;
    bool whole_matrices;
    GradBuckets::Options options;
  };
  const std::vector<Way> ways = {{"ranges", false, {.sharded = true}},
                                 {"matrices", true, {.sharded = true}},
                                 {"tree", false, {.ordered = true}},
                                 {"tree of matrices", true, {.sharded = true, .ordered = true}},
                                 {"rounded", true, {.sharded = true, .wire = DType::bf16}}};
  for (const Way& way : ways) {
    CAPTURE(way.name);
    kernels::register_cpu_kernels();
    const TransformerConfig config = test::llama_style();
    const Transformer model(config);
    const Layout::Options layout_options{.whole_matrices = way.whole_matrices, .fixed_cells = way.options.ordered, .bucket_elements = 1};
    Arena arena(model, Layout(model, {.dp = 2}, layout_options), Device{}, DType::f32);
    test::randomize(arena);
    const Tensor tokens = test::random_tokens(2, 6, config.vocab, 1), targets = test::random_tokens(2, 6, config.vocab, 2);
    arena.begin_step();
    backward(model.loss(tokens, targets, {}, {}), arena.leaves());
    const std::vector<double> alone = arena.grads().to_vector();

    std::vector<std::string> events;
    Doubling comm(events);
    comm.layout = &arena.layout();
    comm.grads = reinterpret_cast<const float*>(arena.grads().impl().data);
    GradBuckets buckets(arena, comm, way.options);
    std::vector<int> pending(arena.layout().buckets().size());
    std::map<const TensorImpl*, size_t> bucket_of;
    for (size_t i = 0; i < arena.parameters().size(); ++i) {
      const size_t bucket = arena.layout().slots()[i].bucket;
      ++pending[bucket];
      bucket_of.emplace(arena.parameters()[i].tensor().shared().get(), bucket);
    }
    arena.begin_step();
    const size_t held = memory_stats(Device{}).live_total;
    buckets.begin_step(1);
    buckets.begin();
    backward(model.loss(tokens, targets, {}, {}), arena.leaves(), [&](const Tensor& leaf) {
      comm.next_bucket = bucket_of.at(leaf.shared().get());
      const size_t before = events.size();
      buckets.ready(leaf);
      CHECK(events.size() == before + (--pending[comm.next_bucket] == 0 ? 1 : 0));
    });
    CHECK(std::count(events.begin(), events.end(), "start") == static_cast<long>(pending.size()));
    CHECK(std::count(events.begin(), events.end(), "join") == 0);
    buckets.finish(Stream{});
    CHECK(std::count(events.begin(), events.end(), "join") == static_cast<long>(pending.size()));
    CHECK((way.options.ordered || memory_stats(Device{}).live_total == held));  // what gradients were packed into is free for the optimizer
    const std::vector<double> summed = arena.grads().to_vector();
    for (const Range& range : arena.layout().owned(0)) {
      for (auto i = static_cast<size_t>(range.begin); i < static_cast<size_t>(range.end); ++i) {
        const double other = way.options.wire ? static_cast<double>(static_cast<float>(bf16(static_cast<float>(alone[i])))) : alone[i];
        REQUIRE(summed[i] == static_cast<double>(static_cast<float>(alone[i] + other)));
      }
    }
  }
}

TEST_CASE("the last block's matrices are under way before the first block has a gradient") {
  Case c(test::llama_style());
  GradBuckets buckets(c.arena, c.comm);
  const auto named = [&](const std::string& name) {
    for (const Parameter& p : c.arena.parameters()) {
      if (p.name() == name) return p;
    }
    throw std::runtime_error(name);
  };
  const Parameter first = named("blocks.0.mlp.down.weight");
  const std::string last_block = c.start_of(c.bucket_of(named("blocks.1.mlp.down.weight")));
  bool seen = false;
  c.arena.begin_step();
  buckets.begin();
  backward(c.model.loss(c.tokens, c.targets, {}, {}), c.arena.leaves(), [&](const Tensor& leaf) {
    if (leaf.same(first.tensor())) seen = std::count(c.events.begin(), c.events.end(), last_block) == 1;
    buckets.ready(leaf);
  });
  buckets.finish(Stream{});
  CHECK(seen);
}

TEST_CASE("a gradient reported twice, never, or from elsewhere is an error") {
  Case c(test::gpt2_style());
  GradBuckets buckets(c.arena, c.comm);
  const std::vector<Tensor> leaves = c.arena.leaves();
  const auto message = [&](auto call) -> std::string {
    try {
      call();
    } catch (const Error& e) {
      return e.what();
    }
    return "no error";
  };
  buckets.begin();
  for (const Tensor& leaf : leaves) buckets.ready(leaf);
  CHECK(message([&] { buckets.ready(leaves[0]); }).find("twice") != std::string::npos);

  buckets.begin();
  for (size_t i = 1; i < leaves.size(); ++i) buckets.ready(leaves[i]);
  c.events.clear();
  const std::string missing = message([&] { buckets.finish(Stream{}); });
  CHECK(missing.find("never became final") != std::string::npos);
  CHECK(missing.find("[0, ") != std::string::npos);  // the arena range of leaf 0
  CHECK(c.events.empty());

  CHECK(message([&] { buckets.ready(Tensor::zeros({3}, DType::f32)); }).find("not in the arena") != std::string::npos);
  // Before any begin(): no gradient is expected.
  GradBuckets unready(c.arena, c.comm);
  CHECK_THROWS_AS(unready.ready(leaves[0]), Error);
}

}  // namespace
}  // namespace heddle
