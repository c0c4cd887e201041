#include "data/dataset.h"

#include <unistd.h>

#include <algorithm>
#include <cctype>

#include "core/io/strict_json.h"
#include "data/file.h"
#include "kernels/api/check.h"

namespace heddle {
namespace {

constexpr size_t kMaxBytes = size_t{64} << 20;  // about 300,000 shards

constexpr char kFormat[] = "heddle-dataset";

struct Fields {
  const nlohmann::json& object;
  std::string place;

  [[noreturn]] void bad(const std::string& text, int line = __builtin_LINE()) const {
    fail("dataset", concat(place, ": ", text, "; write the data set again with `heddle tokenize`"), ExitCode::bad_data, __FILE__, line);
  }
  const nlohmann::json& get(const char* key) const {
    const auto found = object.find(key);
    if (found == object.end()) bad(concat("field '", key, "' is missing"));
    return *found;
  }
  std::string text(const char* key) const {
    const nlohmann::json& value = get(key);
    if (!value.is_string()) bad(concat("field '", key, "' is not a string"));
    return value.get<std::string>();
  }
  int64_t integer(const char* key, int64_t least, int64_t most) const {
    const nlohmann::json& value = get(key);
    if (!value.is_number_integer()) bad(concat("field '", key, "' is not an integer"));
    const bool huge = value.is_number_unsigned() && value.get<uint64_t>() > static_cast<uint64_t>(most);
    if (huge || value.get<int64_t>() < least || value.get<int64_t>() > most) {
      bad(concat("field '", key, "' is ", value.dump(), ", not in [", least, ", ", most, "]"));
    }
    return value.get<int64_t>();
  }
  // A name in the same folder: never a path.
  std::string file(const char* key) const {
    const std::string name = text(key);
    const bool plain = std::all_of(name.begin(), name.end(), [](unsigned char c) { return c > 0x20 && c != 0x7F && c != '/' && c != '\\'; });
    if (name.empty() || name[0] == '.' || name.size() > 255 || !plain) bad(concat("field '", key, "' is no plain file name"));
    return name;
  }
  std::string hash(const char* key) const {
    const std::string value = text(key);
    const bool hex = std::all_of(value.begin(), value.end(), [](unsigned char c) { return std::isdigit(c) || (c >= 'a' && c <= 'f'); });
    if (value.size() != 64 || !hex) bad(concat("field '", key, "' is not a SHA-256 of 64 lower-case hexadecimal digits"));
    return value;
  }
};

}  // namespace

const char* name_of(EotPosition position) {
  return position == EotPosition::prepend ? "prepend" : "append";
}

const DatasetInfo::Shard* DatasetInfo::find(const std::string& file) const {
  if (const auto at = index_.find(file); at != index_.end() && at->second < shards.size() && shards[at->second].file == file) {
    return &shards[at->second];
  }
  if (index_.size() == shards.size()) return nullptr;
  for (const Shard& shard : shards) {
    if (shard.file == file) return &shard;
  }
  return nullptr;
}

std::string DatasetInfo::to_json() const {
  nlohmann::ordered_json root = {{"format", kFormat},
                                 {"version", 1},
                                 {"tokenizer", tokenizer},
                                 {"tokenizer_fingerprint", tokenizer_fingerprint},
                                 {"vocab", vocab},
                                 {"eot", eot},
                                 {"eot_position", name_of(eot_position)},
                                 {"shards", nlohmann::ordered_json::array()}};
  for (const Shard& shard : shards) {
    root["shards"].push_back({{"file", shard.file},
                              {"split", shard.split},
                              {"tokens", shard.tokens},
                              {"bytes", shard.bytes},
                              {"documents", shard.documents},
                              {"sha256", shard.sha256}});
  }
  return root.dump(2) + "\n";
}

DatasetInfo DatasetInfo::parse(const std::string& text, const std::string& place) {
  const nlohmann::json root = parse_strict_json(text, place, kMaxBytes);
  const Fields top{root, place};
  if (!root.is_object()) top.bad("not a JSON object");
  if (top.text("format") != kFormat) top.bad(concat("field 'format' is not \"", kFormat, '"'));
  if (const int64_t version = top.integer("version", 1, INT32_MAX); version != 1)
    top.bad(concat("version ", version, ", this heddle reads version 1"));
  DatasetInfo info;
  info.tokenizer = top.file("tokenizer");
  info.tokenizer_fingerprint = top.hash("tokenizer_fingerprint");
  info.vocab = top.integer("vocab", 1, INT32_MAX);
  info.eot = static_cast<int32_t>(top.integer("eot", 0, info.vocab - 1));
  const std::string position = top.text("eot_position");
  if (position != "prepend" && position != "append") top.bad("field 'eot_position' is neither \"prepend\" nor \"append\"");
  info.eot_position = position == "prepend" ? EotPosition::prepend : EotPosition::append;
  const nlohmann::json& shards = top.get("shards");
  if (!shards.is_array()) top.bad("field 'shards' is not an array");
  for (const nlohmann::json& item : shards) {
    const Fields fields{item, concat(place, ": shard ", info.shards.size())};
    if (!item.is_object()) fields.bad("not a JSON object");
    Shard shard;
    shard.file = fields.file("file");
    if (!info.index_.emplace(shard.file, info.shards.size()).second) fields.bad(concat("file '", shard.file, "' is listed twice"));
    shard.split = fields.text("split");
    if (shard.split != "train" && shard.split != "val") fields.bad("field 'split' is neither \"train\" nor \"val\"");
    shard.tokens = fields.integer("tokens", 0, INT32_MAX);
    shard.bytes = fields.integer("bytes", 0, INT64_MAX);
    shard.documents = fields.integer("documents", 0, INT32_MAX);
    shard.sha256 = fields.hash("sha256");
    info.shards.push_back(std::move(shard));
  }
  return info;
}

std::optional<DatasetInfo> DatasetInfo::load(const std::string& directory) {
  const std::string path = directory + "/dataset.json";
  if (::access(path.c_str(), F_OK) != 0) return std::nullopt;
  const std::string text = read_small_file(path, kMaxBytes);
  if (text.find(kFormat) == text.npos) {  // others use this name as well, for whatever they like
    fail("dataset",
         concat(path, ": another program's file: heddle's of this name records the shards beside it, and says \"format\": \"", kFormat,
                "\"; move it away, or use another folder"),
         ExitCode::bad_data);
  }
  return parse(text, path);
}

}  // namespace heddle
