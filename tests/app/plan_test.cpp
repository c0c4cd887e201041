// What the program says it would do is what it does: plans, configurations written down and read again, counts that go on.
#include <algorithm>

#include "app/bench.h"
#include "kernels/api/check.h"
#include "tests/app/planned_memory.h"
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
  // A horizon in the past, and ranks that the run's step does not go with, are told alike by the plan and by the start.
  for (const char* how : {"", "--dry-run "}) {
    const std::string flags_now = concat("--out run ", how, "--steps 2");
    test::expect_refusal(flags_now, w.pretrain(flags_now), 2, {"--steps 2", "step 3", "run in run"});
    CHECK(w.metric("run", "step") == std::vector<std::string>{"1", "2", "3"});
  }
  const std::string four = "--out run --dry-run --steps 9 --world 4";
  test::expect_refusal(four, w.pretrain(four), 2, {"a step of the saved run is 32 tokens", "--dp 4 = 128", "the nearest is 128"});
  CHECK(w.pretrain("--out run").code == 0);  // reached, and asked for by nobody now
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
  CHECK(has(w.read("run/config.toml"), "# of one launch: time-limit = \"3600s\""));
}

TEST_CASE("edits where nobody reads them are told: of a run's config.toml, and under [derived]") {
  const Shards w;
  const auto edit = [&](const std::string& from, const std::string& to) {
    std::string text = w.read("run/config.toml");
    const size_t at = text.find(from);
    INFO(from << " in\n" << text);
    REQUIRE(at != std::string::npos);
    w.write("run/config.toml", text.replace(at, from.size(), to));
  };
  const std::string warning = "warning: run/config.toml is not read, and ";
  REQUIRE(w.pretrain("--depth 1 --steps 2 --out run --lr 0.001" + kData).code == 0);
  const Result plain = w.pretrain("--out run --steps 3");
  REQUIRE(plain.code == 0);
  CHECK(!has(plain.out, "config.toml"));
  edit("\nlr = 0.001", "\nlr = 0.5");
  edit("\nbeta1 = 0.9 ", "\nbeta1 = 0.5 ");
  const Result edited = w.pretrain("--out run --steps 4");
  INFO(edited.out << edited.err);
  CHECK(edited.code == 0);
  CHECK(has(edited.out, warning + "differs in lr, beta1; the run goes on by its checkpoint: flags, or --config FILE, change it\n"));
  CHECK(has(w.read("run/config.toml"), "\nlr = 0.001"));
  edit("\nlr = 0.001", "\nlr = oops");
  const Result broken = w.pretrain("--out run");  // finished: the file stays as it is
  CHECK(broken.code == 0);
  CHECK(has(broken.out, warning + "could not be: [config] run/config.toml:"));
  CHECK(has(w.read("run/config.toml"), "\nlr = oops"));
  edit("\nlr = oops", "\nlr = 0.001");
  const std::string different = "comes out different here: ";
  CHECK(!has(w.pretrain("--config run/config.toml --out same").out, different));
  edit("\nbeta1 = 0.9 ", "\nbeta1 = 0.5 ");
  CHECK(has(w.pretrain("--config run/config.toml --out other").out, different + "beta1; a key above [derived] counts\n"));
  CHECK(has(w.pretrain("--config run/config.toml --out third --print-config").err, different + "beta1;"));
}

