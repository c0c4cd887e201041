// Several ranks that hold the same state: what a save costs the thread that trains, and a rank whose copy fails.
#include <time.h>

#include <algorithm>
#include <cstring>
#include <mutex>
#include <new>

#include "checkpoint/loading.h"
#include "tests/checkpoint/tiny_state.h"
#include "tests/support/catch.h"

namespace heddle::test {
namespace {

namespace fs = std::filesystem;

double thread_seconds() {
  timespec t{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

}  // namespace

TEST_CASE("replicated state: the training thread copies, and the hashing is not its work") {
  const ScratchDirectory run("ranks");
  const std::vector<TinyState::Tensor> tensors = {{"model.a", DType::f32, {1024, 1024}}, {"optim.b", DType::f32, {2048, 1024}}};
  for (const bool staged : {false, true}) {
    fs::remove_all(run.path());
    fs::create_directory(run.path());
    std::mutex mutex;
    double saving = 0, hashing = 0;
    run_ranks(2, [&](Control& comm) {
      CheckpointOptions options = quiet_options();
      if (staged) options.copy_out = [](std::byte* to, const View& from, size_t bytes) { std::memcpy(to, from.data, bytes); };
      Checkpoints checkpoints(run.path(), comm, options);
      checkpoints.find_newest();
      TinyState state({}, tensors);
      checkpoints.prepare(state.dict);
      double best_save = 1e300, best_hash = 1e300;
      for (uint64_t step = 1; step <= 5; ++step) {
        double begin = thread_seconds();
        checkpoints.save(step, state.dict, "");
        best_save = std::min(best_save, thread_seconds() - begin);
        checkpoints.wait();
        begin = thread_seconds();
        for (const StateDict::Entry& e : state.dict.tensors) fold_state_entry(e, {});
        best_hash = std::min(best_hash, thread_seconds() - begin);
      }
      CHECK(checkpoints.stats().committed == 5);
      const std::lock_guard lock(mutex);
      saving = std::max(saving, best_save);
      hashing = std::max(hashing, best_hash);
    });
    INFO("a save took " << 1e3 * saving << " ms of the training thread, hashing the state " << 1e3 * hashing << " ms");
    CHECK(saving < hashing);  // else it would be the copy and the hashing
  }
}

TEST_CASE("replicated tensors of different types are dealt so that the shards are equally long") {
  const ScratchDirectory run("ranks");
  // 40,000, 20,000 and 20,000 bytes.
  const std::vector<TinyState::Tensor> tensors = {
      {"model.a", DType::f32, {10000}}, {"model.b", DType::bf16, {10000}}, {"model.c", DType::bf16, {10000}}};
  run_ranks(2, [&](Control& comm) {
    Checkpoints checkpoints(run.path(), comm, quiet_options());
    checkpoints.find_newest();
    TinyState state({}, tensors);
    checkpoints.save(1, state.dict, "");
    checkpoints.wait();
  });
  for (const char* shard : {"ckpt/s1-i1/shard-0-of-2.safetensors", "ckpt/s1-i1/shard-1-of-2.safetensors"}) {
    const auto bytes = fs::file_size(run / shard);
    INFO(shard << ": " << bytes);
    CHECK(bytes >= 40000);
    CHECK(bytes < 46000);
  }
}

TEST_CASE("a rank without memory for its copy: that save fails on all ranks, the job goes on") {
  for (const int ranks : {1, 2}) {
    const ScratchDirectory run("ranks");
    std::mutex mutex;
    run_ranks(ranks, [&](Control& comm) {
      bool full = false;
      CheckpointOptions options = quiet_options();
      options.copy_out = [&](std::byte* to, const View& from, size_t bytes) {
        if (full) throw std::bad_alloc();
        std::memcpy(to, from.data, bytes);
      };
      Checkpoints checkpoints(run.path(), comm, options);
      checkpoints.find_newest();
      TinyState state;
      for (uint64_t step = 1; step <= 3; ++step) {
        state.set_to_step(step);
        full = step == 2 && comm.rank() == ranks - 1;
        checkpoints.save(step, state.dict, "");
        checkpoints.wait();
        const std::string error = checkpoints.last_error().value_or("");
        const std::lock_guard lock(mutex);
        INFO("rank " << comm.rank() << ": " << error);
        CHECK(error.empty() == (step != 2));
        if (step == 2) CHECK(error.find("out of host memory") != std::string::npos);
      }
      const std::lock_guard lock(mutex);
      CHECK(checkpoints.stats().committed == 2);
      CHECK(checkpoints.stats().failed == 1);
    });
    CHECK(!fs::exists(run / "ckpt/s2-i1"));
    TinyState state;
    CHECK(read_checkpoint(run.path().string(), state.dict).step == 3);
    CHECK(state.is_at_step(3));
  }
}

TEST_CASE("replicas that drift later, on any rank and in any tensor, are found by the save") {
  const ScratchDirectory run("ranks");
  const size_t tensors = TinyState().dict.tensors.size();
  std::mutex mutex;
  run_ranks(3, [&](Control& comm) {
    CheckpointOptions options = quiet_options();
    options.most_failures = 0;
    Checkpoints checkpoints(run.path(), comm, options);
    checkpoints.find_newest();
    TinyState state;
    uint64_t step = 0;
    for (size_t t = 0; t < tensors; ++t) {
      const View& view = state.dict.tensors[t].data;
      if (view.numel() == 0) continue;
      for (int rank = 0; rank < 3; ++rank) {
        state.set_to_step(++step);
        std::byte& last = view.data[view.bytes() - 1];
        if (comm.rank() == rank) last ^= std::byte{1};
        checkpoints.save(step, state.dict, "");
        if (comm.rank() == rank) last ^= std::byte{1};  // what comes after the copy does not count
        checkpoints.wait();
        const std::string error = checkpoints.last_error().value_or("");
        const std::lock_guard lock(mutex);
        INFO("tensor " << t << ", rank " << rank << ": " << error);
        CHECK(error.find("hold different values of replicated piece") != std::string::npos);
      }
    }
    state.set_to_step(++step);
    checkpoints.save(step, state.dict, "");
    checkpoints.wait();
    const std::lock_guard lock(mutex);
    CHECK(!checkpoints.last_error());
  });
}

}  // namespace heddle::test
