// What a person watching the run sees: a table at the start, a line now and then, a progress bar on a terminal.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "train/config/run_config.h"

namespace heddle {

struct StepLine {
  uint64_t step = 0, steps = 0;  // this one counted from 1, and the horizon
  double loss = 0;               // smoothed
  double grad_norm = 0, lr = 0;
  double tokens_per_second = 0;  // over all ranks
  double utilisation = 0;        // of the GPUs' arithmetic, 0 to 1; 0: not known
  std::string_view note;         // "withheld"; stands in for the rate
};

// "step  12/500 | loss 5.1235 | norm 1.23 | lr 3.0e-04 | 68.0 k tok/s": at most 80 columns for numbers of a usual size.
std::string step_text(const StepLine& line);

// Which steps get a line: every `every`-th and the last; 0: the first of this start, about fifty over a whole run, and one after a minute without.
class LineTimer {
 public:
  LineTimer(int64_t every, uint64_t steps) : every_(every), steps_(steps) {}
  bool due(uint64_t step, std::chrono::steady_clock::time_point now = std::chrono::steady_clock::now());

 private:
  int64_t every_;
  uint64_t steps_;
  std::optional<std::chrono::steady_clock::time_point> last_;
};

// "1:02:03", "4:05"
std::string duration_text(double seconds);
// "1.50 GiB", "12 B"
std::string bytes_text(double bytes);
// "124.44 M" (powers of 1000)
std::string amount_text(double amount);

// Exponential moving average without bias towards its start (as Adam's). The first step of a process (warm-up, page faults) is left out.
class RateMeter {
 public:
  explicit RateMeter(double decay = 0.95) : decay_(decay) {}
  void add(double tokens, double seconds);
  double tokens_per_second() const;  // 0 before the second step
  double seconds_per_step() const;

 private:
  double decay_, weight_ = 0, seconds_ = 0, tokens_ = 0;
  bool first_ = true;
};

// The loss of about the last twenty steps: an exponential moving average without bias towards its start.
class LossMeter {
 public:
  void add(double loss) { weight_ = kDecay * weight_ + (1 - kDecay), sum_ = kDecay * sum_ + (1 - kDecay) * loss; }
  double value() const { return sum_ / weight_; }  // of at least one loss

 private:
  static constexpr double kDecay = 0.95;
  double weight_ = 0, sum_ = 0;
};

struct TableRow {
  std::string name, value, origin;
};

// The configuration as rows: what differs from its default, its value, and where it was written.
std::vector<TableRow> config_rows(const RunConfig& config);
// Aligned columns under a title.
std::string table_text(std::string_view title, const std::vector<TableRow>& rows);

// Standard output of rank 0. Lines go out whole; on a terminal a progress bar stands below them and is redrawn at most ten times a second.
// NO_COLOR (no-color.org) and TERM=dumb are honoured. Output that cannot be written (a full disk) stops nothing, but require_written() tells of it; a
// closed pipe or a terminal that is gone is no error.
class Console {
 public:
  struct Options {
    bool enabled = true;   // false on ranks other than 0: nothing is printed
    bool progress = true;  // false: no bar even on a terminal
    bool terminal = true;  // false: neither bar nor colour whatever `handle` is: mpirun gives its ranks terminals and writes what they say to a log
    int handle = 1;        // file descriptor
  };
  explicit Console(const Options& options);
  ~Console();
  Console(const Console&) = delete;
  Console& operator=(const Console&) = delete;

  void line(std::string_view text);
  void warn(std::string_view text);  // "warning: ...", in colour where that is allowed
  void step(const StepLine& line) { this->line(step_text(line)); }
  // `done` of `total` steps at `seconds_per_step`; what: "step", "eval", "save".
  void progress(std::string_view what, uint64_t done, uint64_t total, double seconds_per_step);
  void end_progress();
  // Error(io) when something could not be written: whoever reads the log must learn that it has gaps.
  void require_written() const;

  bool has_bar() const { return bar_; }

 private:
  void put(std::string_view mark, std::string_view text);  // `text` may hold anything; `mark` is ours
  void write(std::string_view text);

  int handle_;
  bool enabled_, terminal_, bar_, colour_;
  bool drawn_ = false;
  int failure_ = 0;  // errno of the first write that failed
  std::string last_bar_;
  std::chrono::steady_clock::time_point last_draw_{};
};

}  // namespace heddle
