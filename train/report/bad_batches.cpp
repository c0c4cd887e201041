#include "train/report/bad_batches.h"

#include <algorithm>
#include <limits>

#include "core/io/own_file.h"
#include "core/io/strict_json.h"

namespace heddle {
namespace {

constexpr size_t kMostBytes = size_t{64} << 20;

std::string line_of(const BadBatch& b) {
  nlohmann::ordered_json json = {
      {"step", b.step}, {"first_sample", b.first_sample}, {"count", b.count}, {"file", b.file}, {"offset", b.offset}, {"reason", b.reason},
      {"skip", b.skip}};
  return json.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
}

BadBatch parse_line(std::string_view line, const std::string& place) {
  const nlohmann::json json = parse_strict_json(line, place);
  const auto number = [&](const char* key) {
    if (!json.is_object() || !json.contains(key) || !json[key].is_number_unsigned()) {
      fail("bad_batches", concat(place, ": \"", key, "\" must be a whole number"), ExitCode::bad_data);
    }
    return json[key].get<uint64_t>();
  };
  BadBatch b;
  b.step = number("step");
  b.first_sample = number("first_sample");
  b.count = number("count");
  b.offset = number("offset");
  if (b.count > std::numeric_limits<uint64_t>::max() - b.first_sample) {
    fail("bad_batches", concat(place, ": first_sample + count overflows"), ExitCode::bad_data);
  }
  if (!json.contains("skip") || !json["skip"].is_boolean() || !json.contains("file") || !json["file"].is_string() || !json.contains("reason") ||
      !json["reason"].is_string()) {
    fail("bad_batches", concat(place, ": \"file\" and \"reason\" must be strings, \"skip\" true or false"), ExitCode::bad_data);
  }
  b.file = json["file"];
  b.reason = json["reason"];
  b.skip = json["skip"];
  return b;
}

}  // namespace

BadBatchLedger::BadBatchLedger(std::filesystem::path file) : file_(std::move(file)) {
  const std::optional<std::string> found = read_own_file(file_.string(), kMostBytes + 1);
  if (!found) return;
  const std::string& text = *found;
  if (text.size() > kMostBytes) fail("bad_batches", concat(file_.string(), ": more than ", kMostBytes, " bytes"), ExitCode::bad_data);
  size_t begin = 0;
  for (int line = 1;; ++line) {
    const size_t end = text.find('\n', begin);
    if (end == std::string::npos) break;
    entries_.push_back(parse_line(std::string_view(text).substr(begin, end - begin), concat(file_.string(), ":", line)));
    begin = end + 1;
  }
}

uint64_t BadBatchLedger::rollbacks() const {
  return static_cast<uint64_t>(std::count_if(entries_.begin(), entries_.end(), [](const BadBatch& b) { return b.skip && b.step > 0; }));
}

void BadBatchLedger::add(const BadBatch& batch) {
  if (std::find(entries_.begin(), entries_.end(), batch) != entries_.end()) return;
  AppendLog log(file_.string(), AppendLog::Open::or_create);
  uint64_t end = log.size();  // of the last whole line: a torn one behind it goes
  for (char last = 0; end > 0 && log.read(end - 1, &last, 1) == 1 && last != '\n';) --end;
  log.cut(end);
  log.append_durably(line_of(batch));
  entries_.push_back(batch);
}

uint64_t BadBatchLedger::next_clean(uint64_t cursor, uint64_t count) const {
  for (bool moved = true; moved;) {
    moved = false;
    for (const BadBatch& b : entries_) {
      const uint64_t end = b.first_sample + b.count;
      if (b.skip && b.count > 0 && b.first_sample < cursor + count && cursor < end) {
        cursor = end;
        moved = true;
      }
    }
  }
  return cursor;
}

}  // namespace heddle
