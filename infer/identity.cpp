#include "infer/identity.h"

#include <filesystem>

#include "core/io/strict_json.h"
#include "data/file.h"
#include "data/prepare.h"
#include "kernels/api/check.h"
#include "kernels/api/printable.h"

namespace heddle {
namespace {

namespace fs = std::filesystem;

// "" when there is none.
std::string tokenizer_file(const std::string& path) {
  std::error_code unknown;
  fs::path folder = fs::canonical(path, unknown);  // through links, so that ".." means the folder that holds it
  if (unknown) return "";
  if (!fs::is_directory(folder, unknown)) folder = folder.parent_path();
  if (folder.parent_path().filename() == "ckpt") folder = folder.parent_path().parent_path();
  if (fs::exists(folder / "tokenizer.json", unknown)) return (folder / "tokenizer.json").string();
  return "";
}

}  // namespace

ModelTokenizer tokenizer_of_model(const std::string& path, const std::string& scalars) {
  ModelTokenizer model;
  if (const std::string file = tokenizer_file(path); !file.empty()) {
    model.tokenizer = Tokenizer::load(file);
    model.identity = identity_of(*model.tokenizer, file);
  }
  if (scalars.empty()) return model;
  const nlohmann::json counters = parse_strict_json(scalars, path + " (counters of the checkpoint)");
  const auto recorded = counters.find(kTokenizerCounter);
  if (recorded == counters.end() || !recorded->is_string()) return model;
  const TokenizerIdentity theirs{path + " (its checkpoint)", recorded->get<std::string>(), 0};
  if (!model.identity) model.identity = theirs;
  require_same_tokenizer(*model.identity, theirs);
  return model;
}

std::string unidentified_text(const std::string& first_file, const std::string& taken_for) {
  return concat(first_file, ": no dataset.json records the tokenizer of these shards; ",
                taken_for.empty() ? "nothing shows whose tokens they hold" : concat("their tokens are taken for those of ", taken_for),
                ". --tokenizer FILE names it");
}

std::string coverage_text(const Loader& loader) {
  const Loader::LeftOut& left = loader.left_out();
  std::string text = concat("data: ", grouped(loader.tokens() - left.tokens), " of ", grouped(loader.tokens()), " tokens are in the ",
                            grouped(loader.samples_per_epoch()), plural(loader.samples_per_epoch(), " sample"), " of an epoch");
  if (left.tokens == 0) return text;
  text += concat("; ", grouped(left.tokens), left.tokens == 1 ? " is" : " are", " left out");
  if (left.short_shards > 0) {
    text += concat(": ", grouped(left.short_tokens), " in ", counted(left.short_shards, "shard"), " shorter than --seq + 1 = ", loader.seq() + 1,
                   " (", left.first_short, left.short_shards == 1 ? ")" : " first)");
  }
  if (const uint64_t tails = left.tokens - left.short_tokens; tails > 0) {
    text += concat(left.short_shards > 0 ? ", " : ": ", grouped(tails), " behind the last whole sample of a shard");
  }
  return text;
}

SharedReading shared_reading(Control& control) {
  return {control.rank(), control.size(), [&control](const std::string& mine) { return control.gather_text(mine); }};
}

}  // namespace heddle
