// Checkpoints whose hashes hold and whose numbers lie: refused with 65 by name, and left as they are.
#include "checkpoint/manifest.h"
#include "core/io/sha256.h"
#include "kernels/api/check.h"
#include "tests/app/workplace.h"

namespace {

namespace fs = std::filesystem;
using heddle::test::expect_refusal;
using heddle::test::has;
using heddle::test::Result;
using heddle::test::Workplace;

const std::string kTrain =
    "pretrain --data 'shards/*_train_*.bin' --out run --device cpu --precision fp32 --layers 1 --heads 2 --dim 16 --seq 16 --batch 2"
    " --total-batch-tokens 32 --eval-every 0 --threads 1 --no-tensorboard --no-progress --schedule constant --warmup 1 --save-every 2 --steps ";
const std::string kManifest = "run/ckpt/s6-i1/MANIFEST";

struct Trained : Workplace {
  Trained() {
    std::string text;
    for (int i = 0; i < 300; ++i) text += std::string(1 + i % 7, static_cast<char>('a' + i % 26)) + (i % 9 == 8 ? "\n\n" : " ");
    write("words.txt", text);
    REQUIRE(heddle("tokenize --input words.txt --tokenizer bytes --document-separator blank-line --out shards").code == 0);
    REQUIRE(heddle(kTrain + "6").code == 0);
    honest = read(kManifest);
  }
  // The newest checkpoint's manifest with one value changed, its own hash made to fit.
  void forge(const std::string& from, const std::string& to) const {
    std::string body = honest.substr(0, honest.size() - heddle::kSelfHashBytes);
    const size_t at = body.find(from);
    INFO(from << " in " << body);
    REQUIRE(at != std::string::npos);
    const size_t begin = at + from.size(), end = body.find_first_of(",}\\ ", begin);
    body.replace(begin, end - begin, to);
    write(kManifest, body + "sha256 " + heddle::hex(heddle::sha256(body)) + "\n");
  }
  std::string honest;
};

TEST_CASE("forged counters: what a checkpoint counts must be what it is, and possible") {
  const Trained w;
  struct Case {
    std::string name, value;
  };
  for (const Case& c : {Case{"step", "-1"},
                        Case{"step", "5"},
                        Case{"step", "7"},
                        Case{"step", "100000"},
                        Case{"step", "4611686018427387904"},
                        Case{"step", "18446744073709551615"},
                        Case{"step", "6.0"},
                        Case{"step", "null"},
                        Case{"cursor", "-1"},
                        Case{"cursor", "1e3"},
                        Case{"cursor", "4611686018427387904"},
                        Case{"cursor", "18446744073709551615"},
                        Case{"tokens", "-1"},
                        Case{"tokens", "1.5"},
                        Case{"tokens", "18446744073709551615"},
                        Case{"adam_t", "7"},
                        Case{"adam_t", "-1"},
                        Case{"adam_t", "18446744073709551615"},
                        Case{"skipped", "7"},
                        Case{"skipped", "-1"}}) {
    w.forge("\\\"" + c.name + "\\\":", c.value);
    const std::string forged = w.read(kManifest);
    for (const char* steps : {"6", "8"}) {
      const Result r = w.heddle(kTrain + steps);
      expect_refusal(heddle::concat(c.name, " = ", c.value, ", to step ", steps), r, 65, {"run", "step 6"});
      CHECK(w.read(kManifest) == forged);
    }
  }
  w.write(kManifest, w.honest);
  CHECK(w.heddle(kTrain + "8").code == 0);
}

TEST_CASE("a forged configuration takes no memory before its tensors are compared") {
  const Trained w;
  for (const auto& [key, value] :
       std::vector<std::pair<std::string, std::string>>{{"dim", "262144"}, {"mlp-dim", "1048576"}, {"vocab", "16777216"}}) {
    w.forge("\\u000a" + key + " = ", value);
    const std::string forged = w.read(kManifest);
    for (const char* check : {"", " --no-memory-check"}) {
      const std::string command = std::string("pretrain --out run --threads 1 --steps 8") + check;
      expect_refusal(command, w.heddle(command, "ulimit -v 900000;"), 65, {"s6-i1", "differs: model."});
      CHECK(w.read(kManifest) == forged);
    }
  }
}

TEST_CASE("a checkpoint of a version that recorded no tokenizer is compared by size alone, and says so once") {
  const Trained w;
  const std::string words = "does not record whose tokens it learned";
  w.forge("\\\"tokenizer\\\":\\\"", "");
  const Result r = w.heddle(kTrain + "8");
  INFO(r.out << r.err);
  CHECK(r.code == 0);
  CHECK(has(r.out, "warning: run: the checkpoint of step 6 " + words + "; of run/tokenizer.json only the size"));
  CHECK(r.out.find(words) == r.out.rfind(words));
  CHECK(!has(w.heddle(kTrain + "10").out, words));
}

}  // namespace
