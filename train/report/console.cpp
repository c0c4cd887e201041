#include "train/report/console.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "kernels/api/check.h"
#include "kernels/api/printable.h"

namespace heddle {
namespace {

template <class... Args>
std::string print(const char* format, Args... args) {
  char buffer[256];
  const int n = std::snprintf(buffer, sizeof buffer, format, args...);
  return std::string(buffer, static_cast<size_t>(std::clamp(n, 0, static_cast<int>(sizeof buffer) - 1)));
}

bool environment_has(const char* name) {
  const char* value = std::getenv(name);
  return value && *value;
}

size_t terminal_width(int handle) {
  winsize size{};
  return ::ioctl(handle, TIOCGWINSZ, &size) == 0 && size.ws_col >= 20 ? size.ws_col : 80;
}

constexpr std::string_view kClearLine = "\r\x1b[2K";

}  // namespace

std::string step_text(const StepLine& s) {
  const std::string steps = concat(s.steps);
  return concat(print("step %*llu/%s | loss %.4f | norm %.3g | lr %.1e | ", static_cast<int>(steps.size()), static_cast<unsigned long long>(s.step),
                      steps.c_str(), s.loss, s.grad_norm, s.lr),
                s.note.empty()
                    ? concat(amount_text(s.tokens_per_second), " tok/s", s.utilisation > 0 ? print(" | MFU %.0f %%", 100 * s.utilisation) : "")
                    : std::string(s.note));
}

bool LineTimer::due(uint64_t step, std::chrono::steady_clock::time_point now) {
  constexpr uint64_t kLines = 50;
  constexpr std::chrono::minutes kSilence(1);
  const uint64_t every = every_ > 0 ? static_cast<uint64_t>(every_) : std::max<uint64_t>(1, steps_ / kLines);
  const bool waited = every_ == 0 && (!last_ || now - *last_ >= kSilence);
  if (step % every != 0 && step != steps_ && !waited) return false;
  last_ = now;
  return true;
}

std::string duration_text(double seconds) {
  if (!std::isfinite(seconds) || seconds < 0 || seconds > 1e9) return "?";
  const auto total = static_cast<long long>(std::llround(seconds));
  if (total >= 86400) return print("%lldd %lld:%02lld:%02lld", total / 86400, total / 3600 % 24, total / 60 % 60, total % 60);
  if (total >= 3600) return print("%lld:%02lld:%02lld", total / 3600, total / 60 % 60, total % 60);
  return print("%lld:%02lld", total / 60, total % 60);
}

std::string bytes_text(double bytes) {
  constexpr const char* kUnits[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
  size_t unit = 0;
  while (bytes >= 1024 && unit + 1 < std::size(kUnits)) bytes /= 1024, ++unit;
  return print(unit == 0 ? "%.0f %s" : "%.2f %s", bytes, kUnits[unit]);
}

std::string amount_text(double amount) {
  constexpr const char* kUnits[] = {"", " k", " M", " G", " T"};
  size_t unit = 0;
  while (amount >= 1000 && unit + 1 < std::size(kUnits)) amount /= 1000, ++unit;
  return print(unit == 0 ? "%.0f%s" : "%.2f%s", amount, kUnits[unit]);
}

void RateMeter::add(double tokens, double seconds) {
  if (first_) {
    first_ = false;
    return;
  }
  weight_ = decay_ * weight_ + (1 - decay_);
  seconds_ = decay_ * seconds_ + (1 - decay_) * seconds;
  tokens_ = decay_ * tokens_ + (1 - decay_) * tokens;
}

double RateMeter::tokens_per_second() const {
  return seconds_ > 0 ? tokens_ / seconds_ : 0;  // the bias cancels
}

double RateMeter::seconds_per_step() const {
  return weight_ > 0 ? seconds_ / weight_ : 0;
}

std::vector<TableRow> config_rows(const RunConfig& config) {
  std::vector<TableRow> rows;
  const RunConfig defaults;
  for (const auto& o : RunConfig::options()) {
    if (o.empty(config) || o.toml_text(config) == o.toml_text(defaults)) continue;
    rows.push_back({std::string(o.name), o.toml_text(config), config.origin_text(o.name)});
  }
  return rows;
}

std::string table_text(std::string_view title, const std::vector<TableRow>& rows) {
  size_t name = 0, value = 0;
  for (const TableRow& row : rows) {
    name = std::max(name, row.name.size());
    value = std::max(value, std::min<size_t>(row.value.size(), 48));
  }
  std::string out = concat(title, "\n");
  for (const TableRow& row : rows) {
    std::string line = concat("  ", row.name, std::string(name - row.name.size() + 2, ' '), row.value);
    if (!row.origin.empty()) line += concat(std::string(row.value.size() < value ? value - row.value.size() + 2 : 2, ' '), row.origin);
    out += line + "\n";
  }
  return out;
}

Console::Console(const Options& options) : handle_(options.handle), enabled_(options.enabled) {
  const char* term = std::getenv("TERM");
  terminal_ = ::isatty(handle_) == 1;
  const bool terminal = enabled_ && options.terminal && terminal_ && term && std::string_view(term) != "dumb";
  bar_ = terminal && options.progress;
  colour_ = terminal && !environment_has("NO_COLOR");
}

Console::~Console() {
  end_progress();
}

void Console::write(std::string_view text) {
  while (!text.empty()) {
    const ssize_t n = ::write(handle_, text.data(), text.size());
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) {
      const bool nobody_reads = errno == EPIPE || (errno == EIO && terminal_);
      if (failure_ == 0 && !nobody_reads) failure_ = errno;
      return;
    }
    text.remove_prefix(static_cast<size_t>(n));
  }
}

void Console::require_written() const {
  if (failure_ != 0) fail("console", concat("cannot write to standard output: ", std::strerror(failure_)), ExitCode::io);
}

void Console::put(std::string_view mark, std::string_view text) {
  if (!enabled_) return;
  // One write: lines of several processes on one terminal must not mix.
  write(concat(drawn_ ? kClearLine : "", mark, printable(text, true), "\n", drawn_ ? std::string_view(last_bar_) : ""));
}

void Console::line(std::string_view text) {
  put("", text);
}

void Console::warn(std::string_view text) {
  put(colour_ ? "\x1b[33mwarning:\x1b[0m " : "warning: ", text);
}

void Console::progress(std::string_view what, uint64_t done, uint64_t total, double seconds_per_step) {
  if (!bar_ || total == 0) return;
  const auto now = std::chrono::steady_clock::now();
  if (drawn_ && done < total && now - last_draw_ < std::chrono::milliseconds(100)) return;
  last_draw_ = now;
  const double share = std::min(1.0, static_cast<double>(done) / static_cast<double>(total));
  const std::string head = concat(what, " ");
  const std::string tail = concat(
      print(" %llu/%llu %5.1f%%", static_cast<unsigned long long>(done), static_cast<unsigned long long>(total), share * 100),
      seconds_per_step > 0 ? concat(" ETA ", duration_text(static_cast<double>(total - std::min(done, total)) * seconds_per_step)) : std::string());
  const size_t width = terminal_width(handle_) - 1;  // the last column would wrap
  std::string bar;
  if (head.size() + tail.size() + 8 < width) {
    const size_t room = std::min<size_t>(width - head.size() - tail.size() - 2, 60);
    const auto filled = static_cast<size_t>(share * static_cast<double>(room));
    bar = concat("[", std::string(filled, '='), filled < room ? ">" : "", std::string(room - filled - (filled < room ? 1 : 0), ' '), "]");
  }
  last_bar_ = (head + bar + tail).substr(0, width);
  write(concat(kClearLine, last_bar_));
  drawn_ = true;
}

void Console::end_progress() {
  if (!drawn_) return;
  write(kClearLine);
  drawn_ = false;
  last_bar_.clear();
}

}  // namespace heddle
