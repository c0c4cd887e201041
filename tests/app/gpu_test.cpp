// The program on a simulated GPU, and without one.
#include "tests/app/workplace.h"

namespace {

using heddle::test::has;
using heddle::test::Result;
using heddle::test::Workplace;

TEST_CASE("doctor names the simulated GPU and the ops that have no CUDA kernel") {
  const Workplace w;
  const Result r = w.heddle("doctor");
  CHECK(r.code == 0);
  CHECK(has(r.out, "cuda:0              heddle simulated GPU, sm_90"));
  CHECK(has(r.out, "simulated on the CPU"));
  CHECK(has(r.out, "no CUDA kernel yet"));
  CHECK(has(r.out, "adamw"));
  CHECK_FALSE(has(r.out, "matmul"));
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

TEST_CASE("20 steps on a simulated GPU, by the CPU's kernels as work of its streams, leave the CPU's bits in any order of the streams") {
  const Workplace w;
  std::string text;
  for (int i = 0; i < 400; ++i) text += "line " + std::to_string(i * i % 97) + (i % 20 == 19 ? "\n\n" : "\n");
  w.write("book.txt", text);
  REQUIRE(w.heddle("tokenize --input book.txt --tokenizer bytes --document-separator blank-line --val-fraction 0.1 --out shards").code == 0);
  const auto digest = [&](const std::string& run, const std::string& device, const std::string& before) {
    const Result r = w.heddle(
        "pretrain --layers 2 --heads 2 --kv-heads 1 --dim 32 --seq 16 --batch 2 --total-batch-tokens 64 --lr 0.01 --steps 20 --precision fp32 "
        "--data 'shards/*_train_*.bin' --val 'shards/*_val_*.bin' --out " +
            run + " --device " + device,
        before);
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

}  // namespace
