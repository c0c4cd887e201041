#include "app/supervise.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <ctime>
#include <filesystem>
#include <iostream>
#include <optional>
#include <utility>

#include "app/command.h"
#include "app/job.h"
#include "app/pretrain.h"
#include "checkpoint/run_directory.h"
#include "core/io/own_file.h"
#include "kernels/api/check.h"
#include "kernels/api/printable.h"
#include "train/report/console.h"
#include "train/report/metrics.h"

namespace heddle::app {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int kInterrupted = 128 + SIGINT;
constexpr double kSameRequest = 1;    // seconds within which a second request is the first one, delivered twice
constexpr double kPatience = 10;      // of a job that was told to end at once
constexpr double kLingering = 6;      // of a launcher that has outlived its ranks
constexpr double kSavePatience = 60;  // of what has outlived a job that was asked to stop

constexpr CommandHelp kHelp = {
    "supervise", "[flags] -- COMMAND...",
    "Runs a training job and starts the same command again when it fails: heddle pretrain goes on from its newest checkpoint that verifies. Between "
    "two starts every process of the first is gone. SIGTERM, SIGHUP, SIGUSR1 and Ctrl-C reach the job's processes as SIGUSR1, or SIGTERM where none "
    "handles that: it saves, and the supervisor ends with 75 (Ctrl-C: 130), or as the job did when there is no checkpoint; a second signal ends it "
    "at once. [x] is the default.\n"
    "Not started again: 0; 75, unless --requeue; 2, 65 and 78, which another start would meet as well; 69, 71 and 73 before the first checkpoint. "
    "All else is: 1, 74, 86 (a rank hung), 128+n (a process died of signal n).",
    "  heddle supervise -- mpirun -np 8 heddle pretrain --config run.toml --out run\n"
    "  heddle supervise --max-restarts 20 --requeue -- heddle pretrain --config run.toml --out run --time-limit 1d\n"
    "  heddle supervise --run run -- srun --mpi=pmix ./my_trainer"};

std::vector<Option<SuperviseOptions>> make_table() {
  using S = SuperviseOptions;
  std::vector<Option<S>> rows;
  const auto add = [&](std::string_view name, Option<S>::Member field, std::string_view value, std::string_view help) -> Option<S>& {
    return rows.emplace_back(make_option<S>(name, field, "Supervisor", value, help));
  };
  add("max-restarts", &S::max_restarts, "N", "restarts that leave no newer checkpoint before it gives up; a newer checkpoint renews them")
      .between(0, 1e9);
  add("backoff", DurationOf<S>{&S::backoff}, "TIME", "wait before a restart; doubles with each that leaves no newer checkpoint");
  add("most-backoff", DurationOf<S>{&S::most_backoff}, "TIME", "longest wait");
  add("requeue", &S::requeue, "", "start again after 75 as well: a --time-limit, a signal to the ranks themselves");
  add("run", &S::run, "DIR", "run directory; default: the --out of the command's heddle pretrain").optional();
  add("incidents", &S::incidents, "FILE", "one JSON line an end; default: incidents.jsonl in the run directory").optional();
  return rows;
}

// The newest step with a committed checkpoint; 0: none.
uint64_t newest_step(const std::string& run) {
  uint64_t newest = 0;
  std::error_code unknown;
  for (const auto& entry : std::filesystem::directory_iterator(run + "/ckpt", unknown)) {
    const std::optional<CheckpointId> id = parse_checkpoint_name(entry.path().filename().string());
    if (id && std::filesystem::exists(entry.path() / kManifest, unknown)) newest = std::max(newest, id->step);
  }
  return newest;
}

// Where the command's `heddle pretrain` will write. "": it has none.
std::string run_of(const std::vector<std::string>& command) {
  // Another program's `pretrain` is another program's.
  auto at = command.begin();
  do {
    at = std::find(at == command.begin() ? at : at + 1, command.end(), "pretrain");
    if (at == command.end()) return "";
  } while (at == command.begin() || std::filesystem::path(*(at - 1)).filename().string().rfind("heddle", 0) != 0);
  std::vector<std::string> environment;
  for (char** entry = environ; entry && *entry; ++entry) environment.emplace_back(*entry);
  const PretrainArguments parsed = parse_pretrain(Args(&*at + 1, static_cast<size_t>(command.end() - at - 1)), environment);
  if (parsed.help || parsed.print_config || parsed.config.dry_run)
    fail_usage("supervise", "the command trains nothing: leave out --help, --print-config and --dry-run");
  if (parsed.config.resume == ResumeMode::never) {
    fail_usage("supervise", "--resume never in the command: its second start would refuse the checkpoints of the first; leave it out");
  }
  return parsed.config.out;
}

void say(const std::string& text) {
  std::cerr << "heddle: [supervise] " << printable(text) << std::endl;
}

// One line an end. Kept until there is a run directory, which a start that fails does not make.
class Incidents {
 public:
  Incidents(std::string file, bool in_run) : file_(std::move(file)), in_run_(in_run) {}

