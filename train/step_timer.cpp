#include "train/step_timer.h"

#include <algorithm>
#include <chrono>

#include "core/device.h"
#include "kernels/api/philox.h"
#include "train/assembly.h"
#include "train/config/shape.h"
#include "train/memory_plan.h"
#include "train/objectives.h"
#include "train/threads.h"

namespace heddle {

StepTimer::StepTimer(const RunConfig& config, const TransformerConfig& shape, std::string_view op, std::unique_ptr<Communicator> ranks,
                     bool documents)
    : run_config(config),
      device((use_threads(config.threads), choose_device(config.device))),
      model(shape),
      arena((require_memory(op, config, model, compute_dtype(config.precision, device), device, false), model), device,
            compute_dtype(config.precision, device)),
      comm(ranks ? std::move(ranks) : local_communicator()) {
  arena.init(static_cast<uint64_t>(config.seed));
  optimizer = make_optimizer(config, arena);
  trainer = std::make_unique<Trainer>(
      next_token_objective(model), arena, *optimizer, *comm,
      Trainer::Options{
          .batch = config.batch, .seq = config.seq, .document_mask = documents && config.doc_mask, .deterministic = config.deterministic});
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
  const auto start = std::chrono::steady_clock::now();
  loss = trainer->step(plan, fill)->loss;
  synchronize(device);
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace heddle
