// metrics.jsonl: one JSON object a line and step, for scripts and plots.
#pragma once

#include <cstdint>
#include <filesystem>
#include <initializer_list>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>

namespace heddle {

struct Metric {
  std::string_view name;
  std::variant<double, int64_t, bool, std::string_view> value;
};

// {"step":12,"loss":3.25,"note":"x"}, no newline. A NaN or an infinity becomes null: JSON has neither.
std::string metrics_line(uint64_t step, std::span<const Metric> metrics);

// Appends to one file, each line by one write, so that a crash tears at most the last line and a reader sees whole ones. A full disk must not
// stop a run: lines that cannot be written are counted, the first failure is reported on standard error.
class MetricsLog {
 public:
  // Keeps what a run resumed at `resumed_step` has behind it, as cut_after() does; nullopt: a new run, the file starts empty.
  // Throws Error(io) when the file cannot be opened.
  MetricsLog(std::filesystem::path file, std::optional<uint64_t> resumed_step);
  ~MetricsLog();
  MetricsLog(const MetricsLog&) = delete;
  MetricsLog& operator=(const MetricsLog&) = delete;

  void write(uint64_t step, std::span<const Metric> metrics);
  void write(uint64_t step, std::initializer_list<Metric> metrics) { write(step, std::span<const Metric>(metrics.begin(), metrics.size())); }

  // Drops everything from the first line of a later step on, and a torn last line: what a roll-back or a resume leaves behind. One truncation,
  // made durable: the file is never seen half cut.
  void cut_after(uint64_t step);

  uint64_t lost_lines() const { return lost_; }

 private:
  void truncate_at(uint64_t bytes);

  std::filesystem::path file_;
  int handle_ = -1;
  bool torn_ = false;  // the last write stopped inside a line
  uint64_t lost_ = 0;
};

}  // namespace heddle
