// A dataset.json. Accepted: names are plain and unique, every field in its range, and it is written again to the same object.
#include <set>

#include "data/dataset.h"
#include "tests/fuzz/target.h"

namespace heddle::fuzz {
namespace {

// A JSON value in memory takes 16 bytes and an array doubles: "[0,0,0..." is two bytes of text for up to 48.
constexpr Rules kRules = {{ExitCode::bad_data}, 32};

bool is_plain(const std::string& name) {
  return !name.empty() && name[0] != '.' && name.size() <= 255 && name.find_first_of(std::string_view("/\\\n\0", 4)) == std::string::npos;
}

void check_fields(const DatasetInfo& info) {
  require(is_plain(info.tokenizer) && info.tokenizer_fingerprint.size() == 64, "the tokenizer's name or fingerprint is none");
  require(info.vocab >= 1 && info.vocab <= INT32_MAX && info.eot >= 0 && info.eot < info.vocab, "vocabulary ", info.vocab, ", end of text ",
          info.eot);
  std::set<std::string> names;
  for (const DatasetInfo::Shard& s : info.shards) {
    require(is_plain(s.file) && names.insert(s.file).second, "shard name ", s.file);
    require(s.split == "train" || s.split == "val", "split ", s.split);
    require(s.tokens >= 0 && s.tokens <= INT32_MAX && s.bytes >= 0 && s.documents >= 0, "a negative or too large count of ", s.file);
    require(s.sha256.size() == 64, "SHA-256 of ", s.file);
    require(info.find(s.file) == &s, s.file, " is not found by its name");
  }
  require(info.find("no such/file") == nullptr, "a file that is not there is found");
}

void require_same(const DatasetInfo& a, const DatasetInfo& b) {
  require(a.tokenizer == b.tokenizer && a.tokenizer_fingerprint == b.tokenizer_fingerprint, "the tokenizer changed");
  require(a.vocab == b.vocab && a.eot == b.eot && a.eot_position == b.eot_position, "vocabulary or end of text changed");
  require(a.shards.size() == b.shards.size(), "shards were lost");
  for (size_t i = 0; i < a.shards.size(); ++i) {
    const DatasetInfo::Shard &x = a.shards[i], &y = b.shards[i];
    require(
        x.file == y.file && x.split == y.split && x.tokens == y.tokens && x.bytes == y.bytes && x.documents == y.documents && x.sha256 == y.sha256,
        "shard ", i, " changed");
  }
}

}  // namespace

void run_target(std::string_view input) {
  const std::string text(input);
  const auto info = parse_input(kRules, input.size(), [&] { return DatasetInfo::parse(text, "input"); });
  if (!info) return;
  check_fields(*info);
  const std::string json = info->to_json();
  const DatasetInfo again = DatasetInfo::parse(json, "written");
  require_same(*info, again);
  require(again.to_json() == json, "writing what was written gives other bytes");
}

}  // namespace heddle::fuzz
