#include "checkpoint/inspect.h"

#include <algorithm>
#include <filesystem>
#include <iomanip>
#include <iostream>
#include <optional>
#include <utility>
#include <vector>

#include "app/command.h"
#include "app/model_commands.h"
#include "core/io/sha256.h"
#include "data/dataset.h"
#include "data/file.h"
#include "data/shard.h"
#include "data/tokenizer.h"
#include "kernels/api/check.h"
#include "kernels/api/printable.h"

namespace heddle::app {
namespace {

constexpr CommandHelp kHelp = {
    "inspect", "PATH [--verify] [--digest] [--details]",
    "Says what a run directory, a checkpoint directory, a .safetensors file, a token shard, a data set's folder or a tokenizer holds. Nothing "
    "on the disk is changed, and no lock is taken: a run may be inspected while it trains.",
    "  heddle inspect run\n"
    "  heddle inspect run --details           # every checkpoint, tensor, option and counter\n"
    "  heddle inspect run --digest            # equal digests: equal weights, optimizer state and counters\n"
    "  heddle inspect run --verify            # reads every byte of every checkpoint; 65 if one is damaged\n"
    "  heddle inspect data/kjv --verify       # every shard against dataset.json; says what could not be checked\n"
    "  heddle inspect data/kjv/tokenizer.json"};

void row(std::string_view name, const std::string& value) {
  std::cout << std::left << std::setw(14) << name << std::right << printable(value) << "\n";
}

// Holds shards against what there is to hold them against: the format, their records in dataset.json, the tokenizer beside them. One line a shard,
// and for what could not be checked it says so.
class ShardVerifier {
 public:
  // Both may be absent. `tokenizer`: the one whose tokens these are. Not `in_order`: what the shard before one ends with is not known.
  ShardVerifier(const DatasetInfo* info, const Tokenizer* tokenizer, bool in_order) : info_(info) {
    if (!in_order) splits_[0] = splits_[1] = {true, std::nullopt};
    if (tokenizer == nullptr) return;
    for (int32_t id = 0; id < tokenizer->vocab_size(); ++id) lengths_.push_back(tokenizer->bytes_of(id).size());
  }

  // False for damage.
  bool verify(const std::string& path) {
    const DatasetInfo::Shard* const record = info_ != nullptr ? info_->find(base_name(path)) : nullptr;
    const std::string shown = printable(path);
    try {
      if (record == nullptr) {
        check_format(path);
        const std::string tokens = vocab() > 0 ? concat("every token is below ", vocab()) : "its tokens were not checked: there is no tokenizer.json";
        std::cout << "  no hash  " << shown << "  the format holds, " << tokens << "; "
                  << (info_ != nullptr ? "dataset.json does not record it" : "no dataset.json records its hash")
                  << ": changed tokens would go unseen\n";
        return true;
      }
      std::string hash;
      if (const std::string wrong = check_record(path, *record, hash); !wrong.empty()) {
        std::cout << "  DAMAGED  " << shown << "  " << wrong << "\n";
        return false;
      }
      std::cout << "  ok       " << shown << "  sha256 " << hash
                << (lengths_.empty() ? "; its bytes of text were not counted: that takes the tokenizer" : "") << "\n";
    } catch (const Error& e) {
      if (e.code() != ExitCode::bad_data && e.code() != ExitCode::io) throw;
      std::cout << "  DAMAGED  " << shown << "  " << e.what() << "\n";
      return false;
    }
    return true;
  }

 private:
  // Where the documents of a split stand: nothing is known after a shard that could not be read.
  struct Split {
    bool begun = false;
    std::optional<bool> open = false;  // the shard before ends inside a document
  };

  int64_t vocab() const { return info_ != nullptr ? info_->vocab : static_cast<int64_t>(lengths_.size()); }

  void check_format(const std::string& path) const {
    const ShardReader shard(path);
    if (vocab() > 0) shard.check_tokens(vocab());
  }

  // Hash, counts, every token below the vocabulary size; the file is read once. Says what is not as recorded.
  std::string check_record(const std::string& path, const DatasetInfo::Shard& record, std::string& hash) {
    Split& split = splits_[record.split == "val"];
    const bool first = !std::exchange(split.begun, true);
    const std::optional<bool> open_before = std::exchange(split.open, std::nullopt);
    const ShardReader shard(path);
    const auto eot = static_cast<uint32_t>(info_->eot);
    uint32_t largest = 0, begins = eot, ends = eot;
    int64_t eots = 0, bytes = 0;
    hash = shard.scan(0, true, [&](int64_t at, std::span<const uint32_t> tokens) {
      if (at == 0) begins = tokens.front();
      ends = tokens.back();
      for (const uint32_t token : tokens) {
        largest = std::max(largest, token);
        eots += token == eot;
        if (token < lengths_.size()) bytes += static_cast<int64_t>(lengths_[token]);
      }
    });
    const auto differs = [](const auto& found, const auto& recorded) { return concat(found, ", dataset.json records ", recorded); };
    if (hash != record.sha256) return differs("sha256 " + hash, record.sha256);
    if (shard.tokens() != record.tokens) return differs(counted(shard.tokens(), "token"), record.tokens);
    if (largest >= info_->vocab) shard.check_tokens(info_->vocab);
    if (!lengths_.empty() && bytes != record.bytes) return differs(concat("its tokens are ", counted(bytes, "byte"), " of text"), record.bytes);
    const bool append = info_->eot_position == EotPosition::append;
    if (!append && first && begins != eot) return differs("no end of text in front", "eot_position prepend");
    const bool open = append && ends != eot;
    split.open = open;
    if (append && !open_before) return {};
    const int64_t documents = append ? eots + open - *open_before : eots;
    if (documents != record.documents) return differs(concat("it begins ", counted(documents, "document")), record.documents);
    return {};
  }

