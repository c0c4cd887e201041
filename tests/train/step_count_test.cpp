// The kernels of a step, counted without running one.
#include "train/step_count.h"

#include "tests/support/catch.h"
#include "train/config/resolve.h"

namespace heddle {
namespace {

struct Run {
  RunConfig config;
  TransformerConfig shape;

  Run(int64_t micro_steps, bool deterministic) {
    for (const auto& [name, value] :
         {std::pair{"layers", "3"}, {"heads", "4"}, {"kv-heads", "2"}, {"dim", "64"}, {"mlp", "swiglu"}, {"vocab", "211"}})
      config.set(name, value, Source::flag, "test");
    config.seq = 32, config.batch = 2, config.deterministic = deterministic;
    shape = resolve(config, {.ranks = 1, .vocab = 211});
    config.total_batch_tokens = micro_steps * config.seq * config.batch;
  }
  double sum(DeviceType device, std::string_view op, double kernels::Cost::*what) const {
    double all = 0;
    for (const KernelCalls& k : count_kernels(config, shape, 1, device)) {
      if (op.empty() || k.op.rfind(op, 0) == 0) all += k.calls * k.cost.*what;
    }
    return all;
  }
};

TEST_CASE("the kernels of a step multiply what the model's formula says") {
  for (const DeviceType device : {DeviceType::cpu, DeviceType::cuda}) {
    for (const int64_t micro_steps : {1, 2, 5}) {
      for (const bool deterministic : {false, true}) {
        CAPTURE(device == DeviceType::cuda, micro_steps, deterministic);
        const Run run(micro_steps, deterministic);
        const auto tokens = static_cast<double>(run.config.total_batch_tokens);
        const double products = run.sum(device, "matmul", &kernels::Cost::flops) + run.sum(device, "swiglu_matmul", &kernels::Cost::flops);
        CHECK(products == 6 * static_cast<double>(run.shape.matrix_parameters()) * tokens);
        // Of T keys a query sees (T + 1) / 2; backward does five products where the formula, as usual, counts four.
        const double pairs = static_cast<double>(run.config.seq + 1) / 2;
        CHECK(run.sum(device, "attention_", &kernels::Cost::flops) ==
              Approx(14 * 3 * static_cast<double>(run.shape.heads * run.shape.head_dim) * pairs * tokens));
      }
    }
  }
}

TEST_CASE("the micro-steps between the first and the last are counted as if each had been made") {
  // With a tree every micro-step is made; apart from the tree's own additions both do the same.
  const auto count = [](const Run& run, std::string_view op) {
    double calls = 0;
    for (const KernelCalls& k : count_kernels(run.config, run.shape, 1, DeviceType::cpu)) calls += k.op == op ? k.calls : 0;
    return calls;
  };
  const Run some(6, false), all(6, true);
  for (const char* op : {"matmul", "attention_forward", "norm_backward", "embedding_backward", "cross_entropy", "adamw", "finish_norm"}) {
    CAPTURE(op);
    CHECK(count(some, op) > 0);
    CHECK(count(some, op) == count(all, op));
  }
  CHECK(count(some, "adamw") == 1);
}

}  // namespace
}  // namespace heddle
