// Files from outside: each damaged one gives one clear Error(bad_data) that names the file, and nothing else happens.
#include <sys/stat.h>

#include <cstring>
#include <ctime>
#include <functional>

#include "data/bpe_trainer.h"
#include "data/dataset.h"
#include "data/file.h"
#include "data/text_source.h"
#include "data/tokenizer.h"
#include "tests/data/support.h"

using namespace heddle;
using namespace heddle::test;

namespace {

struct Case {
  std::string content;
  std::string says;  // part of the message
};

std::string with_word(std::string shard, size_t index, int32_t value) {
  std::memcpy(shard.data() + 4 * index, &value, 4);
  return shard;
}

std::string replaced(std::string text, const std::string& from, const std::string& to) {
  const size_t at = text.find(from);
  REQUIRE(at != std::string::npos);
  return text.replace(at, from.size(), to);
}

void check_cases(const Scratch& scratch, const std::string& name, const std::vector<Case>& cases,
                 const std::function<void(const std::string&)>& open) {
  for (const Case& hostile : cases) {
    const std::string path = scratch.write(name, hostile.content);
    const std::clock_t begin = std::clock();  // of the processor: a busy machine changes nothing
    const std::string message = error_of([&] { open(path); }, ExitCode::bad_data);
    INFO("expected: " << hostile.says << "\ngot: " << message);
    CHECK(contains(message, hostile.says));
    CHECK(contains(message, name));
    CHECK(std::clock() - begin < CLOCKS_PER_SEC);
  }
}

void open_shard(const std::string& path) {
  LoaderOptions options;
  options.shards = {path};
  options.seq = 2;
  options.vocab = 100;
  options.eot = 99;
  Loader loader(options);
}

}  // namespace

TEST_CASE("hostile shards", "[hostile]") {
  const Scratch scratch;
  const std::string good = shard_bytes({1, 2, 3, 4, 5});
  open_shard(scratch.write("x.bin", good));
  check_cases(scratch, "x.bin",
              {{"", "shorter than the header"},
               {good.substr(0, 1023), "1023 bytes, shorter than the header"},
               {with_word(good, 0, 0), "magic number 0 at offset 0"},
               {std::string(2048, '\xFF'), "magic number -1"},
               {with_word(good, 0, 20240522), "evaluation file"},
               {"MMIDIDX" + std::string(2000, '\0'), "Megatron"},
               {with_word(good, 1, 2), "version 2 at offset 4"},
               {with_word(good, 0, 20240801), "version 1 at offset 4, expected 7"},
               {with_word(good, 2, -1), "token count -1 at offset 8"},
               {with_word(good, 2, 6), "the file is cut short"},
               {with_word(good, 2, 4), "bytes follow the last token"},
               {with_word(good, 2, 0x7FFFFFFF), "which makes 4294968318"},
               {good + "x", "bytes follow the last token"},
               {good.substr(0, good.size() - 1), "the file is cut short"},
               {with_word(good, 100, 7), "header word 100 at offset 400 is 7"},
               {shard_bytes({1, 2, 100, 3}), "token 100 at offset 1028 (token number 2) is not below the vocabulary size 100"},
               {shard_bytes({1, 2, 3, 65535}), "token 65535 at offset 1030"},
               {shard_bytes({1, -1, 3, 4}, true), "token 4294967295 at offset 1028"}},
              open_shard);
  scratch.write("odd.bin", "abc");
  CHECK(contains(error_of([&] { ShardReader(scratch / "odd.bin", ShardFormat::raw_u16); }, ExitCode::bad_data), "not a whole number of uint16"));
  REQUIRE(::mkfifo((scratch / "fifo.bin").c_str(), 0600) == 0);
  CHECK(contains(error_of([&] { open_shard(scratch / "fifo.bin"); }, ExitCode::usage), "not a regular file"));
  std::filesystem::create_directory(scratch / "dir.bin");
  CHECK(contains(error_of([&] { open_shard(scratch / "dir.bin"); }, ExitCode::usage), "a directory"));
  CHECK(contains(error_of([&] { open_shard(scratch / "none-*.bin"); }, ExitCode::usage), "no file matches"));
}

