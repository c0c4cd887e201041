#include "train/pretrain.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "core/arena.h"
#include "core/io/strict_json.h"
#include "core/storage.h"
#include "data/loader.h"
#include "data/tokenizer.h"
#include "models/transformer.h"
#include "optim/optimizer.h"
#include "optim/schedule.h"
#include "parallel/communicator.h"
#include "train/checkpoint/checkpoints.h"
#include "train/evaluate.h"
#include "train/model.h"
#include "train/sampling.h"
#include "train/trainer.h"

namespace heddle {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// One run from its configuration to its last checkpoint. The members below stand in the order in which they come to life.
class Pretraining {
 public:
  Pretraining(RunConfig config, Communicator& comm) : config_(std::move(config)), comm_(comm) {}

  int run() {
    open_run();
    open_data();
    build();
    restore();
    return loop();
  }

 private:
  bool is_first() const { return comm_.rank() == 0; }
  int64_t ranks() const { return comm_.size(); }

  void open_run() {
    use_threads(config_.threads);
    device_ = choose_device(config_.device);
    if (config_.out.empty()) fail("pretrain", "no run directory: --out RUN", ExitCode::usage);
    CheckpointOptions options;
    options.keep_last = static_cast<int>(config_.keep_last);
    options.keep_every = static_cast<uint64_t>(config_.keep_every);
    options.log = [this](const std::string& line) {
      if (is_first()) std::fprintf(stderr, "checkpoint: %s\n", line.c_str());
    };
    checkpoints_ = std::make_unique<Checkpoints>(config_.out, comm_, options);
    found_ = checkpoints_->find_newest(static_cast<Checkpoints::Resume>(config_.resume));
    if (found_) {
      ResumedConfig resumed = resume_config(found_->config, config_, config_.out + "/config.toml of step " + std::to_string(found_->step));
      for (const ResumeDifference& d : resumed.overridden) {
        if (is_first()) std::printf("resume: %s was %s, now %s (%s)\n", d.field.c_str(), d.saved.c_str(), d.given.c_str(), d.origin.place.c_str());
      }
      config_ = std::move(resumed.config);
    }
    if (config_.dp == 0) config_.dp = ranks() / config_.tp;
    if (config_.dp * config_.tp != ranks()) {
      fail("pretrain",
           concat("--dp ", config_.dp, " x --tp ", config_.tp, " ranks, but ", ranks(), " were started; use mpirun -np ", config_.dp * config_.tp),
           ExitCode::usage);
    }
    require_runnable(config_);
    validate(config_);
  }

  void open_data() {
    LoaderOptions options;
    options.shards = config_.data;
    options.seq = config_.seq;
    options.seed = static_cast<uint64_t>(config_.seed);
    options.document_mask = config_.doc_mask;
    options.prefetch_batch = config_.batch;
    open_tokenizer();
    if (tokenizer_) {
      options.vocab = tokenizer_->vocab_size();
      options.eot = tokenizer_->eot();
    } else if (config_.is_set("vocab")) {
      options.vocab = config_.vocab;
    }
    loader_ = std::make_unique<Loader>(options);
    samples_ = config_.total_batch_tokens / config_.seq;
    if (config_.total_batch_tokens == 0) {
      samples_ = config_.batch * config_.dp;
      config_.total_batch_tokens = samples_ * config_.seq;
      config_.mark_derived("total-batch-tokens", "batch x seq x dp");
    }
    if (samples_ * config_.seq != config_.total_batch_tokens || samples_ % (config_.batch * config_.dp) != 0) {
      fail("pretrain",
           concat("--total-batch-tokens ", config_.total_batch_tokens, " is not a multiple of --batch ", config_.batch, " x --seq ", config_.seq,
                  " x --dp ", config_.dp, " = ", config_.batch * config_.seq * config_.dp),
           ExitCode::usage);
    }
    micro_steps_ = samples_ / (config_.batch * config_.dp);
    if (config_.steps == 0) {
      config_.steps = std::max<int64_t>(1, config_.tokens / config_.total_batch_tokens);
      config_.mark_derived("steps", "tokens / total-batch-tokens");
    }
    if (!config_.val.empty()) {
      WindowOptions windows;
      windows.shards = config_.val;
      windows.seq = config_.seq;
      windows.pack = config_.doc_mask;
      windows.vocab = options.vocab;
      windows.eot = options.eot;
      evaluator_ = std::make_unique<Evaluator>(windows, config_.batch, config_.eval_tokens, tokenizer_ ? &*tokenizer_ : nullptr, device_, comm_);
    }
  }

