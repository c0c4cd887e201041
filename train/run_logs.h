// The logs of a run that goes on: opened together, cut back together.
#pragma once

#include <filesystem>
#include <optional>

#include "train/report/metrics.h"
#include "train/report/samples.h"
#include "train/report/tensorboard.h"
#include "train/run.h"

namespace heddle {

// What rank 0 writes down of a run. Each log forgets what a resume or a roll-back undoes.
struct Logs {
  explicit Logs(const Run& run) {
    if (!run.is_first()) return;
    metrics.emplace(run.file("metrics.jsonl"), run.resumed_step);
    if (run.config.sample_every > 0 || std::filesystem::exists(run.file("samples.txt"))) samples.emplace(run.file("samples.txt"), run.resumed_step);
    if (run.config.tensorboard) events.emplace(run.config.out, run.resumed_step);
  }
  void cut_after(uint64_t step) {
    if (metrics) metrics->cut_after(step);
    if (samples) samples->cut_after(step);
    if (events) events->restart(step + 1);
  }
  std::optional<MetricsLog> metrics;
  std::optional<SampleLog> samples;
  std::optional<TensorBoardLog> events;
};

}  // namespace heddle
