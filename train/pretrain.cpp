#include "train/pretrain.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <csignal>
#include <deque>
#include <memory>

#include "checkpoint/plan.h"
#include "core/launch.h"
#include "core/storage.h"
#include "infer/device_state.h"
#include "kernels/api/printable.h"
#include "kernels/api/reduce.h"
#include "parallel/launch.h"
#include "parallel/pulse.h"
#include "parallel/watchdog.h"
#include "train/config/shape.h"
#include "train/dry_run.h"
#include "train/replicas.h"
#include "train/report/utilisation.h"
#include "train/run.h"
#include "train/run_logs.h"
#include "train/signals.h"

namespace heddle {
namespace {

using Clock = std::chrono::steady_clock;
double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

bool due(int64_t every, uint64_t step) {
  return every > 0 && step % static_cast<uint64_t>(every) == 0;
}

constexpr int kInterrupted = 128 + SIGINT;

// Ends the record of a step whose validation a stop cut short: the next start makes up for it.
constexpr std::string_view kValidationStopped = "val_stopped";

void add_validation(std::vector<Metric>& values, const EvalResult& result) {
  values.push_back({"val_loss", result.loss()});
  if (result.bytes) values.push_back({"val_bits_per_byte", result.bits_per_byte()});
}

// A step that was queued, on its way through the loop.
struct Step {
  StepPlan plan;
  uint64_t number = 0, first_sample = 0, cursor = 0, tokens = 0;  // the run's counters once it is done
  Clock::time_point begun;
  StepState result;
  double seconds = 0;
  std::optional<EvalResult> validation;
  bool validation_stopped = false;  // it was due, and is still owed
};

// One start of a run: from the state it finds to the horizon, or to the first reason to stop.
class Loop {
 public:
  Loop(Run& run, const StopSignals& signals)
      : run_(run),
        config_(run.config),
        signals_(signals),
        lines_(config_.log_every, static_cast<uint64_t>(config_.steps)),
        steps_(static_cast<uint64_t>(config_.steps)),
        late_(run.device.type == DeviceType::cpu ? 0 : 1),
        saved_step_(run.step) {
    if (run.device.type != DeviceType::cuda) return;
    const std::string gpu = runtime(run.device.type).describe(run.device.index);  // "NVIDIA H200, sm_90, ..."
    peak_flops_ = peak_flops(std::string_view(gpu).substr(0, gpu.find(',')));
  }

  // The exit code.
  int go() {
    if (run_.resumed_step && !weights_are_finite()) fail_diverged(concat("the saved weights of step ", run_.step));
    owes_validation_ = owed_validation();
    if (run_.resumed_step && run_.step >= steps_ && !owes_validation_) {
      run_.console.line(concat("the run in ", config_.out, " is already at step ", run_.step, " of ", steps_, ": done"));
      run_.console.require_written();
      return 0;
    }
    if (run_.step < steps_) run_.write_files();
    logs_.emplace(run_);
    if (owes_validation_) make_up_validation();
    while (run_.step < steps_ && train()) settle(rests_after(run_.step) ? 0 : late_);
    settle(0);  // stopped before an update: the state is that of the last whole step
    return finish();
  }

 private:
  bool must_stop();
  bool owed_validation() const;
  void make_up_validation();
  bool weights_are_finite() const;
  [[noreturn]] void fail_diverged(const std::string& what) const;
  [[noreturn]] void fail_spent(const Step& step, const std::string& why, const SpikeVerdict& verdict) const;
  bool rests_after(uint64_t step) const;
  bool train();
  void settle(size_t outstanding);
  bool rolled_back(const Step& step, const SpikeVerdict& verdict);
  double utilisation(double tokens_per_second) const;
  void print(const Step& step);
  void validate(Step& step);
  void show_validation(const EvalResult& result);
  void sample();
  void log(const Step& step);
  void save();
  int finish();

