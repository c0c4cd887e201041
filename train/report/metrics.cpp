#include "train/report/metrics.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <fstream>
#include <vector>

#include "kernels/api/check.h"
#include "train/config/values.h"

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

std::string debt_text(std::string_view debt) {
  return concat(",", quote_text(debt), ":true}\n");
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

MetricsLog::MetricsLog(const std::filesystem::path& file, std::optional<uint64_t> resumed_step) : log_(file.string(), AppendLog::Open::or_create) {
  if (resumed_step) {
    cut_after(*resumed_step);
  } else {
    log_.cut(0);
  }
}

bool last_record_owes(const std::string& file, uint64_t step, std::string_view debt) {
  constexpr std::streamoff kMostLine = 4096;
  std::ifstream in(file, std::ios::binary | std::ios::ate);
  const std::streamoff size = in.tellg();
  if (!in || size <= 0) return false;
  std::string text(static_cast<size_t>(std::min(size, kMostLine)), '\0');
  in.seekg(size - static_cast<std::streamoff>(text.size()));
  if (!in.read(text.data(), static_cast<std::streamsize>(text.size())) || !text.ends_with(debt_text(debt))) return false;
  const size_t before = text.rfind('\n', text.size() - 2);
  return step_of(std::string_view(text).substr(before == text.npos ? 0 : before + 1)) == step;
}

void MetricsLog::pay(uint64_t step, std::string_view debt, std::span<const Metric> metrics) {
  log_.cut(log_.size() - debt_text(debt).size());
  log_.append(metrics_line(step, metrics).substr(metrics_line(step, {}).size() - 1) + "\n");
}

void MetricsLog::write(uint64_t step, std::span<const Metric> metrics) {
  log_.append(metrics_line(step, metrics) + "\n");
}

void MetricsLog::cut_after(uint64_t step) {
  uint64_t keep = 0, offset = 0;
  std::string line;
  std::vector<char> buffer(size_t{1} << 16);
  while (const size_t n = log_.read(offset, buffer.data(), buffer.size())) {
    for (size_t i = 0; i < n; ++i) {
      if (buffer[i] != '\n') {
        if (line.size() < 64) line += buffer[i];  // the step stands in front
        continue;
      }
      if (const std::optional<uint64_t> at = step_of(line); at && *at > step) return log_.cut(keep);
      keep = offset + i + 1;
      line.clear();
    }
    offset += n;
  }
  log_.cut(keep);
}

}  // namespace heddle
