// The program on a simulated GPU, and without one.
#include <cmath>
#include <cstdio>
#include <sstream>

#include "tests/app/planned_memory.h"
#include "tests/app/workplace.h"

namespace {

using heddle::test::has;
using heddle::test::Result;
using heddle::test::Workplace;

TEST_CASE("doctor names the simulated GPU and the ops that have no CUDA kernel of their own") {
  const Workplace w;
  CHECK_FALSE(has(w.heddle("doctor").out, "no CUDA kernel yet"));
  const Result r = w.heddle("doctor", "HEDDLE_SIM_HOST_KERNELS=only");
  CHECK(r.code == 0);
  CHECK(has(r.out, "cuda:0              heddle simulated GPU, sm_90"));
  CHECK(has(r.out, "simulated on the CPU"));
  CHECK(has(r.out, "no CUDA kernel yet"));
  CHECK(has(r.out, "adamw"));
  CHECK(has(r.out, "matmul"));
}

TEST_CASE("a GPU that is asked for and is not there ends with 69, whoever asks; nothing is made") {
  const Workplace w;
  for (const char* command : {"pretrain --layers 1 --heads 2 --dim 16 --seq 8 --steps 1 --data x --out run", "bench ops"}) {
    const Result r = w.heddle(std::string(command) + " --device cuda", "HEDDLE_SIM_DEVICES=0");
    INFO(command << ": " << r.err);
    CHECK(r.code == 69);
    CHECK(has(r.err, "shows this process no GPU"));
    CHECK_FALSE(std::filesystem::exists(w.path / "run"));
  }
  const Result doctor = w.heddle("doctor", "HEDDLE_SIM_DEVICES=0");
  CHECK(doctor.code == 0);
  CHECK(has(doctor.out, "devices             none"));
}

TEST_CASE("bench kernels runs every candidate of a step's ops on a simulated GPU, beside float64, and says what its times are worth") {
  const Workplace w;
  for (const char* precision : {"bf16", "fp32"}) {
    const Result r =
        w.heddle(std::string("bench kernels --device cuda --layers 1 --heads 2 --dim 128 --vocab 90 --seq 16 --batch 2 --repeats 1 --threads 1 "
                             "--mlp swiglu --precision ") +
                 precision);
    INFO(r.out << r.err);
    CHECK(r.code == 0);
    CHECK(has(r.err, "simulated on the CPU: its times say nothing of a GPU"));
    CHECK(!has(r.out, "nan"));
    for (const char* kernel : {" simt ", " rows ", " arena_blocks ", " grouped_rows ", " host ", " cublaslt "}) CHECK(has(r.out, kernel));
    for (const char* kernel : {" wgmma_sm90 ", " mma_sm80 ", " flash2_sm80 "}) CHECK(has(r.out, kernel) == (std::string_view(precision) == "bf16"));
  }
}

// A small book as shards of bytes.
void make_shards(const Workplace& w) {
  std::string text;
  for (int i = 0; i < 400; ++i) text += "line " + std::to_string(i * i % 97) + (i % 20 == 19 ? "\n\n" : "\n");
  w.write("book.txt", text);
  REQUIRE(w.heddle("tokenize --input book.txt --tokenizer bytes --document-separator blank-line --val-fraction 0.1 --out shards").code == 0);
}
const std::string kRun =
    "pretrain --layers 2 --heads 2 --kv-heads 1 --dim 32 --seq 16 --batch 2 --total-batch-tokens 64 --lr 0.01 "
    "--data 'shards/*_train_*.bin' --val 'shards/*_val_*.bin' ";
const std::string kOwnKernels = "HEDDLE_SIM_HOST_KERNELS=never ";

TEST_CASE("20 steps on a simulated GPU, by the CPU's kernels as work of its streams, leave the CPU's bits in any order of the streams") {
  const Workplace w;
  make_shards(w);
  const auto digest = [&](const std::string& run, const std::string& device, const std::string& before) {
    const Result r = w.heddle(kRun + "--steps 20 --precision fp32 --out " + run + " --device " + device, before);
    INFO(run << " " << before << ": " << r.err);
    REQUIRE(r.code == 0);
    CHECK(has(r.out + r.err, "(host) stand in for") == (device == "cuda"));
    return w.heddle("inspect " + run + " --digest").out;
  };
  const std::string cpu = digest("cpu", "cpu", "");
  CHECK(has(cpu, "step 20 digest"));
  CHECK(digest("random", "cuda", "HEDDLE_SIM_HOST_KERNELS=only HEDDLE_SIM_STREAMS=random:5") == cpu);
  CHECK(digest("fifo", "cuda", "HEDDLE_SIM_HOST_KERNELS=only HEDDLE_SIM_STREAMS=fifo") == cpu);
}

TEST_CASE("--gemm vendor: training, evaluation and generation by a vendor's products on a simulated GPU; where there are none, a warning") {
  const Workplace w;
  make_shards(w);
  for (const std::string& command : {kRun + "--steps 3 --out run", std::string("eval run --data 'shards/*_val_*.bin' --tokens 100"),
                                     std::string("generate run --prompt line --max-new-tokens 4 --greedy")}) {
    const Result r = w.heddle(command + " --device cuda --gemm vendor");
    INFO(command << ": " << r.err);
    CHECK(r.code == 0);
    CHECK_FALSE(has(r.out + r.err, "--gemm vendor"));
    const Result cpu = w.heddle(command + " --device cpu --gemm vendor");
    CHECK(cpu.code == 0);
    CHECK(has(cpu.out + cpu.err, "warning: --gemm vendor: cpu has no matrix products of a vendor's; heddle's own are used"));
  }
}

TEST_CASE("--gemm auto: times of products are taken once, and the second run and one that goes on have the first one's choices") {
  const Workplace w;
  make_shards(w);
  const auto train = [&](const std::string& flags) {
    const Result r =
        w.heddle(kRun + "--device cuda --precision bf16 --threads 1 " + flags, kOwnKernels + "HEDDLE_SIM_GEMM_TIMES=1 XDG_CACHE_HOME=$PWD/cache ");
    INFO(r.err);
    REQUIRE(r.code == 0);
    const size_t at = (r.out + r.err).find("gemm: of ");
    REQUIRE(at != std::string::npos);
    return (r.out + r.err).substr(at, (r.out + r.err).find('\n', at) - at);
  };
  const std::string first = train("--steps 4 --out first");  // the times themselves are in it
  CHECK(train("--steps 4 --out second") == first);
  CHECK(w.heddle("inspect first --digest").out == w.heddle("inspect second --digest").out);
  std::filesystem::remove_all(w / "cache");
  CHECK(train("--steps 5 --out first") == first);
  CHECK(std::filesystem::exists(w / "cache/heddle"));
}

TEST_CASE("a run on CUDA kernels alone, killed again and again, ends with the bits of one that was left in peace") {
  const Workplace w;
  make_shards(w);
  const std::string run = kRun + "--steps 12 --save-every 2 --device cuda --out ";
  const Result peace = w.heddle(run + "peace", kOwnKernels);
  INFO(peace.err);
  REQUIRE(peace.code == 0);
  CHECK_FALSE(has(peace.out + peace.err, "(host) stand in for"));
  int kills = 0, code = -1;
  for (int i = 1; i <= 40 && code != 0; ++i) {  // longer each time, so that a slow machine gets on as well
    const std::string before = kOwnKernels + "timeout -s KILL " + std::to_string(0.3 * i) + " ";
    code = w.heddle(run + "killed", before).code;
    kills += code == 137;
    REQUIRE((code == 0 || code == 137));
  }
  CHECK(code == 0);
  CHECK(kills > 0);
  const std::string digest = w.heddle("inspect peace --digest").out;
  CHECK(has(digest, "step 12 digest"));
  CHECK(w.heddle("inspect killed --digest").out == digest);
}

TEST_CASE("validation and generation on CUDA kernels alone agree with the CPU's") {
  const Workplace w;
  make_shards(w);
  REQUIRE(w.heddle(kRun + "--steps 12 --device cpu --precision fp32 --out run").code == 0);
  const auto loss = [](const Result& r) {
    INFO(r.out << r.err);
    REQUIRE(r.code == 0);
    const size_t at = r.out.find("loss ");
    REQUIRE(at != std::string::npos);
    return std::stod(r.out.substr(at + 5));
  };
  const std::string eval = "eval run --data 'shards/*_val_*.bin' --device ";
  CHECK(std::abs(loss(w.heddle(eval + "cuda --precision bf16", kOwnKernels)) - loss(w.heddle(eval + "cpu"))) < 0.02);
  CHECK(std::abs(loss(w.heddle(eval + "cuda --precision fp32", kOwnKernels)) - loss(w.heddle(eval + "cpu"))) < 1e-5);
  // Weights that another run starts from.
  const Result more = w.heddle(kRun + "--init-from run --steps 1 --log-every 1 --device cuda --precision fp32 --out more", kOwnKernels);
  INFO(more.out << more.err);
  REQUIRE(more.code == 0);
  const std::string lines = more.out + more.err;
  const size_t at = lines.find("step 1/1 | loss ");
  REQUIRE(at != std::string::npos);
  CHECK(std::stod(lines.substr(at + 16)) < 4);  // an untrained model has ln 256
  // Greedy, in bf16 there and fp32 here: the same first choice, and as likely.
  const std::string generate = "generate run --prompt line --max-new-tokens 24 --greedy --print-ids --logprobs --device ";
  const Result here = w.heddle(generate + "cpu"), there = w.heddle(generate + "cuda", kOwnKernels);
  INFO(here.out << there.out << there.err);
  REQUIRE(there.code == 0);
  int id_here = 0, id_there = 0;
  double log_here = 0, log_there = 1;
  REQUIRE(std::sscanf(here.out.c_str(), "%d %lf", &id_here, &log_here) == 2);
  REQUIRE(std::sscanf(there.out.c_str(), "%d %lf", &id_there, &log_there) == 2);
  CHECK(id_there == id_here);
  CHECK(std::abs(log_there - log_here) < 0.05);
}

// Losses of the steps in a run's metrics.
std::vector<double> losses(const Workplace& w, const std::string& run) {
  std::vector<double> all;
  std::istringstream lines(w.read(run + "/metrics.jsonl"));
  for (std::string line; std::getline(lines, line);) {
    if (const size_t at = line.find("\"loss\":"); at != std::string::npos) all.push_back(std::stod(line.substr(at + 7)));
  }
  return all;
}

TEST_CASE("the quickstart's model and recipe with 512 tokens a step, on CUDA kernels alone, take the CPU's steps") {
  const Workplace w;
  make_shards(w);
  const std::string recipe = "pretrain --config '" HEDDLE_SOURCE_DIR
                             "/examples/recipes/quickstart.toml' --data 'shards/*_train_*.bin' --eval-every 0 "
                             "--batch 2 --total-batch-tokens 512 --warmup 0 --steps 3 --log-every 1 ";
  for (const auto& [device, precision] : {std::pair("cpu", "fp32"), {"cuda", "fp32"}, {"cuda", "bf16"}}) {
    const Result r = w.heddle(recipe + "--device " + device + " --precision " + precision + " --out " + device + precision, kOwnKernels);
    INFO(r.err);
    REQUIRE(r.code == 0);
  }
  const std::vector<double> cpu = losses(w, "cpufp32"), fp32 = losses(w, "cudafp32"), bf16 = losses(w, "cudabf16");
  REQUIRE(cpu.size() == 3);
  REQUIRE(fp32.size() == 3);
  REQUIRE(bf16.size() == 3);
  CHECK(cpu[2] < cpu[0] - 1);  // it learns, so that later losses tell of the updates
  for (size_t i = 0; i < 3; ++i) {
    INFO("step " << i + 1);
    CHECK(std::abs(fp32[i] - cpu[i]) < 1e-5 * cpu[i]);
    CHECK(std::abs(bf16[i] - cpu[i]) < 4e-3 * cpu[i]);  // 2^-8, a rounding of bf16
  }
}

TEST_CASE("a dry run plans the memory that a run on CUDA kernels takes, to a percent") {
  heddle::test::expect_planned_memory("cuda", kOwnKernels);
}

TEST_CASE("a dry run refuses what the GPU has no memory for, and what it advises fits") {
  const Workplace w;
  const std::string run =
      "pretrain --layers 8 --heads 8 --dim 512 --seq 1024 --vocab 50304 --batch 16 --total-batch-tokens 16384 --steps 1 --device cuda --dry-run ";
  const Result r = w.heddle(run, kOwnKernels);
  INFO(r.out << r.err);
  CHECK(r.code == 71);
  CHECK(has(r.err, "of cuda:0, which has 2.00 GiB to give. --batch "));
  const size_t at = r.err.find("to give. --batch ");
  REQUIRE(at != std::string::npos);
  const std::string batch = std::to_string(std::stoi(r.err.substr(at + 17)));
  const Result advised = w.heddle(run + "--batch " + batch + " --threads 1", kOwnKernels + "timeout 20 ");  // ended where the step is measured
  INFO(advised.out << advised.err);
  CHECK((advised.code == 0 || advised.code == 124));
  CHECK(has(advised.out, "\n  peak"));
  CHECK_FALSE(has(advised.err, "to give"));
}

}  // namespace