  Run& run_;
  const RunConfig& config_;
  const StopSignals& signals_;
  std::optional<Logs> logs_;  // a run that is done leaves its record as it is
  RateMeter rate_;
  double peak_flops_ = 0;  // of a rank's GPU; 0: not known
  LossMeter loss_;
  LineTimer lines_;
  const uint64_t steps_;
  const size_t late_;                // a device is given the next step before the result of the last one is waited for; a CPU has it when it is done
  std::deque<Step> queued_;          // the newest ones, whose results were not looked at yet
  Clock::time_point settled_;        // when the newest result was there
  uint64_t saved_step_;              // the state of this step is on the disk, or on its way
  bool has_trained_ = false;         // this start took a step
  double val_loss_ = 0;              // the newest
  bool owes_validation_ = false;     // of the step at hand: a stop came in between
  std::optional<Error> unreadable_;  // what this rank found of its data
  StopReason stop_ = StopReason::none;
};

// Whether any rank has a reason to stop; every rank gets the same answer. Collective. A start that is out of time takes one step all the same, so
// that a loop of starts with a limit too short for any gets somewhere.
bool Loop::must_stop() {
  mark_progress();
  stop_ = signals_.poll().reason;
  if (stop_ == StopReason::time_limit && !has_trained_) stop_ = StopReason::none;
  if (unreadable_) stop_ = StopReason::unreadable;
  stop_ = static_cast<StopReason>(run_.control().vote_max(static_cast<int>(stop_)));
  return stop_ != StopReason::none;
}

// One sum over the weights that this rank keeps: a NaN or an infinity among them makes it one. Collective.
bool Loop::weights_are_finite() const {
  const Tensor sum = Tensor::zeros({}, DType::f64, run_.device);
  for (const PackedRange& range : run_.optimizer->owned()) {
    const View masters = flat_view(run_.optimizer->masters(), {range.at, range.at + range.arena.size()});
    launch(kernels::sum, {.x = masters, .out = {sum.view(), true}}, run_.device);
  }
  return run_.control().vote_max(std::isfinite(sum.item()) ? 0 : 1) == 0;
}

void Loop::fail_diverged(const std::string& what) const {
  fail("pretrain", concat(what, " hold NaN or infinity: the run has diverged. They are kept in ", config_.out, "/ckpt/s", run_.step,
                          "-i* for whoever wants to look; delete that folder to go on from the checkpoint before it, with a lower --lr"));
}

// Nothing of a run that came to this is saved: what it had learned may have been going wrong for long.
void Loop::fail_spent(const Step& step, const std::string& why, const SpikeVerdict& verdict) const {
  const uint64_t lost = step.number - saved_step_;
  const std::string steps = counted(lost, "step"), are = lost == 1 ? " is lost" : " are lost";
  fail("pretrain", concat("step ", step.number, ": ", verdict.reason, ", and ", why, ". ",
                          saved_step_ == 0 ? concat("Nothing was saved yet: the ", steps, " of this run", are, "; a smaller --save-every (now ",
                                                    config_.save_every, ") keeps more")
                                           : concat("The ", steps, " since the checkpoint of step ", saved_step_, are),
                          ". A lower --lr or a higher --warmup usually helps",
                          config_.spike_z > 0 ? "" : ", and --spike-z 6 withholds updates that stand out before they do harm",
                          "; bad_batches.jsonl lists the data"));
}

// Whether something is to be done with the state after a step, so that no further one may be begun before its result was looked at.
bool Loop::rests_after(uint64_t step) const {
  return step == steps_ || (run_.evaluator && due(config_.eval_every, step)) || due(config_.sample_every, step) || due(config_.save_every, step) ||
         (run_.control().size() > 1 && due(config_.replica_check_every, step));
}

// Queues a step. False: stopped.
bool Loop::train() {
  Step step;
  step.begun = Clock::now();
  const Phase& phase = has_trained_ ? phase::kStep : phase::kFirstStep;
  enter(phase, run_.step);
  const uint64_t first = run_.bad_batches->next_clean(run_.cursor, static_cast<uint64_t>(run_.samples));
  StepPlan& plan = step.plan;
  plan.micro_steps = run_.micro_steps;
  plan.valid_targets = run_.loader->valid_targets(first, static_cast<uint64_t>(run_.samples));
  plan.lr = static_cast<float>(run_.schedule.factor(run_.step));
  plan.clip_norm = static_cast<float>(config_.grad_clip);
  plan.spike_z = config_.spike_z;
  plan.z_loss = static_cast<float>(config_.z_loss);
  const uint64_t mine = first + static_cast<uint64_t>(run_.control().rank()) * run_.rank_samples();
  const auto fill = [&](int64_t m, const BatchView& into) {
    enter(phase::kData);
    try {
      run_.loader->fill(mine + static_cast<uint64_t>(m * config_.batch), into);
    } catch (const Error& e) {  // a shard that was cut, or a disk that is gone: all ranks hear of it before anything is computed from it
      unreadable_ = e;
      return;
    }
    enter(phase);
    const bool last = m + 1 == run_.micro_steps;
    run_.loader->prefetch(mine + static_cast<uint64_t>(last ? run_.samples : (m + 1) * config_.batch), config_.batch);
  };
  if (!run_.trainer->start(plan, fill, [this] { return must_stop(); })) return false;
  has_trained_ = true;
  step.first_sample = first;
  step.number = ++run_.step;
  step.cursor = run_.cursor = first + static_cast<uint64_t>(run_.samples);
  step.tokens = run_.tokens += static_cast<uint64_t>(config_.total_batch_tokens);
  queued_.push_back(step);
  return true;
}

// Looks at the results of steps until as many are outstanding, and does what is due after them. The run's own counters are those of the step at hand
// where something rests on its state.
void Loop::settle(size_t outstanding) {
  while (queued_.size() > outstanding) {
    Step step = std::move(queued_.front());
    queued_.pop_front();
    {
      const Waiting waiting;  // for the device, whose kernels wait for other ranks
      step.result = run_.trainer->result();
    }
    mark_progress();
    // From when it could begin: the device was busy with the one before.
    step.seconds = std::chrono::duration<double>(Clock::now() - std::max(step.begun, settled_)).count();
    settled_ = Clock::now();
    rate_.add(static_cast<double>(config_.total_batch_tokens), step.seconds);
    if (rolled_back(step, run_.spikes.judge(step.result))) continue;
    print(step);
    const bool last = step.number == steps_;
    if (due(config_.replica_check_every, step.number)) {
      run_.trainer->join_values();
      require_equal_replicas(run_.state, run_.arena->values().view(), run_.control(), copy_out_of(run_.device), step.number, saved_step_);
    }
    if (run_.evaluator && (due(config_.eval_every, step.number) || last)) validate(step);
    if (due(config_.sample_every, step.number)) sample();
    log(step);
    if (due(config_.save_every, step.number) || last) save();
  }
}

// Acts on the verdict on a step: writes down what was withheld, goes back to the last checkpoint (true), or gives up.
bool Loop::rolled_back(const Step& step, const SpikeVerdict& verdict) {
  if (verdict.action == SpikeAction::withheld && run_.is_first()) {
    const Loader::Place place = run_.loader->place(step.first_sample);
    try {
      run_.bad_batches->add({step.number, step.first_sample, static_cast<uint64_t>(run_.samples), place.file, place.offset, verdict.reason, false});
    } catch (const Error& e) {
      run_.console.warn(e.what());  // for people to look at; a replay withholds the step again by itself
    }
  }
  if (verdict.action == SpikeAction::stop)
    fail_spent(step, concat("the budget of --spike-rollbacks ", config_.spike_rollbacks, " is used up"), verdict);
  if (verdict.action != SpikeAction::roll_back) return false;
  if (saved_step_ == 0) fail_spent(step, "there is no checkpoint to go back to", verdict);
  for (; !queued_.empty(); queued_.pop_front()) run_.trainer->result();  // begun from a state that is given up
  run_.step = step.number, run_.cursor = step.cursor, run_.tokens = step.tokens;
  run_.roll_back(saved_step_, verdict.reason);
  saved_step_ = run_.step;  // an earlier one where the newest save had failed
  logs_->cut_after(run_.step);
  loss_ = {};
  return true;
}

// Of the arithmetic that the ranks' GPUs could do at most, the share that the model needs for so many tokens; 0: their peak is not known.
double Loop::utilisation(double tokens_per_second) const {
  return peak_flops_ > 0 ? tokens_per_second * run_.learner->flops_per_token(config_.seq) / (peak_flops_ * run_.control().size()) : 0;
}

void Loop::print(const Step& step) {
  if (std::isfinite(step.result.loss)) loss_.add(step.result.loss);
  if (lines_.due(step.number)) {
    StepLine line;
    line.step = step.number, line.steps = steps_;
    line.loss = std::isfinite(step.result.loss) ? loss_.value() : step.result.loss;
    line.grad_norm = step.result.grad_norm;
    line.lr = step.plan.lr * config_.lr;
    line.tokens_per_second =
        rate_.tokens_per_second() > 0 ? rate_.tokens_per_second() : static_cast<double>(config_.total_batch_tokens) / step.seconds;
    line.utilisation = utilisation(line.tokens_per_second);
    line.note = step.result.apply ? "" : "withheld";
    run_.console.step(line);
  }
  run_.console.progress("step", step.number, steps_, rate_.seconds_per_step());
}

void Loop::validate(Step& step) {
  const Clock::time_point start = Clock::now();
  enter(phase::kEval, run_.step);
  step.validation = run_.evaluator->run(
      [this](const Tensor& tokens, const Tensor& targets, const Tensor& start) { return run_.learner->token_losses(tokens, targets, start); },
      [this] { return must_stop(); }, [this](const Error& e) { unreadable_ = e; });
  owes_validation_ = step.validation_stopped = !step.validation;
  if (!step.validation) return;
  const EvalResult& result = *step.validation;
  val_loss_ = result.loss();
  run_.console.line(concat("step ", run_.step, " | val loss ", val_loss_, result.bytes ? concat(" | bits per byte ", result.bits_per_byte()) : "",
                           " | ", counted(result.tokens, "token"), " in ", duration_text(seconds_since(start))));
}

// What the model makes of the prompt: on every rank, since a model may lie on several; rank 0 writes it down. A sample that fails ends nothing.
void Loop::sample() {
  if (!run_.tokenizer) return;
  enter(phase::kSample, run_.step);
  const Tokenizer& tokenizer = *run_.tokenizer;
  std::string text = config_.sample_prompt;
  try {
    std::vector<int32_t> prompt = tokenizer.encode(text);
    prompt.insert(prompt.begin(), tokenizer.eot());
    const SamplingOptions sampling{.temperature = 0.8, .top_k = 50, .seed = static_cast<uint64_t>(config_.seed), .vocab = tokenizer.vocab_size()};
    const bool can = run_.learner->generate(prompt, config_.sample_tokens, sampling, [&](int32_t token, const Tensor&) {
      mark_progress();
      if (token == tokenizer.eot()) return false;
      text += tokenizer.bytes_of(token);
      return true;
    });
    if (!can) return run_.console.warn(concat("no sample of step ", run_.step, ": the program's model cannot be sampled from (Learner::generate)"));
  } catch (const std::exception& error) {  // a look at the model, no part of its training
    return run_.console.warn(concat("no sample of step ", run_.step, ": ", error.what()));
  }
  if (logs_->samples) logs_->samples->write(run_.step, text);
  run_.console.line(concat("step ", run_.step, " | sample: ", text));
}

void Loop::log(const Step& step) {
  const StepState& result = step.result;
  const double tokens_per_second = static_cast<double>(config_.total_batch_tokens) / step.seconds, lr = step.plan.lr * config_.lr;
  std::vector<Metric> values = {{"loss", result.loss},
                                {"lr", lr},
                                {"grad_norm", double{result.grad_norm}},
                                {"tokens", static_cast<int64_t>(step.tokens)},
                                {"tokens_per_s", tokens_per_second},
                                {"step_ms", step.seconds * 1e3}};
  if (const double used = utilisation(tokens_per_second); used > 0) values.push_back({"mfu", used});
  if (!result.apply) values.push_back({"withheld", true});
  if (step.validation) add_validation(values, *step.validation);
  if (step.validation_stopped) values.push_back({kValidationStopped, true});
  if (logs_->metrics) logs_->metrics->write(step.number, values);
  if (!logs_->events) return;
  TensorBoardLog& events = *logs_->events;
  events.scalar(step.number, "train/loss", result.loss);
  events.scalar(step.number, "train/grad_norm", double{result.grad_norm});
  events.scalar(step.number, "train/lr", lr);
  events.scalar(step.number, "train/tokens_per_s", tokens_per_second);
  if (step.validation) show_validation(*step.validation);
}

// Whether the newest start ended inside the validation of the step it saved. Rank 0 looks, all learn.
bool Loop::owed_validation() const {
  if (!run_.resumed_step || !run_.evaluator) return false;
  const bool owed = run_.is_first() && last_record_owes(run_.file("metrics.jsonl"), run_.step, kValidationStopped);
  return run_.control().gather_text(owed ? "owed" : "").front() == "owed";
}

void Loop::make_up_validation() {
  Step step;
  validate(step);
  if (!step.validation) return;
  std::vector<Metric> values;
  add_validation(values, *step.validation);
  if (logs_->metrics) logs_->metrics->pay(run_.step, kValidationStopped, values);
  if (logs_->events) show_validation(*step.validation);
}

void Loop::show_validation(const EvalResult& result) {
  logs_->events->scalar(run_.step, "val/loss", result.loss());
  if (result.bytes) logs_->events->scalar(run_.step, "val/bits_per_byte", result.bits_per_byte());
}

// Weights that are no numbers are saved for whoever wants to look, and end the run: later saves would push out the good checkpoints before them.
void Loop::save() {
  enter(phase::kSave, run_.step);
  const bool finite = weights_are_finite();
  run_.save();
  saved_step_ = run_.step;
  if (finite) return;
  run_.console.end_progress();
  run_.checkpoints->wait();
  fail_diverged(concat("the weights after step ", run_.step));
}

// The last save, and what the run comes to.
int Loop::finish() {
  run_.console.end_progress();
  if (saved_step_ < run_.step) save();
  enter(phase::kSave, run_.step);
  run_.checkpoints->wait();
  enter(phase::kEnd);
  if (const SaveStats saves = run_.checkpoints->stats(); saves.failed_in_a_row > 0) {
    fail("checkpoint",
         concat("the save of step ", run_.step, " failed; ",
                saves.committed ? concat("the newest that reached the disk is step ", saves.last_step) : "nothing of this start reached the disk",
                ": mend what the warning above names (free space?) and start the same command again"),
         ExitCode::io);
  }
  // Data that a rank could not read: the state of before is saved, and all ranks end with what that rank found.
  agree(run_.control(), [this] {
    if (unreadable_) throw *unreadable_;
    return std::string();
  });
  if (run_.step < steps_ || owes_validation_) {
    run_.console.line(concat(name_of(stop_), ": ", run_.step > 0 ? concat("saved step ", run_.step, " of ", steps_) : "no step was taken yet",
                             owes_validation_ ? ", its validation is still to come" : "", "; start the same command again to go on"));
    return stop_ == StopReason::interrupt ? kInterrupted : static_cast<int>(ExitCode::requeue);
  }
  // The state is saved as it is; but a model that predicts nothing is no success.
  if (!std::isfinite(val_loss_)) {
    fail("pretrain", concat("step ", run_.step, " is in ", config_.out, ", but its validation loss is ", val_loss_,
                            ": the weights have diverged. Go back to an earlier checkpoint (--keep-last, --keep-every) with a lower --lr"));
  }
  const double rate = rate_.tokens_per_second(), used = utilisation(rate);
  std::string speed;
  if (rate > 0) speed = concat("; ", amount_text(rate), " tok/s");
  if (rate > 0 && run_.control().size() > 1) speed += concat(", ", amount_text(rate / run_.control().size()), " a rank");
  if (used > 0) speed += concat(", MFU ", std::lround(100 * used), " %");
  run_.console.line(concat("done: step ", run_.step, " is in ", config_.out, "; peak memory ",
                           bytes_text(static_cast<double>(memory_stats(run_.device).peak_total)), speed));
  run_.console.require_written();
  // Whoever pressed Ctrl-C while the last save was written wants what comes next to stop as well.
  return signals_.poll().reason == StopReason::interrupt ? kInterrupted : 0;
}

}  // namespace

int pretrain(RunConfig given) {
  return pretrain(std::move(given), {});
}

int pretrain(RunConfig given, const MakeLearner& make, std::function<double()> elapsed) {
  if (!elapsed) elapsed = [begun = Clock::now()] { return seconds_since(begun); };
  std::unique_ptr<Control> world = world_control(given.hang_timeout);
  if (given.dry_run) {
    if (make) fail_usage("pretrain", "--dry-run plans the models that options describe, and this program brings its own");
    if (world->rank() == 0) dry_run(given);
    return 0;
  }
  enter(phase::kStartUp, 0);
  const StopSignals signals(given.time_limit, world->rank() == 0);
  const Watchdog watchdog(*world, {.limit = given.hang_timeout, .stretch = !given.is_stated("hang-timeout"), .report = {}, .end = {}});
  const int ranks = world->size();
  // NCCL gives up before the watchdog does, and says more; without limit after months.
  Mesh mesh(std::move(world), ranks, 1, choose_device(given.device), {.patience = given.hang_timeout > 0 ? given.hang_timeout / 2 : 1e7});
  Run run(std::move(given), mesh, make, elapsed);
  if (const std::string unused = unused_places(); !unused.empty()) run.console.warn(unused);
  return Loop(run, signals).go();
}

}  // namespace heddle
