// Every change of a checkpoint's files is found before anything is loaded, and the file is named.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <random>

#include "checkpoint/reader.h"
#include "core/io/file_system.h"
#include "tests/checkpoint/tiny_state.h"
#include "tests/support/catch.h"

namespace heddle::test {
namespace {

namespace fs = std::filesystem;

constexpr const char* kShard0 = "shard-0-of-2.safetensors";
constexpr const char* kShard1 = "shard-1-of-2.safetensors";

// Rows split over two ranks where there are enough.
std::vector<Box> half(const TinyState::Tensor& t, int rank) {
  Box box = whole_box(t.shape);
  if (!box.empty() && box[0].end >= 2) {
    const int64_t middle = box[0].end / 2;
    box[0] = rank == 0 ? Range{0, middle} : Range{middle, box[0].end};
  }
  return {box};
}

void save_two_ranks(const fs::path& run, std::initializer_list<uint64_t> steps) {
  run_ranks(2, [&](Control& comm) {
    Checkpoints checkpoints(run, comm, quiet_options());
    checkpoints.find_newest();
    TinyState state([&](const TinyState::Tensor& t) { return half(t, comm.rank()); });
    for (const uint64_t step : steps) {
      state.set_to_step(step);
      checkpoints.save(step, state.dict, "seed = 1");
      checkpoints.wait();
      if (checkpoints.stats().last_step != step) fail("test", checkpoints.last_error().value_or("not saved"));
    }
  });
}

// What opening and verifying the newest checkpoint says; empty when it verifies.
std::string verdict(const fs::path& run, const CheckpointId& id = {10, 1}) {
  try {
    const RunDirectory directory(real_file_system(), run.string(), false);
    const CheckpointReader reader(real_file_system(), directory.checkpoints(), text_of(id).c_str(), directory.path_of(id), id);
    for (uint64_t i = 0; i < reader.manifest().shards.size(); ++i) reader.verify(i);
  } catch (const Error& e) {
    if (e.code() != ExitCode::bad_data) return concat("exit code ", static_cast<int>(e.code()));
    return e.what();
  }
  return {};
}

bool names(const std::string& message, const std::string& file) {
  return message.find(file) != std::string::npos;
}

}  // namespace

TEST_CASE("every byte of every file, and every length") {
  const ScratchDirectory run("damage");
  save_two_ranks(run.path(), {5, 10});
  REQUIRE(verdict(run.path()).empty());
  long changes = 0, lengths = 0, missed = 0, unnamed = 0;
  for (const char* name : {"MANIFEST", kShard0, kShard1}) {
    const fs::path file = run / "ckpt/s10-i1" / name;
    const std::string good = read_file(file);
    const int h = ::open(file.c_str(), O_RDWR);
    REQUIRE(h >= 0);
    const auto judge = [&](bool& counted) {
      const std::string message = verdict(run.path());
      counted = true;
      missed += message.empty();
      unnamed += !names(message, name);
    };
    for (size_t at = 0; at < good.size(); ++at) {
      const char flipped = static_cast<char>(good[at] ^ (1 << (at % 8)));
      for (const char value : {flipped, '\0', '\xff'}) {
        if (value == good[at]) continue;
        REQUIRE(::pwrite(h, &value, 1, static_cast<off_t>(at)) == 1);
        bool counted = false;
        judge(counted);
        changes += counted;
      }
      REQUIRE(::pwrite(h, &good[at], 1, static_cast<off_t>(at)) == 1);
    }
    for (size_t length = good.size(); length-- > 0;) {
      REQUIRE(::ftruncate(h, static_cast<off_t>(length)) == 0);
      bool counted = false;
      judge(counted);
      lengths += counted;
    }
    ::close(h);
    write_file(file, good);
    for (const std::string& tail : {std::string(1, '\0'), std::string(" "), std::string("\n"), good}) {
      write_file(file, good + tail);
      bool counted = false;
      judge(counted);
      changes += counted;
    }
    write_file(file, good);
    CHECK(verdict(run.path()).empty());
  }
  std::printf("damage: %ld changed bytes and tails, %ld lengths: %ld undetected, %ld without the file's name\n", changes, lengths, missed, unnamed);
  CHECK(missed == 0);
  CHECK(unnamed == 0);
}

TEST_CASE("swapped, stale, missing and extra files") {
  const ScratchDirectory run("damage");
  save_two_ranks(run.path(), {5, 10});
  const fs::path at = run / "ckpt/s10-i1", old = run / "ckpt/s5-i1", keep = run / "keep";
  fs::copy(at, keep);
  const auto restore = [&] {
    fs::remove_all(at);
    fs::copy(keep, at);
    REQUIRE(verdict(run.path()).empty());
  };

  fs::rename(at / kShard0, at / "x");
  fs::rename(at / kShard1, at / kShard0);
  fs::rename(at / "x", at / kShard1);
  CHECK(names(verdict(run.path()), kShard0));
  restore();
  for (const char* name : {kShard0, kShard1, "MANIFEST"}) {
    fs::copy_file(old / name, at / name, fs::copy_options::overwrite_existing);
    CHECK(names(verdict(run.path()), name));
    restore();
    fs::remove(at / name);
    CHECK(names(verdict(run.path()), name));
    restore();
  }
  for (const char* name : {"extra", "shard-2-of-2.safetensors", "shard-0-of-1.safetensors", "MANIFEST.tmp", ".hidden"}) {
    write_file(at / name, "x");
    CHECK(names(verdict(run.path()), name));
    restore();
  }
  // A whole directory under another step's name.
  fs::rename(at, run / "ckpt/s20-i1");
  CHECK(names(verdict(run.path(), {20, 1}), "is that of s10-i1"));
}

TEST_CASE("a damaged newest checkpoint is named, quarantined and passed over; with none left the run refuses to start") {
  const ScratchDirectory run("damage");
  save_two_ranks(run.path(), {5, 10});
  const auto damage = [&](const char* checkpoint) {
    const fs::path file = run / "ckpt" / checkpoint / kShard1;
    std::string content = read_file(file);
    content.back() = static_cast<char>(content.back() ^ 1);
    write_file(file, content);
  };
  std::vector<std::string> log;
  CheckpointOptions options = quiet_options();
  options.log = [&](const std::string& line) { log.push_back(line); };
  const auto comm = local_control();
  damage("s10-i1");
  {
    Checkpoints checkpoints(run.path(), *comm, options);
    const auto found = checkpoints.find_newest();
    REQUIRE(found);
    CHECK(found->step == 5);
    REQUIRE(log.size() == 2);
    CHECK(names(log[0], "s10-i1/shard-1-of-2.safetensors: does not match the hash it was saved with"));
    CHECK(names(log[0], "block 0"));
    CHECK(names(log[1], "quarantine/s10-i1"));
    CHECK(fs::exists(run / "quarantine/s10-i1/MANIFEST"));
    CHECK(!fs::exists(run / "ckpt/s10-i1"));
    TinyState state;
    state.scramble();
    checkpoints.load(state.dict);
    CHECK(state.is_at_step(5));
  }
  damage("s5-i1");
  for (int start = 0; start < 2; ++start) {  // refusing leaves the evidence, so it refuses again
    try {
      Checkpoints(run.path(), *comm, options).find_newest();
      FAIL("started from scratch beside damaged checkpoints");
    } catch (const Error& e) {
      CHECK(e.code() == ExitCode::bad_data);
      CHECK(names(e.what(), "s5-i1/shard-1-of-2.safetensors"));
    }
  }
}

TEST_CASE("damage to the bookkeeping beside the checkpoints") {
  const ScratchDirectory run("damage");
  save_two_ranks(run.path(), {5, 10});
  write_file(run / "LATEST", "s5-i1\n");  // a hint that nothing believes
  const auto comm = local_control();
  CHECK(Checkpoints(run.path(), *comm, quiet_options()).find_newest()->step == 10);
  const fs::path base = run / "inc/1.base";
  const std::string good = read_file(base);
  int missed = 0;
  const auto starts = [&] {
    try {
      Checkpoints(run.path(), *comm, quiet_options()).find_newest();
      return true;
    } catch (const Error& e) {
      return e.code() != ExitCode::bad_data || !names(e.what(), "inc/1.base");
    }
  };
  for (size_t at = 0; at < good.size(); ++at) {
    std::string bad = good;
    bad[at] = static_cast<char>(bad[at] ^ 1);
    write_file(base, bad);
    missed += starts();
    write_file(base, good.substr(0, at));
    missed += starts();
  }
  CHECK(missed == 0);
}

TEST_CASE("file times mean nothing") {
  const ScratchDirectory run("damage");
  save_two_ranks(run.path(), {5, 10, 15});
  std::mt19937_64 random(16);
  const auto comm = local_control();
  for (int round = 0; round < 20; ++round) {
    for (const auto& entry : fs::recursive_directory_iterator(run.path())) {
      fs::last_write_time(entry.path(), fs::file_time_type::clock::now() + std::chrono::seconds(static_cast<int64_t>(random() % 7200) - 3600));
    }
    Checkpoints checkpoints(run.path(), *comm, quiet_options());
    REQUIRE(checkpoints.find_newest()->step == 15);
  }
}

}  // namespace heddle::test
