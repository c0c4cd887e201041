#include "train/step_timer.h"

#include <algorithm>
#include <chrono>

#include "core/device.h"
#include "kernels/api/philox.h"
#include "parallel/pulse.h"
#include "train/assembly.h"
#include "train/config/shape.h"
#include "train/memory_plan.h"
#include "train/objectives.h"
#include "train/threads.h"

namespace heddle {
namespace {

// `config` as it is for so many ranks, each with its share of the step.
RunConfig for_ranks(RunConfig config, int ranks) {
  config.total_batch_tokens = config.total_batch_tokens / std::max<int64_t>(config.dp, 1) * ranks;
  config.dp = ranks;
  if (ranks == 1) config.zero = 0;
  return config;
}

}  // namespace

StepTimer::StepTimer(const RunConfig& config, const TransformerConfig& shape, std::string_view op, std::unique_ptr<Communicator> ranks,
                     bool documents)
    : run_config(for_ranks(config, ranks ? ranks->size() : 1)),
      device((use_threads(config.threads), choose_device(config.device))),
      model(shape),
      arena((require_memory(op, run_config, model, compute_dtype(config.precision, device), device, false), model),
            make_layout(run_config, model, ranks ? ranks->rank() : 0), device, compute_dtype(config.precision, device)),
      comm(ranks ? std::move(ranks) : local_communicator()) {
  arena.init(static_cast<uint64_t>(config.seed));
  optimizer = make_optimizer(run_config, arena);
  Trainer::Options options = trainer_options(run_config);
  options.document_mask = documents && config.doc_mask;
  options.graphs = options.graphs && comm->size() == 1;  // joins of recorded collectives cannot be timed
  trainer = std::make_unique<Trainer>(next_token_objective(model), arena, *optimizer, *comm, options);
}

double StepTimer::step(int64_t micro_steps) {
  const int64_t n = tokens();
  const auto vocab = static_cast<uint32_t>(model.config().vocab);
  const auto fill = [&](int64_t, const BatchView& into) {
    for (int64_t i = 0; i < n; i += 4) {
      const Philox::Block block = Philox::draw({.seed = 7, .purpose = RngPurpose::test, .name = 0, .stream = 0}, static_cast<uint64_t>(i));
      for (int64_t j = i; j < std::min(i + 4, n); ++j) {
        into.tokens[j] = static_cast<int32_t>(block[static_cast<size_t>(j - i)] % vocab);
        into.targets[j] = static_cast<int32_t>((block[static_cast<size_t>(j - i)] >> 7) % vocab);
        into.document_start[j] = 0;
      }
    }
  };
  const StepPlan plan{.micro_steps = micro_steps,
                      .valid_targets = n * micro_steps,
                      .lr = 1,
                      .clip_norm = static_cast<float>(run_config.grad_clip),
                      .z_loss = static_cast<float>(run_config.z_loss)};
  mark_progress();
  const auto start = std::chrono::steady_clock::now();
  loss = trainer->step(plan, fill)->loss;
  synchronize(device);
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace heddle