  // --tokenizer, else the tokenizer.json of the run, else the one beside the first shard; a run keeps a copy.
  void open_tokenizer() {
    const fs::path kept = fs::path(config_.out) / "tokenizer.json";
    fs::path from = config_.tokenizer;
    if (from.empty()) from = fs::exists(kept) ? kept : fs::path(config_.data.front()).parent_path() / "tokenizer.json";
    if (config_.tokenizer.empty() && !fs::exists(from)) return;
    tokenizer_.emplace(Tokenizer::load(from.string()));
    if (is_first() && !fs::exists(kept)) tokenizer_->save(kept.string());
  }

  void build() {
    const TransformerConfig model = model_config(config_, loader_->vocab());
    model_ = std::make_unique<Transformer>(model);
    arena_ = std::make_unique<Arena>(*model_, device_, compute_dtype(config_.precision, device_));
    arena_->init(static_cast<uint64_t>(config_.seed));
    const AdamWOptions adamw{.lr = static_cast<float>(config_.lr),
                             .weight_decay = static_cast<float>(config_.weight_decay),
                             .beta1 = static_cast<float>(config_.beta1),
                             .beta2 = static_cast<float>(config_.beta2),
                             .eps = static_cast<float>(config_.eps)};
    const LrScale lr_scale = [this](const Parameter& p) {
      if (p.same(model_->head()) && !model_->config().tied) return static_cast<float>(config_.head_lr_scale);
      return p.spec().kind == ParamKind::embedding ? static_cast<float>(config_.embed_lr_scale) : 1.0f;
    };
    if (config_.optimizer == OptimizerChoice::muon) {
      const MuonOptions muon{.lr = static_cast<float>(config_.muon_lr),
                             .weight_decay = static_cast<float>(config_.weight_decay),
                             .momentum = static_cast<float>(config_.muon_momentum)};
      optimizer_ = make_muon(*arena_, muon, adamw, lr_scale);
    } else {
      optimizer_ = make_adamw(*arena_, adamw, lr_scale);
    }
    trainer_ = std::make_unique<Trainer>(
        *model_, *arena_, *optimizer_, comm_,
        Trainer::Options{.batch = config_.batch, .seq = config_.seq, .document_mask = config_.doc_mask, .deterministic = config_.deterministic});
    schedule_ = {.kind = static_cast<ScheduleKind>(schedule_index()),
                 .steps = static_cast<uint64_t>(config_.steps),
                 .warmup = static_cast<uint64_t>(config_.warmup),
                 .final_fraction = config_.final_lr_fraction,
                 .decay_fraction = config_.decay_fraction};
    optimizer_->add_state(state_);
  }

  ScheduleKind schedule_index() const {
    switch (config_.schedule) {
      case ScheduleChoice::cosine: return ScheduleKind::cosine;
      case ScheduleChoice::linear: return ScheduleKind::linear;
      case ScheduleChoice::constant: return ScheduleKind::constant;
      case ScheduleChoice::wsd: return ScheduleKind::wsd;
    }
    return ScheduleKind::constant;
  }

  void restore() {
    if (found_) {
      checkpoints_->load(state_);
      optimizer_->masters_changed();
      const nlohmann::json saved = parse_strict_json(state_.scalars, config_.out + " (counters)");
      step_ = saved.at("step");
      cursor_ = saved.at("cursor");
      trainer_->set_counters(step_, saved.at("adam_t"), saved.at("skipped"));
      const std::string fingerprint = saved.at("data");
      if (fingerprint != loader_->fingerprint()) {
        fail("pretrain",
             concat("the shards of --data are not those this run was trained on (fingerprint ", loader_->fingerprint().substr(0, 12), ", saved ",
                    fingerprint.substr(0, 12), "): give the same files, or start a new run with --init-from"),
             ExitCode::mismatch);
      }
    }
    checkpoints_->prepare(state_);
    if (is_first()) {
      std::ofstream(fs::path(config_.out) / "config.toml") << to_toml(config_);
      describe();
    }
  }

  void describe() const {
    const TransformerConfig& m = model_->config();
    std::printf("model: %lld layers, dim %lld, %lld heads (%lld KV), vocabulary %lld, %.2fM parameters (%.2fM in products)\n",
                static_cast<long long>(m.layers), static_cast<long long>(m.dim), static_cast<long long>(m.heads), static_cast<long long>(m.kv_heads),
                static_cast<long long>(m.vocab), static_cast<double>(model_->parameter_count()) / 1e6,
                static_cast<double>(m.matrix_parameters()) / 1e6);
    std::printf("step: %lld tokens = %lld ranks x %lld micro-steps x %lld sequences of %lld; %lld steps, %.2f epochs\n",
                static_cast<long long>(config_.total_batch_tokens), static_cast<long long>(ranks()), static_cast<long long>(micro_steps_),
                static_cast<long long>(config_.batch), static_cast<long long>(config_.seq), static_cast<long long>(config_.steps),
                static_cast<double>(config_.steps * samples_) / static_cast<double>(loader_->samples_per_epoch()));
    if (step_) std::printf("resumed at step %llu\n", static_cast<unsigned long long>(step_));
    std::fflush(stdout);
  }

