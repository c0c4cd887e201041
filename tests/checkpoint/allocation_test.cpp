// Memory: a save allocates nothing after prepare(); and when the n-th allocation of a start, load or save fails, nothing is lost, for every n.
#include <openssl/crypto.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <new>

#include "tests/checkpoint/tiny_state.h"
#include "tests/support/catch.h"

namespace {

// Counts every C++ and OpenSSL allocation of the process while armed; fails the n-th, or all from the n-th on.
struct Meter {
  std::atomic<bool> armed{false};
  std::atomic<int64_t> count{0};
  std::atomic<int64_t> fail_at{0};
  std::atomic<bool> sticky{false};
};
Meter meter;

bool refuses() {
  if (!meter.armed) return false;
  const int64_t n = ++meter.count, at = meter.fail_at;
  return at > 0 && (n == at || (meter.sticky && n > at));
}

void* take(size_t bytes) {
  if (refuses()) throw std::bad_alloc();
  if (void* const p = std::malloc(bytes == 0 ? 1 : bytes)) return p;
  throw std::bad_alloc();
}

void* openssl_malloc(size_t bytes, const char*, int) {
  return refuses() ? nullptr : std::malloc(bytes);
}
void* openssl_realloc(void* p, size_t bytes, const char*, int) {
  return refuses() ? nullptr : std::realloc(p, bytes);
}
void openssl_free(void* p, const char*, int) {
  std::free(p);
}
const int openssl_hooked = CRYPTO_set_mem_functions(openssl_malloc, openssl_realloc, openssl_free);  // before OpenSSL's first allocation

}  // namespace

void* operator new(size_t bytes) {
  return take(bytes);
}
void* operator new[](size_t bytes) {
  return take(bytes);
}
void operator delete(void* p) noexcept {
  std::free(p);
}
void operator delete[](void* p) noexcept {
  std::free(p);
}
void operator delete(void* p, size_t) noexcept {
  std::free(p);
}
void operator delete[](void* p, size_t) noexcept {
  std::free(p);
}

namespace heddle::test {
namespace {

namespace fs = std::filesystem;

struct Armed {
  explicit Armed(int64_t fail_at = 0, bool sticky = false) {
    meter.count = 0;
    meter.fail_at = fail_at;
    meter.sticky = sticky;
    meter.armed = true;
  }
  ~Armed() { meter.armed = false; }
};

uint64_t recover(const fs::path& run) {
  const auto comm = local_control();
  Checkpoints checkpoints(run, *comm, quiet_options());
  const auto found = checkpoints.find_newest(Checkpoints::Resume::must);
  TinyState state;
  state.scramble();
  checkpoints.load(state.dict);
  if (!state.is_at_step(found->step)) fail("test", "came back wrong");
  return found->step;
}

}  // namespace

TEST_CASE("saves allocate nothing after prepare") {
  REQUIRE(openssl_hooked == 1);
  const ScratchDirectory run("allocation");
  CheckpointOptions options = quiet_options();
  options.keep_last = 2;
  const auto comm = local_control();
  Checkpoints checkpoints(run.path(), *comm, options);
  checkpoints.find_newest();
  TinyState state;
  checkpoints.prepare(state.dict);
  const std::string config = "lr = 0.1";
  int64_t allocations = 0;
  for (uint64_t step = 1; step <= 50; ++step) {
    state.set_to_step(step);
    const Armed armed;
    checkpoints.save(step, state.dict, config);
    checkpoints.wait();
    allocations += meter.count;
  }
  std::printf("allocations in 50 saves with retention, after prepare(): %lld\n", static_cast<long long>(allocations));
  CHECK(checkpoints.stats().committed == 50);
  CHECK(allocations == 0);
}

TEST_CASE("the n-th allocation fails") {
  const ScratchDirectory scratch("allocation");
  const fs::path start = scratch / "start", run = scratch / "run";
  {
    const auto comm = local_control();
    Checkpoints checkpoints(start, *comm, quiet_options());
    checkpoints.find_newest();
    TinyState state;
    for (const uint64_t step : {5, 10}) {
      state.set_to_step(step);
      checkpoints.save(step, state.dict, "");
    }
    checkpoints.wait();
  }
  for (const bool sticky : {false, true}) {
    int cases = 0, saved = 0, refused = 0;
    bool reached = true;
    for (int64_t n = 1; reached; n += 1) {
      fs::remove_all(run);
      fs::copy(start, run, fs::copy_options::recursive);
      TinyState state;
      state.scramble();
      uint64_t reported = 10;
      {
        const auto comm = local_control();
        const Armed armed(n, sticky);
        try {
          Checkpoints checkpoints(run, *comm, quiet_options());
          if (checkpoints.find_newest(Checkpoints::Resume::must)) checkpoints.load(state.dict);
          meter.armed = false;  // the test's own
          state.set_to_step(15);
          meter.armed = true;
          checkpoints.prepare(state.dict);
          checkpoints.save(15, state.dict, "");
          checkpoints.wait();
          if (checkpoints.stats().last_step == 15) reported = 15;
        } catch (const std::bad_alloc&) {
          ++refused;
        } catch (const Error&) {
          ++refused;
        }
        reached = meter.count >= n;
      }
      saved += reported == 15;
      ++cases;
      INFO("allocation " << n << (sticky ? " and later ones fail" : " fails"));
      uint64_t step = 0;
      REQUIRE_NOTHROW(step = recover(run));
      CHECK(step == reported);
    }
    std::printf("%s allocation fails: %d cases, %d saved all the same, %d refused\n", sticky ? "every later" : "the n-th", cases, saved, refused);
    CHECK(cases > 100);
    CHECK(refused > 100);
  }
}

}  // namespace heddle::test
