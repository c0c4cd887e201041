// The process dies before and after every system call of a start, a load, saves and the deletions that follow them. Whatever is left, the next start
// finds the newest state that was reported, or a newer one, bit for bit.
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <map>

#include "tests/checkpoint/faults.h"
#include "tests/checkpoint/tiny_state.h"
#include "tests/support/catch.h"

namespace heddle::test {
namespace {

namespace fs = std::filesystem;

CheckpointOptions options_on(FileSystem& disk) {
  CheckpointOptions options = quiet_options();
  options.keep_last = 2;
  options.scrub_every = 2;
  options.fs = &disk;
  return options;
}

void prepare_run(const fs::path& run) {
  const auto comm = local_control();
  Checkpoints checkpoints(run, *comm, options_on(real_file_system()));
  checkpoints.find_newest();
  TinyState state;
  for (const uint64_t step : {5, 10}) {
    state.set_to_step(step);
    checkpoints.save(step, state.dict, "");
  }
  checkpoints.wait();
  fs::create_directory(run / "ckpt/s12-i1");  // a save that an earlier job did not finish
  write_file(run / "ckpt/s12-i1/shard-0-of-1.safetensors", "half");
}

// The job under test. `reported` is the newest step that it has been told is safe.
void job(const fs::path& run, FileSystem& disk, volatile uint64_t* reported) {
  const auto comm = local_control();
  Checkpoints checkpoints(run, *comm, options_on(disk));
  TinyState state;
  state.scramble();
  if (!checkpoints.find_newest()) fail("test", "nothing to load");
  checkpoints.load(state.dict);
  if (!state.is_at_step(10)) fail("test", "wrong state");
  for (const uint64_t step : {15, 20, 25}) {
    state.set_to_step(step);
    checkpoints.save(step, state.dict, "");
    checkpoints.wait();
    if (checkpoints.stats().last_step == step) *reported = step;
  }
}

uint64_t recover(const fs::path& run) {
  const auto comm = local_control();
  Checkpoints checkpoints(run, *comm, options_on(real_file_system()));
  const auto found = checkpoints.find_newest(Checkpoints::Resume::must);
  TinyState state;
  state.scramble();
  checkpoints.load(state.dict);
  if (!state.is_at_step(found->step)) fail("test", concat("step ", found->step, " came back wrong"));
  const uint64_t next = found->step + 1;  // and training goes on
  state.set_to_step(next);
  checkpoints.save(next, state.dict, "");
  checkpoints.wait();
  if (checkpoints.stats().committed != 1) fail("test", "cannot save after recovery: " + checkpoints.last_error().value_or(""));
  return found->step;
}

}  // namespace

TEST_CASE("death at every system call") {
  const ScratchDirectory scratch("crash");
  auto* const reported = static_cast<uint64_t*>(::mmap(nullptr, sizeof(uint64_t), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
  REQUIRE(reported != MAP_FAILED);
  const fs::path start = scratch / "start", run = scratch / "run";
  prepare_run(start);

  int64_t calls = 0;
  {
    FaultyFileSystem disk;
    fs::copy(start, run, fs::copy_options::recursive);
    job(run, disk, reported);
    calls = disk.calls();
    REQUIRE(*reported == 25);
    fs::remove_all(run);
  }
  int cases = 0;
  std::map<uint64_t, int> recovered;
  for (int64_t at = 1; at <= calls; ++at) {
    for (const auto kind : {FaultyFileSystem::Kind::die_before, FaultyFileSystem::Kind::die_after}) {
      fs::copy(start, run, fs::copy_options::recursive);
      *reported = 10;
      const pid_t child = ::fork();
      REQUIRE(child >= 0);
      if (child == 0) {
        FaultyFileSystem disk;
        disk.set({kind, at});
        try {
          job(run, disk, reported);
        } catch (...) {
          ::_exit(1);
        }
        ::_exit(0);
      }
      int status = 0;
      ::waitpid(child, &status, 0);
      INFO("call " << at << (kind == FaultyFileSystem::Kind::die_before ? " before" : " after") << ", reported " << *reported);
      // The number of calls is a few less on runs where two threads close handles at the end in another order.
      CHECK(WIFEXITED(status));
      CHECK((WEXITSTATUS(status) == FaultyFileSystem::kDied || (WEXITSTATUS(status) == 0 && at > calls - 8)));
      uint64_t step = 0;
      REQUIRE_NOTHROW(step = recover(run));
      CHECK(step >= *reported);
      // A death leaves what was not committed, never a commit that does not verify.
      for (const auto& moved : fs::directory_iterator(run / "quarantine")) CHECK(!fs::exists(moved.path() / "MANIFEST"));
      ++recovered[step];
      ++cases;
      fs::remove_all(run);
    }
  }
  std::printf("death at every system call: %d cases (%lld calls, before and after);", cases, static_cast<long long>(calls));
  for (const auto& [step, count] : recovered) std::printf(" step %llu: %d", static_cast<unsigned long long>(step), count);
  std::printf("\n");
  CHECK(recovered.size() == 4);  // every one of 10, 15, 20, 25 was the newest at some point
  ::munmap(reported, sizeof(uint64_t));
}

}  // namespace heddle::test
