// Data-parallel ranks are one rank: with ZeRO and without, AdamW and Muon. mpirun starts it, every rank runs every case; alone the cases pass over
// one rank. HEDDLE_RANK_CASES=all runs all combinations, else those that cover every pair.
#include <bit>
#include <cstdlib>
#include <cstring>
#include <map>
#include <sstream>

#include "core/io/boxes.h"
#include "parallel/control.h"
#include "tests/train/session.h"
#include "train/memory_plan.h"

namespace heddle {
namespace {

using test::Session;

Control& control() {
  static const std::unique_ptr<Control> world = world_control();
  return *world;
}
Communicator& world() {
  static const std::unique_ptr<Communicator> comm = control().communicator(Device{});
  return *comm;
}
Communicator& alone() {
  static const std::unique_ptr<Communicator> comm = local_communicator();
  return *comm;
}

struct Way {
  bool muon = false, sharded = false, bf16 = false, deterministic = false, rounded = false;
  std::string name() const {
    return concat(muon ? "muon" : "adamw", sharded ? ", zero 1" : ", zero 0", bf16 ? ", bf16" : ", fp32", deterministic ? ", deterministic" : "",
                  rounded ? ", gradients sent as bf16" : "");
  }
  DType dtype() const { return bf16 ? DType::bf16 : DType::f32; }
  Session on(Communicator& comm) const {
    return Session(muon, dtype(), comm, deterministic, sharded && comm.size() > 1,
                   rounded && comm.size() > 1 ? std::optional(DType::bf16) : std::nullopt);
  }
};
bool all_ways() {
  const char* const which = std::getenv("HEDDLE_RANK_CASES");
  return which != nullptr && std::string_view(which) == "all";
}

// Entries of a session as every rank has them, put together to whole tensors.
struct WholeState {
  std::map<std::string, std::vector<std::byte>> bytes;
  StateDict state;

  void add(const StateDict::Entry& piece, const std::byte* from) {
    const int64_t size = size_of(piece.data.dtype);
    std::vector<std::byte>& to = bytes[piece.name];
    if (to.empty()) {
      to.resize(static_cast<size_t>(volume(whole_box(piece.global)) * size));
      StateDict::Entry whole = piece;
      whole.box = whole_box(piece.global);
      whole.data = make_view(to.data(), piece.data.dtype, {volume(whole.box)});
      state.tensors.push_back(whole);
    }
    for_each_run(piece.box, piece.box, whole_box(piece.global), [&](int64_t here, int64_t there, int64_t n) {
      std::memcpy(to.data() + there * size, from + here * size, static_cast<size_t>(n * size));
    });
  }
};

// One digest of what all ranks hold together; collective. Pieces that several ranks hold are equal.
std::string digest_of_all(const Session& session) {
  std::string mine;
  for (const StateDict::Entry& e : session.tensors().tensors) {
    mine += concat(e.name, " ", e.box.size());
    for (size_t i = 0; i < e.box.size(); ++i) mine += concat(" ", e.global[i], " ", e.box[i].begin, " ", e.box[i].end);
    mine += "\n";
    mine.append(reinterpret_cast<const char*>(e.data.data), static_cast<size_t>(e.data.bytes()));
  }
  WholeState whole;
  for (const std::string& text : control().gather_text(mine)) {
    for (size_t at = 0; at < text.size();) {
      const size_t end = text.find('\n', at);
      std::istringstream words(text.substr(at, end - at));
      StateDict::Entry e;
      size_t rank = 0;
      words >> e.name >> rank;
      e.global.resize(rank), e.box.resize(rank);
      for (size_t i = 0; i < rank; ++i) words >> e.global[i] >> e.box[i].begin >> e.box[i].end;
      e.data.dtype = DType::f32;
      const auto bytes = static_cast<size_t>(volume(e.box) * size_of(e.data.dtype));
      whole.add(e, reinterpret_cast<const std::byte*>(text.data()) + end + 1);
      at = end + 1 + bytes;
    }
  }
  return digest(whole.state);
}

std::string digest_of_values(const Session& session) {
  StateDict state;
  const Range trainable = session.arena().layout().trainable();
  const PackedRange all{trainable, trainable.begin};
  add_state(state, "value", session.arena().layout(), session.arena().values(), {&all, 1});
  return digest(state);
}

// The state of a session alone, put into what this rank of another holds.
void copy_state(const Session& from, Session& to) {
  std::map<std::string_view, const StateDict::Entry*> whole;
  for (const StateDict::Entry& e : from.tensors().tensors) REQUIRE(whole.emplace(e.name, &e).second);
  for (const StateDict::Entry& e : to.tensors().tensors) {
    const StateDict::Entry& source = *whole.at(e.name);
    for_each_run(e.box, e.box, source.box, [&](int64_t here, int64_t there, int64_t n) {
      std::memcpy(e.data.data + here * 4, source.data.data + there * 4, static_cast<size_t>(n * 4));
    });
  }
  to.trainer().go_on_from(from.trainer().kept());
  to.trainer().masters_changed();
}

// Hands everything on but one reduction of each step, on all ranks.
class Skipping final : public Communicator {
 public:
  Skipping(Communicator& real, int skipped) : real_(real), skipped_(skipped) {}
  void begin_step() { seen_ = 0; }
  int rank() const override { return real_.rank(); }
  int size() const override { return real_.size(); }
  std::string_view name() const override { return "skipping"; }
  Work all_reduce(View data, Stream s) override { return skip() ? Work() : real_.all_reduce(data, s); }
  Work reduce_scatter(View in, View out, std::span<const int64_t> counts, Stream s) override {
    return skip() ? Work() : real_.reduce_scatter(in, out, counts, s);
  }
  Work all_gather(View in, View out, std::span<const int64_t> counts, Stream s) override { return real_.all_gather(in, out, counts, s); }
  Work broadcast(View data, int root, Stream s) override { return real_.broadcast(data, root, s); }
  Work grouped(std::span<const Transfer> transfers, Stream s) override {
    if (!skip()) return real_.grouped(transfers, s);
    for (const Transfer& t : transfers) {
      if (!t.send) std::memset(t.data.data, 0, static_cast<size_t>(t.data.bytes()));
    }
    return {};
  }
  void abort() override {}

