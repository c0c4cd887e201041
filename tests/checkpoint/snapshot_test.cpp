// The copy a save takes is isolated: whatever happens to the state after save() returns, what lands on disk is the state at the call.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <thread>

#include "checkpoint/run_directory.h"
#include "tests/checkpoint/faults.h"
#include "tests/checkpoint/tiny_state.h"
#include "tests/support/catch.h"

namespace heddle::test {

TEST_CASE("1,000 saves, each overwritten at once") {
  const ScratchDirectory run("snapshot");
  CheckpointOptions options = quiet_options();
  options.keep_last = 2;
  const auto comm = local_control();
  Checkpoints checkpoints(run.path(), *comm, options);
  checkpoints.find_newest();
  TinyState state;
  checkpoints.prepare(state.dict);
  int equal = 0, copied = 0;
  for (uint64_t step = 1; step <= 1000; ++step) {
    state.set_to_step(step);
    const std::string before = state.digest();
    checkpoints.save(step, state.dict, "", [&] { ++copied; });
    state.scramble();
    state.set_to_step(step + 100000);
    checkpoints.wait();
    equal += digest((run / concat("ckpt/s", step, "-i1")).string()) == before;
  }
  std::printf("snapshot isolation: %d of 1000 saved digests are those of the state at the call\n", equal);
  CHECK(equal == 1000);
  CHECK(copied == 1000);
}

// Counts saves between the making of their directory and the renaming of their manifest, on a disk that takes its time.
class SlowFileSystem final : public WatchedFileSystem {
 public:
  int make_directory(int at, const char* name) override {
    const int r = WatchedFileSystem::make_directory(at, name);
    if (r == 0 && parse_checkpoint_name(name)) most = std::max(most.load(), ++in_flight);
    return r;
  }
  int rename(int from_at, const char* from, int to_at, const char* to) override {
    if (std::string(to) == kManifest) --in_flight;
    return WatchedFileSystem::rename(from_at, from, to_at, to);
  }
  int sync(int handle) override {
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
    return WatchedFileSystem::sync(handle);
  }
  std::atomic<int> in_flight{0}, most{0};
};

TEST_CASE("a disk slower than the steps: a save waits for the one before, never two are in flight") {
  const ScratchDirectory run("snapshot");
  const auto comm = local_control();
  SlowFileSystem disk;
  CheckpointOptions options = quiet_options();
  options.fs = &disk;
  Checkpoints checkpoints(run.path(), *comm, options);
  checkpoints.find_newest();
  TinyState state;
  for (uint64_t step = 1; step <= 20; ++step) {
    state.set_to_step(step);
    checkpoints.save(step, state.dict, "");
  }
  checkpoints.wait();
  CHECK(disk.most == 1);
  CHECK(disk.in_flight == 0);
  CHECK(checkpoints.stats().committed == 20);
  CHECK(checkpoints.stats().blocked == 19);
}

TEST_CASE("saves in a row without waiting: at most one in flight, the last one wins") {
  const ScratchDirectory run("snapshot");
  const auto comm = local_control();
  {
    Checkpoints checkpoints(run.path(), *comm, quiet_options());
    checkpoints.find_newest();
    TinyState state;
    for (uint64_t step = 1; step <= 100; ++step) {
      state.set_to_step(step);
      checkpoints.save(step, state.dict, "");
      state.scramble();
    }
  }  // the destructor finishes the last
  Checkpoints checkpoints(run.path(), *comm, quiet_options());
  TinyState state;
  REQUIRE(checkpoints.find_newest()->step == 100);
  checkpoints.load(state.dict);
  CHECK(state.is_at_step(100));
}

}  // namespace heddle::test
