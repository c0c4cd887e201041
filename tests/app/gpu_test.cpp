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

}  // namespace
