#include <algorithm>
#include <chrono>
#include <map>

#include "data/bpe_trainer.h"
#include "data/tokenizer.h"
#include "tests/data/support.h"

using namespace heddle;
using namespace heddle::test;

namespace {

using Ids = std::vector<int32_t>;

// English enough to have merges: words drawn with a few common ones.
std::string word_text(std::mt19937_64& random, size_t words) {
  static const std::vector<std::string> list = {"the",       "and",    "that",  "lord", "unto", "shall",   "king",   "people",
                                                "children",  "israel", "house", "said", "aaa",  "aaaaaaa", "banana", "nanana",
                                                "abcabcabc", "it's",   "12",    "1999", ",",    ".\n"};
  std::string text;
  for (size_t i = 0; i < words; ++i) text += (i ? " " : "") + list[std::min(random() % list.size(), random() % list.size())];
  return text;
}

// BPE from its definition: rescan the piece for the pair of lowest rank, leftmost, until there is none.
Ids naive_encode(const Tokenizer& tokenizer, std::string_view text) {
  const TokenizerSpec& spec = tokenizer.spec();
  std::map<std::pair<int32_t, int32_t>, size_t> ranks;
  for (size_t r = 0; r < spec.merges.size(); ++r) ranks[{spec.merges[r][0], spec.merges[r][1]}] = r;
  std::map<std::string, int32_t> ids;
  for (int32_t id = 0; id < tokenizer.vocab_size(); ++id) {
    if (!tokenizer.is_special(id)) ids[std::string(tokenizer.bytes_of(id))] = id;
  }
  Ids out;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = piece_end(spec.split, text, begin);
    const std::string piece(text.substr(begin, end - begin));
    begin = end;
    std::vector<std::string> symbols;
    for (const char c : piece) symbols.emplace_back(1, c);
    if (spec.ignore_merges && ids.count(piece)) symbols = {piece};
    for (;;) {
      size_t best = ranks.size(), at = 0;
      for (size_t i = 0; i + 1 < symbols.size(); ++i) {
        const auto found = ranks.find({ids.at(symbols[i]), ids.at(symbols[i + 1])});
        if (found != ranks.end() && found->second < best) best = found->second, at = i;
      }
      if (best == ranks.size()) break;
      symbols[at] += symbols[at + 1];
      symbols.erase(symbols.begin() + static_cast<std::ptrdiff_t>(at) + 1);
    }
    for (const std::string& symbol : symbols) out.push_back(ids.at(symbol));
  }
  return out;
}

// The trainer from its definition: count every pair of every piece again before each merge.
std::vector<std::array<int32_t, 2>> naive_train(const std::vector<std::string>& documents, size_t merges) {
  std::vector<Ids> words;
  std::array<int32_t, 256> byte_ids{};
  for (size_t i = 0; i < 256; ++i) byte_ids[byte_alphabet().order[i]] = static_cast<int32_t>(i);
  for (const std::string& text : documents) {
    for (size_t begin = 0; begin < text.size();) {
      const size_t end = piece_end(SplitRule::gpt2, text, begin);
      Ids word;
      for (size_t i = begin; i < end; ++i) word.push_back(byte_ids[static_cast<unsigned char>(text[i])]);
      words.push_back(word);
      begin = end;
    }
  }
  std::vector<std::array<int32_t, 2>> result;
  int32_t next = 256;
  while (result.size() < merges) {
    std::map<std::array<int32_t, 2>, int64_t> counts;
    for (const Ids& word : words) {
      for (size_t i = 0; i + 1 < word.size(); ++i) ++counts[{word[i], word[i + 1]}];
    }
    if (counts.empty()) break;
    // Ordered by pair, so the first of the largest is the smallest pair.
    const auto best = std::max_element(counts.begin(), counts.end(), [](const auto& a, const auto& b) { return a.second < b.second; })->first;
    for (Ids& word : words) {
      Ids merged;
      for (size_t i = 0; i < word.size(); ++i) {
        const bool here = i + 1 < word.size() && word[i] == best[0] && word[i + 1] == best[1];
        merged.push_back(here ? next : word[i]);
        i += here;
      }
      word = merged;
    }
    result.push_back(best);
    ++next;
  }
  return result;
}

