#include "train/metrics.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <vector>

#include "core/io/file_system.h"
#include "kernels/api/check.h"
#include "train/values.h"

namespace heddle {
namespace {

void append_number(std::string& out, double value) {
  if (!std::isfinite(value)) {
    out += "null";
    return;
  }
  char buffer[32];
  out.append(buffer, std::to_chars(buffer, buffer + sizeof buffer, value).ptr);
}

// The step of a line written by metrics_line(); nullopt for a line of another origin.
std::optional<uint64_t> step_of(std::string_view line) {
  constexpr std::string_view kHead = "{\"step\":";
  if (line.substr(0, kHead.size()) != kHead) return std::nullopt;
  uint64_t step = 0;
  const auto [end, error] = std::from_chars(line.data() + kHead.size(), line.data() + line.size(), step);
  if (error != std::errc{} || end == line.data() + line.size() || (*end != ',' && *end != '}')) return std::nullopt;
  return step;
}

}  // namespace

std::string metrics_line(uint64_t step, std::span<const Metric> metrics) {
  std::string out = "{\"step\":" + std::to_string(step);
  for (const Metric& metric : metrics) {
    out += concat(",", quote_text(metric.name), ":");
    if (const auto* number = std::get_if<double>(&metric.value)) append_number(out, *number);
    if (const auto* integer = std::get_if<int64_t>(&metric.value)) out += std::to_string(*integer);
    if (const auto* flag = std::get_if<bool>(&metric.value)) out += *flag ? "true" : "false";
    if (const auto* text = std::get_if<std::string_view>(&metric.value)) out += quote_text(*text);
  }
  return out + "}";
}

MetricsLog::MetricsLog(std::filesystem::path file, std::optional<uint64_t> resumed_step) : file_(std::move(file)) {
  handle_ = ::open(file_.c_str(), O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (handle_ < 0) fail_io("metrics", "open", file_.string(), -errno);
  if (resumed_step) {
    cut_after(*resumed_step);
  } else {
    truncate_at(0);
  }
}

MetricsLog::~MetricsLog() {
  if (handle_ >= 0) ::close(handle_);
}

void MetricsLog::write(uint64_t step, std::span<const Metric> metrics) {
  // After a torn line a newline sets the next one apart; readers skip the fragment.
  const std::string line = concat(torn_ ? "\n" : "", metrics_line(step, metrics), "\n");
  size_t done = 0;
  while (done < line.size()) {
    const ssize_t n = ::write(handle_, line.data() + done, line.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) break;
    done += static_cast<size_t>(n);
  }
  if (done == line.size()) {
    torn_ = false;
    return;
  }
  if (done > 0) torn_ = true;
  if (lost_++ == 0) std::fprintf(stderr, "heddle: cannot write %s: %s; the run goes on without it\n", file_.c_str(), std::strerror(errno));
}

void MetricsLog::cut_after(uint64_t step) {
  struct stat info {};
  if (::fstat(handle_, &info) != 0 || !S_ISREG(info.st_mode)) return;  // a pipe or device has no past
  uint64_t line_begin = 0, keep = 0, offset = 0;
  std::string line;
  std::vector<char> buffer(size_t{1} << 16);
  bool cut = false;
  while (!cut) {
    const ssize_t n = ::pread(handle_, buffer.data(), buffer.size(), static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail_io("metrics", "read", file_.string(), -errno);
    if (n == 0) break;
    for (ssize_t i = 0; i < n && !cut; ++i) {
      if (buffer[static_cast<size_t>(i)] != '\n') {
        if (line.size() < 64) line += buffer[static_cast<size_t>(i)];  // the step stands in front
        continue;
      }
      const std::optional<uint64_t> at = step_of(line);
      cut = at && *at > step;
      line_begin = offset + static_cast<uint64_t>(i) + 1;
      if (!cut) keep = line_begin;
      line.clear();
    }
    offset += static_cast<uint64_t>(n);
  }
  truncate_at(keep);
}

void MetricsLog::truncate_at(uint64_t bytes) {
  const off_t end = ::lseek(handle_, 0, SEEK_END);
  if (end < 0) fail_io("metrics", "seek in", file_.string(), -errno);
  torn_ = false;
  if (static_cast<uint64_t>(end) == bytes) return;
  if (::ftruncate(handle_, static_cast<off_t>(bytes)) != 0) fail_io("metrics", "truncate", file_.string(), -errno);
  if (::fsync(handle_) != 0) fail_io("metrics", "sync", file_.string(), -errno);
}

}  // namespace heddle
