// What the program says it would do is what it does: plans, configurations written down and read again, counts that go on.
#include <algorithm>

#include "tests/app/workplace.h"

namespace heddle {
namespace {

using test::has;
using test::Result;
using test::Workplace;

struct Shards : Workplace {
  Shards() {
    std::string text;
    for (int i = 0; i < 400; ++i) text += std::string(1 + i % 7, static_cast<char>('a' + i % 26)) + (i % 9 == 8 ? "\n\n" : " ");
    write("words.txt", text);
    REQUIRE(heddle("tokenize --input words.txt --tokenizer bytes --document-separator blank-line --out shards").code == 0);
  }
  Result pretrain(const std::string& more) const { return heddle("pretrain --threads 1 --no-tensorboard --no-progress " + more); }
  // The text of one field in every line of metrics.jsonl.
  std::vector<std::string> metric(const std::string& run, const std::string& name) const {
    std::vector<std::string> all;
    std::istringstream lines(read(run + "/metrics.jsonl"));
    for (std::string line; std::getline(lines, line);) {
      const size_t at = line.find("\"" + name + "\":") + name.size() + 3;
      all.push_back(line.substr(at, line.find_first_of(",}", at) - at));
    }
    return all;
  }
};

const std::string kData = " --data 'shards/*_train_*.bin' --seq 16 --batch 2 ";

TEST_CASE("--dry-run and --print-config show what training would do with the run and the shards there are") {
  const Shards w;
  const std::string flags = kData + "--depth 1 --steps 400";
  const Result dry = w.pretrain("--dry-run" + flags);
  INFO(dry.out << dry.err);
  REQUIRE(dry.code == 0);
  for (const char* part : {"vocabulary  257", "\nvocab = 257  # from the data\n", "\noptimizer = \"muon\"  # from depth 1\n", "steps       400",
                           "epochs", "a step", "time", "disk", "are free", "activations"}) {
    INFO(part);
    CHECK(has(dry.out, part));
  }
  CHECK(has(w.pretrain("--print-config" + flags).out, "\nmlp = \"relu2\"  # from depth 1\n"));
  REQUIRE(w.pretrain("--steps 3 --depth 1 --out run" + kData).code == 0);
  // From here on the run says what was not said.
  const Result print = w.pretrain("--out run --print-config");
  CHECK(print.code == 0);
  CHECK(has(print.out, "\ndepth = 1  # saved\n"));
  CHECK(has(print.out, "\nsteps = 3  # saved\n"));
  const Result again = w.pretrain("--out run --dry-run --steps 9");
  INFO(again.out << again.err);
  CHECK(again.code == 0);
  CHECK(has(again.out, "of which 3 are done"));
  CHECK(has(again.out, "\nsteps = 9  # --steps\n"));
  CHECK(w.pretrain("--out run --dry-run --depth 2").code == 78);
  const std::string missing = "--data 'nothing/*.bin' --depth 1 --out none ";
  CHECK(w.pretrain("--dry-run " + missing).err == w.pretrain(missing).err);
  const Result ranks = w.pretrain("--dry-run --world 4" + flags);
  CHECK(has(ranks.out, "\ndp = 4  # from the launch\n"));
  CHECK(has(ranks.out, "memory of each of 4 ranks"));
}

TEST_CASE("a run's config.toml begins a new run with the same losses, whatever limit the first was under") {
  const Shards w;
  const std::string depth = "--depth 1 --tokens 640 --out run --time-limit 1h" + kData;
  const Result first = w.pretrain(depth);
  INFO(first.err);
  REQUIRE(first.code == 0);
  REQUIRE(w.pretrain("--config run/config.toml --out again").code == 0);
  CHECK(w.metric("run", "loss").size() == 20);
  CHECK(w.metric("again", "loss") == w.metric("run", "loss"));
  CHECK(!has(w.read("again/config.toml"), "\ntime-limit"));
  CHECK(has(w.read("run/config.toml"), "# of one launch: time-limit = 3600"));
}

TEST_CASE("tokens trained are counted, not computed from today's batch") {
  const Shards w;
  const std::string run = "--layers 1 --heads 2 --dim 16 --lr 0.01 --out run" + kData;
  REQUIRE(w.pretrain(run + "--tokens 128").code == 0);
  CHECK(w.metric("run", "tokens") == std::vector<std::string>{"32", "64", "96", "128"});
  const Result larger = w.pretrain(run + "--tokens 400 --total-batch-tokens 64");
  INFO(larger.err);
  REQUIRE(larger.code == 0);
  CHECK(w.metric("run", "tokens") == std::vector<std::string>{"32", "64", "96", "128", "192", "256", "320", "384"});
  CHECK(has(w.read("run/config.toml"), "\nsteps = 8  # from tokens"));
  const Result nothing = w.pretrain(run + "--tokens 400 --total-batch-tokens 64");
  CHECK(nothing.code == 0);
  CHECK(w.metric("run", "tokens").size() == 8);
}

TEST_CASE("bench ops states no op's time as less than its floor, however small the shapes") {
  const Workplace w;
  for (const char* model : {"--layers 1 --heads 2 --dim 16 --seq 16 --batch 1 --vocab 100", "--depth 1 --seq 32 --batch 2 --vocab 300"}) {
    const Result r = w.heddle(std::string("bench ops --repeats 5 --threads 1 --device cpu ") + model);
    INFO(r.out << r.err);
    REQUIRE(r.code == 0);
    std::istringstream lines(r.out);
    size_t rows = 0;
    bool table = false;
    for (std::string line; std::getline(lines, line);) {
      constexpr size_t kName = 34, kTimesFloor = 22;  // the width of the first column; where the fourth begins behind it
      if (table) {
        std::istringstream cell(line.substr(std::min(line.size(), kName + kTimesFloor)));
        std::string times;
        cell >> times;
        INFO(line);
        CHECK((times == "n/a" || std::stod(times) >= 1));
        ++rows;
      }
      table = table || has(line, "x floor");
    }
    CHECK(rows > 15);
  }
}

TEST_CASE("bench train-step times the step that pretrain would train") {
  const Workplace w;
  const std::string bench = "bench train-step --seq 16 --batch 1 --vocab 100 --repeats 1 --warmup-steps 0 --threads 1 ";
  const Result depth = w.heddle(bench + "--depth 1");
  INFO(depth.err);
  CHECK(depth.code == 0);
  CHECK(has(depth.out, "\"optimizer\": \"muon\""));
  CHECK(has(depth.out, "\"vocab\": 100,"));
  const std::string help = w.heddle("bench --help").out;
  for (const char* name : {"gflops", "matmul_gflops", "matmul_fraction"}) {
    CHECK(has(depth.out, std::string("\"") + name + "\": "));
    CHECK(has(help, name));
  }
  CHECK(has(w.heddle(bench + "--depth 1 --optimizer adamw").out, "\"optimizer\": \"adamw\""));
  CHECK(has(w.heddle(bench + "--model tiny-gpt --optimizer muon").out, "\"optimizer\": \"muon\""));
  CHECK(w.heddle(bench + "--model tiny-gpt --muon-lr 0.1").code == 2);
}

}  // namespace
}  // namespace heddle
