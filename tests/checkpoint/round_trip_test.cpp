// What a checkpoint promises when nothing goes wrong: layout, round trip, branches, retention, any slicing to any other.
#include <atomic>
#include <cstring>
#include <fstream>
#include <random>

#include "checkpoint/loading.h"
#include "checkpoint/run_directory.h"
#include "tests/checkpoint/tiny_state.h"
#include "tests/support/catch.h"

namespace heddle::test {
namespace {

using Resume = Checkpoints::Resume;

void save_steps(const std::filesystem::path& run, std::initializer_list<uint64_t> steps, const CheckpointOptions& options = quiet_options()) {
  const auto comm = local_control();
  Checkpoints checkpoints(run, *comm, options);
  TinyState state;
  if (checkpoints.find_newest()) checkpoints.load(state.dict);
  checkpoints.prepare(state.dict);
  for (const uint64_t step : steps) {
    state.set_to_step(step);
    checkpoints.save(step, state.dict, "lr = 0.1\n");
    state.scramble();
  }
  checkpoints.wait();
}

uint64_t newest(const std::filesystem::path& run) {
  const auto comm = local_control();
  Checkpoints checkpoints(run, *comm, quiet_options());
  TinyState state;
  const auto found = checkpoints.find_newest();
  if (!found) return 0;
  state.scramble();
  checkpoints.load(state.dict);
  CHECK(state.is_at_step(found->step));
  return found->step;
}

ExitCode code_of(const std::function<void()>& body, std::string* message = nullptr) {
  try {
    body();
  } catch (const Error& e) {
    if (message != nullptr) *message = e.what();
    return e.code();
  }
  return ExitCode::ok;
}

}  // namespace

TEST_CASE("between a device and a file or a hash little passes through host memory at a time, whatever the state") {
  const ScratchDirectory run;
  save_steps(run.path(), {7});
  const CheckpointReader reader = open_checkpoint(real_file_system(), run.path());
  for (const int64_t most : {1, 24, 100, 4096}) {
    CAPTURE(most);
    TinyState state;
    state.scramble();
    int64_t largest = 0, calls = 0, reads = 0, row = 1;
    const CopyIn copy_in = [&](const View& to, const std::byte* from, size_t bytes) {
      std::memcpy(to.data, from, bytes);
      largest = std::max(largest, static_cast<int64_t>(bytes));
      ++calls;
    };
    for (const StateDict::Entry& e : state.dict.tensors)
      row = std::max(row, e.data.bytes() / std::max<int64_t>(e.box.empty() ? 1 : e.box[0].size(), 1));
    read_state(reader, state.dict, "", copy_in, most);
    state.dict.scalars = reader.manifest().scalars;
    CHECK(state.is_at_step(7));
    CHECK(largest <= std::max(most, row));
    CHECK(calls >= std::count_if(state.dict.tensors.begin(), state.dict.tensors.end(), [](const StateDict::Entry& e) { return e.data.numel() > 0; }));
    for (const StateDict::Entry& e : state.dict.tensors) {
      const CopyOut copy_out = [&](std::byte* to, const View& from, size_t bytes) {
        std::memcpy(to, from.data, bytes);
        CHECK(static_cast<int64_t>(bytes) <= std::max(most, row));
        ++reads;
      };
      CHECK(fold_state_entry(e, copy_out, most) == fold_state_entry(e, {}));
    }
    CHECK(reads == calls);
  }
}

TEST_CASE("a step that no file name could hold is refused, the one below it is not") {
  const ScratchDirectory run;
  const uint64_t end = uint64_t{1} << 62;
  {
    const auto comm = local_control();
    Checkpoints checkpoints(run.path(), *comm, quiet_options());
    TinyState state;
    CHECK(!checkpoints.find_newest());
    checkpoints.prepare(state.dict);
    for (const uint64_t step : {end, end + 1, UINT64_MAX}) {
      std::string message;
      CHECK(code_of([&] { checkpoints.save(step, state.dict, ""); }, &message) == ExitCode::runtime);
      CHECK(message.find("2^62") != std::string::npos);
    }
    checkpoints.wait();
    CHECK(checkpoints.stats().failed == 0);
    state.set_to_step(end - 1);
    checkpoints.save(end - 1, state.dict, "");
    checkpoints.wait();
  }
  CHECK(newest(run.path()) == end - 1);
}

TEST_CASE("what a killed job left of its small files is swept at the next start, and nothing else") {
  const ScratchDirectory run;
  save_steps(run.path(), {5});
  const auto write = [&](const char* name) { std::ofstream(run / name) << "half"; };
  for (const char* name :
       {"LATEST.tmp", "config.toml.tmp123", "shards.txt.tmp9", "tokenizer.json.tmp77", "LOCK.tmp", "metrics.jsonl.tmp5", "inc/7.base.tmp"})
    write(name);
  for (const char* name : {"notes.tmp", "config.toml.tmpl", "LATEST.tmp.old", "victims.txt.tmp1", "inc/mine.tmp"}) write(name);
  save_steps(run.path(), {10});
  std::vector<std::string> left;
  for (const std::string& name : tree(run.path())) {
    if (name.find(".tmp") != std::string::npos) left.push_back(name);
  }
  CHECK(left == std::vector<std::string>{"LATEST.tmp.old", "config.toml.tmpl", "inc/mine.tmp", "notes.tmp", "victims.txt.tmp1"});
}

TEST_CASE("a checkpoint comes back bit for bit, with exactly the documented files") {
  const ScratchDirectory run;
  save_steps(run.path(), {5, 10});
  CHECK(tree(run.path()) == std::vector<std::string>{"LATEST", "LOCK", "ckpt/", "ckpt/s10-i1/", "ckpt/s10-i1/MANIFEST",
                                                     "ckpt/s10-i1/shard-0-of-1.safetensors", "ckpt/s5-i1/", "ckpt/s5-i1/MANIFEST",
                                                     "ckpt/s5-i1/shard-0-of-1.safetensors", "inc/", "inc/1", "inc/1.base", "quarantine/"});
  CHECK(read_file(run / "LATEST") == "s10-i1\n");

  const auto comm = local_control();
  Checkpoints checkpoints(run.path(), *comm, quiet_options());
  CHECK(checkpoints.incarnation() == 2);
  const auto found = checkpoints.find_newest(Resume::must);
  REQUIRE(found);
  CHECK(found->step == 10);
  CHECK(found->config == "lr = 0.1\n");
  CHECK(found->environment == "test");
  TinyState state;
  state.scramble();
  checkpoints.load(state.dict);
  CHECK(state.is_at_step(10));
  CHECK(digest(run.path().string()) == state.digest());
}

TEST_CASE("--resume: must needs a checkpoint, never refuses one") {
  const ScratchDirectory run;
  const auto comm = local_control();
  std::string message;
  CHECK(code_of([&] { Checkpoints(run.path(), *comm).find_newest(Resume::must); }, &message) == ExitCode::bad_data);
  CHECK(code_of([&] { Checkpoints(run.path(), *comm).find_newest(Resume::never); }) == ExitCode::ok);
  save_steps(run.path(), {5});
  CHECK(code_of([&] { Checkpoints(run.path(), *comm).find_newest(Resume::never); }, &message) == ExitCode::usage);
  CHECK(message.find("s5-i1") != std::string::npos);  // the two starts that saved nothing have given their numbers back
}

TEST_CASE("one job at a time") {
  const ScratchDirectory run;
  const auto comm = local_control();
  {
    const Checkpoints first(run.path(), *comm);
    CHECK(code_of([&] { Checkpoints(run.path(), *comm); }) == ExitCode::in_use);
  }
  CHECK(code_of([&] { Checkpoints(run.path(), *comm); }) == ExitCode::ok);
}

TEST_CASE("a job whose run was taken over saves no more and says so") {
  const ScratchDirectory run;
  const auto comm = local_control();
  Checkpoints old(run.path(), *comm);
  old.find_newest();
  TinyState state;
  state.set_to_step(5);
  old.save(5, state.dict, "");
  old.wait();
  RunDirectory(real_file_system(), run.path().string(), false).claim_incarnation();  // as a job on a machine that does not see the lock
  old.save(10, state.dict, "");
  CHECK(code_of([&] { old.wait(); }) == ExitCode::in_use);
  CHECK(code_of([&] { old.save(15, state.dict, ""); }) == ExitCode::in_use);
  CHECK(!std::filesystem::exists(run / "ckpt/s10-i1"));
  CHECK(std::filesystem::exists(run / "ckpt/s5-i1/MANIFEST"));
}

TEST_CASE("the branch rule: what a later start went back behind is dead") {
  const ScratchDirectory run;
  save_steps(run.path(), {5, 10, 15});  // incarnation 1
  {
    const auto comm = local_control();
    Checkpoints checkpoints(run.path(), *comm, quiet_options());
    TinyState state;
    REQUIRE(checkpoints.find_newest(Resume::must, 12)->step == 10);
    checkpoints.load(state.dict);
    state.set_to_step(12);
    checkpoints.save(12, state.dict, "");
    checkpoints.wait();
  }
  CHECK(newest(run.path()) == 12);  // not 15
  // An orphan of incarnation 1 that commits late changes nothing.
  std::filesystem::rename(run / "ckpt/s12-i2", run / "away");
  CHECK(newest(run.path()) == 10);
}

TEST_CASE("a start that went back and died before its first save has its branch already") {
  const ScratchDirectory run;
  save_steps(run.path(), {5, 10, 15});
  {
    const auto comm = local_control();
    Checkpoints checkpoints(run.path(), *comm, quiet_options());
    TinyState state;
    REQUIRE(checkpoints.find_newest(Resume::must, 12)->step == 10);
    checkpoints.load(state.dict);
  }
  CHECK(std::filesystem::exists(run / "ckpt/s15-i1/MANIFEST"));  // no save, so nothing was cleared
  CHECK(newest(run.path()) == 10);
}

TEST_CASE("rolling back within a job starts a branch") {
  const ScratchDirectory run;
  const auto comm = local_control();
  {
    Checkpoints checkpoints(run.path(), *comm, quiet_options());
    checkpoints.find_newest();
    TinyState state;
    for (const uint64_t step : {5, 10, 15}) {
      state.set_to_step(step);
      checkpoints.save(step, state.dict, "");
    }
    checkpoints.roll_back();
    CHECK(checkpoints.incarnation() == 2);
    CHECK(code_of([&] { checkpoints.load(state.dict); }) == ExitCode::runtime);
    REQUIRE(checkpoints.find_newest(Resume::must, 9)->step == 5);
    checkpoints.load(state.dict);
    CHECK(state.is_at_step(5));
    state.set_to_step(7);
    checkpoints.save(7, state.dict, "");
    checkpoints.wait();
  }
  CHECK(newest(run.path()) == 7);
}

TEST_CASE("retention keeps the newest, the multiples and the pinned, and clears the dead") {
  const ScratchDirectory run;
  CheckpointOptions options = quiet_options();
  options.keep_last = 2;
  options.keep_every = 20;
  const auto comm = local_control();
  Checkpoints checkpoints(run.path(), *comm, options);
  checkpoints.find_newest();
  TinyState state;
  for (uint64_t step = 5; step <= 60; step += 5) {
    state.set_to_step(step);
    checkpoints.save(step, state.dict, "");
    checkpoints.wait();
    if (step == 15) checkpoints.pin(15);
  }
  std::vector<std::string> left;
  for (const auto& entry : std::filesystem::directory_iterator(run / "ckpt")) left.push_back(entry.path().filename().string());
  std::sort(left.begin(), left.end());
  CHECK(left == std::vector<std::string>{"s15-i1", "s20-i1", "s40-i1", "s55-i1", "s60-i1"});
  CHECK(checkpoints.stats().committed == 12);
  CHECK(checkpoints.stats().failed == 0);
}

// What a cluster does to a run: it is started again and again, and no start saves more than once or twice.
TEST_CASE("checkpoints do not pile up over starts, however few each of them saves") {
  std::mt19937 engine(7);
  for (const int keep_last : {2, 3, 5}) {
    for (const uint64_t keep_every : {0, 20}) {
      const ScratchDirectory run;
      CheckpointOptions options = quiet_options();
      options.keep_last = keep_last;
      options.keep_every = keep_every;
      std::vector<uint64_t> wanted;  // steps on the disk
      uint64_t step = 0;
      for (int start = 1; start <= 25; ++start) {
        const auto comm = local_control();
        Checkpoints checkpoints(run.path(), *comm, options);
        TinyState state;
        if (checkpoints.find_newest()) checkpoints.load(state.dict);
        const bool goes_back = start % 8 == 0;
        if (goes_back) {  // what was saved after the checkpoint before the newest is dead then, and goes with the next save
          checkpoints.roll_back();
          step = checkpoints.find_newest(Resume::must, step - 1)->step;
          checkpoints.load(state.dict);
          std::erase_if(wanted, [&](uint64_t s) { return s > step; });
        }
        for (uint64_t saves = goes_back ? 1 : engine() % 3; saves > 0; --saves) {
          step += 5;
          state.set_to_step(step);
          checkpoints.save(step, state.dict, "");
          checkpoints.wait();
          wanted.push_back(step);
          const uint64_t oldest = *(wanted.end() - std::min<std::ptrdiff_t>(keep_last, std::ssize(wanted)));
          std::erase_if(wanted, [&](uint64_t s) { return s < oldest && (keep_every == 0 || s % keep_every != 0); });
          std::vector<uint64_t> left;
          for (const auto& entry : std::filesystem::directory_iterator(run / "ckpt")) {
            left.push_back(parse_checkpoint_name(entry.path().filename().string())->step);
          }
          std::sort(left.begin(), left.end());
          INFO("--keep-last " << keep_last << ", --keep-every " << keep_every << ", start " << start << ", step " << step);
          REQUIRE(left == wanted);
        }
      }
      CHECK(step > 80);
    }
  }
}

TEST_CASE("saving a committed step again does nothing") {
  const ScratchDirectory run;
  const auto comm = local_control();
  Checkpoints checkpoints(run.path(), *comm, quiet_options());
  checkpoints.find_newest();
  TinyState state;
  checkpoints.save(5, state.dict, "");
  checkpoints.save(5, state.dict, "");
  checkpoints.wait();
  CHECK(checkpoints.stats().committed == 1);
  CHECK(checkpoints.stats().failed == 0);
}

TEST_CASE("loading is strict and lists everything at once") {
  const ScratchDirectory run;
  save_steps(run.path(), {5});
  auto tensors = TinyState::model();
  tensors[0].shape = {16, 9};
  tensors[1].name = "model.other";
  tensors[3].dtype = DType::f32;
  TinyState state({}, tensors);
  const auto comm = local_control();
  Checkpoints checkpoints(run.path(), *comm, quiet_options());
  checkpoints.find_newest();
  std::string message;
  CHECK(code_of([&] { checkpoints.load(state.dict); }, &message) == ExitCode::bad_data);
  for (const char* part : {"missing: model.other", "unexpected: model.blocks.0.attn.qkv.weight",
                           "differs: model.embed.weight: f32 (16, 8) saved, f32 (16, 9) wanted", "differs: model.half"}) {
    INFO(part);
    CHECK(message.find(part) != std::string::npos);
  }
  // Only the model, for generate and eval.
  std::vector<TinyState::Tensor> model_only;
  for (const auto& t : TinyState::model()) {
    if (t.name.rfind("model.", 0) == 0) model_only.push_back(t);
  }
  TinyState part({}, model_only), whole;
  part.scramble();
  CHECK(read_checkpoint(run.path().string(), part.dict, "model.").step == 5);
  CHECK(part.is_at_step(5));
}

TEST_CASE("a rank that never joins a save ends the job with 86 instead of holding it for ever") {
  const ScratchDirectory run;
  std::atomic<int> told{0};
  run_ranks(2, [&](Control& comm) {
    TinyState state;
    {
      Checkpoints checkpoints(run.path(), comm, quiet_options());
      checkpoints.find_newest();
      state.set_to_step(5);
      checkpoints.prepare(state.dict);
      checkpoints.save(5, state.dict, "");
      checkpoints.wait();
    }
    CheckpointOptions options = quiet_options();
    options.exchange_limit = 0.2;
    options.on_hung = [&](const Error& e) { told += e.code() == ExitCode::hung; };
    Checkpoints checkpoints(run.path(), comm, options);
    checkpoints.find_newest();
    checkpoints.load(state.dict);
    checkpoints.prepare(state.dict);
    if (comm.rank() == 1) return;  // it hangs in the next step
    checkpoints.save(10, state.dict, "");
    CHECK(code_of([&] { checkpoints.wait(); }) == ExitCode::hung);
    CHECK(code_of([&] { checkpoints.save(15, state.dict, ""); }) == ExitCode::hung);
  });
  CHECK(told == 1);
  CHECK(std::filesystem::exists(run / "ckpt/s5-i1/MANIFEST"));
  CHECK(!std::filesystem::exists(run / "ckpt/s10-i2/MANIFEST"));
}

TEST_CASE("text that JSON cannot hold is refused before anything is written") {
  const ScratchDirectory run;
  const auto comm = local_control();
  Checkpoints checkpoints(run.path(), *comm, quiet_options());
  checkpoints.find_newest();
  TinyState state;
  CHECK(code_of([&] { checkpoints.save(5, state.dict, "caf\xe9"); }) == ExitCode::runtime);
  CHECK(!std::filesystem::exists(run / "ckpt/s5-i1"));
}

}  // namespace heddle::test
