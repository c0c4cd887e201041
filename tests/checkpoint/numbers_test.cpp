// Numbers that a file or a file's name may hold, at every place that holds one: accepted when they are possible, refused with 65 when not, and never
// counted past their end.
#include <algorithm>
#include <cctype>
#include <chrono>
#include <cstdio>
#include <set>

#include "checkpoint/inspect.h"
#include "checkpoint/manifest.h"
#include "checkpoint/run_directory.h"
#include "core/io/sha256.h"
#include "tests/checkpoint/tiny_state.h"
#include "tests/support/catch.h"

namespace heddle::test {
namespace {

namespace fs = std::filesystem;

const std::vector<std::string> kExtremes = {"0",
                                            "1",
                                            "65536",
                                            "65537",
                                            "2147483648",
                                            "4294967295",
                                            "4294967296",
                                            "9007199254740993",
                                            "4611686018427387902",
                                            "4611686018427387903",
                                            "4611686018427387904",
                                            "9223372036854775807",
                                            "9223372036854775808",
                                            "18446744073709551615",
                                            "18446744073709551616",
                                            "-1",
                                            "1e300",
                                            "0.5",
                                            "null",
                                            "[]"};

std::string sealed(const std::string& body) {
  return body + "sha256 " + hex(sha256(body)) + "\n";
}

// Where numbers stand in JSON, outside of strings.
std::vector<std::pair<size_t, size_t>> numbers_in(const std::string& json) {
  std::vector<std::pair<size_t, size_t>> found;
  bool quoted = false;
  for (size_t i = 0; i < json.size(); ++i) {
    if (json[i] == '\\') {
      ++i;
    } else if (json[i] == '"') {
      quoted = !quoted;
    } else if (!quoted && std::isdigit(static_cast<unsigned char>(json[i])) != 0) {
      const size_t begin = i;
      while (i < json.size() && std::isdigit(static_cast<unsigned char>(json[i])) != 0) ++i;
      found.emplace_back(begin, i - begin);
      --i;
    }
  }
  return found;
}

// The product of all sizes as it is, or -1 where it is more than 2^62.
int64_t exact_volume(const std::vector<int64_t>& shape) {
  if (std::find(shape.begin(), shape.end(), 0) != shape.end()) return 0;
  __extension__ __int128 product = 1;
  for (const int64_t n : shape) {
    product *= n;
    if (product > (__extension__ static_cast<__int128>(1) << 62)) return -1;
  }
  return static_cast<int64_t>(product);
}

struct Start {
  ScratchDirectory scratch{"numbers"};
  fs::path keep = scratch / "keep", run = scratch / "run";
  Start() {
    run_ranks(2, [&](Control& comm) {
      Checkpoints checkpoints(keep, comm, quiet_options());
      checkpoints.find_newest();
      TinyState state;
      for (const uint64_t step : {5, 10}) {
        state.set_to_step(step);
        checkpoints.save(step, state.dict, "");
      }
      checkpoints.wait();
    });
    reset();
  }
  void reset() const {
    fs::remove_all(run);
    fs::copy(keep, run, fs::copy_options::recursive);
  }
  // A job on what is there: starts, loads, saves a few times. Its exit code.
  ExitCode go_on() const {
    const auto comm = local_control();
    try {
      CheckpointOptions options = quiet_options();
      options.keep_last = 2;
      Checkpoints checkpoints(run, *comm, options);
      TinyState state;
      const auto found = checkpoints.find_newest();
      if (found) checkpoints.load(state.dict);
      const uint64_t step = found ? found->step : 0;
      for (uint64_t i = 1; i <= 3; ++i) {
        state.set_to_step(step + i);
        checkpoints.save(step + i, state.dict, "");
        checkpoints.wait();
        if (checkpoints.last_error()) FAIL(*checkpoints.last_error());
      }
      state.scramble();
      CHECK(read_checkpoint(run.string(), state.dict).step == step + 3);
      CHECK(state.is_at_step(step + 3));
    } catch (const Error& e) {
      const std::string message = e.what();
      INFO(message);
      CHECK(message.size() < 4096);
      return e.code();
    }
    return ExitCode::ok;
  }
};

}  // namespace

TEST_CASE("extreme numbers: each number of a manifest") {
  const Start start;
  const fs::path place = start.run / "ckpt/s10-i1/MANIFEST";
  const std::string text = read_file(place), body = text.substr(0, text.size() - kSelfHashBytes);
  int accepted = 0, refused = 0;
  for (const auto& [at, length] : numbers_in(body)) {
    for (const std::string& number : kExtremes) {
      const std::string old = body.substr(at, length);
      if (number == old) continue;
      INFO("byte " << at << ", " << body.substr(at < 30 ? 0 : at - 30, 30) << "[" << old << " -> " << number << "]");
      std::string changed = body;
      changed.replace(at, length, number);
      try {
        const Manifest m = parse_manifest(sealed(changed), "MANIFEST");
        CHECK(m.step < kNumberEnd);
        CHECK(m.incarnation < kNumberEnd);
        for (const SavedTensor& t : m.tensors) CHECK(t.bytes() == exact_volume(t.global) * size_of(t.dtype));
        ++accepted;
      } catch (const Error& e) {
        CHECK(e.code() == ExitCode::bad_data);
        ++refused;
      }
    }
  }
  std::printf("numbers of a manifest: %d changes accepted, %d refused\n", accepted, refused);
  CHECK(refused > 1000);
}

TEST_CASE("extreme numbers: sizes beside an empty axis") {
  // Empty, whatever the others multiply to.
  for (const std::vector<int64_t>& shape : {std::vector<int64_t>{int64_t{1} << 62, int64_t{1} << 62, 0},
                                            {0, int64_t{1} << 62, int64_t{1} << 62},
                                            {int64_t{1} << 62, 0, int64_t{1} << 62},
                                            {3, int64_t{1} << 40, int64_t{1} << 40, 0}}) {
    const Box box = whole_box(shape);
    CHECK(volume(box) == 0);
    CHECK(split_flat_range(shape, 0, 0).empty());
    const Box* const boxes[] = {&box, &box};
    CHECK(tiles_exactly(shape, {boxes, 1}));
    CHECK(tiles_exactly(shape, {boxes, 2}));
  }
}

TEST_CASE("extreme numbers: each name of a run directory") {
  const Start start;
  struct Place {
    std::string what;
    std::function<void(const std::string& number)> put;
  };
  const auto base = [](const std::string& step, const std::string& incarnation) {
    const std::string line = "step " + step + " incarnation " + incarnation + " manifest " + std::string(64, '0') + "\n";
    return line + "sha256 " + hex(sha256(line)) + "\n";
  };
  const auto make = [&](const std::string& directory, const std::string& file) {
    fs::create_directories(start.run / directory);
    write_file(start.run / directory / file, "");
  };
  const std::vector<Place> places = {
      {"inc/N", [&](const std::string& n) { write_file(start.run / "inc" / n, ""); }},
      {"inc/N.base", [&](const std::string& n) { write_file(start.run / "inc" / (n + ".base"), base("10", "1")); }},
      {"inc/N.base of step 0", [&](const std::string& n) { write_file(start.run / "inc" / (n + ".base"), base("0", "0")); }},
      {"a base's step", [&](const std::string& n) { write_file(start.run / "inc/1.base", base(n, "0")); }},
      {"a base's incarnation", [&](const std::string& n) { write_file(start.run / "inc/1.base", base("0", n)); }},
      {"ckpt/sN-i1, unfinished", [&](const std::string& n) { make("ckpt/s" + n + "-i1", "shard-0-of-1.safetensors"); }},
      {"ckpt/s1-iN, unfinished", [&](const std::string& n) { make("ckpt/s1-i" + n, "shard-0-of-1.safetensors"); }},
      {"ckpt/sN-i1", [&](const std::string& n) { make("ckpt/s" + n + "-i1", "MANIFEST"); }},
      {"shard-0-of-N of an old checkpoint", [&](const std::string& n) { make("ckpt/s5-i1", "shard-0-of-" + n + ".safetensors"); }},
      {"shard-0-of-N alone", [&](const std::string& n) {
         fs::remove_all(start.run / "ckpt/s5-i1");
         make("ckpt/s5-i1", "shard-0-of-" + n + ".safetensors");
         write_file(start.run / "ckpt/s5-i1/MANIFEST", "");
       }}};
  int accepted = 0, refused = 0;
  for (const Place& p : places) {
    for (const std::string& number : kExtremes) {
      INFO(p.what << ", N = " << number);
      start.reset();
      p.put(number);
      const auto begun = std::chrono::steady_clock::now();
      const ExitCode code = start.go_on();
      CHECK((code == ExitCode::ok || code == ExitCode::bad_data));
      CHECK(std::chrono::steady_clock::now() - begun < std::chrono::seconds(20));
      ++(code == ExitCode::ok ? accepted : refused);
    }
  }
  std::printf("numbers in names: %d accepted, %d refused\n", accepted, refused);
  CHECK(refused > 0);
}

TEST_CASE("the last incarnation: refused by name, and nothing is left behind") {
  const Start start;
  write_file(start.run / "inc/4611686018427387903", "");
  const std::vector<std::string> before = tree(start.run);
  const auto comm = local_control();
  std::string message;
  try {
    Checkpoints checkpoints(start.run, *comm, quiet_options());
  } catch (const Error& e) {
    CHECK(e.code() == ExitCode::bad_data);
    message = e.what();
  }
  CHECK(message.find("inc/4611686018427387903") != std::string::npos);
  CHECK(message.find("move that file away") != std::string::npos);
  CHECK(tree(start.run) == before);
  fs::remove(start.run / "inc/4611686018427387903");
  CHECK(start.go_on() == ExitCode::ok);
}

}  // namespace heddle::test