TEST_CASE("loader options that fit no data", "[hostile]") {
  const Scratch scratch;
  LoaderOptions options;
  options.shards = {scratch.write("x.bin", shard_bytes({1, 2, 3}))};
  options.seq = 2;
  const auto refused = [&](const std::string& part, auto change) {
    LoaderOptions changed = options;
    change(changed);
    CHECK(contains(error_of([&] { Loader loader(changed); }, ExitCode::usage), part));
  };
  options.vocab = 10;
  options.eot = 9;
  refused("vocabulary size", [](LoaderOptions& o) { o.vocab.reset(); });
  refused("end-of-text token", [](LoaderOptions& o) { o.eot.reset(); });
  refused("end-of-text token 10", [](LoaderOptions& o) { o.eot = 10; });
  refused("4 tokens that one sample of sequence length 3", [](LoaderOptions& o) { o.seq = 3; });
  refused("sequence length 0", [](LoaderOptions& o) { o.seq = 0; });
  refused("no shards given", [](LoaderOptions& o) { o.shards.clear(); });
}

namespace {

DatasetInfo small_dataset(const std::string& shard) {
  DatasetInfo info;
  info.tokenizer = "tokenizer.json";
  info.tokenizer_fingerprint = std::string(64, 'a');
  info.vocab = 100;
  info.eot = 99;
  info.shards = {{"x.bin", "train", 5, 5, 1, sha256_hex(shard)}};
  return info;
}

}  // namespace

TEST_CASE("hostile dataset.json", "[hostile]") {
  const Scratch scratch;
  const std::string shard = shard_bytes({1, 2, 3, 4, 5});
  scratch.write("x.bin", shard);
  const std::string good = small_dataset(shard).to_json();
  const auto open = [&](const std::string&) {
    LoaderOptions options;
    options.shards = {scratch / "x.bin"};
    options.seq = 2;
    Loader loader(options);
  };
  scratch.write("dataset.json", good);
  open("");
  std::string deep(2000, '[');
  check_cases(scratch, "dataset.json",
              {{"", "another program's file"},
               {"[]", "another program's file"},
               {"{\"format\": \"csv\", \"files\": [\"a.csv\"]}", "another program's file"},
               {"name,size\na.csv,3\n", "another program's file"},
               {replaced(good, "heddle-dataset", "other"), "another program's file"},
               {concat("[\"", "heddle-dataset", "\"]"), "not a JSON object"},
               {good.substr(0, good.size() / 2), "json"},
               {replaced(good, "\"shards\": [", "\"shards\": " + deep), "nested deeper than 32"},
               {good + "x", "json"},
               {replaced(good, "\"vocab\"", "\"eot\""), "appears twice"},
               {replaced(good, "heddle-dataset", "heddle-dataset-2"), "'format'"},
               {replaced(good, "\"version\": 1", "\"version\": 2"), "version 2"},
               {replaced(good, "\"vocab\": 100", "\"vocab\": 0"), "'vocab' is 0"},
               {replaced(good, "\"vocab\": 100", "\"vocab\": 1e2"), "'vocab' is not an integer"},
               {replaced(good, "\"vocab\": 100", "\"vocab\": 18446744073709551615"), "'vocab' is 18446744073709551615"},
               {replaced(good, "\"eot\": 99", "\"eot\": 100"), "'eot' is 100"},
               {replaced(good, "prepend", "middle"), "'eot_position'"},
               {replaced(good, "\"x.bin\"", "\"../x.bin\""), "'file' is no plain file name"},
               {replaced(good, "\"x.bin\"", "\"/etc/passwd\""), "'file' is no plain file name"},
               {replaced(good, "\"x.bin\"", "\"\""), "'file' is no plain file name"},
               {replaced(good, "\"train\"", "\"test\""), "'split'"},
               {replaced(good, "\"tokens\": 5", "\"tokens\": -5"), "'tokens' is -5"},
               {replaced(good, "\"tokens\": 5", "\"tokens\": \"5\""), "'tokens' is not an integer"},
               {replaced(good, "\"documents\": 1,", ""), "'documents' is missing"},
               {replaced(good, "\"shards\": [", "\"shards\": 7, \"x\": ["), "'shards' is not an array"},
               {replaced(good, std::string(64, 'a'), std::string(64, 'G')), "not a SHA-256"}},
              open);
  scratch.write("dataset.json", replaced(good, "\"tokens\": 5", "\"tokens\": 6"));
  CHECK(contains(error_of([&] { open(""); }, ExitCode::bad_data), "x.bin: holds 5 tokens, dataset.json records 6"));
  scratch.write("dataset.json", good);
  scratch.write("x.bin", shard_bytes({1, 2, 3, 4, 6}));
  CHECK(contains(error_of([&] { open(""); }, ExitCode::bad_data), "x.bin: its SHA-256 is not the one"));
  scratch.write("x.bin", shard);
  LoaderOptions options;
  options.shards = {scratch / "x.bin"};
  options.seq = 2;
  options.vocab = 50;
  CHECK(contains(error_of([&] { Loader loader(options); }, ExitCode::mismatch), "the vocabulary size is 100 there, 50 asked for"));
  options.vocab = 128;  // a padded vocabulary is fine
  options.eot = 98;
  CHECK(contains(error_of([&] { Loader loader(options); }, ExitCode::mismatch), "the end-of-text token is 99 there, 98 asked for"));
  options.eot.reset();
  options.eot_position = EotPosition::append;
  CHECK(contains(error_of([&] { Loader loader(options); }, ExitCode::mismatch), "position is prepend there, append asked for"));
}

