// tokenizer.json of Hugging Face's tokenizers and the encoder.json + vocab.bpe of GPT-2: reading and writing.
#include <sys/stat.h>

#include <algorithm>
#include <cstring>
#include <map>

#include "core/io/strict_json.h"
#include "data/file.h"
#include "data/tokenizer.h"
#include "kernels/api/check.h"

namespace heddle {
namespace {

using Json = nlohmann::json;
constexpr size_t kMaxBytes = 100'000'000;

constexpr char kCl100k[] =
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
constexpr char kQwen2[] =
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
constexpr char kGpt2[] = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

// Tried in this order when a file does not say which special token ends a text. Llama-3's shards are delimited by the begin token (llm.c).
constexpr const char* kEotNames[] = {kEndOfText, "<|begin_of_text|>", "<|end_of_text|>"};

class File {
 public:
  explicit File(std::string place) : place_(std::move(place)) {}
  [[noreturn]] void bad(const std::string& text, int line = __builtin_LINE()) const {
    fail("tokenizer", concat(place_, ": ", text), ExitCode::bad_data, __FILE__, line);
  }

  const Json& member(const Json& object, const char* key) const {
    static const Json nothing;
    const auto found = object.find(key);
    return found == object.end() ? nothing : *found;
  }
  std::string type_of(const Json& part, const char* what) const {
    if (!part.is_object() || !member(part, "type").is_string()) bad(concat(what, " is not an object with a 'type'"));
    return member(part, "type").get<std::string>();
  }
  bool flag(const Json& object, const char* key, bool otherwise) const {
    const Json& value = member(object, key);
    if (value.is_null()) return otherwise;
    if (!value.is_boolean()) bad(concat("'", key, "' is not true or false"));
    return value.get<bool>();
  }
  int32_t id(const Json& value, const std::string& of, size_t most) const {
    if (!value.is_number_unsigned() || value.get<uint64_t>() >= most) {
      bad(concat("the id of token ", of, " is ", value.dump(), ", not an integer below the ", most, " tokens; ids must have no holes"));
    }
    return value.get<int32_t>();
  }
  bool is_byte_level(const Json& part) const { return type_of(part, "a part") == "ByteLevel"; }

  SplitRule split(const Json& part) const {
    if (part.is_null()) bad("pre_tokenizer is null; only byte-level ones are read: ByteLevel, or Sequence of Split and ByteLevel");
    const std::string type = type_of(part, "pre_tokenizer");
    if (type == "ByteLevel") return byte_level(part) ? SplitRule::gpt2 : SplitRule::none;
    if (type != "Sequence") bad(concat("pre_tokenizer '", type, "' is not supported; known: ByteLevel, Sequence of Split and ByteLevel"));
    const Json& parts = member(part, "pretokenizers");
    if (!parts.is_array() || parts.empty() || parts.size() > 2) bad("pre_tokenizer Sequence is not [Split, ByteLevel] or [ByteLevel]");
    if (const std::string last = type_of(parts.back(), "a pre_tokenizer"); last != "ByteLevel") {
      bad(concat("pre_tokenizer '", last, "' at the end of the Sequence is not supported; ByteLevel must be last"));
    }
    const bool own_regex = byte_level(parts.back());
    if (parts.size() == 1) return own_regex ? SplitRule::gpt2 : SplitRule::none;
    if (const std::string first = type_of(parts[0], "a pre_tokenizer"); first != "Split")
      bad(concat("pre_tokenizer '", first, "' is not supported; known: Split"));
    if (own_regex) bad("pre_tokenizer ByteLevel after a Split has use_regex true, which would cut twice; not supported");
    const Json& behavior = member(parts[0], "behavior");
    if (behavior != "Isolated" || flag(parts[0], "invert", false)) bad("pre_tokenizer Split: only behavior \"Isolated\" without invert is supported");
    const Json& pattern = member(parts[0], "pattern");
    const Json& regex = pattern.is_object() ? member(pattern, "Regex") : pattern;
    if (regex == kGpt2) return SplitRule::gpt2;
    if (regex == kCl100k) return SplitRule::cl100k;
    if (regex == kQwen2) return SplitRule::qwen2;
    bad(concat("pre_tokenizer Split: pattern ", regex.dump().substr(0, 200), " is not supported; known: those of GPT-2, cl100k (Llama-3) and Qwen2"));
  }