TEST_CASE("a run that is gone on with from another folder says which files it looked for, and from where they were given") {
  const Shards w;
  std::filesystem::create_directory(w.path / "elsewhere");
  REQUIRE(w.pretrain("--depth 1 --steps 2 --out run" + kData).code == 0);
  for (const char* how : {" --dry-run", ""}) {
    const std::string again = std::string("pretrain --threads 1 --out ../run --steps 3") + how;
    test::expect_refusal(again, w.heddle(again, "env -C elsewhere"), 2,
                         {"'shards/*_train_*.bin'", "--data", "looks in " + (w / "elsewhere"), "saved from " + w.path.string() + ";"});
    const Result given = w.heddle(again + " --data '../shards/*_train_*.bin'", "env -C elsewhere");
    INFO(given.err);
    CHECK(given.code == 0);
  }
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

TEST_CASE("bench kernels checks every kernel of a step, times it, and compares with what it wrote before") {
  const Workplace w;
  const std::string bench =
      "bench kernels --layers 1 --heads 2 --kv-heads 1 --dim 32 --mlp swiglu --norm rms --position rope --no-bias --vocab 90 --seq 16 --batch 2 "
      "--optimizer muon --repeats 2 --threads 1 --device cpu ";
  const auto rows = [](const Result& r, std::string_view op) {
    size_t count = 0;
    std::istringstream lines(r.out);
    for (std::string line, first; std::getline(lines, line);) {
      std::istringstream words(line);
      words >> first;
      count += first == op;
    }
    return count;
  };
  for (const char* precision : {"--precision fp32 ", "--precision bf16 "}) {
    const Result r = w.heddle(bench + precision + "--json " + "one.json");
    INFO(r.out << r.err);
    REQUIRE(r.code == 0);
    CHECK(!has(r.out, "WRONG"));
    CHECK(!has(r.out, "nan"));
    for (const char* op : {"matmul", "attention_forward", "attention_backward", "norm_forward", "norm_backward", "rope", "swiglu_matmul",
                           "swiglu_backward", "embedding_forward", "embedding_backward", "cross_entropy_stats", "cross_entropy", "muon_momentum",
                           "normalize", "muon_apply", "adamw", "sum", "finish_norm", "advance_step"}) {
      CAPTURE(op);
      CHECK(rows(r, op) > 0);
    }
    const std::string json = w.read("one.json");
    for (const char* field : {"\"bench\": \"kernels\"", "\"device\"", "\"us_max\"", "\"gbs\"", "\"error\""}) CHECK(has(json, field));
    // One that was a thousand times faster then is told; what differs by less is not, and neither is another step's.
    CHECK(w.heddle(bench + precision + "--op muon_apply --compare " + "one.json").code <= 1);
    std::string faster;
    std::istringstream lines(json);
    for (std::string line; std::getline(lines, line); faster += line + "\n") {
      if (has(line, "\"us")) line = line.substr(0, line.find(':')) + ": 0.000001" + (line.back() == ',' ? "," : "");
    }
    w.write("faster.json", faster);
    const Result slower = w.heddle(bench + precision + "--op muon_apply --compare " + "faster.json");
    CHECK(slower.code == 1);
    CHECK(has(slower.out, "slower: muon_apply"));
    CHECK(has(slower.err, "slower than in"));
  }
  w.write("other.json", "{\"bench\": \"kernels\", \"device\": \"another\", \"kernels\": []}");
  w.write("text.json", "no JSON");
  CHECK(w.heddle(bench + "--op muon_apply --compare " + "other.json").code == 65);
  CHECK(w.heddle(bench + "--op muon_apply --compare " + "text.json").code == 65);
  const Result no_op = w.heddle(bench + "--op no_op");
  CHECK(no_op.code == 2);
  CHECK(has(no_op.err, "no op no_op; it has embedding_forward, "));
  CHECK(w.heddle(bench + "--kernel matmul=eigen").code == 2);
}

TEST_CASE("bench floors sums a step's kernels for a card that is not here") {
  const Workplace w;
  const std::string bench = "bench floors --model gpt2-124m --seq 1024 --batch 16 ";
  // The last two lines: "floors  12.3 ms  4567 tokens/s  89.0 % of the peak".
  const auto sums = [&](const std::string& flags) {
    const Result r = w.heddle(bench + flags);
    INFO(r.out << r.err);
    REQUIRE(r.code == 0);
    std::array<double, 2> ms{}, percent{};
    for (const auto& [at, name] : {std::pair{size_t{0}, "\nfloors "}, {size_t{1}, "\nexpected "}}) {
      const size_t line = r.out.rfind(name);
      REQUIRE(line != std::string::npos);
      std::istringstream words(r.out.substr(line));
      std::string word;
      double tokens = 0;
      words >> word >> ms[at] >> word >> tokens >> word >> percent[at];
      CHECK(tokens * ms[at] / 1e3 == Approx(16 * 1024 * (has(flags, "micro-steps 3") ? 3 : 1)).epsilon(0.01));
    }
    CHECK(ms[0] < ms[1]);
    CHECK(percent[0] < 100);
    return ms;
  };
  const auto h200 = sums(""), h100 = sums("--card h100"), a100 = sums("--card a100"), three = sums("--micro-steps 3"),
             fp32 = sums("--precision fp32");
  for (const size_t at : {0, 1}) {
    CHECK(h200[at] < h100[at]);
    CHECK(h100[at] < a100[at]);
    CHECK(three[at] < 3 * h200[at]);  // one update
    CHECK(three[at] > 2 * h200[at]);
    CHECK(fp32[at] > 3 * h200[at]);
  }
  const Result unknown = w.heddle(bench + "--card v100"), none = w.heddle(bench + "--micro-steps 0");
  CHECK(unknown.code == 2);
  CHECK(has(unknown.err, "--card v100 is none of a100, h100, h200"));
  CHECK(none.code == 2);
  CHECK(has(none.err, "--micro-steps is from 1"));
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
  for (const char* name : {"gflops", "matmul_gflops", "matmul_fraction", "exposed_comm_ms", "waited_ms_max"}) {
    CHECK(has(depth.out, std::string("\"") + name + "\": "));
    CHECK(has(help, name));
  }
  CHECK(has(w.heddle(bench + "--depth 1 --optimizer adamw").out, "\"optimizer\": \"adamw\""));
  CHECK(has(w.heddle(bench + "--model tiny-gpt --optimizer muon").out, "\"optimizer\": \"muon\""));
  CHECK(w.heddle(bench + "--model tiny-gpt --muon-lr 0.1").code == 2);
}

TEST_CASE("the median of what is timed") {
  CHECK(app::median({7}) == 7);
  CHECK(app::median({9, 1, 5, 3, 7}) == 5);
  CHECK(app::median({9, 9, 1, 2, 3, 8, 7}) == 7);
}

TEST_CASE("every recipe for GPUs is one, and fits 80 GB of each of eight") {
  const Workplace w;
  int recipes = 0;
  for (const auto& entry : std::filesystem::directory_iterator(HEDDLE_SOURCE_DIR "/examples/recipes")) {
    const std::string path = entry.path().string();
    if (entry.path().extension() != ".toml" || entry.path().stem() == "quickstart") continue;
    ++recipes;
    const Result r = w.heddle("pretrain --config '" + path + "' --val v --out run --device cuda --world 8 --dry-run");
    INFO(path << "\n" << r.out << r.err);
    REQUIRE(r.code == 0);
    CHECK(test::bytes_behind(r.out, "\n  peak") + test::bytes_behind(r.out, "\n  reserve") < 80e9);
  }
  CHECK(recipes >= 6);
}

}  // namespace
TEST_CASE("a dry run plans the memory that a run on the CPU takes, to a percent") {
  test::expect_planned_memory("cpu", "OMP_NUM_THREADS=1 ");
}