  void add(const std::string& record) {
    waiting_ += record + "\n";
    std::error_code unknown;
    if (in_run_ && !std::filesystem::is_directory(std::filesystem::path(file_).parent_path(), unknown)) return;
    try {
      AppendLog(file_, AppendLog::Open::or_create).append(waiting_);
    } catch (const Error& e) {
      say(concat("the incident is not written down: ", e.what()));
    }
    waiting_.clear();
  }
  // Says so when there never was a run directory although the job had trained for it.
  void end() const {
    if (!waiting_.empty())
      say(concat("the run directory ", std::filesystem::path(file_).parent_path().string(),
                 " never came to be, so no incident is written down and no progress was seen; --run says where the job writes"));
  }

 private:
  std::string file_, waiting_;
  bool in_run_;
};

std::string now_text() {
  const std::time_t now = std::time(nullptr);
  std::tm utc{};
  ::gmtime_r(&now, &utc);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &utc);
  return text;
}

// Who asked to stop, and how urgently.
class Requests {
 public:
  // What is to be passed on to the job; 0: nothing, it is the same request again.
  int take(int signal) {
    const Clock::time_point now = Clock::now();
    if (first_ == 0) {
      first_ = signal, since_ = now;
      return SIGUSR1;
    }
    const bool same = std::chrono::duration<double>(now - since_).count() < kSameRequest && signal != SIGINT;
    if (signal == SIGHUP || same) return 0;
    urgent_ = true;
    since_ = now;
    return signal == SIGUSR1 ? SIGTERM : signal;
  }
  int first() const { return first_; }
  bool urgent() const { return urgent_; }
  // Told to end at once, and did not.
  bool out_of_patience() const { return urgent_ && std::chrono::duration<double>(Clock::now() - since_).count() > kPatience; }

 private:
  int first_ = 0;
  bool urgent_ = false;
  Clock::time_point since_;
};

// Sees that a launcher waits for ranks that are gone: Open MPI's 4.1 may do so for ever once a rank was killed while it came to life. Ranks on other
// machines are not seen; but none goes on for long without those of this one.
class Lingering {
 public:
  bool is_over(const Job& job) {
    const std::vector<Process> tree = job.tree();
    ++looks_;
    bool has_ranks = false;
    for (const Process& p : tree) {
      if (!rank_of(p)) continue;
      has_ranks = true;
      const auto parent = std::find_if(tree.begin(), tree.end(), [&](const Process& other) { return other.id == p.parent; });
      if (parent != tree.end() && !rank_of(*parent) && !is_launcher(*parent)) launchers_.push_back(*parent);
    }
    const bool waits = !has_ranks && std::any_of(tree.begin(), tree.end(), [this](const Process& p) { return p.state != 'T' && is_launcher(p); });
    if (!waits) since_ = Clock::now();
    return waits && std::chrono::duration<double>(Clock::now() - since_).count() > kLingering;
  }
  // Until the next look: ranks may end soon after they have begun.
  double interval() const { return launchers_.empty() && looks_ < 100 ? 0.1 : 1; }

 private:
  bool is_launcher(const Process& p) const {
    return std::any_of(launchers_.begin(), launchers_.end(), [&](const Process& launcher) { return launcher.is(p); });
  }
  std::vector<Process> launchers_;  // parents of ranks
  int looks_ = 0;
  Clock::time_point since_ = Clock::now();
};