  void save() {
    const StepState counters = trainer_->counters();
    nlohmann::json scalars = {{"step", step_},
                              {"cursor", cursor_},
                              {"tokens", step_ * static_cast<uint64_t>(config_.total_batch_tokens)},
                              {"adam_t", counters.adam_t},
                              {"skipped", counters.skipped},
                              {"seed", config_.seed},
                              {"data", loader_->fingerprint()}};
    state_.scalars = scalars.dump();
    checkpoints_->save(step_, state_, to_toml(config_));
  }

  void evaluate() {
    if (!evaluator_) return;
    const Clock::time_point start = Clock::now();
    const std::optional<EvalResult> result = evaluator_->run(*model_);
    if (!is_first() || !result) return;
    std::printf("step %llu | val loss %.4f | bits per byte %.4f | %.1f s\n", static_cast<unsigned long long>(step_), result->loss(),
                result->bits_per_byte(), seconds_since(start));
    std::fflush(stdout);
  }

  int loop() {
    const auto steps = static_cast<uint64_t>(config_.steps);
    const auto rank_samples = static_cast<uint64_t>(samples_ / ranks());
    double smooth = 0, weight = 0;
    uint64_t last_saved = step_;
    while (step_ < steps) {
      const Clock::time_point start = Clock::now();
      StepPlan plan;
      plan.micro_steps = micro_steps_;
      plan.valid_targets = loader_->valid_targets(cursor_, static_cast<uint64_t>(samples_));
      plan.lr = static_cast<float>(schedule_.factor(step_));
      plan.clip_norm = static_cast<float>(config_.grad_clip);
      plan.z_loss = static_cast<float>(config_.z_loss);
      const uint64_t mine = cursor_ + static_cast<uint64_t>(comm_.rank()) * rank_samples;
      const StepReport report = trainer_->step(plan, [&](int64_t m, const BatchView& into) {
        loader_->fill(mine + static_cast<uint64_t>(m * config_.batch), into);
        const bool last = m + 1 == micro_steps_;
        const uint64_t next = last ? mine + static_cast<uint64_t>(samples_) : mine + static_cast<uint64_t>((m + 1) * config_.batch);
        loader_->prefetch(next, config_.batch);
      });
      ++step_;
      cursor_ += static_cast<uint64_t>(samples_);
      const double seconds = seconds_since(start);
      const double rate = static_cast<double>(config_.total_batch_tokens) / seconds;
      smooth = 0.95 * smooth + 0.05 * rate, weight = 0.95 * weight + 0.05;
      if (is_first() && config_.log_every > 0 && (step_ % static_cast<uint64_t>(config_.log_every) == 0 || step_ == steps)) {
        std::printf("step %4llu/%llu | loss %.6f | norm %.4f | lr %.2e | %.2f ms | %.0f tok/s\n", static_cast<unsigned long long>(step_),
                    static_cast<unsigned long long>(steps), report.loss, report.grad_norm, plan.lr * config_.lr, seconds * 1e3, smooth / weight);
        std::fflush(stdout);
      }
      if (config_.eval_every > 0 && (step_ % static_cast<uint64_t>(config_.eval_every) == 0 || step_ == steps)) evaluate();
      if ((config_.save_every > 0 && step_ % static_cast<uint64_t>(config_.save_every) == 0) || step_ == steps) {
        save();
        last_saved = step_;
      }
    }
    if (last_saved < step_) save();
    checkpoints_->wait();
    return 0;
  }

  RunConfig config_;
  Communicator& comm_;
  Device device_;
  std::unique_ptr<Checkpoints> checkpoints_;
  std::optional<Checkpoints::Loaded> found_;
  std::optional<Tokenizer> tokenizer_;
  std::unique_ptr<Loader> loader_;
  std::unique_ptr<Evaluator> evaluator_;
  int64_t samples_ = 0, micro_steps_ = 1;
  std::unique_ptr<Transformer> model_;
  std::unique_ptr<Arena> arena_;
  std::unique_ptr<Optimizer> optimizer_;
  std::unique_ptr<Trainer> trainer_;
  Schedule schedule_;
  StateDict state_;
  uint64_t step_ = 0, cursor_ = 0;
};

}  // namespace

int pretrain(RunConfig config) {
  const std::unique_ptr<Communicator> world = world_communicator();
  return Pretraining(std::move(config), *world).run();
}

}  // namespace heddle