TEST_CASE("hostile tokenizer.json", "[hostile]") {
  const Scratch scratch;
  BpeTrainer trainer;
  trainer.add("the the the that that");
  const Tokenizer tokenizer = trainer.train(260);
  const std::string good = tokenizer.to_json();
  const std::string merge = "[\"h\", \"e\"]";
  check_cases(
      scratch, "tokenizer.json",
      {{"", "json"},
       {"7", "not a JSON object"},
       {"{}", "there is no 'model'"},
       {replaced(good, "\"type\": \"BPE\"", "\"type\": \"Unigram\""), "model 'Unigram' is not supported"},
       {replaced(good, "\"normalizer\": null", "\"normalizer\": {\"type\": \"NFKC\"}"), "normalizer 'NFKC' is not supported"},
       {replaced(good, "\"normalizer\": null", "\"normalizer\": 3"), "normalizer is not an object"},
       {replaced(good, "\"pre_tokenizer\": {\"type\": \"ByteLevel\"", "\"pre_tokenizer\": {\"type\": \"Metaspace\""),
        "pre_tokenizer 'Metaspace' is not supported"},
       {replaced(good, "\"add_prefix_space\": false", "\"add_prefix_space\": true"), "add_prefix_space true"},
       {replaced(good, "\"decoder\": {\"type\": \"ByteLevel\"", "\"decoder\": {\"type\": \"WordPiece\""), "decoder 'WordPiece' is not supported"},
       {replaced(good, "\"post_processor\": null", "\"post_processor\": {\"type\": \"BertProcessing\"}"),
        "post_processor 'BertProcessing' is not supported"},
       {replaced(good, "\"byte_fallback\": false", "\"byte_fallback\": true"), "byte_fallback"},
       {replaced(good, "\"unk_token\": null", "\"unk_token\": \"<unk>\""), "'unk_token'"},
       {replaced(good, "\"dropout\": null", "\"dropout\": 0.1"), "'dropout'"},
       {replaced(good, "\"!\": 0", "\"!\": 1"), "has two tokens"},
       {replaced(good, "\"!\": 0", "\"!\": 4000000000"), "no holes"},
       {replaced(good, "\"!\": 0", "\"!\": -1"), "no holes"},
       {replaced(good, "\"!\": 0", "\"!\": 0.5"), "no holes"},
       {replaced(good, "\"!\": 0,", ""), "no holes"},
       {replaced(good, "\"!\": 0", "\"!x\": 0"), "no token for byte 33"},
       {replaced(good, "\"!\": 0", "\"! \": 0"), "stands for no byte"},
       {replaced(good, "\"!\": 0", "\"\": 0"), "token 0 is empty"},
       {replaced(good, "\"!\": 0", "\"\\\"\": 0"), "appears twice"},
       {replaced(good, "\"id\": 259", "\"id\": 300"), "has id 259 in the vocabulary and 300"},
       {replaced(good, "\"id\": 259", "\"id\": \"a\""), "not an integer"},
       {replaced(good, "\"content\": \"<|endoftext|>\"", "\"content\": \"\""), "no 'content'"},
       {replaced(replaced(good, "<|endoftext|>", "<|other|>"), "<|endoftext|>", "<|other|>"), "no end-of-text token"},
       {replaced(good, "\"merges\": [", "\"merges\": [[\"zz\", \"q\"],"), "is no token of the vocabulary"},
       {replaced(good, "\"merges\": [", "\"merges\": [[\"q\", \"z\"],"), "makes bytes that are no token"},
       {replaced(good, "\"merges\": [", "\"merges\": [[\"q\"],"), "is neither"},
       {replaced(good, "\"merges\": [", "\"merges\": [\"a  b\","), "one space between"},
       {replaced(good, "\"merges\": [", "\"merges\": [[\"t\", \"h\"],"), "appears twice"},
       {replaced(good, "\"merges\": [", "\"merges\": 3, \"x\": ["), "'merges' is not an array"},
       {replaced(good, "\"vocab\": {", "\"vocab\": 3, \"x\": {"), "the vocabulary is not an object"},
       {good.substr(0, good.size() / 2), "json"}},
      [](const std::string& path) { Tokenizer::load(path); });
  const std::string sequence =
      "\"pre_tokenizer\": {\"type\": \"Sequence\", \"pretokenizers\": [{\"type\": \"Split\", \"pattern\": {\"Regex\": \"x+\"}, \"behavior\": "
      "\"Isolated\"}, "
      "{\"type\": \"ByteLevel\", \"add_prefix_space\": false, \"use_regex\": false}]}, \"was\": {\"type\"";
  check_cases(scratch, "tokenizer.json",
              {{replaced(good, "\"pre_tokenizer\": {\"type\"", sequence), "pattern \"x+\" is not supported"},
               {replaced(replaced(good, "\"pre_tokenizer\": {\"type\"", sequence), "Isolated", "Removed"), "only behavior \"Isolated\""},
               {replaced(replaced(good, "\"pre_tokenizer\": {\"type\"", sequence), "Split", "Digits"), "pre_tokenizer 'Digits' is not supported"}},
              [](const std::string& path) { Tokenizer::load(path); });
  CHECK(contains(error_of([&] { Tokenizer::load_gpt2(scratch.write("e.json", "{\"a\":0}"), scratch.write("v.bpe", "")); }, ExitCode::bad_data),
                 "no token \"<|endoftext|>\""));
  std::filesystem::create_directory(scratch / "empty");
  CHECK(contains(error_of([&] { Tokenizer::load(scratch / "empty"); }, ExitCode::usage), "holds neither"));
  // Random damage: an error or a tokenizer, never a crash.
  std::mt19937_64 random(51);
  for (int trial = 0; trial < 300; ++trial) {
    std::string damaged = good;
    for (uint64_t n = 1 + random() % 4; n > 0; --n) damaged[random() % damaged.size()] = static_cast<char>(random());
    try {
      const Tokenizer read = Tokenizer::parse(damaged, "damaged");
      CHECK(read.decode(read.encode("the that")) == "the that");
    } catch (const Error& error) {
      CHECK(error.code() == ExitCode::bad_data);
    }
  }
}

TEST_CASE("hostile JSON lines", "[hostile]") {
  const Scratch scratch;
  check_cases(scratch, "x.jsonl",
              {{"{\"text\":\"a\"}\n{\"text\":3}\n", "x.jsonl:2: the object has no string field"},
               {"{\"text\":\"a\"}\n\n[1]\n", "x.jsonl:3: not a JSON object"},
               {"{\"text\":\"a\"\n", "x.jsonl:1"},
               {"{\"text\":\"\xFF\"}\n", "x.jsonl:1"},
               {"{\"text\":\"\\ud800\"}\n", "x.jsonl:1"},
               {"{\"text\":\"a\",\"text\":\"b\"}\n", "appears twice"},
               {"{\"txt\":\"a\"}\n", "no string field \"text\""}},
              [](const std::string& path) {
                TextSource source({{path}});
                Document document;
                while (source.next(document)) {
                }
              });
}
