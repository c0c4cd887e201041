// The copy a save takes is isolated: whatever happens to the state after save() returns, what lands on disk is the state at the call.
#include <cstdio>

#include "tests/support/catch.h"
#include "tests/train/checkpoint/tiny_state.h"

namespace heddle::test {

TEST_CASE("1,000 saves, each overwritten at once") {
  const ScratchDirectory run("snapshot");
  CheckpointOptions options = quiet_options();
  options.keep_last = 2;
  const auto comm = local_communicator();
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

TEST_CASE("saves in a row without waiting: at most one in flight, the last one wins") {
  const ScratchDirectory run("snapshot");
  const auto comm = local_communicator();
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
