#include "train/pretrain.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <fstream>
#include <memory>

#include "core/storage.h"
#include "train/dry_run.h"
#include "train/metrics.h"
#include "train/run.h"
#include "train/sampling.h"
#include "train/signals.h"
#include "train/tensorboard.h"

namespace heddle {
namespace {

using Clock = std::chrono::steady_clock;
double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

bool due(int64_t every, uint64_t step) {
  return every > 0 && step % static_cast<uint64_t>(every) == 0;
}

// The reason that any rank has to stop; every rank gets the same answer. Collective.
StopReason agreed_stop(const StopSignals& signals, Communicator& comm) {
  StopReason reason = signals.poll().reason;
  if (comm.size() == 1) return reason;
  int32_t votes[5] = {};
  votes[static_cast<size_t>(reason)] = 1;
  comm.all_reduce(make_view(votes, {5}), Stream{});
  for (int r = 4; r > 0; --r) {
    if (votes[r] > 0) return static_cast<StopReason>(r);
  }
  return StopReason::none;
}

void write_sample(Run& run) {
  const RunConfig& c = run.config;
  if (!run.is_first() || !run.tokenizer) return;
  std::vector<int32_t> prompt = run.tokenizer->encode(c.sample_prompt);
  prompt.insert(prompt.begin(), run.tokenizer->eot());
  std::string text = c.sample_prompt;
  const SamplingOptions sampling{.temperature = 0.8, .top_k = 50, .seed = static_cast<uint64_t>(c.seed), .vocab = run.tokenizer->vocab_size()};
  try {
    generate_tokens(*run.model, prompt, c.sample_tokens, sampling, [&](int32_t token, std::span<const double>) {
      if (token == run.tokenizer->eot()) return false;
      text += run.tokenizer->bytes_of(token);
      return true;
    });
  } catch (const std::exception& error) {  // a look at the model, no part of its training
    run.console.warn(concat("no sample of step ", run.step, ": ", error.what()));
    return;
  }
  std::ofstream(run.file("samples.txt"), std::ios::app) << "step " << run.step << "\n" << text << "\n\n";
  run.console.line(concat("sample: ", text));
}

}  // namespace

int pretrain(RunConfig given) {
  const std::unique_ptr<Communicator> world = world_communicator();
  if (given.dry_run) {
    if (world->rank() == 0) dry_run(given);
    return 0;
  }
  const StopSignals signals(given.time_limit, world->rank() == 0);
  Run run(std::move(given), *world);
  const RunConfig& c = run.config;
  const auto steps = static_cast<uint64_t>(c.steps);
  std::unique_ptr<MetricsLog> metrics;
  std::unique_ptr<TensorBoardLog> tensorboard;
  if (run.is_first()) {
    metrics = std::make_unique<MetricsLog>(run.file("metrics.jsonl"), run.resumed_step);
    if (c.tensorboard) tensorboard = std::make_unique<TensorBoardLog>(c.out, run.resumed_step);
  }
  RateMeter rate;
  StopReason stop = StopReason::none;
  const auto must_stop = [&] { return (stop = agreed_stop(signals, *world)) != StopReason::none; };
  uint64_t saved_step = run.step;
  double val_loss = 0;  // the newest
  if (run.resumed_step && run.step >= steps) {
    run.console.line(concat("the run in ", c.out, " is already at step ", run.step, " of ", steps, ": done"));
    run.console.require_written();
    return 0;
  }

  while (run.step < steps && !must_stop()) {
    const Clock::time_point start = Clock::now();
    run.cursor = run.bad_batches->next_clean(run.cursor, static_cast<uint64_t>(run.samples));
    StepPlan plan;
    plan.micro_steps = run.micro_steps;
    plan.valid_targets = run.loader->valid_targets(run.cursor, static_cast<uint64_t>(run.samples));
    plan.lr = static_cast<float>(run.schedule.factor(run.step));
    plan.clip_norm = static_cast<float>(c.grad_clip);
    plan.max_grad_norm = run.spikes.max_grad_norm();
    plan.max_loss = run.spikes.max_loss();
    plan.z_loss = static_cast<float>(c.z_loss);
    const uint64_t mine = run.cursor + static_cast<uint64_t>(world->rank()) * run.rank_samples();
    const auto fill = [&](int64_t m, const BatchView& into) {
      run.loader->fill(mine + static_cast<uint64_t>(m * c.batch), into);
      const bool last = m + 1 == run.micro_steps;
      run.loader->prefetch(mine + static_cast<uint64_t>(last ? run.samples : (m + 1) * c.batch), c.batch);
    };
    const std::optional<StepReport> report = run.trainer->step(plan, fill, must_stop);
    if (!report) break;  // stopped between micro-steps: the state is that of the last whole step
    const uint64_t first_sample = run.cursor;
    ++run.step;
    run.cursor += static_cast<uint64_t>(run.samples);
    run.tokens += static_cast<uint64_t>(c.total_batch_tokens);
    const double seconds = seconds_since(start);
    rate.add(static_cast<double>(c.total_batch_tokens), seconds);

    const SpikeVerdict verdict = run.spikes.observe(report->loss, report->grad_norm, report->finite);
    if (verdict.action == SpikeAction::withheld && run.is_first()) {
      const Loader::Place place = run.loader->place(first_sample);
      run.bad_batches->add({run.step, first_sample, static_cast<uint64_t>(run.samples), place.file, place.offset, verdict.reason, false});
    }
    if (verdict.action == SpikeAction::stop) {
      fail("pretrain", concat("step ", run.step, ": ", verdict.reason, "; the budget of --spike-rollbacks ", c.spike_rollbacks,
                              " is used up. bad_batches.jsonl lists the data; a lower --lr or a higher --warmup usually helps"));
    }
    if (verdict.action == SpikeAction::roll_back) {
      if (saved_step == 0) {
        fail("pretrain",
             concat("step ", run.step, ": ", verdict.reason, ", and there is no checkpoint to go back to: lower --lr, or set --save-every"));
      }
      run.roll_back(saved_step, verdict.reason);
      if (metrics) metrics->cut_after(run.step);
      if (tensorboard) tensorboard->restart(run.step + 1);
      continue;
    }

    std::vector<Metric> values = {{"loss", report->loss},
                                  {"lr", plan.lr * c.lr},
                                  {"grad_norm", report->grad_norm},
                                  {"tokens", static_cast<int64_t>(run.tokens)},
                                  {"tokens_per_s", static_cast<double>(c.total_batch_tokens) / seconds},
                                  {"step_ms", seconds * 1e3}};
    if (!report->applied) values.push_back({"withheld", true});
    if (due(c.log_every, run.step) || run.step == steps) {
      StepLine line;
      line.step = run.step, line.steps = steps;
      line.loss = report->loss, line.loss_z = verdict.loss_z;
      line.grad_norm = report->grad_norm, line.norm_z = verdict.norm_z;
      line.lr = plan.lr * c.lr, line.seconds = seconds;
      line.precision = name_of(run.arena->values().dtype());
      line.tokens_per_second = rate.tokens_per_second() > 0 ? rate.tokens_per_second() : static_cast<double>(c.total_batch_tokens) / seconds;
      line.note = report->applied ? "" : "update withheld";
      run.console.step(line);
    }
    run.console.progress("step", run.step, steps, rate.seconds_per_step());

    if (run.evaluator && (due(c.eval_every, run.step) || run.step == steps)) {
      const Clock::time_point eval_start = Clock::now();
      if (const std::optional<EvalResult> result = run.evaluator->run(*run.model, must_stop)) {
        val_loss = result->loss();
        values.push_back({"val_loss", val_loss});
        if (result->bytes) values.push_back({"val_bits_per_byte", result->bits_per_byte()});
        run.console.line(concat("val loss ", val_loss, result->bytes ? concat(" | bits per byte ", result->bits_per_byte()) : "", " | ",
                                result->tokens, " tokens in ", duration_text(seconds_since(eval_start))));
        if (tensorboard) {
          tensorboard->scalar(run.step, "val/loss", val_loss);
          if (result->bytes) tensorboard->scalar(run.step, "val/bits_per_byte", result->bits_per_byte());
        }
      }
    }
    if (due(c.sample_every, run.step)) write_sample(run);
    if (metrics) metrics->write(run.step, values);
    if (tensorboard) {
      tensorboard->scalar(run.step, "train/loss", report->loss);
      tensorboard->scalar(run.step, "train/grad_norm", report->grad_norm);
      tensorboard->scalar(run.step, "train/lr", plan.lr * c.lr);
      tensorboard->scalar(run.step, "train/tokens_per_s", static_cast<double>(c.total_batch_tokens) / seconds);
    }
    if (due(c.save_every, run.step) || run.step == steps) {
      run.save();
      saved_step = run.step;
    }
  }

  run.console.end_progress();
  if (saved_step < run.step) run.save();
  run.checkpoints->wait();
  if (const SaveStats saves = run.checkpoints->stats(); saves.failed_in_a_row > 0) {
    fail("checkpoint",
         concat("the save of step ", run.step, " failed; ",
                saves.committed ? concat("the newest that reached the disk is step ", saves.last_step) : "nothing of this start reached the disk",
                ": mend what the warning above names (free space?) and start the same command again"),
         ExitCode::io);
  }
  if (run.step < steps) {
    run.console.line(concat(name_of(stop), ": saved step ", run.step, " of ", steps, "; start the same command again to go on"));
    return static_cast<int>(ExitCode::requeue);
  }
  // The state is saved as it is, for whoever wants to look; but a model that predicts nothing is no success.
  if (!std::isfinite(val_loss)) {
    fail("pretrain", concat("step ", run.step, " is in ", c.out, ", but its validation loss is ", val_loss,
                            ": the weights have diverged. Go back to an earlier checkpoint (--keep-last, --keep-every) with a lower --lr"));
  }
  run.console.line(concat("done: step ", run.step, " is in ", c.out, "; ", memory_report(run.device)));
  run.console.require_written();
  return 0;
}

}  // namespace heddle
