// The watchdog's judgement, with other ranks that a test speaks for; real processes that are stopped are in tests/app/hang.sh.
#include "parallel/watchdog.h"

#include <atomic>
#include <chrono>
#include <mutex>
#include <thread>

#include "parallel/communicator.h"
#include "parallel/pulse.h"
#include "tests/support/catch.h"

namespace heddle {
namespace {

// Rank 0 of as many; the others say what `answer` makes of what this one says.
class Told final : public Control {
 public:
  using Answer = std::function<std::vector<std::string>(const std::string& mine)>;
  Told(int size, Answer answer) : size_(size), answer_(std::move(answer)) {}
  int rank() const override { return 0; }
  int size() const override { return size_; }
  std::unique_ptr<Control> split(int, int) override { return std::make_unique<Told>(size_, answer_); }
  std::vector<std::string> gather_text(const std::string& mine, double) override { return answer_(mine); }
  std::unique_ptr<Communicator> communicator(Device, const CommunicatorOptions&) override { return local_communicator(); }

 private:
  int size_;
  Answer answer_;
};

struct Reported {
  std::mutex mutex;
  std::string text;
  std::atomic<bool> ended{false};
  WatchdogOptions options(double limit, bool stretch = false) {
    return {.limit = limit,
            .stretch = stretch,
            .report =
                [this](const std::string& t) {
                  const std::lock_guard lock(mutex);
                  text += t;
                },
            .end = [this] { ended = true; }};
  }
  bool waits_for_end() const {
    for (int i = 0; i < 5000 && !ended; ++i) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    return ended;
  }
  bool has(const std::string& part) {
    const std::lock_guard lock(mutex);
    return text.find(part) != std::string::npos;
  }
};

std::vector<std::string> all_alike(const std::string& mine, int ranks) {
  return std::vector<std::string>(static_cast<size_t>(ranks), mine);
}

TEST_CASE("progress keeps the watchdog quiet, and standing still does not") {
  Reported reported;
  {
    Told world(1, [](const std::string& mine) { return all_alike(mine, 1); });
    const Watchdog watchdog(world, reported.options(1));
    for (int i = 0; i < 150; ++i) {
      enter(i % 2 ? phase::kStep : phase::kEval, static_cast<uint64_t>(i));
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    CHECK(!reported.ended);
    enter(phase::kEval, 17);
    CHECK(reported.waits_for_end());
  }
  INFO(reported.text);
  CHECK(reported.has("no progress from rank 0"));
  CHECK(reported.has("step 17, in eval for"));
  CHECK(reported.has("--hang-timeout"));
}

TEST_CASE("a phase has its own patience, and a limit that nobody stated grows with the slowest step") {
  for (const bool stretch : {false, true}) {
    INFO("stretch " << stretch);
    Reported reported;
    Told world(1, [](const std::string& mine) { return all_alike(mine, 1); });
    const Watchdog watchdog(world, reported.options(0.5, stretch));
    enter(phase::kSave, 1);  // three times as long
    std::this_thread::sleep_for(std::chrono::milliseconds(900));
    CHECK(!reported.ended);
    enter(phase::kStep, 1);
    std::this_thread::sleep_for(std::chrono::milliseconds(1200));
    CHECK(reported.ended == !stretch);
  }
}

TEST_CASE("who is late: the silent, else those that wait for nobody, else those that have come the least far") {
  enter(phase::kStep, 5);
  note_collective("all_reduce");
  SECTION("silent") {
    std::atomic<int> rounds{0};
    Told world(3, [&](const std::string& mine) {
      if (++rounds > 2) throw RanksMissing("no answer", {2});
      return all_alike(mine, 3);
    });
    Reported reported;
    {
      const Watchdog watchdog(world, reported.options(30));
      enter(phase::kStep, 5);
      CHECK(reported.waits_for_end());
    }
    INFO(reported.text);
    CHECK(reported.has("no sign of life from rank 2 ("));
    CHECK(reported.has("in step: "));
    CHECK(reported.has("last collective all_reduce"));
    CHECK(!reported.has("from rank 0"));
  }
  SECTION("all wait but one") {
    // leaving waiting step collectives pid age limit host, phase, collective
    Told world(3, [&](const std::string&) {
      return std::vector<std::string>{"0 1 5 71 11 9 3 a\nstep\nall_reduce", "0 0 5 71 12 9 3 b\ndata\nall_reduce",
                                      "0 1 5 72 13 9 3 c\nstep\ngather"};
    });
    Reported reported;
    {
      const Watchdog watchdog(world, reported.options(3));
      CHECK(reported.waits_for_end());
    }
    INFO(reported.text);
    CHECK(reported.has("no progress from rank 1 (b, process 12) for 3.0 s, in data"));
    CHECK(reported.has("rank 2: step 5, in step for 9.0 s, last collective gather (no. 72), waiting in it\n"));
  }
  SECTION("all wait") {
    Told world(3, [&](const std::string&) {
      return std::vector<std::string>{"0 1 5 72 11 9 3 a\nstep\nall_reduce", "0 1 5 72 12 9 3 b\nstep\nall_reduce",
                                      "0 1 5 71 13 9 3 c\neval\ngather"};
    });
    Reported reported;
    {
      const Watchdog watchdog(world, reported.options(3));
      CHECK(reported.waits_for_end());
    }
    CHECK(reported.has("no progress from rank 2 (c, process 13)"));
    CHECK(!reported.has("NCCL"));
  }
  SECTION("with what else is known") {
    note_late("  NCCL says:\n    much\n");
    Told world(2, [&](const std::string&) {
      return std::vector<std::string>{"0 1 5 72 11 9 3 a\nstep\nall_reduce", "0 0 5 71 12 9 3 b\ndata\nall_reduce"};
    });
    Reported reported;
    {
      const Watchdog watchdog(world, reported.options(3));
      CHECK(reported.waits_for_end());
    }
    note_late({});
    CHECK(reported.has("waiting in it\n  NCCL says:\n    much\nheddle: the job ends with 86"));
  }
}

TEST_CASE("it ends when all ranks leave, and answers until then") {
  std::atomic<int> rounds{0};
  const auto begin = std::chrono::steady_clock::now();
  {
    Told world(2, [&](const std::string& mine) {
      ++rounds;
      std::string other = mine;
      other[0] = std::chrono::steady_clock::now() - begin > std::chrono::milliseconds(300) ? '1' : '0';
      return std::vector<std::string>{mine, other};
    });
    Reported reported;
    const Watchdog watchdog(world, reported.options(60));
  }
  CHECK(std::chrono::steady_clock::now() - begin >= std::chrono::milliseconds(300));
  CHECK(rounds > 1);
}

}  // namespace
}  // namespace heddle