Tokenizer small_bpe(int64_t vocab = 400) {
  std::mt19937_64 random(21);
  BpeTrainer trainer;
  trainer.add(word_text(random, 3000) + random_text(random, 500, true));
  return trainer.train(vocab);
}

}  // namespace

TEST_CASE("bytes are their own ids and 256 ends a text", "[tokenizer]") {
  const Tokenizer tokenizer = Tokenizer::bytes();
  CHECK(tokenizer.vocab_size() == 257);
  CHECK(tokenizer.eot() == 256);
  CHECK(tokenizer.encode("A\xFF\n") == Ids{65, 255, 10});
  CHECK(tokenizer.decode(Ids{72, 105, 256, 33}) == "Hi!");
  CHECK(tokenizer.bytes_of(256).empty());
  CHECK(tokenizer.text_of(256) == "<|endoftext|>");
  CHECK(tokenizer.encode("<|endoftext|>").size() == 13);
  CHECK(tokenizer.encode_with_special("a<|endoftext|>b") == Ids{97, 256, 98});
  CHECK_THROWS_AS(tokenizer.decode(Ids{257}), Error);
  CHECK_THROWS_AS(tokenizer.decode(Ids{-1}), Error);
}

TEST_CASE("the byte alphabet is GPT-2's", "[tokenizer]") {
  const ByteAlphabet& alphabet = byte_alphabet();
  CHECK(alphabet.spell(" ") == "\xC4\xA0");
  CHECK(alphabet.spell("\n") == "\xC4\x8A");
  CHECK(alphabet.spell("a\xC3\xA9") == "a\xC3\x83\xC2\xA9");
  CHECK(alphabet.code[0xAD] == 0x143);
  std::string bytes;
  for (int b = 0; b < 256; ++b) {
    const std::string one(1, static_cast<char>(b));
    REQUIRE(alphabet.read(alphabet.spell(one), bytes));
    CHECK(bytes == one);
  }
  CHECK(!alphabet.read(" ", bytes));
  CHECK(alphabet.order[0] == '!');
  CHECK(alphabet.order[188] == 0);
}

TEST_CASE("decode(encode(x)) is x for any bytes", "[tokenizer]") {
  const Tokenizer bytes = Tokenizer::bytes(), bpe = small_bpe();
  std::mt19937_64 random(22);
  for (int trial = 0; trial < 300; ++trial) {
    const size_t size = random() % 400;
    const std::string text = trial % 3 == 0   ? random_bytes(random, size)
                             : trial % 3 == 1 ? random_text(random, size / 4, true)
                                              : word_text(random, size / 8);
    for (const Tokenizer* tokenizer : {&bytes, &bpe}) {
      const Ids ids = tokenizer->encode(text);
      REQUIRE(tokenizer->decode(ids) == text);
      size_t length = 0;
      for (const int32_t id : ids) length += tokenizer->bytes_of(id).size();
      REQUIRE(length == text.size());
    }
  }
}

TEST_CASE("encoding is the naive merge loop, for short and long pieces, remembered or not", "[tokenizer]") {
  TokenizerSpec spec = small_bpe(500).spec();
  const bool ignore_merges = GENERATE(false, true);
  const SplitRule split = GENERATE(SplitRule::gpt2, SplitRule::none, SplitRule::cl100k);
  spec.ignore_merges = ignore_merges;
  spec.split = split;
  const Tokenizer tokenizer(spec);
  Encoder encoder(tokenizer);
  std::mt19937_64 random(23);
  for (int trial = 0; trial < 60; ++trial) {
    std::string text = word_text(random, 1 + random() % 40);
    if (trial % 4 == 0) text = std::string(40 + random() % 20, 'a') + text;
    if (trial % 5 == 0) text += random_text(random, 20, true);
    const Ids expected = naive_encode(tokenizer, text);
    Ids ids;
    encoder.encode(text, ids);
    REQUIRE(ids == expected);
    REQUIRE(tokenizer.encode(text) == expected);
  }
}