  const DatasetInfo* info_;
  std::vector<size_t> lengths_;  // of the tokens' texts
  Split splits_[2];
};

// The tokenizer beside shards, if it is the one that they were written with; what is wrong with it otherwise.
struct FoundTokenizer {
  std::optional<Tokenizer> tokenizer;
  std::string wrong;
};
FoundTokenizer find_tokenizer(const std::string& folder, const DatasetInfo* info) {
  FoundTokenizer found;
  const std::string path = concat(folder, "/", info != nullptr ? info->tokenizer : "tokenizer.json");
  if (info == nullptr && !std::filesystem::exists(path)) return found;
  try {
    Tokenizer tokenizer = Tokenizer::load(path);
    if (info != nullptr && tokenizer.fingerprint() != info->tokenizer_fingerprint) {
      found.wrong = concat("fingerprint ", tokenizer.fingerprint(), ", dataset.json records another");
    } else if (info != nullptr && (tokenizer.vocab_size() != info->vocab || tokenizer.eot() != info->eot)) {
      found.wrong =
          concat(tokenizer.vocab_size(), " tokens, end of text ", tokenizer.eot(), "; dataset.json records ", info->vocab, " and ", info->eot);
    } else {
      found.tokenizer = std::move(tokenizer);
    }
  } catch (const Error& e) {
    found.wrong = e.what();
  }
  return found;
}

// Shards in a folder, by the names that heddle tokenize and other programs give them: of other .bin files nothing is known.
std::vector<std::string> shards_in(const std::string& folder) {
  std::vector<std::string> names;
  std::error_code none;
  for (const auto& entry : std::filesystem::directory_iterator(folder, none)) {
    const std::string name = entry.path().filename().string();
    if (name.ends_with(".bin") && (name.find("_train") != name.npos || name.find("_val") != name.npos)) names.push_back(name);
  }
  std::sort(names.begin(), names.end());
  return names;
}

// Every shard and the tokenizer; of a data set without dataset.json what is there.
bool verify_folder(const std::string& folder, const DatasetInfo* info) {
  std::cout << "verification\n";
  const FoundTokenizer found = find_tokenizer(folder, info);
  ShardVerifier verifier(info, found.tokenizer ? &*found.tokenizer : nullptr, true);
  bool whole = found.wrong.empty();
  if (info != nullptr) {
    for (const DatasetInfo::Shard& s : info->shards) whole = verifier.verify(concat(folder, "/", s.file)) && whole;
  }
  for (const std::string& name : shards_in(folder)) {
    if (info == nullptr || info->find(name) == nullptr) whole = verifier.verify(concat(folder, "/", name)) && whole;
  }
  const std::string tokenizer = printable(concat(folder, "/", info != nullptr ? info->tokenizer : "tokenizer.json"));
  if (!found.wrong.empty()) {
    std::cout << "  DAMAGED  " << tokenizer << "  " << found.wrong << "\n";
  } else if (found.tokenizer) {
    std::cout << "  ok       " << tokenizer << "  fingerprint " << found.tokenizer->fingerprint()
              << (info != nullptr ? "" : "; no dataset.json says that the shards are of it") << "\n";
  }
  return whole;
}

bool inspect_shard(const InspectArguments& a) {
  const std::optional<DatasetInfo> info = DatasetInfo::load(directory_name(a.path));
  const ShardReader shard(a.path);
  if (a.digest) {
    std::cout << shard.sha256() << "\n";
    return true;
  }
  row("token shard", shard.path());
  row("tokens", std::to_string(shard.tokens()));
  row("type", concat("uint", shard.token_bytes() * 8));
  row("largest", std::to_string(shard.largest_token()));
  if (const DatasetInfo::Shard* const record = info ? info->find(base_name(a.path)) : nullptr) {
    row("vocabulary", std::to_string(info->vocab));
    row("split", record->split);
    row("documents", std::to_string(record->documents));
    row("text", counted(record->bytes, "byte"));
  }
  if (!a.verify) return true;
  std::cout << "verification\n";
  const FoundTokenizer found = find_tokenizer(directory_name(a.path), info ? &*info : nullptr);
  return ShardVerifier(info ? &*info : nullptr, found.tokenizer ? &*found.tokenizer : nullptr, false).verify(a.path);
}

bool inspect_tokenizer(const InspectArguments& a) {
  const Tokenizer tokenizer = Tokenizer::load(a.path);
  if (a.digest) {
    std::cout << tokenizer.fingerprint() << "\n";
    return true;
  }
  row("tokenizer", a.path);
  row("vocabulary", std::to_string(tokenizer.vocab_size()));
  row("end of text", std::to_string(tokenizer.eot()));
  row("fingerprint", tokenizer.fingerprint());
  if (a.verify) std::cout << "verification\n  ok       every rule of the format holds (the format itself carries no hashes)\n";
  return true;
}

// A folder that `heddle tokenize` wrote, or its dataset.json.
bool inspect_dataset(const InspectArguments& a, const std::string& folder) {
  const DatasetInfo info = *DatasetInfo::load(folder);
  if (a.digest) {
    std::cout << hex(sha256(info.to_json())) << "\n";
    return true;
  }
  row("data set", folder);
  row("tokenizer", concat(info.tokenizer, ", fingerprint ", info.tokenizer_fingerprint));
  row("vocabulary", std::to_string(info.vocab));
  row("end of text", concat(info.eot, " (", name_of(info.eot_position), ")"));
  for (const std::string_view split : {"train", "val"}) {
    uint64_t shards = 0, tokens = 0, bytes = 0, documents = 0;
    for (const DatasetInfo::Shard& s : info.shards) {
      if (s.split != split) continue;
      ++shards, tokens += static_cast<uint64_t>(s.tokens), documents += static_cast<uint64_t>(s.documents);
      bytes = std::min<uint64_t>(bytes + static_cast<uint64_t>(s.bytes), INT64_MAX);  // a record may say anything
    }
    if (shards > 0)
      row(split, concat(counted(shards, "shard"), ", ", counted(tokens, "token"), ", ", counted(documents, "document"), ", ", counted(bytes, "byte"),
                        " of text"));
  }
  return !a.verify || verify_folder(folder, &info);
}

// Shards that no dataset.json describes.
bool inspect_shards(const InspectArguments& a, const std::vector<std::string>& names) {
  if (a.digest) {
    fail_usage("inspect", concat(a.path, " has no dataset.json, whose hash stands for a data set; give the shards one by one, as in heddle inspect ",
                                 a.path, "/", names.front()));
  }
  row("shards", concat(a.path, ", without a dataset.json"));
  int64_t tokens = 0;
  for (const std::string& name : names) tokens += a.verify ? 0 : ShardReader(concat(a.path, "/", name)).tokens();
  row("files", a.verify ? std::to_string(names.size()) : concat(names.size(), ", ", counted(tokens, "token")));
  return !a.verify || verify_folder(a.path, nullptr);
}

bool inspect_any(const InspectArguments& a) {
  namespace fs = std::filesystem;
  if (a.path.ends_with(".bin")) return inspect_shard(a);
  if (base_name(a.path) == "dataset.json") return inspect_dataset(a, directory_name(a.path));
  const Inspectable kind = recognize(a.path);
  if (kind == Inspectable::other) {
    if (fs::exists(fs::path(a.path) / "dataset.json")) return inspect_dataset(a, a.path);
    if (const std::vector<std::string> names = shards_in(a.path); !names.empty()) return inspect_shards(a, names);
    // A tokenizer's file, or a folder of one in either of its forms.
    if (a.path.ends_with(".json") || fs::exists(fs::path(a.path) / "tokenizer.json") || fs::exists(fs::path(a.path) / "vocab.bpe")) {
      return inspect_tokenizer(a);
    }
  }
  return inspect(a.path, {.verify = a.verify, .digest = a.digest, .details = a.details}, std::cout);
}

}  // namespace

bool parse_inspect(Args args, InspectArguments& arguments) {
  using I = InspectArguments;
  static const std::vector<Option<I>> table = [] {
    std::vector<Option<I>> rows;
    rows.push_back(make_option<I>("PATH", &I::path, "Arguments", "", "run, checkpoint, .safetensors, token shard, data set or tokenizer").argument());
    rows.push_back(make_option<I>("verify", &I::verify, "Output", "", "read every byte and compare every hash; 65 for damage"));
    rows.push_back(make_option<I>("digest", &I::digest, "Output", "",
                                  "print only the step and one SHA-256 over all tensors and counters; of other things their own hash"));
    rows.push_back(
        make_option<I>("details", &I::details, "Output", "", "of a run: every checkpoint, and every tensor, option and counter of the newest"));
    return rows;
  }();
  if (!parse_arguments(kHelp, bind_options(std::span<const Option<I>>(table), arguments), args)) return false;
  if (arguments.path.empty()) fail_usage("inspect", "nothing to look at: give a run directory or a file, as in heddle inspect run");
  if (arguments.verify && arguments.digest) {
    fail_usage("inspect", "--verify and --digest print different things: give one, --verify for every byte, --digest for the state as one hash");
  }
  return true;
}

int inspect_command(Args args) {
  InspectArguments arguments;
  if (!parse_inspect(args, arguments)) return 0;
  return inspect_any(arguments) ? 0 : static_cast<int>(ExitCode::bad_data);
}

}  // namespace heddle::app
