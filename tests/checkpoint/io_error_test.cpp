// Every kind of I/O error at every system call, once and for good. The job ends with a documented exit code or trains on; nothing that was reported
// is lost, and what is found later is right to the last bit.
#include <cerrno>
#include <cstdio>
#include <map>

#include "tests/checkpoint/faults.h"
#include "tests/checkpoint/tiny_state.h"
#include "tests/support/catch.h"

namespace heddle::test {
namespace {

namespace fs = std::filesystem;
using Kind = FaultyFileSystem::Kind;

CheckpointOptions options_on(FileSystem& disk) {
  CheckpointOptions options = quiet_options();
  options.keep_last = 2;
  options.scrub_every = 3;
  options.fs = &disk;
  return options;
}

struct Outcome {
  uint64_t reported = 10;
  int exit_code = 0;
  uint64_t failed = 0;
};

Outcome job(const fs::path& run, FileSystem& disk) {
  Outcome outcome;
  const auto comm = local_control();
  try {
    Checkpoints checkpoints(run, *comm, options_on(disk));
    TinyState state;
    state.scramble();
    const auto found = checkpoints.find_newest(Checkpoints::Resume::must);
    checkpoints.load(state.dict);
    if (!state.is_at_step(found->step)) fail("test", concat("step ", found->step, " was loaded wrongly"), ExitCode::usage);
    for (const uint64_t step : {15, 20, 25}) {
      state.set_to_step(step);
      checkpoints.save(step, state.dict, "");
      state.scramble();
      checkpoints.wait();
      if (checkpoints.stats().last_step == step && checkpoints.stats().scrub_failures == 0) outcome.reported = step;
      outcome.failed = checkpoints.stats().failed;
    }
  } catch (const Error& e) {
    outcome.exit_code = static_cast<int>(e.code());
  }
  return outcome;
}

uint64_t recover(const fs::path& run) {
  const auto comm = local_control();
  Checkpoints checkpoints(run, *comm, options_on(real_file_system()));
  const auto found = checkpoints.find_newest(Checkpoints::Resume::must);
  TinyState state;
  state.scramble();
  checkpoints.load(state.dict);
  if (!state.is_at_step(found->step)) fail("test", concat("step ", found->step, " came back wrong"));
  return found->step;
}

}  // namespace

TEST_CASE("every I/O error at every system call") {
  const ScratchDirectory scratch("errors");
  const fs::path start = scratch / "start", run = scratch / "run";
  {
    const auto comm = local_control();
    Checkpoints checkpoints(start, *comm, options_on(real_file_system()));
    checkpoints.find_newest();
    TinyState state;
    for (const uint64_t step : {5, 10}) {
      state.set_to_step(step);
      checkpoints.save(step, state.dict, "");
    }
    checkpoints.wait();
  }
  const struct {
    const char* name;
    Kind kind;
    int error;
  } faults[] = {{"ENOSPC", Kind::error, ENOSPC},      {"EDQUOT", Kind::error, EDQUOT}, {"EIO", Kind::error, EIO},
                {"EINTR", Kind::error, EINTR},        {"ESTALE", Kind::error, ESTALE}, {"EMFILE", Kind::error, EMFILE},
                {"short write", Kind::short_write, 0}};
  int64_t calls = 0;
  {
    FaultyFileSystem disk;
    fs::copy(start, run, fs::copy_options::recursive);
    REQUIRE(job(run, disk).reported == 25);
    calls = disk.calls();
    fs::remove_all(run);
  }
  int cases = 0, hit = 0, fell_back = 0;
  std::map<int, int> codes;
  for (const auto& fault : faults) {
    for (const bool sticky : {false, true}) {
      for (int64_t at = 1; at <= calls; ++at) {
        FaultyFileSystem disk;
        disk.set({fault.kind, at, fault.error, sticky});
        fs::copy(start, run, fs::copy_options::recursive);
        const Outcome outcome = job(run, disk);
        INFO(fault.name << (sticky ? " from" : " at") << " call " << at << ": reported " << outcome.reported << ", exit code " << outcome.exit_code);
        ++cases;
        hit += disk.hits() > 0;
        ++codes[outcome.exit_code];
        // 0 went on, 65 unreadable checkpoints, 74 I/O; anything else is a wrong answer to an I/O error.
        CHECK((outcome.exit_code == 0 || outcome.exit_code == 65 || outcome.exit_code == 74));
        if (fault.kind == Kind::short_write) CHECK((outcome.exit_code == 0 && outcome.reported == 25 && outcome.failed == 0));
        if (outcome.exit_code == 0 && !sticky) CHECK(outcome.reported >= 20);  // one error costs at most one save
        uint64_t step = 0;
        REQUIRE_NOTHROW(step = recover(run));
        // EIO on reading is damage: the job then says so and starts from the checkpoint before.
        const bool older = step < outcome.reported;
        CHECK((!older || (fault.error == EIO && step == 5)));
        fell_back += older;
        fs::remove_all(run);
      }
    }
  }
  std::printf("every I/O error at every call: %d cases (7 errors x 2 x %lld calls), %d hit, %d took the older checkpoint; exit codes:", cases,
              static_cast<long long>(calls), hit, fell_back);
  for (const auto& [code, count] : codes) std::printf(" %d: %d", code, count);
  std::printf("\n");
  CHECK(cases >= 800);
}

}  // namespace heddle::test
