#include "parallel/watchdog.h"

#include <pthread.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <csignal>
#include <cstdio>
#include <exception>
#include <mutex>
#include <sstream>
#include <system_error>
#include <thread>
#include <utility>

#include "kernels/api/check.h"
#include "parallel/launch.h"
#include "parallel/pulse.h"

namespace heddle {
namespace {

using Clock = std::chrono::steady_clock;

constexpr double kMostInterval = 0.5;  // seconds between signs of life
constexpr double kStretch = 10;        // of the longest progress
constexpr double kGap = 1;             // a longer time between two looks was not this process's own
std::atomic<int> live_threads{0};      // of watchdogs

constexpr int kMostRanks = 16;  // that a report lists

// Time while this process runs.
class AwakeClock {
 public:
  double now() {
    const Clock::time_point t = Clock::now();
    const double elapsed = std::chrono::duration<double>(t - std::exchange(last_, t)).count();
    return seconds_ += std::min(elapsed, kGap);
  }

 private:
  Clock::time_point last_ = Clock::now();
  double seconds_ = 0;
};

std::string tenths(double seconds) {
  char text[32];
  std::snprintf(text, sizeof text, "%.1f s", seconds);
  return text;
}

[[noreturn]] void end_all() {
  // Should the launcher not take the end of one rank for the end of all.
  std::thread([] {
    std::this_thread::sleep_for(std::chrono::seconds(3));
    ::_exit(static_cast<int>(ExitCode::hung));
  }).detach();
  std::this_thread::sleep_for(std::chrono::milliseconds(100));  // the launcher has read what was said
  abort_world(static_cast<int>(ExitCode::hung));
  ::_exit(static_cast<int>(ExitCode::hung));
}

void say(const std::string& text) {
  std::fputs(text.c_str(), stderr);
  std::fflush(stderr);
}

// What a rank tells the others. Words apart by blanks; phases and collectives have none of their own.
struct Beat {
  bool leaving = false, waiting = false;
  std::string phase = "start-up", collective, host;
  uint64_t step = 0, collectives = 0, pid = 0;
  double age = 0, limit = 0;  // since the last progress, and what is allowed

  std::string text() const {
    return concat(leaving, ' ', waiting, ' ', step, ' ', collectives, ' ', pid, ' ', age, ' ', limit, ' ', host, '\n', phase, '\n', collective);
  }
  static Beat parse(const std::string& text) {
    Beat b;
    std::istringstream in(text);
    in >> b.leaving >> b.waiting >> b.step >> b.collectives >> b.pid >> b.age >> b.limit >> b.host;
    in.ignore();
    std::getline(in, b.phase);
    std::getline(in, b.collective);
    return b;
  }
  std::string describe() const {
    return concat("step ", step, ", in ", phase, " for ", tenths(age),
                  collectives == 0 ? "" : concat(", last collective ", collective, " (no. ", collectives, waiting ? "), waiting in it" : ")"));
  }
};

}  // namespace

struct Watchdog::Impl {
  WatchdogOptions options;
  std::unique_ptr<Control> control;
  double interval = kMostInterval;
  std::string host = host_name();

  std::mutex mutex;
  std::condition_variable changed;
  bool leaving = false;
  std::thread thread;

  AwakeClock clock;
  uint64_t marks = 0;
  double since = 0, longest = 0;
  std::vector<Beat> beats;  // the newest of each rank

  Beat beat(bool leave) {
    const Pulse p = pulse();
    const double now = clock.now();
    if (p.marks != marks || leave) {
      longest = std::max(longest, now - since);
      marks = p.marks, since = now;
    }
    Beat b{leave, p.waiting, p.phase->name, p.collective, host, p.step, p.collectives, static_cast<uint64_t>(::getpid()), now - since, 0};
    b.limit = (options.stretch ? std::max(options.limit, kStretch * longest) : options.limit) * p.phase->patience;
    return b;
  }

  void run() {
    sigset_t all;  // signals are the training thread's
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, nullptr);
    for (bool first = true;; first = false) {  // the first at once: who stops after it has been heard of
      bool leave;
      {
        std::unique_lock lock(mutex);
        if (!leaving && !first) changed.wait_for(lock, std::chrono::duration<double>(interval), [this] { return leaving; });
        leave = leaving;
      }
      std::vector<std::string> texts;
      try {
        texts = control->gather_text(beat(leave).text(), options.limit);
      } catch (const RanksMissing& e) {
        return silent(e.ranks());
      } catch (const std::exception& e) {  // MPI's: a rank is gone, and the launcher is about to end the others
        return;
      }
      std::transform(texts.begin(), texts.end(), beats.begin(), [](const std::string& t) { return Beat::parse(t); });
      if (std::all_of(beats.begin(), beats.end(), [](const Beat& b) { return b.leaving; })) return;
      std::vector<int> late = overdue();
      if (!late.empty()) return stuck(late);
    }
  }

  // Whose training threads hold up the others: those that wait for nobody; where all wait, those that have come the least far.
  std::vector<int> overdue() const {
    if (std::none_of(beats.begin(), beats.end(), [](const Beat& b) { return b.age > b.limit; })) return {};
    std::vector<int> late;
    for (size_t r = 0; r < beats.size(); ++r) {
      if (!beats[r].waiting && !beats[r].leaving && beats[r].age > beats[r].limit) late.push_back(static_cast<int>(r));
    }
    if (!late.empty()) return late;
    const auto behind = [](const Beat& a, const Beat& b) { return a.collectives < b.collectives; };
    const uint64_t least = std::min_element(beats.begin(), beats.end(), behind)->collectives;
    for (size_t r = 0; r < beats.size(); ++r) {
      if (beats[r].collectives == least) late.push_back(static_cast<int>(r));
    }
    return late;
  }

