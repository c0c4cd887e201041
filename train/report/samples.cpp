#include "train/report/samples.h"

#include <array>
#include <charconv>

#include "kernels/api/check.h"

namespace heddle {
namespace {

constexpr size_t kMostHeader = 64;
constexpr std::string_view kEnd = "\n\n";

struct Header {
  uint64_t step = 0;
  std::optional<uint64_t> bytes;  // none in the records of early versions, whose text nobody can tell the end of
};

// A record's first line, without its newline; nullopt for a line of another origin.
std::optional<Header> parse_header(std::string_view line) {
  const auto number = [&line](std::string_view before, uint64_t& value) {
    if (!line.starts_with(before)) return false;
    line.remove_prefix(before.size());
    const auto [end, error] = std::from_chars(line.data(), line.data() + line.size(), value);
    line.remove_prefix(static_cast<size_t>(end - line.data()));
    return error == std::errc{};
  };
  Header h;
  uint64_t bytes = 0;
  if (!number("step ", h.step)) return std::nullopt;
  if (line.empty()) return h;
  if (!number(", ", bytes) || line != " bytes") return std::nullopt;
  h.bytes = bytes;
  return h;
}

}  // namespace

SampleLog::SampleLog(const std::string& file, std::optional<uint64_t> resumed_step) : log_(file, AppendLog::Open::or_create) {
  if (resumed_step) {
    cut_after(*resumed_step);
  } else {
    log_.cut(0);
  }
}

void SampleLog::write(uint64_t step, std::string_view text) {
  log_.append(concat("step ", step, ", ", text.size(), " bytes\n", text, kEnd));
}

void SampleLog::cut_after(uint64_t step) {
  const uint64_t size = log_.size();
  uint64_t at = 0;
  std::array<char, kMostHeader> buffer;
  while (at < size) {
    const std::string_view seen(buffer.data(), log_.read(at, buffer.data(), buffer.size()));
    const size_t newline = seen.find('\n');
    const std::optional<Header> header = newline == seen.npos ? std::nullopt : parse_header(seen.substr(0, newline));
    if (header && header->step > step) break;
    if (header && header->bytes) {
      const uint64_t body = at + newline + 1, room = size - body;
      if (room < kEnd.size() || *header->bytes > room - kEnd.size()) break;  // torn
      at = body + *header->bytes + kEnd.size();
    } else if (newline != seen.npos) {
      at += newline + 1;
    } else if (at + seen.size() < size) {
      at += seen.size();  // a long line of another origin: its rest is no header either, or is taken for one
    } else {
      break;  // torn inside its first line
    }
  }
  log_.cut(at);
}

}  // namespace heddle
