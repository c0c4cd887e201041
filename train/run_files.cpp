#include "train/run_files.h"

#include <algorithm>
#include <string_view>

#include "core/io/own_file.h"
#include "kernels/api/check.h"

namespace heddle {
namespace {

constexpr size_t kMostMark = 4096;

bool begins_with(std::string_view text, std::string_view mark) {
  return text.substr(0, mark.size()) == mark.substr(0, text.size());  // a file torn inside its mark is heddle's as well
}
bool is_config(std::string_view text) {
  return begins_with(text, "# heddle run configuration");
}
bool is_metrics(std::string_view text) {
  return begins_with(text, "{\"step\":");
}
bool is_samples(std::string_view text) {
  return begins_with(text, "step ");
}
// NAME BYTES SHA-256
bool is_shard_list(std::string_view text) {
  constexpr size_t kDigits = 64;
  const std::string_view line = text.substr(0, text.find('\n'));
  if (text.empty()) return true;
  if (line.size() < kDigits + 4 || line[line.size() - kDigits - 1] != ' ') return false;
  return line.find_first_not_of("0123456789abcdef", line.size() - kDigits) == line.npos;
}
bool is_latest(std::string_view text) {
  return begins_with(text, "s") && text.find_first_not_of("si-0123456789\n") == text.npos;
}
bool is_gemm_times(std::string_view text) {
  return begins_with(text, "{\n \"machine\":");
}
bool is_anything(std::string_view) {
  return true;
}

struct RunFile {
  const char* name;
  bool (*is_own)(std::string_view beginning);
};
constexpr RunFile kFiles[] = {
    {"LOCK", is_anything},           {"LATEST", is_latest},         {"config.toml", is_config},         {"metrics.jsonl", is_metrics},
    {"samples.txt", is_samples},     {"shards.txt", is_shard_list}, {"bad_batches.jsonl", is_anything},  // read strictly where it is used
    {"incidents.jsonl", is_metrics}, {"gemm.json", is_gemm_times},  {"tokenizer.json", is_anything}};    // never replaced

}  // namespace

void require_own_files(const std::string& directory, bool begun) {
  for (const RunFile& file : kFiles) {
    const std::string path = concat(directory, "/", file.name);
    std::string wrong = foreign_kind(path);
    if (wrong.empty() && !begun) {
      const std::optional<std::string> beginning = read_own_file(path, kMostMark);
      if (beginning && !file.is_own(*beginning)) wrong = "was not written by heddle";
    }
    if (wrong.empty()) continue;
    fail("pretrain", concat(path, ": ", wrong, ", and a run keeps a file of its own under this name: move it away, or choose another --out"),
         ExitCode::usage);
  }
}

}  // namespace heddle
