// heddle inspect and heddle eval on everything they take.
#include <cmath>
#include <iostream>
#include <map>
#include <sstream>

#include "app/command.h"
#include "data/dataset.h"
#include "kernels/api/check.h"
#include "tests/app/workplace.h"
#include "tests/support/cost.h"

namespace {

namespace fs = std::filesystem;
using heddle::test::has;
using heddle::test::Result;
using heddle::test::Workplace;

struct Trained : Workplace {
  Trained() {
    std::string text;
    for (int i = 0; i < 400; ++i) {
      const std::string word(1 + i % 7, static_cast<char>('a' + i % 26));
      text += word + (i % 9 == 8 ? "\n\n" : i % 4 == 3 ? "  \t" : " ");
    }
    write("words.txt", text);
    REQUIRE(heddle("tokenize --input words.txt --tokenizer bytes --document-separator blank-line --val-fraction 0.2 --out data").code == 0);
    const Result r = heddle(
        "pretrain --data 'data/*_train_*.bin' --out run --device cpu --precision fp32 --layers 1 --heads 2 --dim 16 --seq 16 --batch 2 --steps 4"
        " --save-every 2 --eval-every 0 --threads 1 --no-tensorboard --no-progress");
    INFO(r.err);
    REQUIRE(r.code == 0);
  }
  std::string changed(const std::string& name, size_t at) const {
    std::string content = read(name);
    content[at] = static_cast<char>(content[at] ^ 1);
    return content;
  }
};

bool is_hash_line(const std::string& text) {
  return text.size() == 65 && text.find_first_not_of("0123456789abcdef") == 64 && text[64] == '\n';
}

TEST_CASE("inspect tells what each kind of file holds, gives its digest, and finds damage with --verify") {
  const Trained w;
  const std::string checkpoint = "run/ckpt/s4-i1", shard_file = checkpoint + "/shard-0-of-1.safetensors", tokens = "data/words_train_000000.bin";
  struct Case {
    std::string path;
    std::vector<std::string> parts;
  };
  for (const Case& c : {Case{"run", {"s2-i1", "s4-i1", "newest", "step          4", "  model  ", "optim.m", "program: heddle", "run --details"}},
                        Case{"run --details",
                             {"s2-i1", "s4-i1", "newest", "model.blocks.0.attn.q.weight", "optim.m.", "environment", "program: heddle",
                              "processor: ", "libraries: ", "layout: dp 1, batch 2"}},
                        Case{checkpoint, {"step          4", "tensors", "config"}}, Case{checkpoint + "/MANIFEST", {"step          4"}},
                        Case{shard_file, {"safetensors", "model.", "F32"}},
                        Case{tokens, {"token shard", "uint16", "vocabulary    257", "split         train", "bytes"}},
                        Case{"data", {"data set", "train", "val", "documents"}}, Case{"data/dataset.json", {"data set", "fingerprint"}},
                        Case{"data/tokenizer.json", {"tokenizer", "257", "256", "fingerprint"}}, Case{"run/tokenizer.json", {"fingerprint"}}}) {
    INFO(c.path);
    const Result plain = w.heddle("inspect " + c.path);
    CHECK(plain.code == 0);
    CHECK(plain.err.empty());
    for (const std::string& part : c.parts) {
      INFO(part << " in\n" << plain.out);
      CHECK(has(plain.out, part));
    }
    const Result verified = w.heddle("inspect " + c.path + " --verify");
    INFO(verified.out);
    CHECK(verified.code == 0);
    CHECK(has(verified.out, "ok"));
    CHECK(!has(verified.out, "DAMAGED"));
    const Result digest = w.heddle("inspect " + c.path + " --digest"), again = w.heddle("inspect " + c.path + " --digest");
    INFO(digest.out);
    CHECK(digest.code == 0);
    CHECK(digest.out == again.out);
    if (c.path.rfind("run", 0) == 0 && c.path != shard_file && c.path != "run/tokenizer.json") {
      CHECK(digest.out.rfind("step 4 digest ", 0) == 0);
      CHECK(is_hash_line(digest.out.substr(14)));
    } else {
      CHECK(is_hash_line(digest.out));
    }
  }
  CHECK(w.heddle("inspect run --digest").out == w.heddle("inspect " + checkpoint + " --digest").out);
  CHECK(w.heddle("inspect data/tokenizer.json --digest").out == w.heddle("inspect run/tokenizer.json --digest").out);

  const auto damaged = [&](const std::string& file, size_t at, const std::string& inspected, const std::string& part) {
    const std::string good = w.read(file);
    w.write(file, w.changed(file, at));
    const Result r = w.heddle("inspect " + inspected + " --verify");
    INFO(file << " through " << inspected << "\n" << r.out << r.err);
    CHECK(r.code == 65);
    CHECK(has(r.out + r.err, part));
    w.write(file, good);
    CHECK(w.heddle("inspect " + inspected + " --verify").code == 0);
  };
  const size_t middle = fs::file_size(w.path / shard_file) / 2;
  damaged(shard_file, middle, "run", "DAMAGED");
  damaged(shard_file, middle, checkpoint, "  DAMAGED  shard-0-of-1.safetensors  ");
  damaged(checkpoint + "/MANIFEST", 40, checkpoint, "MANIFEST");
  damaged(shard_file, 20, shard_file, "shard-0-of-1.safetensors");  // inside its header
  damaged(tokens, 1500, tokens, "sha256");
  damaged(tokens, 1500, "data", "DAMAGED");
  damaged(tokens, 2, "data", "magic");
  damaged("data/tokenizer.json", w.read("data/tokenizer.json").find("endoftext"), "data", "DAMAGED");
  w.write("half.json", w.read("data/tokenizer.json").substr(0, 500));
  CHECK(w.heddle("inspect half.json").code == 65);
}

TEST_CASE("inspect --verify of shards without a dataset.json checks what it can and says what it cannot") {
  const Trained w;
  const std::string tokens = "data/words_train_000000.bin", good = w.read(tokens), description = w.read("data/dataset.json");
  fs::remove(w.path / "data/dataset.json");
  for (const std::string at : {"data", "data/", tokens.c_str()}) {
    INFO(at);
    const Result r = w.heddle("inspect " + at + " --verify");
    INFO(r.out << r.err);
    CHECK(r.code == 0);
    CHECK(has(r.out, "no hash  "));
    CHECK(has(r.out, "no dataset.json records its hash: changed tokens would go unseen"));
    CHECK(has(r.out, "every token is below 257"));
  }
  const std::map<std::string, std::string> changes = {{"cut short", good.substr(0, good.size() - 2)},
                                                      {"another magic number", "x" + good.substr(1)},
                                                      {"token 300", good.substr(0, 1038) + "\x2c\x01" + good.substr(1040)}};
  for (const auto& [what, content] : changes) {
    w.write(tokens, content);
    for (const std::string at : {"data", tokens.c_str()}) {
      INFO(what << " through " << at);
      const Result r = w.heddle("inspect " + at + " --verify");
      INFO(r.out << r.err);
      CHECK(r.code == 65);
      CHECK(has(r.out + r.err, tokens));
    }
  }
  w.write(tokens, good);
  fs::remove(w.path / "data/tokenizer.json");
  CHECK(has(w.heddle("inspect data --verify").out, "its tokens were not checked: there is no tokenizer.json"));
  CHECK(w.heddle("inspect data --digest").code == 2);
  // A shard beside a data set that does not record it.
  w.write("data/dataset.json", description);
  w.write("data/more_train_000000.bin", good);
  const Result more = w.heddle("inspect data --verify");
  CHECK(has(more.out, "no hash  data/more_train_000000.bin"));
  CHECK(has(more.out, "dataset.json does not record it"));
}

// Every figure and word of a dataset.json that the shards and the tokenizer beside it can contradict; documents that go on over shards, too.
TEST_CASE("inspect --verify holds every figure of dataset.json against the tokens") {
  const Workplace w;
  std::string text;
  for (int i = 0; i < 30; ++i) text += std::string(static_cast<size_t>(40 + 97 * i % 700), static_cast<char>('a' + i % 26)) + "\n\n";
  w.write("words.txt", text);
  for (const std::string eot : {"prepend", "append"}) {
    for (const std::string size : {"100000", "256"}) {
      INFO(eot << ", shards of " << size);
      fs::remove_all(w.path / "data");
      REQUIRE(w.heddle("tokenize --input words.txt --tokenizer bytes --document-separator blank-line --val-fraction 0.2 --out data --eot-position " +
                       eot + " --shard-tokens " + size)
                  .code == 0);
      const Result whole = w.heddle("inspect data --verify");
      INFO(whole.out << whole.err);
      REQUIRE(whole.code == 0);
      CHECK(!has(whole.out, "no hash"));
      CHECK(!has(whole.out, "not counted"));
      const std::string good = w.read("data/dataset.json");
      const auto refused = [&](const std::string& text, const std::string& part) {
        w.write("data/dataset.json", text);
        const Result r = w.heddle("inspect data --verify");
        INFO(part << "\n" << r.out << r.err);
        CHECK(r.code == 65);
        CHECK(has(r.out, "DAMAGED"));
        CHECK(has(r.out, part));
      };
      for (const std::string field : {"tokens", "bytes", "documents", "vocab", "eot"}) {
        const std::string key = "\"" + field + "\": ";
        for (size_t at = good.find(key), n = 0; at != std::string::npos && n < 3; at = good.find(key, at + 1), ++n) {
          const size_t digits = at + key.size(), end = good.find_first_not_of("0123456789", digits);
          const long value = std::stol(good.substr(digits, end - digits));
          refused(good.substr(0, digits) + std::to_string(field == "eot" ? value - 1 : value + 1) + good.substr(end), "dataset.json records");
        }
      }
      const size_t at = good.find('"' + eot + '"');
      refused(good.substr(0, at + 1) + (eot == "append" ? "prepend" : "append") + good.substr(at + 1 + eot.size()), "dataset.json records");
      w.write("data/dataset.json", good);
      for (const auto& entry : fs::directory_iterator(w.path / "data")) {  // each by itself: what the one before ends with is not known
        const std::string name = entry.path().filename().string();
        if (name.ends_with("0.bin") || name.ends_with("1.bin")) CHECK(w.heddle("inspect data/" + name + " --verify").code == 0);
      }
    }
  }
  fs::remove(w.path / "data/tokenizer.json");
  const Result r = w.heddle("inspect data --verify");
  CHECK(r.code == 65);
  CHECK(has(r.out, "its bytes of text were not counted: that takes the tokenizer"));
}

TEST_CASE("inspect --verify of a data set costs in proportion to its shards") {
  const Workplace w;
  struct Quiet {
    std::ostringstream sink;
    std::streambuf* before = std::cout.rdbuf(sink.rdbuf());
    ~Quiet() { std::cout.rdbuf(before); }
  };
  heddle::test::check_cost("inspect --verify", 50, [&](size_t n) {
    heddle::DatasetInfo info;
    info.tokenizer = "tokenizer.json";
    info.tokenizer_fingerprint = std::string(64, '0');
    info.vocab = 257;
    info.eot = 256;
    for (size_t i = 0; i < n; ++i) info.shards.push_back({heddle::concat("s", i, ".bin"), "train", 1, 1, 1, std::string(64, '0')});
    const std::string folder = "set" + std::to_string(n);
    fs::create_directories(w.path / folder);
    w.write(folder + "/dataset.json", info.to_json());
    return [arguments = std::vector<std::string>{w / folder, "--verify"}] {
      const Quiet quiet;
      heddle::app::inspect_command(arguments);
    };
  });
}

double field(const std::string& json, const std::string& name) {
  const size_t at = json.find("\"" + name + "\": ");
  REQUIRE(at != std::string::npos);
  return std::stod(json.substr(at + name.size() + 4));
}

TEST_CASE("the columns of inspect stand apart, however long the names of tensors are") {
  const Trained w;
  for (const char* optimizer : {"adamw", "muon"}) {
    const Result r = w.heddle(std::string("pretrain --data 'data/*_train_*.bin' --out ") + optimizer + " --optimizer " + optimizer +
                              " --device cpu --layers 1 --heads 2 --dim 16 --seq 16 --batch 2 --steps 1 --threads 1 --no-tensorboard --no-progress");
    INFO(r.err);
    REQUIRE(r.code == 0);
    std::istringstream lines(w.heddle(std::string("inspect ") + optimizer).out);
    int kinds = 0;
    for (std::string line; std::getline(lines, line);) {
      const size_t at = line.find_first_of(" ", line.find(" tensor") == line.npos ? line.npos : 2);
      if (line.rfind("  ", 0) != 0 || !has(line, " elements")) continue;
      INFO(line);
      ++kinds;
      REQUIRE(at != line.npos);
      CHECK(line.substr(at, 2) == "  ");
      CHECK(line.find_first_of("0123456789", at) == line.find_first_not_of(' ', at));
    }
    CHECK(kinds >= 2);
  }
}

TEST_CASE("inspect adds up the shards of each part of a data set") {
  const Trained w;
  REQUIRE(w.heddle("tokenize --input words.txt --tokenizer bytes --document-separator blank-line --val-fraction 0.2 --shard-tokens 300 --out parts")
              .code == 0);
  for (const std::string folder : {"data", "parts"}) {
    const std::string description = w.read(folder + "/dataset.json"), shown = w.heddle("inspect " + folder).out;
    INFO(shown << description);
    for (const std::string split : {"train", "val"}) {
      long shards = 0, tokens = 0, documents = 0, bytes = 0;
      const std::string marked = "\"split\": \"" + split + "\"";
      for (size_t at = description.find(marked); at != std::string::npos; at = description.find(marked, at + 1)) {
        const size_t begin = description.rfind('{', at), end = description.find('}', at);
        const std::string shard = description.substr(begin, end - begin + 1);
        ++shards;
        tokens += static_cast<long>(field(shard, "tokens")), documents += static_cast<long>(field(shard, "documents"));
        bytes += static_cast<long>(field(shard, "bytes"));
      }
      CHECK((folder == "data" ? shards == 1 : shards > 1));
      CHECK(has(shown, std::to_string(shards) + (shards == 1 ? " shard, " : " shards, ") + std::to_string(tokens) + " tokens, " +
                           std::to_string(documents) + " documents, " + std::to_string(bytes) + " bytes of text"));
    }
  }
}

TEST_CASE("inspect shows a run whose newest checkpoint is damaged through the one before it") {
  const Trained w;
  w.write("run/ckpt/s4-i1/MANIFEST", w.changed("run/ckpt/s4-i1/MANIFEST", 40));
  const Result plain = w.heddle("inspect run");
  INFO(plain.out << plain.err);
  CHECK(plain.code == 0);
  CHECK(has(plain.out, "DAMAGED"));
  CHECK(has(plain.out, "s2-i1"));
  CHECK(has(plain.out, "step          2"));
  CHECK(!has(plain.out, "step          4"));
  CHECK(w.heddle("inspect run --verify").code == 65);
}

TEST_CASE("eval gives bits per byte and per word of the text behind the tokens") {
  const Trained w;
  const Result json = w.heddle("eval run --data 'data/*_val_*.bin' --device cpu --json"),
               line = w.heddle("eval run --data 'data/*_val_*.bin' --device cpu");
  INFO(json.out << json.err << line.out);
  REQUIRE(json.code == 0);
  REQUIRE(line.code == 0);
  // The held-out text itself: every fifth document.
  std::istringstream all(w.read("words.txt"));
  std::vector<std::string> documents(1);
  for (std::string text; std::getline(all, text);) {
    if (text.empty()) {
      documents.emplace_back();
    } else {
      documents.back() += (documents.back().empty() ? "" : "\n") + text;
    }
  }
  if (documents.back().empty()) documents.pop_back();
  uint64_t words = 0;
  for (size_t i = 0; i < documents.size(); ++i) {
    if (std::floor(static_cast<double>(i + 1) * 0.2) <= std::floor(static_cast<double>(i) * 0.2)) continue;
    std::istringstream in(documents[i]);
    for (std::string word; in >> word;) ++words;
  }
  CHECK(field(json.out, "words") == static_cast<double>(words));
  const double bits = field(json.out, "bits_per_byte") * field(json.out, "bytes");
  CHECK(std::abs(field(json.out, "bits_per_word") * static_cast<double>(words) - bits) < 1e-3 * bits);
  CHECK(std::abs(field(json.out, "loss") * field(json.out, "tokens") / std::log(2.0) - bits) < 1e-3 * bits);
  CHECK(has(line.out, "bits per byte"));
  CHECK(has(line.out, "bits per word"));
  // Whatever the windows, each word counts once.
  for (const char* stride : {"1", "5", "16"}) {
    const Result r = w.heddle(std::string("eval run --data 'data/*_val_*.bin' --device cpu --json --stride ") + stride);
    CHECK(field(r.out, "words") == static_cast<double>(words));
  }
  // Without a tokenizer there is no text to count.
  fs::remove(w.path / "run/tokenizer.json");
  const Result bare = w.heddle("eval run --data 'data/*_val_*.bin' --device cpu --json");
  CHECK(bare.code == 0);
  CHECK(has(bare.out, "\"bits_per_byte\": null, \"bits_per_word\": null"));
}

}  // namespace
