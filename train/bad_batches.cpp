#include "train/bad_batches.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <fstream>
#include <limits>
#include <sstream>

#include "core/io/file_system.h"
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
  std::ifstream in(file_, std::ios::binary);
  if (!in) return;
  std::error_code unknown;
  if (std::filesystem::file_size(file_, unknown) > kMostBytes && !unknown) {
    fail("bad_batches", concat(file_.string(), ": more than ", kMostBytes, " bytes"), ExitCode::bad_data);
  }
  std::ostringstream content;
  content << in.rdbuf();
  const std::string text = content.str();
  size_t begin = 0;
  for (int line = 1; begin < text.size(); ++line) {
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
  const int handle = ::open(file_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (handle < 0) fail_io("bad_batches", "open", file_.string(), -errno);
  const auto close_and_fail = [&](const char* what) {
    const int error = -errno;
    ::close(handle);
    fail_io("bad_batches", what, file_.string(), error);
  };
  // Append behind the last whole line: a torn one is overwritten.
  off_t end = ::lseek(handle, 0, SEEK_END);
  char last = '\n';
  while (end > 0 && ::pread(handle, &last, 1, end - 1) == 1 && last != '\n') --end;
  const std::string line = line_of(batch);
  if (::ftruncate(handle, end) != 0) close_and_fail("truncate");
  for (size_t done = 0; done < line.size();) {
    const ssize_t n = ::pwrite(handle, line.data() + done, line.size() - done, end + static_cast<off_t>(done));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) close_and_fail("write");
    done += static_cast<size_t>(n);
  }
  if (::fsync(handle) != 0) close_and_fail("sync");
  ::close(handle);
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