TEST_CASE("an encoder that has met more pieces than it remembers goes on right", "[tokenizer]") {
  const Tokenizer tokenizer = small_bpe();
  Encoder encoder(tokenizer);
  std::string text;
  for (int i = 0; i < 80000; ++i) text += concat(" x", i, "the");
  Ids ids;
  encoder.encode(text, ids);
  CHECK(tokenizer.decode(ids) == text);
  Ids again;
  encoder.encode(text.substr(0, 4000), again);
  CHECK(again == naive_encode(tokenizer, text.substr(0, 4000)));
}

TEST_CASE("one piece of a million letters takes no quadratic time", "[tokenizer]") {
  const Tokenizer tokenizer = small_bpe();
  std::mt19937_64 random(24);
  std::string text(1000000, 'a');
  for (size_t i = 0; i < text.size(); i += 7) text[i] = static_cast<char>('a' + random() % 4);
  const auto begin = std::chrono::steady_clock::now();
  CHECK(tokenizer.decode(tokenizer.encode(text)) == text);
  CHECK(std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count() < 10);
}

TEST_CASE("the trainer makes the merges of a naive trainer", "[bpe]") {
  std::mt19937_64 random(25);
  for (int trial = 0; trial < 8; ++trial) {
    std::vector<std::string> documents;
    BpeTrainer trainer;
    for (int d = 0; d < 5; ++d) documents.push_back(trial % 2 ? random_text(random, 200, true) : word_text(random, 120));
    for (auto at = documents.rbegin(); at != documents.rend(); ++at) trainer.add(*at);  // any order
    const auto expected = naive_train(documents, 120);
    const Tokenizer tokenizer = trainer.train(257 + static_cast<int64_t>(expected.size()));
    REQUIRE(tokenizer.spec().merges == expected);
    CHECK(tokenizer.eot() == tokenizer.vocab_size() - 1);
  }
}

TEST_CASE("training: size, ties, runs and what is refused", "[bpe]") {
  BpeTrainer trainer;
  trainer.add("aaaa bb bb");
  // aa occurs three times (overlapping), " b" and "bb" twice each: (b, b) is the smaller pair, for the space's id comes after the letters'.
  const Tokenizer tokenizer = trainer.train(259);
  const auto id = [&](char c) { return tokenizer.encode(std::string(1, c))[0]; };
  CHECK(tokenizer.spec().merges == std::vector<std::array<int32_t, 2>>{{id('a'), id('a')}, {id('b'), id('b')}});
  CHECK(tokenizer.vocab_size() == 259);
  CHECK(tokenizer.text_of(258) == "<|endoftext|>");
  CHECK(contains(error_of([&] { trainer.train(1000); }, ExitCode::usage), "the text has pairs for"));
  CHECK(contains(error_of([&] { trainer.train(256); }, ExitCode::usage), "vocabulary size 256"));
  CHECK(BpeTrainer().train(257).encode("!") == Ids{0});
}

TEST_CASE("tokenizer.json round-trips: same ids, same fingerprint", "[tokenizer]") {
  const Scratch scratch;
  std::mt19937_64 random(26);
  const std::string text = word_text(random, 200) + random_text(random, 100, true);
  for (const SplitRule split : {SplitRule::gpt2, SplitRule::cl100k, SplitRule::qwen2, SplitRule::none}) {
    TokenizerSpec spec = small_bpe().spec();
    spec.split = split;
    spec.ignore_merges = split == SplitRule::cl100k;
    const Tokenizer before(spec);
    before.save(scratch / "tokenizer.json");
    const Tokenizer after = Tokenizer::load(scratch.path());
    CHECK(after.fingerprint() == before.fingerprint());
    CHECK(after.encode(text) == before.encode(text));
    CHECK(after.to_json() == before.to_json());
    CHECK(after.eot() == before.eot());
  }
  const Tokenizer bytes = Tokenizer::parse(Tokenizer::bytes().to_json(), "json");
  CHECK(bytes.fingerprint() == Tokenizer::bytes().fingerprint());
  CHECK(bytes.fingerprint() != small_bpe().fingerprint());
  CHECK(small_bpe(400).fingerprint() != small_bpe(401).fingerprint());
}