TEST_CASE("a dry run plans for a GPU that is not here, and for ranks that are not: 8 billion parameters on four") {
  const Workplace w;
  for (const bool zero : {false, true}) {
    CAPTURE(zero);
    const Result r = w.heddle(
        std::string("pretrain --model llama-8b --vocab 128256 --seq 2048 --batch 1 --total-batch-tokens 8192 --steps 10 --device cuda --world 4 "
                    "--dry-run") +
        (zero ? "" : " --zero 0"));
    INFO(r.out << r.err);
    REQUIRE(r.code == 0);
    CHECK(has(r.out, "memory of each of 4 ranks, 8.03 G parameters"));
    // 2 bytes of values and 4 of gradient, 4 of master and either moment for each, or for a quarter of them, in blocks of the allocator (at most an
    // eighth more).
    const double least = (zero ? 9 : 18) * 8.03e9, peak = test::bytes_behind(r.out, "\n  peak");
    CHECK(peak > least);
    CHECK(peak < 1.25 * least);
    // All of master and moments, whoever keeps them.
    CHECK(std::abs(test::bytes_behind(r.out, "checkpoints of ") - 12 * 8.03e9) < 1e9);
    // Every bucket once: the gradients, in fp32, and the values in bf16 where they are dealt out.
    const auto sent = [&](const std::string& name) {
      return test::bytes_behind(r.out.substr(r.out.find("calls", r.out.find("\n  " + name))), "calls");
    };
    const double reduced = sent(zero ? "reduce_scatter" : "all_reduce");
    CHECK(std::abs(reduced - 4 * 8.03e9) < 0.01 * 4 * 8.03e9);
    if (zero) CHECK(std::abs(sent("all_gather") - 2 * 8.03e9) < 0.01 * 2 * 8.03e9);
    CHECK(has(r.out, "not measured"));
  }
}

}  // namespace heddle