// One start, from its first process to its last.
int run_once(const SuperviseOptions& o, const HeldSignals& signals, Requests& requests, const std::vector<Process>& spared) {
  Job job(o.command, signals, spared);
  const auto listen = [&](double seconds) {
    const std::optional<int> signal = signals.take(seconds);
    if (!signal || *signal == SIGCHLD) return;
    const int pass_on = requests.take(*signal);
    if (pass_on == SIGUSR1) {
      say(job.ask_to_stop() ? "asked to stop: the job finishes its step and saves; a second signal ends it at once"
                            : "asked to stop: nothing of the job handles SIGUSR1, it got SIGTERM; a second signal ends it at once");
    } else if (pass_on != 0) {
      job.signal(pass_on);
    }
  };
  Lingering lingering;
  std::optional<int> code;
  while (!(code = job.poll())) {
    listen(lingering.interval());
    if (requests.out_of_patience()) job.end_all(kPatience);
    if (lingering.is_over(job)) {
      say("the launcher has outlived its ranks and is killed");
      job.end_all(kPatience);
    }
  }
  // What is left of a job that was asked to stop may be saving: a wrapper has ended before it.
  const Clock::time_point ended = Clock::now();
  while (requests.first() != 0 && !requests.urgent() && job.is_stopping() &&
         std::chrono::duration<double>(Clock::now() - ended).count() < kSavePatience) {
    job.poll();
    listen(0.2);
  }
  const int left = job.end_all(kPatience);
  if (left > 0) say(concat(counted(left, "process"), " of the job had outlived it and ", left == 1 ? "was" : "were", " killed"));
  if (left < 0) say(concat(counted(-left, "process"), " of the job cannot be killed: waiting in the kernel for a disk or a device?"));
  return *code;
}

// Waits before the next start; false: asked to stop.
bool wait_before_start(double seconds, const HeldSignals& signals, Requests& requests) {
  const Clock::time_point begin = Clock::now();
  for (;;) {
    const double left = seconds - std::chrono::duration<double>(Clock::now() - begin).count();
    if (const std::optional<int> signal = signals.take(std::max(left, 0.0)); signal && *signal != SIGCHLD) {
      requests.take(*signal);
      return false;
    }
    if (left <= 0) return true;
  }
}

int stopped_code(int asked) {
  return asked == SIGINT ? kInterrupted : static_cast<int>(ExitCode::requeue);
}

}  // namespace

std::string meaning_of(int code) {
  switch (static_cast<ExitCode>(code)) {
    case ExitCode::ok: return "done";
    case ExitCode::runtime: return "an error";  // and what Open MPI makes of a rank or launcher that was killed
    case ExitCode::usage: return "usage or configuration";
    case ExitCode::bad_data: return "bad data";
    case ExitCode::no_device: return "no usable GPU";
    case ExitCode::out_of_memory: return "out of memory";
    case ExitCode::in_use: return "run directory in use";
    case ExitCode::io: return "input or output failed";
    case ExitCode::requeue: return "checkpointed, wants to be started again";
    case ExitCode::mismatch: return "what does not belong together";
    case ExitCode::hung: return "a rank hung";
  }
  if (code > 128 && code < 128 + NSIG) {
    constexpr std::pair<int, const char*> kNames[] = {{SIGKILL, "SIGKILL"}, {SIGSEGV, "SIGSEGV"}, {SIGABRT, "SIGABRT"}, {SIGBUS, "SIGBUS"},
                                                      {SIGTERM, "SIGTERM"}, {SIGUSR1, "SIGUSR1"}, {SIGINT, "SIGINT"},   {SIGHUP, "SIGHUP"}};
    for (const auto& [number, name] : kNames) {
      if (number == code - 128) return concat("killed by ", name);
    }
    return concat("killed by signal ", code - 128);
  }
  return "an unknown code";
}

Verdict judge(const Ending& e, bool requeue) {
  Verdict v;
  v.code = e.code;
  const auto code = static_cast<ExitCode>(e.code);
  switch (code) {
    case ExitCode::ok: v.why = "done"; return v;
    case ExitCode::usage:
    case ExitCode::bad_data:
    case ExitCode::mismatch: v.why = "another start would meet the same"; return v;
    case ExitCode::no_device:
    case ExitCode::out_of_memory:
      if (e.asked != 0 || e.has_progress) break;
      v.why = "nothing was trained yet: another start would meet the same";
      return v;
    case ExitCode::in_use:
      if (e.asked != 0 || e.restarted) break;  // what a killed job left on another machine may hold it for a while
      v.why = "another job has it";
      v.ours = false;
      return v;
    default: break;
  }
  if (e.asked != 0) {
    const bool saved = code == ExitCode::requeue || e.code == kInterrupted;
    if (saved || e.has_checkpoint) v.code = stopped_code(e.asked);
    v.why = saved              ? "stopped"
            : e.is_newer       ? "stopped; it goes on from that checkpoint"
            : e.has_checkpoint ? "it ended while it was stopping: what its newest checkpoint lacks is trained again"
                               : "it ended while it was stopping, and there is no checkpoint";
    return v;
  }
  if (e.code == kInterrupted) {
    v.why = "interrupted";
    return v;
  }
  if (code == ExitCode::requeue && !requeue) {
    v.why = "saved; --requeue would go on";
    return v;
  }
  v.restart = true;
  v.counts = code != ExitCode::requeue || !e.is_newer;
  return v;
}