TEST_CASE("both spellings of merges are read", "[tokenizer]") {
  const Tokenizer tokenizer = small_bpe(300);
  std::string json = tokenizer.to_json();
  const size_t merges = json.find("\"merges\": [");
  std::string legacy = json.substr(0, merges), tail = json.substr(merges);
  for (const auto& [from, to] : std::vector<std::pair<std::string, std::string>>{{"\", \"", " "}, {"      [\"", "      \""}, {"\"]", "\""}}) {
    for (size_t at = 0; (at = tail.find(from, at)) != std::string::npos; at += to.size()) tail.replace(at, from.size(), to);
  }
  tail.replace(tail.find("[\n"), 2, "[\n      \"#version: 0.2\",\n");
  const Tokenizer read = Tokenizer::parse(legacy + tail, "legacy");
  CHECK(read.fingerprint() == tokenizer.fingerprint());
}

TEST_CASE("GPT-2's two files are read; comments and blank lines between merges are none", "[tokenizer]") {
  std::mt19937_64 random(27);
  const std::string text = word_text(random, 3000);
  BpeTrainer trainer;
  trainer.add(text);
  const Tokenizer tokenizer = trainer.train(300);
  const std::string json = tokenizer.to_json();
  const size_t begin = json.find('{', json.find("\"vocab\": {")), end = json.find("\n    }", begin);
  REQUIRE(end != std::string::npos);
  std::string vocab = json.substr(begin, end - begin), merges = "#version: 0.2\n\n";
  if (vocab.find("<|endoftext|>") == std::string::npos) vocab += concat(",\n\"<|endoftext|>\": ", tokenizer.eot());
  for (const auto& pair : tokenizer.spec().merges) {
    const auto spelled = [&](int32_t id) {
      const std::string text(tokenizer.bytes_of(id));
      return text[0] == ' ' ? "\u0120" + text.substr(1) : text;
    };
    merges += concat(spelled(pair[0]), ' ', spelled(pair[1]), '\n', merges.size() % 3 == 0 ? "\n" : "");
  }
  const Scratch scratch;
  const Tokenizer read = Tokenizer::load_gpt2(scratch.write("encoder.json", vocab + "}"), scratch.write("vocab.bpe", merges));
  CHECK(read.vocab_size() == tokenizer.vocab_size());
  CHECK(read.eot() == tokenizer.eot());
  CHECK(read.encode(text) == tokenizer.encode(text));
}

TEST_CASE("GPT-2's own files give GPT-2's ids", "[tokenizer]") {
  const std::string encoder = test_data("gpt2-encoder.json"), merges = test_data("gpt2-vocab.bpe");
  if (encoder.empty() || merges.empty()) return;
  const Tokenizer tokenizer = Tokenizer::load_gpt2(encoder, merges);
  CHECK(tokenizer.vocab_size() == 50257);
  CHECK(tokenizer.eot() == 50256);
  CHECK(tokenizer.encode("Hello world") == Ids{15496, 995});
  CHECK(tokenizer.encode("Hello, I'm a language model,") == Ids{15496, 11, 314, 1101, 257, 3303, 2746, 11});
  CHECK(tokenizer.encode("The quick brown fox jumps over the lazy dog") == Ids{464, 2068, 7586, 21831, 18045, 625, 262, 16931, 3290});
  CHECK(tokenizer.encode_with_special("<|endoftext|>") == Ids{50256});
  CHECK(tokenizer.encode("\n\nx") == Ids{198, 198, 87});
  CHECK(tokenizer.encode("\n\n") == Ids{628});
  const Tokenizer again = Tokenizer::parse(tokenizer.to_json(), "json");
  CHECK(again.fingerprint() == tokenizer.fingerprint());
  const std::string shakespeare = test_data("tinyshakespeare.txt");
  if (shakespeare.empty()) return;
  const std::string text = slurp(shakespeare);
  const Ids ids = again.encode(text);
  CHECK(ids.size() == 338025);  // the count nanoGPT gives for this file: 301,966 + 36,059
  CHECK(again.decode(ids) == text);
}
