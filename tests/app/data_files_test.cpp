// Text and shards as the real program meets them: limits on files, what is no text, and shards that change under a running job.
#include <algorithm>
#include <map>
#include <vector>

#include "tests/app/workplace.h"
#include "tests/support/program.h"

namespace {

namespace fs = std::filesystem;
using heddle::test::expect_refusal;
using heddle::test::has;
using heddle::test::Program;
using heddle::test::Result;
using heddle::test::Workplace;

struct Texts : Workplace {
  Texts() {
    std::string text;
    for (int i = 0; i < 2000; ++i) text += std::string(1 + i % 7, static_cast<char>('a' + i % 26)) + (i % 9 == 8 ? "\n\n" : " ");
    write("words.txt", text);
  }
  std::map<std::string, std::string> files() const {
    std::map<std::string, std::string> all;
    for (const auto& entry : fs::recursive_directory_iterator(path)) {
      const std::string name = fs::relative(entry.path(), path).string();
      if (name != "out.txt" && name != "err.txt") all[name] = entry.is_directory() ? "" : read(name);
    }
    return all;
  }
};

TEST_CASE("tokenize under a limit on file sizes ends with 74 and a message, and the data set of before stands") {
  const Texts w;
  const std::string bytes = "tokenize --input words.txt --tokenizer bytes --out shards",
                    bpe = "tokenize --input words.txt --tokenizer bpe:400 --out shards";
  const std::string few = " --document-separator blank-line --shard-tokens 256";
  for (const bool had : {false, true}) {
    if (had) REQUIRE(w.heddle(bytes).code == 0);
    const auto before = w.files();
    const auto refused = [&](const std::string& arguments, const std::string& limit, const std::string& file) {
      expect_refusal(arguments, w.heddle(arguments, limit), 74, {file, "File too large", "ulimit -f"});
      CHECK(w.files() == before);
    };
    refused(bytes, "ulimit -f 4;", "words_train_000000.bin");  // in units of 512 bytes
    refused(bytes, "ulimit -f 1;", "words_train_000000.bin");
    refused(bpe + few, "ulimit -f 5;", "tokenizer.json");  // the shards fit, what follows does not
  }
}

TEST_CASE("tokenize takes folders and quoted patterns, and says what looks like no text") {
  const Texts w;
  fs::create_directories(w.path / "texts/more");
  for (const char* name : {"texts/a.txt", "texts/b.txt", "texts/more/c.txt"}) fs::copy_file(w.path / "words.txt", w.path / name);
  Result r = w.heddle("tokenize --input texts --tokenizer bytes --out one");
  INFO(r.err);
  CHECK(r.code == 0);
  CHECK(has(r.out, "3 documents"));
  CHECK(fs::exists(w.path / "one/texts_train_000000.bin"));
  CHECK(r.err == "");
  r = w.heddle("tokenize --input 'texts/[ab]*' --tokenizer bytes --out two");
  CHECK(r.code == 0);
  CHECK(has(r.out, "2 documents"));
  expect_refusal("an empty pattern", w.heddle("tokenize --input 'texts/*.md' --tokenizer bytes --out three"), 2, {"no file matches 'texts/*.md'"});
  w.write("texts/more/d.txt", std::string("\xFF\xFE"
                                          "a\0b\0",
                                          6));
  expect_refusal("UTF-16", w.heddle("tokenize --input texts --tokenizer bytes --out three"), 65, {"texts/more/d.txt: this is UTF-16 text", "iconv"});
  CHECK(!fs::exists(w.path / "three"));
  r = w.heddle("tokenize --input texts --tokenizer bytes --out three --format text");
  CHECK(r.code == 0);
  CHECK(has(r.err, "heddle: warning: texts/more/d.txt: this is UTF-16 text"));
}

// The newest checkpoint is of the last step in metrics.jsonl.
bool logged_and_saved(const Texts& w) {
  const std::string text = w.read("run/metrics.jsonl");
  const long steps = std::count(text.begin(), text.end(), '\n');
  return steps > 0 && has(w.heddle("inspect run --digest").out, "step " + std::to_string(steps) + " digest");
}

TEST_CASE("a shard cut under a running job ends it with 65 that names file and offset; whole again, the run goes on") {
  const Texts w;
  REQUIRE(w.heddle("tokenize --input words.txt --tokenizer bytes --out shards").code == 0);
  const std::string shard = "shards/words_train_000000.bin", content = w.read(shard);
  const std::vector<std::string> flags = {
      "--data",      w / shard, "--out",    w / "run", "--device",   "cpu",      "--layers",         "1",
      "--heads",     "2",       "--dim",    "16",      "--seq",      "16",       "--batch",          "2",
      "--threads",   "1",       "--warmup", "1",       "--schedule", "constant", "--no-tensorboard", "--no-progress",
      "--log-every", "100000"};
  const auto arguments = [&](const std::string& steps) {
    std::vector<std::string> all = {HEDDLE_PROGRAM, "pretrain", "--steps", steps};
    all.insert(all.end(), flags.begin(), flags.end());
    return all;
  };
  Program job(arguments("1000000"), w / "job.log");
  while (!has(w.read("run/metrics.jsonl"), "\n") && job.age() < 60) std::this_thread::sleep_for(std::chrono::milliseconds(5));
  fs::resize_file(w.path / shard, 1024 + 2 * 1000);
  CHECK(job.wait(60) == 65);
  const std::string log = w.read("job.log");
  INFO(log);
  CHECK(has(log, shard + ": ends at offset 3024, but was " + std::to_string(content.size()) + " bytes long"));
  w.write(shard, content);
  CHECK(w.heddle("inspect run --verify").code == 0);  // the last whole step was saved
  CHECK(logged_and_saved(w));
  Program again(arguments("1000000"), w / "again.log");
  while (!has(w.read("again.log"), "resumed at step ") && again.age() < 60) std::this_thread::sleep_for(std::chrono::milliseconds(5));
  again.signal(SIGTERM);
  CHECK(again.wait(60) == 75);
}

TEST_CASE("a held-out shard cut under a running job costs no step") {
  const Texts w;
  REQUIRE(w.heddle("tokenize --input words.txt --tokenizer bytes --document-separator blank-line --val-fraction 0.2 --out shards").code == 0);
  const std::string shard = "shards/words_val_000000.bin";
  std::vector<std::string> arguments = {HEDDLE_PROGRAM, "pretrain", "--data", w / "shards/words_train_000000.bin", "--val", w / shard, "--out",
                                        w / "run",      "--steps",  "1000000"};
  std::istringstream flags(
      "--device cpu --layers 1 --heads 2 --dim 16 --seq 16 --batch 2 --threads 1 --eval-every 7 --eval-tokens 64 --no-tensorboard");
  for (std::string word; flags >> word;) arguments.push_back(word);
  Program job(arguments, w / "job.log");
  while (!has(w.read("run/metrics.jsonl"), "\n") && job.age() < 60) std::this_thread::sleep_for(std::chrono::milliseconds(5));
  fs::resize_file(w.path / shard, 1024);
  CHECK(job.wait(60) == 65);
  INFO(w.read("job.log"));
  CHECK(has(w.read("job.log"), shard + ": ends at offset 1024"));
  CHECK(logged_and_saved(w));
}

}  // namespace