bool parse_supervise(Args args, SuperviseOptions& options) {
  static const std::vector<Option<SuperviseOptions>> table = make_table();
  const size_t own = static_cast<size_t>(std::find(args.begin(), args.end(), "--") - args.begin());
  if (!parse_arguments(kHelp, bind_options(std::span<const Option<SuperviseOptions>>(table), options), args.first(own))) return false;
  if (own < args.size()) options.command.assign(args.begin() + static_cast<ptrdiff_t>(own) + 1, args.end());
  if (options.command.empty()) fail_usage("supervise", "no command: heddle supervise [flags] -- mpirun -np 4 heddle pretrain ...");
  const std::string named = run_of(options.command);
  if (options.run.empty()) options.run = named;
  if (options.run.empty()) {
    fail_usage(
        "supervise",
        "the command names no run directory (heddle pretrain ... --out DIR) by whose checkpoints progress is seen: give --run DIR before the --");
  }
  return true;
}

int supervise_command(Args args) {
  SuperviseOptions o;
  if (!parse_supervise(args, o)) return 0;
  const HeldSignals signals;
  const std::vector<Process> spared = descendants();  // a script's that has become this program
  Incidents incidents(o.incidents.empty() ? o.run + "/incidents.jsonl" : o.incidents, o.incidents.empty());
  Requests requests;
  Ending ending;
  int64_t in_vain = 0;  // restarts since the last newer checkpoint
  double wait = o.backoff;
  for (int64_t start = 1;; ++start) {
    const uint64_t before = newest_step(o.run);
    const Clock::time_point begin = Clock::now();
    try {
      ending.code = run_once(o, signals, requests, spared);
    } catch (const Error& e) {
      if (start == 1) throw;
      say(e.what());  // a program that is just being replaced, a machine short of processes
      ending.code = static_cast<int>(ExitCode::runtime);
    }
    ending.asked = requests.first();
    const double seconds = std::chrono::duration<double>(Clock::now() - begin).count();
    const uint64_t after = newest_step(o.run);
    ending.is_newer = after > before;
    ending.has_checkpoint = after > 0;
    if (ending.is_newer) {
      ending.has_progress = true;
      in_vain = 0;
      wait = o.backoff;
    }
    Verdict verdict = judge(ending, o.requeue);
    if (verdict.restart && verdict.counts && in_vain >= o.max_restarts) {
      verdict.restart = false;
      verdict.why = concat("--max-restarts ", o.max_restarts, " without a newer checkpoint than step ", after, " are used up");
    }
    const double pause = verdict.restart && verdict.counts ? std::min(wait, o.most_backoff) : 0;
    const bool trouble = verdict.restart || ending.code != 0;
    const Metric record[] = {{"time", std::string_view()},
                             {"start", start},
                             {"code", static_cast<int64_t>(ending.code)},
                             {"meaning", std::string_view()},
                             {"seconds", seconds},
                             {"step_before", static_cast<int64_t>(before)},
                             {"action", std::string_view(verdict.restart ? "restart" : "end")},
                             {"wait_s", pause},
                             {"restarts_left", o.max_restarts - in_vain},
                             {"why", std::string_view(verdict.why)}};
    std::vector<Metric> values(std::begin(record), std::end(record));
    const std::string time = now_text(), meaning = meaning_of(ending.code);
    values[0].value = std::string_view(time), values[3].value = std::string_view(meaning);
    if (verdict.ours || !o.incidents.empty()) incidents.add(metrics_line(after, values));
    if (trouble) {
      say(concat("start ", start, " ended with ", ending.code, " (", meaning, ") after ", duration_text(seconds), "; the newest checkpoint is ",
                 after == 0 ? "none" : concat("step ", after), verdict.restart ? "" : concat("; ", verdict.why)));
    }
    if (!verdict.restart) {
      if (start > 1 || verdict.code == 0) incidents.end();
      return verdict.code;
    }
    if (verdict.counts) {
      ++in_vain;
      wait *= 2;
    }
    ending.restarted = true;
    if (pause > 0) say(concat("starting again in ", duration_text(pause), "; ", counted(o.max_restarts - in_vain, "restart"), " left"));
    if (!wait_before_start(pause, signals, requests)) {
      say("asked to stop while no job was running");
      return stopped_code(requests.first());
    }
  }
}

}  // namespace heddle::app
