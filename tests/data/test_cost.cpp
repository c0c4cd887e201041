// Every parser and trainer takes time in proportion to its input, whatever is in it.
#include <memory>

#include "data/bpe_trainer.h"
#include "data/dataset.h"
#include "data/text_source.h"
#include "data/tokenizer.h"
#include "tests/data/support.h"
#include "tests/support/cost.h"

using namespace heddle;
using namespace heddle::test;

namespace {

using Work = std::function<void()>;

// A tokenizer of bytes and these special tokens.
std::shared_ptr<const Tokenizer> with_special(const std::vector<std::string>& names) {
  TokenizerSpec spec = Tokenizer::bytes().spec();
  for (const std::string& name : names) {
    spec.special.push_back(static_cast<int32_t>(spec.tokens.size()));
    spec.tokens.push_back(name);
  }
  return std::make_shared<const Tokenizer>(std::move(spec));
}

}  // namespace

TEST_CASE("cost of a prompt: its length and the added tokens, not their product", "[cost]") {
  const auto prompt = [](const std::vector<std::string>& names, std::string text) -> Work {
    return [tokenizer = with_special(names), text = std::move(text)] { tokenizer->encode_with_special(text); };
  };
  check_cost("many added tokens", 2000, [&](size_t n) {
    std::vector<std::string> names;
    for (size_t i = 0; i < n / 8; ++i) names.push_back(concat("<|reserved_", i, "|>"));
    std::string text;
    while (text.size() < n) text += "<|reserved_1|><|reserved <|res ";
    return prompt(names, text);
  });
  check_cost("names that begin alike, and a text that nearly has them", 20000, [&](size_t n) {
    std::vector<std::string> names;
    for (size_t length = n / 4; length > 0; length /= 2) names.push_back(std::string(length, 'a') + "b");
    return prompt(names, std::string(n, 'a'));
  });
}

TEST_CASE("cost of training a tokenizer: the text, not a word's length times the merges", "[cost]") {
  const auto trained = [](std::string text, int64_t vocab) -> Work {
    return [text = std::move(text), vocab] {
      BpeTrainer trainer;
      trainer.add(text);
      trainer.train(vocab);
    };
  };
  check_cost("one long word", 4000, [&](size_t n) {
    std::mt19937_64 random(7);
    std::string word;
    for (size_t i = 0; i < n; ++i) word += static_cast<char>('a' + random() % 26);
    return trained(word, static_cast<int64_t>(300 + n / 8));
  });
  check_cost("a run of one letter", 4000, [&](size_t n) { return trained(std::string(n, 'a'), 257 + 8); });
  check_cost("many words", 4000, [&](size_t n) {
    std::mt19937_64 random(8);
    std::string text;
    while (text.size() < n) text += concat(" w", random() % 1000000);
    return trained(text, static_cast<int64_t>(300 + n / 32));
  });
}

TEST_CASE("cost of tokenizer.json, dataset.json and JSON lines: their length", "[cost]") {
  check_cost("tokenizer.json of many tokens and merges", 200, [](size_t n) -> Work {
    std::mt19937_64 random(9);
    BpeTrainer trainer;
    for (size_t i = 0; i < 4 * n; ++i) trainer.add(concat(" ", random() % 1000000000));
    return [json = trainer.train(static_cast<int64_t>(257 + n)).to_json()] { Tokenizer::parse(json, "tokenizer"); };
  });
  check_cost("tokenizer.json of many added tokens", 200, [](size_t n) -> Work {
    std::vector<std::string> names;
    for (size_t i = 0; i < n; ++i) names.push_back(concat("<|", i, "|>"));
    return [json = with_special(names)->to_json()] { Tokenizer::parse(json, "tokenizer"); };
  });
  check_cost("dataset.json of many shards, each looked up", 500, [](size_t n) -> Work {
    DatasetInfo info;
    info.tokenizer = "tokenizer.json";
    info.tokenizer_fingerprint = std::string(64, 'a');
    info.vocab = 257;
    info.eot = 256;
    for (size_t i = 0; i < n; ++i) info.shards.push_back({concat("x_train_", i, ".bin"), "train", 5, 5, 1, std::string(64, 'b')});
    return [json = info.to_json(), n] {
      const DatasetInfo read = DatasetInfo::parse(json, "dataset.json");
      for (size_t i = 0; i < n; ++i) REQUIRE(read.find(concat("x_train_", i, ".bin")) != nullptr);
      REQUIRE(read.find("y") == nullptr);
    };
  });
  const auto lines = [](const std::string& text) -> Work {
    const auto scratch = std::make_shared<Scratch>();
    scratch->write("x.jsonl", text);
    return [scratch] {
      TextSource source({{*scratch / "x.jsonl"}});
      Document document;
      while (source.next(document)) {
      }
    };
  };
  check_cost("a JSON line of many small values", 2000, [&](size_t n) {
    std::string line = "{\"text\": \"a\", \"x\": [";
    for (size_t i = 0; i < n; ++i) line += "0,";
    return lines(line + "0]}\n");
  });
  check_cost("a JSON line of many keys", 2000, [&](size_t n) {
    std::string line = "{\"text\": \"a\"";
    for (size_t i = 0; i < n; ++i) line += concat(", \"", i, "\": {}");
    return lines(line + "}\n");
  });
  check_cost("many JSON lines", 500, [&](size_t n) {
    std::string text;
    for (size_t i = 0; i < n; ++i) text += concat("{\"text\": \"line ", i, "\"}\n");
    return lines(text);
  });
}

TEST_CASE("names of special tokens are found longest first, wherever they overlap", "[tokenizer]") {
  std::mt19937_64 random(10);
  for (int trial = 0; trial < 200; ++trial) {
    std::vector<std::string> names;
    for (uint64_t n = 1 + random() % 8; n > 0; --n) {
      std::string name;
      for (uint64_t i = 1 + random() % 4; i > 0; --i) name += static_cast<char>('a' + random() % 2);
      if (std::find(names.begin(), names.end(), name) == names.end()) names.push_back(name);
    }
    std::string text;
    for (uint64_t i = random() % 40; i > 0; --i) text += static_cast<char>('a' + random() % 3);
    std::vector<int32_t> expected;
    for (size_t at = 0; at < text.size();) {
      size_t best = names.size();
      for (size_t n = 0; n < names.size(); ++n) {
        if (text.compare(at, names[n].size(), names[n]) == 0 && (best == names.size() || names[n].size() > names[best].size())) best = n;
      }
      expected.push_back(best == names.size() ? text[at] : static_cast<int32_t>(257 + best));
      at += best == names.size() ? 1 : names[best].size();
    }
    REQUIRE(with_special(names)->encode_with_special(text) == expected);
  }
}
