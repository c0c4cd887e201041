// Layout as a property: whatever module and mesh, what the ranks own tiles every bucket, and their boxes tile every Part.
#include "core/layout.h"

#include <map>
#include <memory>
#include <random>
#include <set>

#include "core/arena.h"
#include "kernels/api/kernel.h"
#include "kernels/api/optimizer.h"
#include "tests/support/catch.h"

namespace heddle {
namespace {

using Catch::Matchers::Contains;

// A random tree of modules with stacked Parts; `tp` ranks share it, and this is the module of one of them. Equal for equal seeds.
class RandomModule final : public Module {
 public:
  RandomModule(uint32_t seed, int tp, int tp_rank, int depth = 0) : engine_(seed), tp_(tp), tp_rank_(tp_rank) {
    const int items = between(1, 5);
    for (int i = 0; i < items; ++i) {
      if (between(0, 2) == 0) begin_bucket(concat("group", i));
      if (depth < 2 && between(0, 2) == 0) {
        children_.push_back(std::make_unique<RandomModule>(static_cast<uint32_t>(engine_()), tp, tp_rank, depth + 1));
        add(concat("m", i), *children_.back());
      } else {
        add_parameter(concat("p", i));
      }
    }
  }

 private:
  int between(int a, int b) { return std::uniform_int_distribution<int>(a, b)(engine_); }

  void add_parameter(const std::string& name) {
    ParameterSpec spec;
    spec.kind = static_cast<ParamKind>(between(0, 4));
    spec.frozen = between(0, 9) == 0;
    const bool matrix = spec.kind == ParamKind::matrix || between(0, 1) == 0;
    const int64_t columns = 6 * between(1, 7);
    const int axis = matrix ? between(-1, 1) : between(-1, 0);  // sliced by tp; -1: whole on every rank
    const int parts = between(1, 3);
    for (int i = 0; i < parts; ++i) {
      Part part;
      if (parts > 1) part.name = concat(name, ".", i);
      part.global = {6 * between(1, 10)};  // tensor-parallel ranks have equal layouts
      if (matrix) part.global.push_back(columns);
      part.box = whole_box(part.global);
      if (axis >= 0) {
        const int64_t n = part.global[static_cast<size_t>(axis)];
        part.box[static_cast<size_t>(axis)] = {n * tp_rank_ / tp_, n * (tp_rank_ + 1) / tp_};
      }
      spec.parts.push_back(part);
    }
    if (between(0, 3) == 0) spec.padding = between(1, 4);
    add(name, spec);
  }

