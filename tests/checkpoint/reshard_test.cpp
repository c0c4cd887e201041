// Slices: boxes, and any layout of ranks loading what any other has saved.
#include "tests/support/catch.h"

#include <cstdio>
#include <mutex>
#include <numeric>
#include <random>
#include <sstream>

#include "checkpoint/fold.h"
#include "checkpoint/inspect.h"
#include "tests/checkpoint/tiny_state.h"

namespace heddle::test {
namespace {

namespace fs = std::filesystem;

struct Layout {
  int dp = 1, tp = 1;
  bool zero = false;  // optimizer state sliced over dp as ranges of the flat tensor
  int ranks() const { return dp * tp; }
  std::string text() const { return concat("dp ", dp, " tp ", tp, zero ? " zero" : ""); }
};

// Rank = d * tp + t. Tensors are cut along axis 0 or 1 by tp (weights of rank 2 whose size allows it), and optimizer tensors again by flat range by
// dp.
TinyState::Slicing slicing(const Layout& layout, int rank) {
  return [=](const TinyState::Tensor& t) -> std::vector<Box> {
    const int d = rank / layout.tp, n = rank % layout.tp;
    Box box = whole_box(t.shape);
    if (t.shape.size() == 2) {
      const size_t axis = t.name.find("qkv") != std::string::npos ? 0 : 1;
      if (t.shape[axis] % layout.tp == 0) {
        const int64_t part = t.shape[axis] / layout.tp;
        box[axis] = {n * part, (n + 1) * part};
      }
    }
    if (!layout.zero || t.name.rfind("optim.", 0) != 0) return {box};
    // The d-th range of this rank's slice, which is itself a tensor: boxes inside it, moved to its place.
    std::vector<int64_t> shape;
    for (const Range& r : box) shape.push_back(r.size());
    const int64_t total = volume(box), begin = total * d / layout.dp, end = total * (d + 1) / layout.dp;
    std::vector<Box> pieces = split_flat_range(shape, begin, end);
    for (Box& piece : pieces) {
      for (size_t i = 0; i < piece.size(); ++i) {
        piece[i].begin += box[i].begin;
        piece[i].end += box[i].begin;
      }
    }
    return pieces;
  };
}

std::vector<Layout> layouts() {
  std::vector<Layout> all;
  for (const auto& [dp, tp] : {std::pair{1, 1}, {1, 2}, {2, 1}, {1, 4}, {2, 2}, {4, 1}}) {
    all.push_back({dp, tp, false});
    if (dp > 1) all.push_back({dp, tp, true});
  }
  return all;
}

void save(const fs::path& run, const Layout& layout, uint64_t step) {
  run_ranks(layout.ranks(), [&](Control& comm) {
    Checkpoints checkpoints(run, comm, quiet_options());
    checkpoints.find_newest();
    TinyState state(slicing(layout, comm.rank()));
    state.set_to_step(step);
    checkpoints.save(step, state.dict, "");
    state.scramble();
    checkpoints.wait();
    if (checkpoints.stats().committed != 1) fail("test", checkpoints.last_error().value_or("not committed"));
  });
}

}  // namespace

TEST_CASE("boxes: coverage is exact") {
  const std::vector<int64_t> shape = {4, 6};
  const auto tiles = [&](const std::vector<Box>& boxes) {
    std::vector<const Box*> pointers;
    for (const Box& b : boxes) pointers.push_back(&b);
    return tiles_exactly(shape, pointers);
  };
  CHECK(tiles({{{0, 4}, {0, 6}}}));
  CHECK(tiles({{{0, 2}, {0, 6}}, {{2, 4}, {0, 3}}, {{2, 4}, {3, 6}}}));
  CHECK(tiles({{{0, 2}, {0, 4}}, {{0, 3}, {4, 6}}, {{3, 4}, {2, 6}}, {{2, 4}, {0, 2}}, {{2, 3}, {2, 4}}}));  // a pinwheel
  CHECK(!tiles({}));
  CHECK(!tiles({{{0, 4}, {0, 5}}}));
  CHECK(!tiles({{{0, 2}, {0, 6}}, {{1, 4}, {0, 6}}}));  // overlap
  CHECK(!tiles({{{0, 2}, {0, 6}}, {{3, 4}, {0, 6}}}));  // hole
  CHECK(!tiles({{{0, 2}, {0, 6}}, {{1, 3}, {0, 6}}}));  // the right volume, overlapping
  CHECK(!tiles({{{0, 4}, {0, 6}}, {{0, 4}, {0, 6}}}));
  CHECK(!tiles({{{0, 4}, {0, 7}}}));
  CHECK(tiles({{{0, 4}, {0, 6}}, {{2, 2}, {0, 6}}}));  // an empty piece adds nothing
  const std::vector<int64_t> scalar, empty = {0, 3};
  const Box none, all = whole_box(empty);
  const Box* const one[] = {&none};
  const Box* const two[] = {&none, &none};
  const Box* const whole[] = {&all};
  CHECK(tiles_exactly(scalar, one));
  CHECK(!tiles_exactly(scalar, two));
  CHECK(tiles_exactly(empty, whole));
  CHECK(tiles_exactly(empty, {}));
}

TEST_CASE("boxes: a flat range is cut into boxes that are it, in order") {
  std::mt19937_64 random(3);
  for (int round = 0; round < 500; ++round) {
    std::vector<int64_t> shape(random() % 4);
    for (int64_t& n : shape) n = 1 + static_cast<int64_t>(random() % 4);
    const int64_t total = volume(whole_box(shape));
    const int64_t a = static_cast<int64_t>(random() % static_cast<uint64_t>(total + 1)),
                  b = static_cast<int64_t>(random() % static_cast<uint64_t>(total + 1));
    std::vector<int64_t> got;
    const auto boxes = split_flat_range(shape, std::min(a, b), std::max(a, b));
    CHECK(boxes.size() <= std::max<size_t>(1, 2 * shape.size()));
    for (const Box& box : boxes) {
      for_each_run(box, box, whole_box(shape), [&](int64_t, int64_t at, int64_t n) {
        for (int64_t i = 0; i < n; ++i) got.push_back(at + i);
      });
    }
    std::vector<int64_t> expected(static_cast<size_t>(std::abs(b - a)));
    std::iota(expected.begin(), expected.end(), std::min(a, b));
    CHECK(got == expected);
  }
}

TEST_CASE("fold: the sum over pieces is the whole's, whatever the pieces; places and values matter") {
  const TinyState whole;
  TinyState parts(slicing({2, 2, true}, 0));
  const auto fold = [](const StateDict& d) {
    uint64_t sum = 0;
    for (const auto& e : d.tensors) sum += fold_piece(e.name, e.data.dtype, e.global, e.box, e.data.data);
    return sum;
  };
  uint64_t sum = 0;
  for (int rank = 0; rank < 4; ++rank) {
    TinyState part(slicing({2, 2, true}, rank));
    for (const auto& e : part.dict.tensors) {
      const bool replica =
          e.name.rfind("optim.", 0) != 0 ? rank >= 2 || (rank == 1 && e.box == whole_box(e.global)) : rank % 2 == 1 && (e.global.size() != 2);
      if (!replica) sum += fold_piece(e.name, e.data.dtype, e.global, e.box, e.data.data);
    }
  }
  CHECK(sum == fold(whole.dict));
  TinyState other;
  std::swap(other.dict.tensors[0].data.data[0], other.dict.tensors[0].data.data[4]);
  CHECK(fold(other.dict) != fold(whole.dict));
}

TEST_CASE("every layout loads what every layout has saved") {
  TinyState whole;
  whole.set_to_step(7);
  const std::string expected = whole.digest();
  int equal = 0, pairs = 0;
  for (const Layout& saver : layouts()) {
    const ScratchDirectory scratch("reshard");
    save(scratch / "saved", saver, 7);
    CHECK(digest((scratch / "saved").string()) == expected);
    for (const Layout& loader : layouts()) {
      INFO(saver.text() << " -> " << loader.text());
      const fs::path run = scratch / "run";
      fs::copy(scratch / "saved", run, fs::copy_options::recursive);
      // The loading layout saves again, so that its state has a digest of its own.
      run_ranks(loader.ranks(), [&](Control& comm) {
        Checkpoints checkpoints(run, comm, quiet_options());
        if (checkpoints.find_newest()->step != 7) fail("test", "wrong step");
        TinyState state(slicing(loader, comm.rank()));
        state.scramble();
        checkpoints.load(state.dict);
        if (!state.is_at_step(7)) fail("test", "loaded wrongly");
        checkpoints.save(8, state.dict, "");
        checkpoints.wait();
        if (checkpoints.stats().committed != 1) fail("test", checkpoints.last_error().value_or("not committed"));
      });
      ++pairs;
      equal += digest((run / "ckpt/s8-i2").string()) == expected;
      fs::remove_all(run);
    }
  }
  std::printf("reshard: %d of %d pairs of layouts bit-equal\n", equal, pairs);
  CHECK(pairs == 81);
  CHECK(equal == 81);
}

TEST_CASE("replicas that have drifted apart are not saved") {
  const ScratchDirectory run("drift");
  std::mutex mutex;
  std::vector<std::string> errors;
  run_ranks(2, [&](Control& comm) {
    Checkpoints checkpoints(run.path(), comm, quiet_options());
    checkpoints.find_newest();
    TinyState state;
    if (comm.rank() == 1) state.dict.tensors[1].data.data[17] ^= std::byte{1};  // one bit on one rank
    checkpoints.save(5, state.dict, "");
    checkpoints.wait();
    const std::lock_guard lock(mutex);
    errors.push_back(checkpoints.last_error().value_or(""));
  });
  for (const std::string& e : errors) CHECK(e.find("ranks 0 and 1 hold different values") != std::string::npos);
  CHECK(!fs::exists(run / "ckpt/s5-i1"));
}

TEST_CASE("ranks that leave a hole are refused before anything is written") {
  const ScratchDirectory run("hole");
  std::mutex mutex;
  int refused = 0;
  run_ranks(2, [&](Control& comm) {
    Checkpoints checkpoints(run.path(), comm, quiet_options());
    checkpoints.find_newest();
    TinyState state([](const TinyState::Tensor& t) {
      Box box = whole_box(t.shape);
      if (t.name == "model.embed.weight") box[0] = {0, 8};
      return std::vector<Box>{box};
    });
    try {
      checkpoints.prepare(state.dict);
    } catch (const Error& e) {
      const std::lock_guard lock(mutex);
      refused += std::string(e.what()).find("model.embed.weight") != std::string::npos && e.code() == ExitCode::usage;
    }
  });
  CHECK(refused == 2);
}

TEST_CASE("inspect: runs, checkpoints and safetensors files, whole and damaged") {
  const ScratchDirectory run("inspect");
  save(run.path(), {2, 1, true}, 7);
  const std::string checkpoint = (run / "ckpt/s7-i1").string(), shard = checkpoint + "/shard-1-of-2.safetensors";
  CHECK(recognize(run.path().string()) == Inspectable::run);
  CHECK(recognize(checkpoint) == Inspectable::checkpoint);
  CHECK(recognize(checkpoint + "/MANIFEST") == Inspectable::checkpoint);
  CHECK(recognize(shard) == Inspectable::safetensors);
  CHECK(recognize((run / "LATEST").string()) == Inspectable::other);
  CHECK(recognize((run / "ckpt").string()) == Inspectable::other);
  const auto text = [](const std::string& path, InspectOptions options, bool& whole) {
    std::ostringstream out;
    whole = inspect(path, options, out);
    return out.str();
  };
  bool whole = false;
  TinyState state;
  state.set_to_step(7);
  CHECK(text(run.path().string(), {false, true}, whole) == "step 7 digest " + state.digest() + "\n");
  CHECK(text(checkpoint + "/MANIFEST", {false, true}, whole) == "step 7 digest " + state.digest() + "\n");
  for (const std::string& path : {run.path().string(), checkpoint}) {
    const std::string shown = text(path, {.verify = true, .details = true}, whole);
    CHECK(whole);
    for (const char* part : {"step          7", "optim.m.embed.weight", "f32", "(16, 8)", "512 B", "2 pieces", "ok       shard-1-of-2.safetensors"}) {
      INFO(part << " in\n" << shown);
      CHECK(shown.find(part) != std::string::npos);
    }
  }
  std::string content = read_file(shard);
  content.back() = static_cast<char>(content.back() ^ 1);
  write_file(shard, content);
  CHECK(text(run.path().string(), {true, false}, whole).find("DAMAGED  shard-1-of-2.safetensors") != std::string::npos);
  CHECK(!whole);
  CHECK_THROWS_AS(text((run / "LATEST").string(), {}, whole), Error);
}

TEST_CASE("inspect: a run fits a screen, however much it holds, and details are every line") {
  const ScratchDirectory run("inspect");
  std::vector<TinyState::Tensor> tensors;
  for (int i = 0; i < 100; ++i) {
    for (const char* kind : {"model", "optim.m", "optim.v", "ema", "other"}) {
      tensors.push_back({concat(kind, ".blocks.", i, ".weight"), DType::f32, {3, 5}});
    }
    tensors.push_back({concat("kind", i), DType::f32, {2}});
  }
  {
    const auto comm = local_control();
    CheckpointOptions options = quiet_options();
    options.keep_last = 100;
    options.environment = "program: heddle\nprocessor: one\n";
    Checkpoints checkpoints(run.path(), *comm, options);
    checkpoints.find_newest();
    TinyState state({}, tensors);
    for (uint64_t step = 1; step <= 40; ++step) checkpoints.save(step, state.dict, "lr = 1\n");
    checkpoints.wait();
  }
  for (int i = 100; i < 120; ++i) {
    fs::create_directory(run / concat("ckpt/s", i, "-i1"));
    fs::create_directory(run / concat("quarantine/s", i, "-i1"));
  }
  const auto show = [&](const InspectOptions& options) {
    std::ostringstream out;
    CHECK(inspect(run.path().string(), options, out));
    return out.str();
  };
  const auto lines = [](const std::string& text) { return std::count(text.begin(), text.end(), '\n'); };
  const std::string summary = show({}), details = show({.details = true});
  INFO(summary);
  CHECK(lines(summary) <= 24);
  for (const char* part :
       {"s40-i1          current", "and 36 older ones", "20 unfinished checkpoints", "step          40", "tensors       600, 7700 elements",
        "  model         100 tensors, 1500 elements, 5.9 KiB", "optim.m", "others", "program: heddle", "--details"}) {
    INFO(part);
    CHECK(summary.find(part) != std::string::npos);
  }
  CHECK(lines(details) > 40 + 600);
  for (const char* part : {"s1-i1 ", "model.blocks.99.weight", "kind99", "lr = 1", "processor: one", "s119-i1"}) {
    INFO(part);
    CHECK(details.find(part) != std::string::npos);
  }
}

}  // namespace heddle::test