  void silent(const std::vector<int>& ranks) {
    // Rank 0 knows best who is missing, and has ended the job by now unless it is the one.
    if (control->rank() != 0) std::this_thread::sleep_for(std::chrono::milliseconds(std::min(300 + 100 * control->rank(), 800)));
    give_up(ranks, "no sign of life", options.limit, "it was stopped, it starves, or its machine or network is gone");
  }
  void stuck(const std::vector<int>& ranks) {
    if (control->rank() != 0) std::this_thread::sleep_for(std::chrono::milliseconds(std::min(300 + 100 * control->rank(), 800)));
    give_up(ranks, "no progress", beats[static_cast<size_t>(ranks[0])].limit, "its process answers, its training does not go on");
  }

  void give_up(const std::vector<int>& ranks, const char* what, double limit, const char* why) {
    std::string names;
    for (const int r : ranks) {
      const Beat& b = beats[static_cast<size_t>(r)];
      names += concat(names.empty() ? "rank " : ", rank ", r, b.pid == 0 ? "" : concat(" (", b.host, ", process ", b.pid, ")"));
    }
    const Beat& worst = beats[static_cast<size_t>(ranks[0])];
    std::string text =
        concat("heddle: [watchdog] ", what, " from ", names, " for ", tenths(limit), worst.pid == 0 ? "" : ", in " + worst.phase, ": ", why, "\n");
    int listed = 0;
    const auto line = [&](size_t r, const char* note) {
      text += concat("  rank ", r, ": ", beats[r].pid == 0 ? "never heard of" : beats[r].describe(), note, "\n");
      ++listed;
    };
    const auto is_late = [&](size_t r) { return std::find(ranks.begin(), ranks.end(), static_cast<int>(r)) != ranks.end(); };
    for (size_t r = 0; r < beats.size() && listed < kMostRanks; ++r) {
      if (is_late(r)) line(r, " <- late");
    }
    for (size_t r = 0; r < beats.size() && listed < kMostRanks; ++r) {
      if (!is_late(r)) line(r, "");
    }
    text += late_note();
    text += concat(
        "heddle: the job ends with 86. The same command goes on from the newest checkpoint, heddle supervise starts it again by itself; a longer "
        "--hang-timeout where this is only slow\n");
    options.report(text);
    options.end();
  }
};

Watchdog::Watchdog(Control& world, WatchdogOptions options) : exceptions_(std::uncaught_exceptions()) {
  if (options.limit <= 0) return;
  impl_ = std::make_shared<Impl>();
  impl_->options = std::move(options);
  if (!impl_->options.report) impl_->options.report = say;
  if (!impl_->options.end) impl_->options.end = end_all;
  {
    const CallGuard guard("the first exchange after MPI_Init", impl_->options.limit);
    impl_->control = world.split(0, world.rank());
  }
  impl_->interval = std::min(kMostInterval, impl_->options.limit / 6);
  impl_->beats.resize(static_cast<size_t>(world.size()));
  try {
    impl_->thread = std::thread([impl = impl_]() mutable {
      ++live_threads;
      impl->run();
      impl.reset();
      --live_threads;
    });
  } catch (const std::system_error& e) {
    fail("watchdog",
         concat("no thread for it: ", e.what(), "; raise the limits on processes (ulimit -u, the cgroup's pids.max), or give --hang-timeout 0s"),
         ExitCode::usage);
  }
}

Watchdog::~Watchdog() {
  if (!impl_) return;
  {
    const std::lock_guard lock(impl_->mutex);
    impl_->leaving = true;
  }
  impl_->changed.notify_all();
  if (impl_->control->size() > 1 && std::uncaught_exceptions() > exceptions_) {
    impl_->thread.detach();
  } else {
    impl_->thread.join();
  }
}

void let_watchdogs_end() {
  for (int i = 0; i < 200 && live_threads > 0; ++i) std::this_thread::sleep_for(std::chrono::milliseconds(5));
}

struct CallGuard::Impl {
  std::mutex mutex;
  std::condition_variable changed;
  bool over = false;
  std::thread thread;
};

CallGuard::CallGuard(std::string call, double seconds) {
  if (seconds <= 0) return;
  impl_ = std::make_unique<Impl>();
  try {
    impl_->thread = std::thread([impl = impl_.get(), call = std::move(call), seconds] {
      AwakeClock clock;
      std::unique_lock lock(impl->mutex);
      while (!impl->changed.wait_for(lock, std::chrono::milliseconds(200), [impl] { return impl->over; })) {
        if (clock.now() <= seconds) continue;
        const std::string stopped = stopped_siblings();
        const Launch launch = launch_of_this_process();
        say(concat("heddle: [watchdog] rank ", launch.rank, " of ", launch.ranks, " has waited in ", call, " for ", tenths(seconds), ": ",
                   stopped.empty() ? "some rank does not come, and none of this machine is stopped" : stopped + " is stopped",
                   "\nheddle: the job ends with 86; a longer --hang-timeout where this is only slow\n"));
        ::_exit(static_cast<int>(ExitCode::hung));  // MPI is of no use here
      }
    });
  } catch (const std::system_error&) {
    impl_.reset();  // no thread to be had: the call is made all the same
  }
}

CallGuard::~CallGuard() {
  if (!impl_) return;
  {
    const std::lock_guard lock(impl_->mutex);
    impl_->over = true;
  }
  impl_->changed.notify_all();
  impl_->thread.join();
}

}  // namespace heddle