  std::mt19937 engine_;
  int tp_, tp_rank_;
  std::vector<std::unique_ptr<RandomModule>> children_;
};

bool multiple_of_block(int64_t n) {
  return n % kernels::kArenaBlock == 0;
}

void check_geometry(const Layout& layout) {
  int64_t end = 0;
  Section section = Section::matrix;
  for (const Layout::Slot& slot : layout.slots()) {
    CHECK(multiple_of_block(slot.range.begin));
    CHECK(slot.range.begin >= end);
    CHECK(slot.section >= section);
    section = slot.section;
    const Range in = layout.section(section);
    CHECK((in.begin <= slot.range.begin && slot.range.end <= in.end));
    if (section != Section::frozen) {
      const Layout::Bucket& bucket = layout.buckets()[slot.bucket];
      CHECK(bucket.section == section);
      CHECK((bucket.range.begin <= slot.range.begin && slot.range.end <= bucket.range.end));
    }
    end = slot.range.end;
  }
  end = 0;
  for (const Layout::Bucket& bucket : layout.buckets()) {
    CHECK(bucket.range.begin == end);
    CHECK(bucket.range.size() > 0);
    end = bucket.range.end;
  }
  CHECK(end == layout.trainable().end);
  CHECK(layout.section(Section::matrix).begin == 0);
  CHECK(layout.section(Section::matrix).end == layout.section(Section::rest).begin);
  CHECK(layout.section(Section::rest).end == layout.section(Section::frozen).begin);
}

TEST_CASE("what ranks own tiles every bucket; Muon's Parts are whole and balanced within the largest", "[layout]") {
  for (uint32_t seed = 1; seed <= 40; ++seed) {
    for (int dp = 1; dp <= 8; ++dp) {
      for (const bool whole : {false, true}) {
        CAPTURE(seed, dp, whole);
        const RandomModule module(seed, 1, 0);
        const int64_t target = seed % 3 == 0 ? 1 : int64_t{300} * seed;
        const Layout layout(module, {.dp = dp}, {.whole_matrices = whole, .bucket_elements = target});
        check_geometry(layout);
        std::vector<int64_t> matrices(static_cast<size_t>(dp), 0);
        for (size_t b = 0; b < layout.buckets().size(); ++b) {
          const Layout::Bucket& bucket = layout.buckets()[b];
          std::map<int64_t, int64_t> covered;  // begin to end
          for (int rank = 0; rank < dp; ++rank) {
            int64_t mine = 0, previous = -1;
            for (const Range& range : layout.owned(b, rank)) {
              CHECK(range.begin > previous);
              CHECK((range.size() > 0 && covered.emplace(range.begin, range.end).second));
              if (!whole || bucket.section != Section::matrix) CHECK((multiple_of_block(range.begin) && multiple_of_block(range.end)));
              mine += range.size();
              previous = range.begin;
            }
            if (!whole || bucket.section != Section::matrix) CHECK(mine == bucket.range.size() / dp);
          }
          int64_t end = bucket.range.begin;
          for (const auto& [begin, range_end] : covered) {
            CHECK(begin == end);
            end = range_end;
          }
          CHECK(end == bucket.range.end);
        }
        if (!whole) continue;
        int64_t largest = 0;
        for (const Layout::Place& place : layout.places()) {
          if (layout.slots()[place.slot].section != Section::matrix) continue;
          matrices[static_cast<size_t>(place.owner)] += place.range.size();
          largest = std::max(largest, place.range.size());
          bool inside = false;
          for (const Range& range : layout.owned(place.owner)) inside |= range.begin <= place.range.begin && place.range.end <= range.end;
          CHECK(inside);
        }
        const auto [least, most] = std::minmax_element(matrices.begin(), matrices.end());
        CHECK(*most - *least <= largest);
      }
    }
  }
}

TEST_CASE("fixed cells: offsets and cells are those of one rank on any number of them, and each cell has one owner", "[layout]") {
  for (uint32_t seed = 1; seed <= 40; ++seed) {
    for (const bool whole : {false, true}) {
      const RandomModule module(seed, 1, 0);
      const Layout::Options options{.whole_matrices = whole, .fixed_cells = true, .bucket_elements = int64_t{300} * seed};
      const Layout one(module, {}, options);
      check_geometry(one);
      for (int dp = 1; dp <= 8; ++dp) {
        CAPTURE(seed, whole, dp);
        const Layout layout(module, {.dp = dp}, options);
        for (size_t i = 0; i < one.slots().size(); ++i) CHECK(layout.slots()[i].range == one.slots()[i].range);
        REQUIRE(layout.cells().size() == one.cells().size());
        int64_t end = 0;  // of the cell before
        for (size_t i = 0; i < one.cells().size(); ++i) {
          const Layout::Cell& cell = layout.cells()[i];
          CHECK((cell.range == one.cells()[i].range && cell.bucket == one.cells()[i].bucket));
          CHECK((end <= cell.range.begin && cell.range.size() > 0));
          end = cell.range.end;
          int owners = 0;
          for (int rank = 0; rank < dp; ++rank) {
            for (const Range& range : layout.owned(cell.bucket, rank)) {
              const bool inside = range.begin <= cell.range.begin && cell.range.end <= range.end;
              CHECK((inside || range.end <= cell.range.begin || cell.range.end <= range.begin));
              owners += inside;
              if (inside) CHECK(cell.owner == rank);
              const bool matrix = layout.buckets()[cell.bucket].section == Section::matrix;
              if (!whole || !matrix) CHECK((multiple_of_block(range.begin) && multiple_of_block(range.end)));
            }
          }
          CHECK(owners == 1);
        }
        // Every element of every Part lies in a cell.
        for (const Layout::Place& place : layout.places()) {
          if (layout.slots()[place.slot].section == Section::frozen) continue;
          int64_t covered = 0;
          for (const Layout::Cell& cell : layout.cells()) {
            covered += std::max<int64_t>(0, std::min(cell.range.end, place.range.end) - std::max(cell.range.begin, place.range.begin));
          }
          CHECK(covered == place.range.size());
        }
        for (size_t b = 0; b < layout.buckets().size(); ++b) {
          int64_t sum = 0;
          for (int rank = 0; rank < dp; ++rank) {
            for (const Range& range : layout.owned(b, rank)) sum += range.size();
          }
          CHECK(sum == layout.buckets()[b].range.size());
        }
      }
    }
  }
  // Large Parameters come in many cells, nearly equal shares of a bucket.
  struct Large final : Module {
    Large() { add("table", {.kind = ParamKind::embedding, .parts = {{.global = {3000, 512}}}}); }
  };
  const Large large;
  const Layout layout(large, {.dp = 3}, {.fixed_cells = true});
  CHECK(layout.cells().size() == 24);
  for (int rank = 0; rank < 3; ++rank) CHECK(layout.owned(0, rank)[0].size() >= 3000 * 512 / 3 - 65536);
}

TEST_CASE("the boxes of all ranks tile every Part exactly, and no state is dropped", "[layout]") {
  for (uint32_t seed = 1; seed <= 30; ++seed) {
    for (int tp = 1; tp <= 3; ++tp) {
      for (const int dp : {1, 2, 3, 8}) {
        CAPTURE(seed, tp, dp);
        // Replicas hold equal boxes: of those the first tp rank's count, as one file holds one of them.
        std::map<std::string, std::vector<Box>> boxes;
        std::map<std::string, std::vector<int64_t>> shapes;
        std::set<std::pair<std::string, std::string>> seen;
        int64_t trained = 0, counted = 0;
        for (int t = 0; t < tp; ++t) {
          const RandomModule module(seed, tp, t);
          const Layout layout(module, {.dp = dp, .tp = tp, .tp_rank = t}, {.bucket_elements = 500});
          for (const Layout::Slot& slot : layout.slots()) {
            const Box& box = slot.spec.parts[0].box;
            const int64_t columns = box.size() > 1 ? box[1].size() : 1;
            trained += slot.section == Section::frozen ? 0 : slot.range.size() - slot.spec.padding * columns;
          }
          std::set<std::pair<std::string, std::string>> mine;
          for (int d = 0; d < dp; ++d) {
            for (const Range& range : layout.owned(d)) {
              int64_t end = range.begin;
              for (const Layout::Piece& piece : layout.pieces(range)) {
                const Part& part = layout.places()[piece.place].part;
                CHECK(volume(piece.box) == piece.range.size());
                CHECK(piece.range.begin >= end);
                end = piece.range.end;
                counted += volume(piece.box);
                shapes[part.name] = part.global;
                const auto key = std::make_pair(part.name, box_text(piece.box));
                if (seen.count(key) == 0) boxes[part.name].push_back(piece.box);
                mine.insert(key);
              }
            }
          }
          seen.insert(mine.begin(), mine.end());
        }
        CHECK(counted == trained);
        for (const auto& [name, list] : boxes) {
          // Slices of different tp ranks never overlap except as replicas, which `seen` left out.
          std::vector<const Box*> pointers;
          for (const Box& box : list) pointers.push_back(&box);
          CAPTURE(name);
          CHECK(tiles_exactly(shapes[name], pointers));
        }
      }
    }
  }
}

TEST_CASE("a Part that straddles two ranks' ranges is saved by both, each its elements", "[layout]") {
  kernels::register_cpu_kernels();
  struct Straddling final : Module {
    Straddling() { w = add("w", {.kind = ParamKind::matrix, .parts = {{.global = {10, 51}}}, .init_std = 1}); }
    Parameter w;
  };
  Straddling module;
  const Arena arena(module, Layout(module, {.dp = 2}), Device{}, DType::f32);
  for (int64_t i = 0; i < 510; ++i) arena.values().view().as<float>()[i] = static_cast<float>(i);
  std::vector<double> seen(510, -1);
  for (int rank = 0; rank < 2; ++rank) {
    const std::vector<Range> owned = arena.layout().owned(rank);
    const std::vector<PackedRange> packed = pack(owned);
    const Tensor buffer = Tensor::zeros({packed_size(packed)}, DType::f32);
    for (const PackedRange& p : packed) {
      for (int64_t i = 0; i < p.arena.size(); ++i) {
        buffer.view().as<float>()[p.at + i] = arena.values().view().as<float>()[p.arena.begin + i];
      }
    }
    StateDict state;
    add_state(state, "x", arena.layout(), buffer, packed);
    CHECK(state.tensors.size() >= 2);
    for (const StateDict::Entry& e : state.tensors) {
      CHECK(e.name == "x.w");
      CHECK(e.data.contiguous());
      const float* from = e.data.as<float>();
      for (int64_t r = e.box[0].begin; r < e.box[0].end; ++r) {
        for (int64_t c = e.box[1].begin; c < e.box[1].end; ++c) {
          double& to = seen[static_cast<size_t>(r * 51 + c)];
          CHECK(to == -1);
          to = static_cast<double>(*from++);
        }
      }
    }
  }
  for (int64_t i = 0; i < 510; ++i) CHECK(seen[static_cast<size_t>(i)] == static_cast<double>(i));
}

TEST_CASE("groups share a bucket up to the target; embeddings and heads never share", "[layout]") {
  struct Net final : Module {
    Net() {
      const auto add_one = [&](const std::string& name, ParamKind kind) { add(name, {.kind = kind, .parts = {{.global = {128}}}}); };
      begin_bucket("embedding");
      add_one("tok", ParamKind::embedding), add_one("pos", ParamKind::embedding);
      for (int i = 0; i < 4; ++i) {
        begin_bucket(concat("block", i));
        add_one(concat("gain", i), ParamKind::gain);
        add(concat("w", i), {.kind = ParamKind::matrix, .parts = {{.global = {2, 128}}}});
      }
      begin_bucket("norm");
      add_one("norm", ParamKind::gain);
      begin_bucket("head");
      add_one("head", ParamKind::head);
    }
  };
  const Net net;
  const auto names = [](const Layout& layout) {
    std::vector<std::string> all;
    for (const Layout::Bucket& b : layout.buckets()) all.push_back(concat(b.name, " ", b.range.size()));
    return all;
  };
  CHECK(names(Layout(net)) == std::vector<std::string>{"block0 1024", "embedding 256", "block0 640", "head 128"});
  CHECK(names(Layout(net, {}, {.bucket_elements = 300})) ==
        std::vector<std::string>{"block0 512", "block2 512", "embedding 256", "block0 384", "block3 256", "head 128"});
  CHECK(names(Layout(net, {.dp = 3}, {.bucket_elements = 1})) == std::vector<std::string>{"block0 384", "block1 384", "block2 384", "block3 384",
                                                                                          "embedding 384", "block0 384", "block1 384", "block2 384",
                                                                                          "block3 384", "norm 384", "head 384"});
}

TEST_CASE("parameters outside every group are cut at the target", "[layout]") {
  struct Plain final : Module {
    Plain() {
      for (int i = 0; i < 5; ++i) add(concat("w", i), {.kind = ParamKind::matrix, .parts = {{.global = {1, 128}}}});
    }
  };
  const Plain plain;
  const Layout layout(plain, {}, {.bucket_elements = 256});
  REQUIRE(layout.buckets().size() == 3);
  CHECK(layout.buckets()[1].name == "w2");
}

TEST_CASE("two Parts of one name are refused; an empty module has an empty layout", "[layout]") {
  struct Twice final : Module {
    Twice() {
      add("a", {.parts = {{.name = "x", .global = {3}}}});
      add("b", {.parts = {{.name = "x", .global = {4}}}});
    }
  };
  const Twice twice;
  CHECK_THROWS_WITH(Layout(twice), Contains("\"x\"") && Contains("one name"));
  struct Nothing final : Module {};
  const Nothing nothing;
  const Layout layout(nothing);
  CHECK((layout.size() == 0 && layout.buckets().empty() && layout.owned(0).empty()));
  CHECK_THROWS_AS(Layout(nothing, {.dp = 0}), Error);
}

TEST_CASE("keys of names are stable and differ", "[layout]") {
  CHECK(name_key("") == 0xefd01f60ba992926u);  // initial weights depend on it
  CHECK(name_key("blocks.0.attn.q.weight") == 0xe5528b7cd7c30409u);
  std::set<uint64_t> keys;
  for (int i = 0; i < 100000; ++i) keys.insert(name_key(concat("blocks.", i, ".attn.q.weight")));
  CHECK(keys.size() == 100000);
}

}  // namespace
}  // namespace heddle
