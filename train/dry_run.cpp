// `heddle pretrain --dry-run`: what training would do and take, without a file of the run being touched.
#include <cstdio>

#include "train/memory_plan.h"
#include "train/model.h"
#include "train/resolve.h"
#include "train/run.h"

namespace heddle {

void dry_run(RunConfig config, int64_t world) {
  refuse_unbuilt(config);
  require_runnable(config);
  if (config.vocab == 0 && config.model.empty()) {
    fail_usage("pretrain", "--dry-run reads no data, so it does not know the size of the vocabulary: give --vocab N");
  }
  TransformerConfig shape = model_config(config, config.vocab);
  derive_recipe(config, shape);
  const Transformer model(shape);
  const bool muon = config.optimizer == OptimizerChoice::muon;
  const DType dtype = compute_dtype(config.precision, choose_device(DeviceChoice::cpu));
  const bool fp32 = dtype == DType::f32;
  const MemoryPlan plan = plan_memory(config, model.config(), model.parameter_count(), dtype);
  const std::vector<TableRow> memory = {{"parameters", bytes_text(plan.parameters), fp32 ? "fp32" : "bf16"},
                                        {"masters", bytes_text(plan.masters), fp32 ? "the parameters themselves" : "fp32"},
                                        {"gradients", bytes_text(plan.gradients), "fp32"},
                                        {"optimizer", bytes_text(plan.optimizer), muon ? "momentum, AdamW for the rest" : "two moments"},
                                        {"activations", bytes_text(plan.activations), "estimate for --batch " + std::to_string(config.batch)},
                                        {"checkpoint buffer", bytes_text(plan.snapshot), "host memory"},
                                        {"sum", bytes_text(plan.total()), ""}};
  std::printf("%s", to_toml(config).c_str());
  std::printf(
      "\n%s\n",
      table_text(concat("memory of each of ", world, " ranks, ", amount_text(static_cast<double>(model.parameter_count())), " parameters"), memory)
          .c_str());
}

}  // namespace heddle