  // Whether ByteLevel cuts by GPT-2's expression.
  bool byte_level(const Json& part) const {
    if (flag(part, "add_prefix_space", true)) bad("pre_tokenizer ByteLevel: add_prefix_space true is not supported");
    return flag(part, "use_regex", true);
  }

  void check_post_processor(const Json& part) const {
    if (part.is_null()) return;
    const std::string type = type_of(part, "post_processor");
    if (type == "ByteLevel" || type == "TemplateProcessing") return;  // neither changes the ids of ordinary text
    if (type != "Sequence") bad(concat("post_processor '", type, "' is not supported; known: ByteLevel, TemplateProcessing"));
    const Json& parts = member(part, "processors");
    if (!parts.is_array()) bad("post_processor Sequence has no 'processors'");
    for (const Json& item : parts) check_post_processor(item);
  }

 private:
  std::string place_;
};

// Tokens by id out of a vocabulary object {"spelled": id} and the added tokens.
void read_tokens(const File& file, const Json& vocab, const std::map<int32_t, std::string>& added, TokenizerSpec& spec) {
  if (!vocab.is_object()) file.bad("the vocabulary is not an object");
  std::map<std::string, int32_t> added_ids;
  for (const auto& [id, content] : added) added_ids[content] = id;
  size_t size = vocab.size();
  for (const auto& [content, id] : added_ids) size += !vocab.contains(content);
  spec.tokens.resize(size);
  std::vector<bool> seen(size);
  const auto place = [&](int32_t id, std::string bytes, const std::string& of) {
    if (seen[static_cast<size_t>(id)]) file.bad(concat("id ", id, " has two tokens, one of them ", of));
    seen[static_cast<size_t>(id)] = true;
    spec.tokens[static_cast<size_t>(id)] = std::move(bytes);
  };
  for (const auto& [spelled, value] : vocab.items()) {
    const std::string shown = Json(spelled).dump();
    const int32_t id = file.id(value, shown, size);
    if (const auto found = added_ids.find(spelled); found != added_ids.end()) {
      if (found->second != id) file.bad(concat("token ", shown, " has id ", id, " in the vocabulary and ", found->second, " in added_tokens"));
      continue;
    }
    std::string bytes;
    if (!byte_alphabet().read(spelled, bytes))
      file.bad(concat("token ", shown, " holds a character that stands for no byte; only byte-level vocabularies are read"));
    place(id, std::move(bytes), shown);
  }
  for (const auto& [id, content] : added) {
    if (static_cast<size_t>(id) >= size)
      file.bad(concat("added token ", Json(content).dump(), " has id ", id, " of ", size, " tokens; ids must have no holes"));
    place(id, content, Json(content).dump());
    spec.special.push_back(id);
  }
  // As many ids as tokens, all below their number and none twice: there is no hole left.
}

void read_merges(const File& file, const std::vector<std::array<std::string, 2>>& merges, TokenizerSpec& spec) {
  std::map<std::string_view, int32_t> ids;
  std::vector<bool> special(spec.tokens.size());
  for (const int32_t id : spec.special) special[static_cast<size_t>(id)] = true;
  for (size_t id = 0; id < spec.tokens.size(); ++id) {
    if (!special[id]) ids.emplace(spec.tokens[id], static_cast<int32_t>(id));
  }
  for (size_t rank = 0; rank < merges.size(); ++rank) {
    std::array<int32_t, 2> pair{};
    for (size_t side = 0; side < 2; ++side) {
      std::string bytes;
      const bool readable = byte_alphabet().read(merges[rank][side], bytes);
      const auto found = ids.find(bytes);
      if (!readable || found == ids.end())
        file.bad(concat("merge ", rank, " names ", Json(merges[rank][side]).dump(-1, ' ', false, Json::error_handler_t::replace),
                        ", which is no token of the vocabulary"));
      pair[side] = found->second;
    }
    spec.merges.push_back(pair);
  }
}

std::array<std::string, 2> split_merge(const File& file, const std::string& line, size_t rank) {
  const size_t space = line.find(' ');
  if (space == std::string::npos || space == 0 || space + 1 == line.size() || line.find(' ', space + 1) != std::string::npos) {
    file.bad(concat("merge ", rank, " is not two tokens with one space between"));
  }
  return {line.substr(0, space), line.substr(space + 1)};
}

void choose_eot(const File& file, TokenizerSpec& spec) {
  for (const char* name : kEotNames) {
    for (const int32_t id : spec.special) {
      if (spec.tokens[static_cast<size_t>(id)] == name) {
        spec.eot = id;
        return;
      }
    }
  }
  file.bad("no end-of-text token among added_tokens; known names: <|endoftext|>, <|begin_of_text|>, <|end_of_text|>");
}

std::string json_string(std::string_view text) {
  return Json(text).dump();
}

}  // namespace

Tokenizer Tokenizer::parse(std::string_view json, const std::string& place) {
  const Json root = parse_strict_json(json, place, kMaxBytes);
  const File file(place);
  if (!root.is_object()) file.bad("not a JSON object");
  if (!root.contains("model")) file.bad("no tokenizer.json: there is no 'model'");
  const Json& model = root["model"];
  const std::string type = file.type_of(model, "model");
  if (type != "BPE") file.bad(concat("model '", type, "' is not supported; known: BPE (byte-level)"));
  if (const Json& normalizer = file.member(root, "normalizer"); !normalizer.is_null()) {
    file.bad(concat("normalizer '", file.type_of(normalizer, "normalizer"), "' is not supported; known: null"));
  }
  TokenizerSpec spec;
  spec.split = file.split(file.member(root, "pre_tokenizer"));
  file.check_post_processor(file.member(root, "post_processor"));
  const Json& decoder = file.member(root, "decoder");
  if (!decoder.is_null() && !file.is_byte_level(decoder)) {
    file.bad(concat("decoder '", file.type_of(decoder, "decoder"), "' is not supported; known: ByteLevel"));
  }
  for (const char* key : {"unk_token", "continuing_subword_prefix", "end_of_word_suffix"}) {
    const Json& value = file.member(model, key);
    if (!value.is_null() && value != "") file.bad(concat("model: '", key, "' is not supported; known: null"));
  }
  if (const Json& dropout = file.member(model, "dropout"); !dropout.is_null() && dropout != 0)
    file.bad("model: 'dropout' is not supported; known: null");
  if (file.flag(model, "byte_fallback", false)) file.bad("model: byte_fallback true is not supported");
  spec.ignore_merges = file.flag(model, "ignore_merges", false);

  std::map<int32_t, std::string> added;
  if (const Json& list = file.member(root, "added_tokens"); !list.is_null()) {
    if (!list.is_array()) file.bad("added_tokens is not an array");
    for (const Json& item : list) {
      const Json& content = item.is_object() ? file.member(item, "content") : item;
      if (!item.is_object() || !content.is_string() || content.get<std::string>().empty()) file.bad("an added token has no 'content'");
      const int32_t id = file.id(file.member(item, "id"), content.dump(), size_t{INT32_MAX});
      if (!added.emplace(id, content.get<std::string>()).second) file.bad(concat("id ", id, " has two added tokens"));
    }
  }
  read_tokens(file, file.member(model, "vocab"), added, spec);

  const Json& merges = file.member(model, "merges");
  if (!merges.is_array()) file.bad("model: 'merges' is not an array");
  std::vector<std::array<std::string, 2>> pairs;
  for (const Json& item : merges) {
    if (item.is_string()) {
      const std::string line = item.get<std::string>();
      if (line.rfind("#version", 0) != 0) pairs.push_back(split_merge(file, line, pairs.size()));
    } else if (item.is_array() && item.size() == 2 && item[0].is_string() && item[1].is_string()) {
      pairs.push_back({item[0].get<std::string>(), item[1].get<std::string>()});
    } else {
      file.bad(concat("merge ", pairs.size(), " is neither [\"a\", \"b\"] nor \"a b\""));
    }
  }
  read_merges(file, pairs, spec);
  choose_eot(file, spec);
  return Tokenizer(std::move(spec), place);
}

Tokenizer Tokenizer::load(const std::string& path) {
  struct stat status;
  if (::stat(path.c_str(), &status) == 0 && S_ISDIR(status.st_mode)) {
    const std::string json = path + "/tokenizer.json";
    if (::stat(json.c_str(), &status) == 0) return load(json);
    const std::string encoder = path + "/encoder.json", merges = path + "/vocab.bpe";
    if (::stat(encoder.c_str(), &status) == 0 && ::stat(merges.c_str(), &status) == 0) return load_gpt2(encoder, merges);
    fail("tokenizer", concat(path, ": holds neither tokenizer.json nor encoder.json and vocab.bpe"), ExitCode::usage);
  }
  return parse(read_small_file(path, kMaxBytes), path);
}

Tokenizer Tokenizer::load_gpt2(const std::string& encoder_json, const std::string& vocab_bpe) {
  const Json vocab = parse_strict_json(read_small_file(encoder_json, kMaxBytes), encoder_json, kMaxBytes);
  const File file(encoder_json), merge_file(vocab_bpe);
  if (!vocab.is_object() || !vocab.contains(kEndOfText)) file.bad("no GPT-2 vocabulary: there is no token \"<|endoftext|>\"");
  TokenizerSpec spec;
  spec.split = SplitRule::gpt2;
  const std::map<int32_t, std::string> added = {{file.id(vocab[kEndOfText], kEndOfText, vocab.size()), kEndOfText}};
  read_tokens(file, vocab, added, spec);
  const std::string lines = read_small_file(vocab_bpe, kMaxBytes);
  std::vector<std::array<std::string, 2>> pairs;
  for (size_t begin = 0; begin < lines.size();) {
    const size_t end = std::min(lines.find('\n', begin), lines.size());
    const std::string line = lines.substr(begin, end - begin);
    if (!line.empty() && line.rfind("#version", 0) != 0) pairs.push_back(split_merge(merge_file, line, pairs.size()));
    begin = end + 1;
  }
  read_merges(merge_file, pairs, spec);
  choose_eot(file, spec);
  return Tokenizer(std::move(spec), encoder_json);
}

std::string Tokenizer::to_json() const {
  std::string out = "{\n  \"version\": \"1.0\",\n  \"truncation\": null,\n  \"padding\": null,\n  \"added_tokens\": [";
  const char* separator = "\n";
  for (const int32_t id : spec_.special) {
    out += concat(separator, "    {\"id\": ", id, ", \"content\": ", json_string(text_of(id)),
                  ", \"single_word\": false, \"lstrip\": false, \"rstrip\": false, \"normalized\": false, \"special\": true}");
    separator = ",\n";
  }
  const auto byte_level = [](bool regex) {
    return concat("{\"type\": \"ByteLevel\", \"add_prefix_space\": false, \"trim_offsets\": true, \"use_regex\": ", regex ? "true" : "false", "}");
  };
  out += "\n  ],\n  \"normalizer\": null,\n  \"pre_tokenizer\": ";
  if (spec_.split == SplitRule::none || spec_.split == SplitRule::gpt2) {
    out += byte_level(spec_.split == SplitRule::gpt2);
  } else {
    out += concat("{\"type\": \"Sequence\", \"pretokenizers\": [{\"type\": \"Split\", \"pattern\": {\"Regex\": ",
                  json_string(spec_.split == SplitRule::cl100k ? kCl100k : kQwen2), "}, \"behavior\": \"Isolated\", \"invert\": false}, ",
                  byte_level(false), "]}");
  }
  out +=
      concat(",\n  \"post_processor\": null,\n  \"decoder\": ", byte_level(true),
             ",\n  \"model\": {\n    \"type\": \"BPE\",\n    \"dropout\": null,\n    \"unk_token\": null,\n    \"continuing_subword_prefix\": null,\n"
             "    \"end_of_word_suffix\": null,\n    \"fuse_unk\": false,\n    \"byte_fallback\": false,\n    \"ignore_merges\": ",
             spec_.ignore_merges ? "true" : "false", ",\n    \"vocab\": {");
  const auto spelled = [&](int32_t id) {
    return json_string(is_special(id) ? spec_.tokens[static_cast<size_t>(id)] : byte_alphabet().spell(bytes_of(id)));
  };
  separator = "\n";
  for (int32_t id = 0; id < vocab_size(); ++id) {
    out += concat(separator, "      ", spelled(id), ": ", id);
    separator = ",\n";
  }
  out += "\n    },\n    \"merges\": [";
  separator = "\n";
  for (const auto& [a, b] : spec_.merges) {
    out += concat(separator, "      [", spelled(a), ", ", spelled(b), "]");
    separator = ",\n";
  }
  return out + (spec_.merges.empty() ? "]" : "\n    ]") + "\n  }\n}\n";
}

void Tokenizer::save(const std::string& path) const {
  replace_file(path, to_json());
}

}  // namespace heddle