 private:
  bool skip() { return seen_++ == skipped_; }
  Communicator& real_;
  int skipped_, seen_ = 1 << 20;
};

constexpr int64_t kUnits = 2;  // micro-steps of a rank

// How far loss, norm and gradients of a step are from those of one rank, in parts of what may come of rounding; the same on all ranks.
//
// Both add the same terms in different orders. Of n terms any order is within n 2^-24 of the sum of their sizes (n: the rows of the step, over which
// every gradient sums; sizes: the largest of the Part's). A gradient that is sent as bf16 is rounded once on its way, by 2^-9 of itself.
double distance(const Session& one, const Session& many, const StepState& a, const StepState& b, const std::vector<double>& sizes, bool rounded) {
  const double rows = static_cast<double>(2 * Session::kSeq * kUnits * world().size());
  const double rounding = rows / (1 << 24) + (rounded ? 1.0 / 256 : 0);
  double most = std::max(std::abs(a.loss - b.loss) / (rows / (1 << 24) * a.loss),
                         std::abs(double{a.grad_norm} - double{b.grad_norm}) / (rounding * static_cast<double>(a.grad_norm)));
  const std::vector<double> left = one.arena().grads().to_vector(), right = many.arena().grads().to_vector();
  const auto& places = one.arena().layout().places();
  for (size_t p = 0; p < places.size(); ++p) {
    const Range here = places[p].range, there = many.arena().layout().places()[p].range;
    REQUIRE(places[p].part.name == many.arena().layout().places()[p].part.name);
    double largest = 1e-30;
    for (int64_t i = here.begin; i < here.end; ++i) largest = std::max(largest, sizes[static_cast<size_t>(i)]);
    for (const Range& owned : many.arena().layout().owned(world().rank())) {
      for (int64_t i = std::max(owned.begin, there.begin); i < std::min(owned.end, there.end); ++i) {
        const double difference = std::abs(left[static_cast<size_t>(i - there.begin + here.begin)] - right[static_cast<size_t>(i)]);
        most = std::max(most, difference / (rounding * largest));
      }
    }
  }
  for (const std::string& text : control().gather_text(std::to_string(most))) most = std::max(most, std::stod(text));
  return most;
}

TEST_CASE("from one rank's state the ranks' step is its step, loss, norm and every gradient, thirty times") {
  std::vector<Way> ways = {{.muon = false, .sharded = true}, {.muon = true, .sharded = false}, {.muon = true, .sharded = true, .rounded = true}};
  if (all_ways()) {
    ways.clear();
    for (int i = 0; i < 8; ++i) ways.push_back({.muon = (i & 1) != 0, .sharded = (i & 2) != 0, .rounded = (i & 4) != 0});
  }
  for (const Way& way : ways) {
    CAPTURE(way.name(), world().size());
    Session one = way.on(alone()), many = way.on(world());
    for (int step = 1; step <= 30; ++step) {
      CAPTURE(step);
      copy_state(one, many);
      const std::vector<double> sizes = one.magnitudes(kUnits * world().size());
      const StepState a = one.step(1, 0, kUnits * world().size()), b = many.step(1, 0, kUnits);
      REQUIRE(a.apply);
      REQUIRE(distance(one, many, a, b, sizes, way.rounded) <= 1);
    }
  }
}

TEST_CASE("without one bucket's reduction it is not") {
  if (world().size() == 1) return;
  for (const Way& way : {Way{.sharded = true}, Way{.muon = true}, Way{.sharded = true, .deterministic = true}, Way{.rounded = true}}) {
    for (const int skipped : {0, 2}) {
      CAPTURE(way.name(), skipped);
      Skipping comm(world(), skipped);
      Session one = way.on(alone()), many = way.on(comm);
      copy_state(one, many);
      const std::vector<double> sizes = one.magnitudes(kUnits * world().size());
      comm.begin_step();
      const StepState a = one.step(1, 0, kUnits * world().size()), b = many.step(1, 0, kUnits);
      CHECK(distance(one, many, a, b, sizes, way.rounded) > 10);
    }
  }
}

TEST_CASE("deterministic: fifty steps of one rank and of many are the same bits") {
  std::vector<Way> ways = {{.muon = false, .sharded = true, .bf16 = false}, {.muon = true, .sharded = true, .bf16 = true}};
  if (world().size() == 2)
    ways.insert(ways.end(), {{.muon = false, .sharded = false, .bf16 = true}, {.muon = true, .sharded = false, .bf16 = false}});
  if (all_ways()) {
    ways.clear();
    for (int i = 0; i < 8; ++i) ways.push_back({.muon = (i & 1) != 0, .sharded = (i & 2) != 0, .bf16 = (i & 4) != 0});
  }
  for (Way way : ways) {
    way.deterministic = true;
    CAPTURE(way.name(), world().size());
    std::string results;  // of one rank, which rank 0 stands for
    const auto text_of = [](const StepState& s) {
      const uint32_t norm = std::bit_cast<uint32_t>(s.grad_norm);
      return concat(std::bit_cast<uint64_t>(s.loss), " ", norm, "\n");
    };
    if (world().rank() == 0) {
      Session one = way.on(alone());
      for (int step = 0; step < 50; ++step) results += text_of(one.step(1, 0, kUnits * world().size()));
      results += one.state();
    }
    Session many = way.on(world());
    std::string mine;
    for (int step = 0; step < 50; ++step) mine += text_of(many.step(1, 0, kUnits));
    mine += digest_of_all(many);
    CHECK(control().gather_text(results).front() == mine);
    (void)many.magnitudes(1);  // asks for every weight
    const std::string values = digest_of_values(many);
    for (const std::string& text : control().gather_text(values)) CHECK(text == values);
  }
}

TEST_CASE("a rank that owns nothing takes part") {
  // The last norm's bucket has two cells.
  const Way way{.muon = true, .sharded = true, .deterministic = true};
  Session many = way.on(world());
  size_t empty = 0;
  for (size_t b = 0; b < many.arena().layout().buckets().size(); ++b) {
    for (int r = 0; r < world().size(); ++r) empty += many.arena().layout().owned(b, r).empty();
  }
  CHECK((empty > 0 || world().size() < 3));
  CHECK(many.step(1).apply);
}

TEST_CASE("ZeRO-1 keeps masters and moments once among the ranks, as the plan says") {
  for (const Way& way : {Way{.muon = false, .sharded = true, .bf16 = true}, Way{.muon = true, .sharded = true, .bf16 = true}}) {
    CAPTURE(way.name());
    const auto kept = [] { return memory_stats(Device{}).live[static_cast<size_t>(MemoryTag::optimizer)]; };
    release_cached(Device{});  // a block left by an earlier case may be larger than what is asked for
    const size_t before = kept();
    const Session many = way.on(world());
    double most = 0;
    for (const std::string& text : control().gather_text(std::to_string(kept() - before))) most = std::max(most, std::stod(text));
    RunConfig config;
    config.batch = 2, config.seq = Session::kSeq, config.dp = world().size(), config.zero = 1;
    config.optimizer = way.muon ? OptimizerChoice::muon : OptimizerChoice::adamw;
    const MemoryPlan plan = plan_memory(config, {}, many.arena().layout(), DType::bf16);
    CHECK(most >= plan.masters + plan.optimizer);
    CHECK(most <= plan.masters + plan.optimizer + 8192);  // tables, and what the allocator rounds up
    // Nearly equal parts, of what one rank would keep alone.
    const auto trained = static_cast<double>(many.arena().layout().trainable().size());
    const double whole = 4 * trained + (way.muon ? 4.0 : 8.0) * trained;
    CHECK(most >= whole / world().size());
    CHECK(most <= 1.5 * 12 * trained / world().size() + 8192);
  }
}

}  // namespace
}  // namespace heddle
