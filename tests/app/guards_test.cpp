// Shards, tokenizers and models that do not belong together are refused wherever they meet; what is scored, used and left out is counted.
#include <algorithm>
#include <vector>

#include "tests/app/workplace.h"

namespace {

namespace fs = std::filesystem;
using heddle::test::expect_refusal;
using heddle::test::has;
using heddle::test::Result;
using heddle::test::Workplace;

const std::string kModel =
    " --device cpu --precision fp32 --layers 1 --heads 2 --dim 16 --seq 16 --batch 2 --total-batch-tokens 32 --threads 1 --no-tensorboard"
    " --no-progress --warmup 1 --schedule constant";

size_t count(const std::string& text, const std::string& part) {
  size_t found = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++found;
  return found;
}

// Folders a and b: the same text, tokenizers of 270 tokens each that are not the same. Folder c: a's shards, without a word of their tokenizer.
struct Folders : Workplace {
  Folders() {
    std::string text, other;
    for (int i = 0; i < 300; ++i) text += std::string(1 + i % 7, static_cast<char>('a' + i % 26)) + (i % 9 == 8 ? "\n\n" : " ");
    for (int i = 0; i < 300; ++i) other += std::string(1 + i % 5, static_cast<char>('A' + i % 26)) + (i % 9 == 8 ? "\n\n" : " ");
    write("words.txt", text);
    write("other.txt", other);
    const std::string options = " --document-separator blank-line --val-fraction 0.2 --name words --out ";
    REQUIRE(heddle("tokenize --input words.txt --tokenizer bpe:270" + options + "a").code == 0);
    REQUIRE(heddle("tokenize --input other.txt --tokenizer bpe:270 --document-separator blank-line --out other").code == 0);
    REQUIRE(heddle("tokenize --input words.txt --tokenizer other/tokenizer.json" + options + "b").code == 0);
    fs::create_directory(path / "c");
    for (const char* shard : {"words_train_000000.bin", "words_val_000000.bin"}) fs::copy(path / "a" / shard, path / "c" / shard);
  }
  static std::string train(const std::string& data, const std::string& out, const std::string& more = "") {
    return "pretrain --data " + data + " --out " + out + " --steps 2" + kModel + " " + more;
  }
  std::vector<std::string> names() const {
    std::vector<std::string> all;
    for (const auto& entry : fs::recursive_directory_iterator(path)) {
      const std::string name = fs::relative(entry.path(), path).string();
      if (name != "out.txt" && name != "err.txt") all.push_back(name);
    }
    std::sort(all.begin(), all.end());
    return all;
  }
  // Refused with one message; not a file more or less than before.
  void refused(const std::string& arguments, int code, const std::vector<std::string>& parts) const {
    const std::vector<std::string> had = names();
    expect_refusal(arguments, heddle(arguments), code, parts);
    CHECK(names() == had);
  }
  Result accepted(const std::string& arguments) const {
    Result r = heddle(arguments);
    INFO(arguments << "\n" << r.out << r.err);
    CHECK(r.code == 0);
    return r;
  }
};

TEST_CASE("shards of another tokenizer of the same size are refused at every entrance, and both are named") {
  const Folders w;
  const std::string a = "'a/*_train_*.bin'", b = "'b/*_train_*.bin'", val_b = "'b/*_val_*.bin'";
  for (const bool files : {true, false}) {  // by the tokenizer of the run; and where no tokenizer.json is left, by the data sets alone
    INFO("tokenizer.json beside the shards: " << files);
    if (!files) {
      fs::remove(w.path / "a/tokenizer.json");
      fs::remove(w.path / "b/tokenizer.json");
    }
    w.refused(Folders::train(a, "new", "--val " + val_b), 78, {"a/", "b/dataset.json", "different tokenizers", "270 tokens"});
    w.refused(Folders::train(a + " " + b, "new"), 78, {"a/", "b/dataset.json"});
    w.refused(Folders::train("a/words_train_000000.bin b/words_train_000000.bin", "new"), 78, {"a/", "b/dataset.json"});
    w.refused(Folders::train("'[ab]/words_train_*.bin'", "new"), 78, {"a/", "b/dataset.json"});
    w.refused(Folders::train("c/words_train_000000.bin " + a + " " + b, "new"), 78, {"a/dataset.json", "b/dataset.json"});
    const std::string run = files ? "run" : "bare";
    w.accepted(Folders::train(a, run));
    w.refused("eval " + run + " --data " + val_b, 78, {files ? "run/tokenizer.json" : "bare", "b/dataset.json"});
    w.refused("eval " + run + " --data 'a/*_val_*.bin' " + val_b, 78, {run, "b/dataset.json"});
    w.refused("eval " + run + " --data '[ab]/*_val_*.bin'", 78, {run, "b/dataset.json"});
    w.accepted("eval " + run + " --data '[ac]/*_val_*.bin'");
    // The weights of a run are worth nothing to shards of another tokenizer.
    w.refused(Folders::train(b, "new", "--init-from " + run), 78, {run, "b/"});
    const std::string checkpoint = run + "/ckpt/s2-i1";
    REQUIRE(fs::exists(w.path / checkpoint));
    w.refused(Folders::train(b, "new", "--init-from " + checkpoint), 78, {run, "b/"});
    w.refused(Folders::train(b, "new", "--init-from " + checkpoint + "/MANIFEST"), 78, {run, "b/"});
    w.accepted(Folders::train(a, run + "-again", "--init-from " + checkpoint));
  }
  // A resumed run keeps its tokenizer, also on shards that say nothing.
  w.accepted(Folders::train("c/words_train_000000.bin", "named", "--tokenizer run/tokenizer.json"));
  const std::string other = "pretrain --out named --steps 4 --tokenizer other/tokenizer.json";
  expect_refusal(other, w.heddle(other), 78, {"other/tokenizer.json", "named/tokenizer.json"});
  fs::remove(w.path / "named/tokenizer.json");
  expect_refusal(other, w.heddle(other), 78, {"other/tokenizer.json", "named (its checkpoint)"});
  w.accepted("pretrain --out named --steps 4");
}

TEST_CASE("shards that say nothing of their tokenizer are accepted with one warning, or named by --tokenizer") {
  const Folders w;
  const std::string c = "c/words_train_000000.bin", val = " --val c/words_val_000000.bin";
  w.refused(Folders::train(c, "new"), 2, {c, "--vocab or --tokenizer"});
  Result r = w.accepted(Folders::train(c, "blind", "--vocab 270 --no-doc-mask" + val));
  CHECK(count(r.out + r.err, "warning:") == 1);
  r = w.accepted(Folders::train("'[ac]/*_train_*.bin'", "mixed", val));
  CHECK(count(r.out + r.err, "warning:") == 1);
  CHECK(has(r.out, "warning: c/words_train_000000.bin: no dataset.json records the tokenizer of these shards; their tokens are taken for those of"));
  CHECK(has(r.out, "a/tokenizer.json. --tokenizer FILE names it"));
  r = w.accepted(Folders::train("'a/*_train_*.bin'", "held", val));
  CHECK(count(r.out + r.err, "warning:") == 1);
  CHECK(has(r.out, "warning: c/words_val_000000.bin: no dataset.json"));
  r = w.accepted(Folders::train(c, "named", "--tokenizer a/tokenizer.json" + val));
  CHECK(count(r.out + r.err, "warning:") == 0);
  CHECK(has(r.out, "bits per byte"));

  r = w.accepted("eval named --data c/words_val_000000.bin");
  CHECK(count(r.err, "warning:") == 1);
  CHECK(has(r.err, "heddle: warning: c/words_val_000000.bin: no dataset.json"));
  CHECK(w.accepted("eval named --data c/words_val_000000.bin --tokenizer a/tokenizer.json").err == "");
  CHECK(w.accepted("eval named --data a/words_val_000000.bin").err == "");
  w.refused("eval named --data c/words_val_000000.bin --tokenizer b/tokenizer.json", 78, {"b/tokenizer.json", "named/tokenizer.json"});
  CHECK(has(w.accepted("eval blind --data c/words_val_000000.bin --tokenizer a/tokenizer.json").out, "bits per byte"));
  r = w.accepted(Folders::train("'a/*_train_*.bin'", "from", "--init-from blind"));
  CHECK(count(r.out + r.err, "warning:") == 1);
  CHECK(has(r.out, "--init-from blind: nothing shows that its tokenizer is that of the shards"));
}

TEST_CASE("a start from weights that cannot be used leaves no run directory") {
  const Folders w;
  const std::string a = "'a/*_train_*.bin'";
  w.accepted(Folders::train(a, "run"));
  w.refused(Folders::train(a, "new", "--init-from nowhere"), 74, {"nowhere"});
  w.refused(Folders::train(a, "new", "--init-from a"), 65, {"a: is no run directory"});
  w.refused("pretrain --data " + a + " --out new --steps 2 --init-from run --layers 2 --heads 2 --dim 16 --seq 16 --batch 2", 65, {"run", "missing"});
  w.refused("pretrain --data " + a + " --out new --steps 2 --init-from run --layers 1 --heads 2 --dim 32 --seq 16 --batch 2", 65, {"run", "differs"});
  fs::copy(w.path / "run", w.path / "damaged", fs::copy_options::recursive);
  const std::string shard = "damaged/ckpt/s2-i1/shard-0-of-1.safetensors", content = w.read(shard);
  w.write(shard, content.substr(0, content.size() - 10));
  w.refused(Folders::train(a, "new", "--init-from damaged"), 65, {"damaged"});
  w.accepted(Folders::train(a, "new", "--init-from run"));
}

TEST_CASE("weights go on into the architecture they were trained in, or into another one that the command line names") {
  const Folders w;
  const std::string a = "'a/*_train_*.bin'", rope = "--position rope --mlp relu2 ";
  w.accepted(Folders::train(a, "run", rope + "--no-bias"));
  const std::string from = rope + "--no-bias --init-from run ";
  w.accepted(Folders::train(a, "same", from));
  struct Other {
    std::string name, value, now, was;
  };
  // None of these changes the shape of a tensor.
  for (const Other& o :
       {Other{"mlp", "gelu", "\"gelu\"", "\"relu2\""}, Other{"rope-theta", "1234.5", "1234.5", "10000.0"}, Other{"window", "8", "8", "0"},
        Other{"heads", "1", "1", "2"}, Other{"norm", "rms", "\"rms\"", "\"layer\""}, Other{"position", "none", "\"none\"", "\"rope\""}}) {
    INFO(o.name);
    const bool number = o.now.front() != '"';
    w.write("new.toml", o.name + " = " + (number ? o.value : o.now) + "\n");
    std::string flags = "pretrain --config new.toml --data " + a +
                        " --out new --steps 2 --init-from run --no-bias --device cpu --layers 1 --dim 16 --seq 16"
                        " --batch 2 --threads 1 --no-tensorboard --no-progress";
    for (const auto& [name, value] : std::vector<std::pair<std::string, std::string>>{{"heads", "2"}, {"position", "rope"}, {"mlp", "relu2"}}) {
      if (name != o.name) flags += " --" + name + " " + value;
    }
    w.refused(flags, 78, {"--init-from run", o.name + ": " + o.was + " there, here " + o.now, "new.toml:1", "command line"});
    const Result r = w.accepted(flags + " --" + o.name + " " + o.value);
    CHECK(has(r.out, "--init-from run: " + o.name + " was " + o.was + ", now " + o.now + " (--" + o.name + ")\n"));
    CHECK(count(r.out, "--init-from run: ") == 1);
    fs::remove_all(w.path / "new");
  }
}

TEST_CASE("validation on the shards that are trained on is told once") {
  const Folders w;
  fs::create_symlink("a/words_train_000000.bin", w.path / "link.bin");
  const std::string train = "a/words_train_000000.bin", held = "a/words_val_000000.bin", words = "among the shards of --data as well";
  for (const char* val : {"'a/*.bin'", "a/../a/words_train_000000.bin", "link.bin --tokenizer a/tokenizer.json"}) {
    const Result r = w.accepted(Folders::train(train, "run", std::string("--val ") + val));
    INFO(r.out);
    CHECK(count(r.out, words) == 1);
    fs::remove_all(w.path / "run");
  }
  CHECK(count(w.accepted(Folders::train(train, "run", "--val " + held)).out, words) == 0);
}

TEST_CASE("generate and eval take a model's own tokenizer, never a neighbour's") {
  const Folders w;
  w.accepted(Folders::train("'a/*_train_*.bin'", "run"));
  const std::string prompt = " --prompt ab --max-new-tokens 2";
  w.accepted("generate run" + prompt);
  w.accepted("generate run/ckpt/s2-i1" + prompt);
  w.accepted("generate run/ckpt/s2-i1/MANIFEST" + prompt);
  fs::create_directory_symlink("run/ckpt/s2-i1", w.path / "newest");
  w.accepted("generate newest" + prompt);
  // Two levels above a run, and above a copied checkpoint, lies what belongs to somebody else.
  fs::create_directories(w.path / "models/mine");
  fs::copy(w.path / "b/tokenizer.json", w.path / "models/tokenizer.json");
  fs::copy(w.path / "run", w.path / "models/mine/run", fs::copy_options::recursive);
  fs::remove(w.path / "models/mine/run/tokenizer.json");
  w.refused("generate models/mine/run" + prompt, 2, {"models/mine/run has no tokenizer.json"});
  fs::copy(w.path / "run/ckpt/s2-i1", w.path / "models/mine/best", fs::copy_options::recursive);
  w.refused("generate models/mine/best" + prompt, 2, {"models/mine/best has no tokenizer.json"});
  fs::copy_file(w.path / "a/tokenizer.json", w.path / "models/mine/run/tokenizer.json");  // put beside the run, as the message says
  w.accepted("generate models/mine/run" + prompt);
  // The one that is there must be the one that the checkpoint records.
  fs::copy_file(w.path / "b/tokenizer.json", w.path / "models/mine/run/tokenizer.json", fs::copy_options::overwrite_existing);
  for (const char* model : {"models/mine/run", "models/mine/run/ckpt/s2-i1"}) {
    w.refused("generate " + std::string(model) + prompt, 78, {"models/mine/run/tokenizer.json", "its checkpoint"});
    w.refused("eval " + std::string(model) + " --data 'a/*_val_*.bin'", 78, {"models/mine/run/tokenizer.json"});
  }
}

TEST_CASE("eval scores exactly the tokens asked for") {
  const Folders w;
  w.accepted(Folders::train("'a/*_train_*.bin'", "run"));
  const std::string eval = "eval run --data 'a/*_val_*.bin' --json --tokens ";
  for (const int tokens : {1, 16, 33, 48, 50}) {
    INFO(tokens);
    for (const char* batch : {" --batch 1", " --batch 3"}) {
      CHECK(has(w.accepted(eval + std::to_string(tokens) + batch).out, "\"tokens\": " + std::to_string(tokens) + ","));
    }
  }
  const std::string all = w.accepted("eval run --data 'a/*_val_*.bin' --json").out;
  CHECK(w.accepted(eval + "1000000").out == all);
  const Result r =
      w.accepted(Folders::train("'a/*_train_*.bin'", "watched", "--val 'a/*_val_*.bin' --eval-every 1 --eval-tokens 33 --sample-every 1"));
  CHECK(has(r.out, "| 33 tokens in"));
  for (const char* line : {"\nstep 1 | val loss ", "\nstep 2 | val loss ", "\nstep 1 | sample: ", "\nstep 2 | sample: "}) CHECK(has(r.out, line));
}

TEST_CASE("what is used of the data and what is left out is said; nothing to learn from is an error") {
  const Folders w;
  std::string many;
  for (int i = 0; i < 40; ++i) many += std::string(230 + i % 2, 'x') + "\n\n";
  w.write("many.txt", many);
  const std::string tokenize = "tokenize --document-separator blank-line --tokenizer bytes ";
  REQUIRE(w.heddle(tokenize + "--input many.txt --shard-tokens 256 --out short").code == 0);
  REQUIRE(w.heddle(tokenize + "--input words.txt --out long").code == 0);
  const std::string model = " --device cpu --layers 1 --heads 2 --dim 16 --seq 512 --batch 1 --steps 1 --threads 1 --no-tensorboard";
  Result r = w.accepted("pretrain --data '[sl]*/*_train_*.bin' --out run" + model);
  INFO(r.out);
  // 40 shards of 231 or 232 tokens with their newlines and end-of-text; words.txt is one of 1,231: two samples, 1,025 tokens.
  CHECK(has(r.out, "tokens are in the 2 samples of an epoch; "));
  CHECK(has(r.out, " in 40 shards shorter than --seq + 1 = 513 (short/many_train_000000.bin first), "));
  CHECK(has(r.out, " behind the last whole sample of a shard"));
  r = w.accepted("pretrain --data 'a/*_train_*.bin' --out whole" + kModel + " --steps 1");
  CHECK(!has(r.out, "shorter than"));

  // Every target is the end of a document: there is nothing to learn.
  std::string letters;
  for (int i = 0; i < 400; ++i) letters += "x\n\n";
  w.write("letters.bin", "");
  std::string shard = w.read("long/words_train_000000.bin").substr(0, 1024);
  shard[8] = 100, shard[9] = 0;
  for (int i = 0; i < 100; ++i) shard += std::string("\x00\x01", 2);
  w.write("ends/x.bin", "");
  fs::create_directory(w.path / "ends");
  w.write("ends/x.bin", shard);
  w.refused("pretrain --data ends/x.bin --out new --tokenizer long/tokenizer.json --steps 1" + kModel, 65,
            {"none of the 96 targets", "ends/x.bin", "end-of-text token 256"});
}

}  // namespace
