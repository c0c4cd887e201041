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

#include "core/io/own_file.h"

namespace heddle {

struct Metric {
  std::string_view name;
  std::variant<double, int64_t, bool, std::string_view> value;
};

// {"step":12,"loss":3.25,"note":"x"}, no newline. A NaN or an infinity becomes null: JSON has neither.
std::string metrics_line(uint64_t step, std::span<const Metric> metrics);

// Whether the last record of the file is of this step and owes something: ends with the metric `debt`, true.
bool last_record_owes(const std::string& file, uint64_t step, std::string_view debt);

// A full disk does not stop a run: what cannot be written is left out, whole lines at a time (core/io/own_file.h).
class MetricsLog {
 public:
  // Keeps what a run resumed at `resumed_step` has behind it, as cut_after() does; nullopt: a new run, the file starts empty.
  // Error(io) when the file cannot be opened, Error(bad_data) when it is a link or no regular file.
  MetricsLog(const std::filesystem::path& file, std::optional<uint64_t> resumed_step);

  void write(uint64_t step, std::span<const Metric> metrics);
  void write(uint64_t step, std::initializer_list<Metric> metrics) { write(step, std::span<const Metric>(metrics.begin(), metrics.size())); }

  // Puts what the last record owes, last_record_owes(), in the place of the debt.
  void pay(uint64_t step, std::string_view debt, std::span<const Metric> metrics);

  // Drops everything from the first line of a later step on, and a torn last line: what a roll-back or a resume leaves behind.
  void cut_after(uint64_t step);

  uint64_t lost_lines() const { return log_.lost(); }

 private:
  AppendLog log_;
};

}  // namespace heddle
