#include "train/run.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>

#include "core/io/strict_json.h"
#include "core/launch.h"
#include "data/file.h"
#include "kernels/api/pointwise.h"
#include "models/presets.h"
#include "train/environment.h"
#include "train/memory_plan.h"
#include "train/model.h"

namespace heddle {
namespace {

namespace fs = std::filesystem;

ScheduleKind kind_of(ScheduleChoice choice) {
  switch (choice) {
    case ScheduleChoice::cosine: return ScheduleKind::cosine;
    case ScheduleChoice::linear: return ScheduleKind::linear;
    case ScheduleChoice::wsd: return ScheduleKind::wsd;
    case ScheduleChoice::constant: break;
  }
  return ScheduleKind::constant;
}

// --depth leaves batch, rate and horizon open: about 20 tokens a parameter (Hoffmann et al. 2022), and the plain values of small models.
void derive_recipe(RunConfig& c, const TransformerConfig& model) {
  if (c.depth == 0) return;
  const std::string why = "depth " + std::to_string(c.depth);
  if (!c.is_set("steps") && !c.is_set("tokens")) {
    c.tokens = 20 * model.matrix_parameters();
    c.mark_derived("tokens", why);
  }
  if (!c.is_set("optimizer")) {
    c.optimizer = OptimizerChoice::muon;
    c.mark_derived("optimizer", why);
  }
  if (!c.is_set("lr")) {
    c.lr = 3e-3 * std::min(1.0, 512.0 / static_cast<double>(model.dim));
    c.mark_derived("lr", why);
  }
  if (!c.is_set("schedule")) {
    c.schedule = ScheduleChoice::linear;
    c.mark_derived("schedule", why);
  }
}

std::string number(double value, const char* format) {
  char text[64];
  std::snprintf(text, sizeof text, format, value);
  return text;
}

constexpr size_t kMostListBytes = size_t{256} << 20;

// What two shard lists (Loader::shard_list) say of the files in which they differ: "; a.bin was 10 bytes, SHA-256 ..., now ...".
std::string shard_changes(const std::string& saved, const std::string& now) {
  constexpr size_t kMostNamed = 5;
  struct Shard {
    std::string bytes, hash;
    std::string text() const { return concat(bytes, " bytes, SHA-256 ", hash.substr(0, 12)); }
  };
  const auto parse = [](const std::string& list) {
    std::map<std::string, Shard> shards;
    std::istringstream lines(list);
    for (std::string line; std::getline(lines, line);) {
      const size_t hash = line.rfind(' '), bytes = hash == std::string::npos || hash == 0 ? hash : line.rfind(' ', hash - 1);
      if (bytes == std::string::npos || bytes >= hash) continue;
      shards[line.substr(0, bytes)] = {line.substr(bytes + 1, hash - bytes - 1), line.substr(hash + 1)};
    }
    return shards;
  };
  const std::map<std::string, Shard> before = parse(saved), after = parse(now);
  std::vector<std::string> changes;
  for (const auto& [name, shard] : before) {
    const auto it = after.find(name);
    if (it == after.end()) {
      const auto moved =
          std::find_if(after.begin(), after.end(), [&](const auto& s) { return s.second.hash == shard.hash && !before.count(s.first); });
      changes.push_back(moved == after.end() ? concat(name, " (", shard.text(), ") is missing") : concat(name, " is now called ", moved->first));
    } else if (it->second.hash != shard.hash) {
      changes.push_back(concat(name, " was ", shard.text(), ", now ", it->second.text()));
    }
  }
  for (const auto& [name, shard] : after) {
    const bool moved = std::any_of(before.begin(), before.end(), [&](const auto& s) { return s.second.hash == shard.hash && !after.count(s.first); });
    if (!before.count(name) && !moved) changes.push_back(concat(name, " (", shard.text(), ") was not there"));
  }
  std::string text;
  for (size_t i = 0; i < std::min(changes.size(), kMostNamed); ++i) text += "; " + changes[i];
  if (changes.size() > kMostNamed) text += concat("; and ", changes.size() - kMostNamed, " more");
  return text;
}

// Error(io) when a directory of this name cannot be made.
void require_room_for(const std::string& path) {
  std::error_code unknown;
  fs::path at = fs::absolute(path, unknown);
  while (!fs::exists(at, unknown) && at.has_relative_path()) at = at.parent_path();
  if (!fs::is_directory(at, unknown)) {
    fail("pretrain", concat("cannot make the run directory ", path, ": ", at.string(), " is not a directory; choose another --out"), ExitCode::io);
  }
  if (::access(at.c_str(), W_OK | X_OK) != 0) {
    fail("pretrain", concat("cannot make the run directory ", path, ": ", at.string(), ": ", std::generic_category().message(errno)), ExitCode::io);
  }
}

void refuse_unbuilt(const RunConfig& c) {
  if (c.tp > 1 || c.sp) fail("pretrain", "--tp and --sp: this version shares a run over data-parallel ranks only; use --dp", ExitCode::usage);
  if (c.zero > 0) fail("pretrain", "--zero: this version keeps whole optimizer states on every rank; leave it out", ExitCode::usage);
}

}  // namespace

Run::Run(RunConfig given, Communicator& world)
    : config(std::move(given)),
      comm(world),
      console(
          {.enabled = world.rank() == 0, .progress = config.progress, .terminal = !launch_of_this_process().found && ::isatty(STDERR_FILENO) == 1}),
      spikes(SpikeOptions{}) {
  use_threads(config.threads);
  device = choose_device(config.device);
  if (!config.model.empty()) preset(config.model);  // an unknown name is an error before anything is made
  if (config.out.empty()) fail("pretrain", "no run directory: --out RUN", ExitCode::usage);
  refuse_unbuilt(config);
  // Where no job has started yet nothing is made before all else has been found right: a start that fails leaves no trace.
  const bool begun = has_begun();
  if (!begun && config.resume == ResumeMode::must) fail("pretrain", concat(config.out, " holds no checkpoint to resume from"), ExitCode::bad_data);
  if (begun) {
    open_directory();
  } else {
    require_room_for(config.out);
  }
  settle();
  open_data();
  build();
  if (!begun) {
    open_directory();
    if (found_)
      fail("pretrain", concat(config.out, ": another job began a run here while this one started; start again to go on with it"), ExitCode::in_use);
  }
  restore();
  describe();
}

// Whether a job has ever started in the run directory, or its checkpoints were copied here. Rank 0 looks, all learn.
bool Run::has_begun() const {
  std::error_code unknown;
  const bool begun = is_first() && (fs::exists(file("LOCK"), unknown) || fs::exists(file("ckpt"), unknown));
  return comm.gather_text(begun ? "begun" : "").front() == "begun";
}

void Run::open_directory() {
  CheckpointOptions options;
  options.keep_last = static_cast<int>(std::max<int64_t>(2, config.keep_last));
  options.keep_every = static_cast<uint64_t>(config.keep_every);
  options.log = [this](const std::string& line) { console.warn(line); };
  options.on_hung = [this](const Error& e) {
    std::fprintf(stderr, "heddle: %s\n", e.what());  // from whichever rank finds it: the first one may be the one that hangs
    abort_world(static_cast<int>(ExitCode::hung));
  };
  checkpoints = std::make_unique<Checkpoints>(config.out, comm, options);
  const Checkpoints::Resume mode = config.resume == ResumeMode::must    ? Checkpoints::Resume::must
                                   : config.resume == ResumeMode::never ? Checkpoints::Resume::never
                                                                        : Checkpoints::Resume::automatic;
  found_ = checkpoints->find_newest(mode);
  if (found_) {
    ResumedConfig resumed = resume_config(found_->config, config, "the configuration of step " + std::to_string(found_->step));
    for (const ResumeDifference& d : resumed.overridden) {
      console.line(concat("resume: ", d.field, " was ", d.saved, ", now ", d.given, " (", d.origin.place, ")"));
      trajectory_changed_ = trajectory_changed_ || d.resume == ResumeClass::override_with_flag;
    }
    config = std::move(resumed.config);
  }
}

void Run::settle() {
  if (config.dp == 0) {
    config.dp = comm.size();
    config.mark_derived("dp", "the launch");
  }
  if (config.dp != comm.size()) {
    fail("pretrain", concat("--dp ", config.dp, ", but ", comm.size(), " ranks were started; use mpirun -np ", config.dp), ExitCode::usage);
  }
  require_runnable(config);
  validate(config);
  for (const std::string& choice : config.kernel) kernels::force_kernel(choice);
}

// --tokenizer, else the run's own copy, else the one beside the first shards.
void Run::open_tokenizer() {
  const fs::path kept = file("tokenizer.json");
  fs::path from = config.tokenizer;
  if (from.empty()) from = fs::exists(kept) ? kept : fs::path(directory_name(expand_glob(config.data.front()).front())) / "tokenizer.json";
  if (config.tokenizer.empty() && !fs::exists(from)) return;
  tokenizer.emplace(Tokenizer::load(from.string()));
}

void Run::check_memory(int64_t vocab) const {
  RunConfig probe = config;
  const Transformer shape(model_config(probe, vocab));
  derive_recipe(probe, shape.config());
  require_memory("pretrain", probe, shape, compute_dtype(config.precision, device), device, true);
  comm.barrier();  // before any rank takes what another one is still counting on
}

void Run::open_data() {
  open_tokenizer();
  LoaderOptions options;
  options.shards = config.data;
  options.seq = config.seq;
  options.seed = static_cast<uint64_t>(config.seed);
  options.document_mask = config.doc_mask;
  options.prefetch_batch = config.batch;
  if (tokenizer) {
    options.vocab = tokenizer->vocab_size();
    options.eot = tokenizer->eot();
    require_same_tokenizer(config.data.front(), *tokenizer, config.tokenizer.empty() ? "the run's tokenizer" : config.tokenizer);
  } else if (config.is_set("vocab")) {
    options.vocab = config.vocab;
  }
  check_memory(options.vocab.value_or(config.model.empty() ? 2 : 0));  // the vocabulary may be known only to the shards: at least this much
  loader = std::make_unique<Loader>(options);
  if (config.total_batch_tokens == 0) {
    config.total_batch_tokens = config.batch * config.dp * config.seq;
    config.mark_derived("total-batch-tokens", "batch x seq x dp");
  }
  const int64_t micro_samples = config.batch * config.dp;
  samples = config.total_batch_tokens / config.seq;
  if (samples * config.seq != config.total_batch_tokens || samples % micro_samples != 0) {
    fail("pretrain",
         concat("--total-batch-tokens ", config.total_batch_tokens, " is not a multiple of --batch ", config.batch, " x --seq ", config.seq,
                " x --dp ", config.dp, " = ", micro_samples * config.seq),
         ExitCode::usage);
  }
  micro_steps = samples / micro_samples;
  if (!config.val.empty()) {
    WindowOptions windows;
    windows.shards = config.val;
    windows.seq = config.seq;
    windows.pack = config.doc_mask;
    windows.vocab = options.vocab;
    windows.eot = options.eot;
    evaluator = std::make_unique<Evaluator>(windows, config.batch, config.eval_tokens, tokenizer ? &*tokenizer : nullptr, device, comm);
  }
}

void Run::build() {
  check_memory(loader->vocab());
  const TransformerConfig shape = model_config(config, loader->vocab());
  derive_recipe(config, shape);
  if (config.steps == 0) {
    config.steps = std::max<int64_t>(1, config.tokens / config.total_batch_tokens);
    config.mark_derived("steps", "tokens / total-batch-tokens");
  }
  model = std::make_unique<Transformer>(shape);
  arena = std::make_unique<Arena>(*model, device, compute_dtype(config.precision, device));
  arena->init(static_cast<uint64_t>(config.seed));
  const AdamWOptions adamw{.lr = static_cast<float>(config.lr),
                           .weight_decay = static_cast<float>(config.weight_decay),
                           .beta1 = static_cast<float>(config.beta1),
                           .beta2 = static_cast<float>(config.beta2),
                           .eps = static_cast<float>(config.eps)};
  const LrScale lr_scale = [this](const Parameter& p) {
    if (p.same(model->head()) && !model->config().tied) return static_cast<float>(config.head_lr_scale);
    return p.spec().kind == ParamKind::embedding ? static_cast<float>(config.embed_lr_scale) : 1.0f;
  };
  if (config.optimizer == OptimizerChoice::muon) {
    const MuonOptions muon{.lr = static_cast<float>(config.muon_lr),
                           .weight_decay = static_cast<float>(config.weight_decay),
                           .momentum = static_cast<float>(config.muon_momentum)};
    optimizer = make_muon(*arena, muon, adamw, lr_scale);
  } else {
    optimizer = make_adamw(*arena, adamw, lr_scale);
  }
  trainer = std::make_unique<Trainer>(
      *model, *arena, *optimizer, comm,
      Trainer::Options{.batch = config.batch, .seq = config.seq, .document_mask = config.doc_mask, .deterministic = config.deterministic});
  schedule = {.kind = kind_of(config.schedule),
              .steps = static_cast<uint64_t>(config.steps),
              .warmup = static_cast<uint64_t>(config.warmup),
              .final_fraction = config.final_lr_fraction,
              .decay_fraction = config.decay_fraction};
  spikes = SpikeGuard({.z = config.spike_z, .nonfinite_limit = config.nonfinite_limit, .rollbacks = config.spike_rollbacks});
  bad_batches = std::make_unique<BadBatchLedger>(file("bad_batches.jsonl"));
  optimizer->add_state(state);
}

void Run::take_counters() {
  const nlohmann::json saved = parse_strict_json(state.scalars, config.out + " (counters of the checkpoint)");
  try {
    step = saved.at("step");
    cursor = saved.at("cursor");
    trainer->set_counters(step, saved.at("adam_t"), saved.at("skipped"));
    std::array<double, SpikeState::kSize> spike{};
    saved.at("spike").get_to(spike);
    SpikeState memory = SpikeState::unpack(spike);
    // A job killed between a roll-back and its next save has used up budget that no checkpoint records.
    memory.rollbacks = std::max(memory.rollbacks, static_cast<double>(bad_batches->rollbacks()));
    spikes.restore(memory);
    const std::string fingerprint = saved.at("data"), now = loader->fingerprint();
    if (fingerprint != now) {
      std::string list;
      if (fs::exists(file("shards.txt"))) list = read_small_file(file("shards.txt"), kMostListBytes);
      const bool known = Loader::fingerprint_of(list) == fingerprint;  // it only explains; the checkpoint decides
      fail("pretrain",
           concat("the shards of --data are not those this run was trained on (fingerprint ", now.substr(0, 12), ", saved ",
                  fingerprint.substr(0, 12), ")", known ? shard_changes(list, loader->shard_list()) : "",
                  ": give the same files, or start a new run with --init-from ", config.out),
           ExitCode::mismatch);
    }
  } catch (const nlohmann::json::exception&) {
    fail("pretrain",
         concat(config.out,
                ": the checkpoint's counters (step, cursor, adam_t, skipped, spike, data) are not all there or not all numbers; it was "
                "written by another program or version: go back to an older checkpoint, or start a new run with --init-from"),
         ExitCode::bad_data);
  }
}

// Says whether the steps from here on are those of a run that was not stopped.
void Run::compare_with_saved(const std::string& environment) {
  const std::vector<EnvironmentChange> changes = compare_environments(found_->environment, environment);
  for (const EnvironmentChange& c : changes) {
    console.line(concat("resume: ", c.name, " was ", c.saved.empty() ? "not recorded" : c.saved, ", now ", c.now.empty() ? "not recorded" : c.now));
  }
  const std::string but = trajectory_changed_ ? ", but for the options changed above" : "";
  console.line(changes.empty()
                   ? concat("resume: same program, machine and layout: bit for bit the run that was not stopped", but)
                   : "resume: the state is bit for bit the saved one; with what is listed above, the steps from here on may round otherwise");
}

void Run::restore() {
  const std::string environment = environment_text(config, device, comm.size());
  checkpoints->set_environment(environment);
  if (found_) {
    checkpoints->load(state);
    optimizer->masters_changed();
    take_counters();
    resumed_step = step;
    compare_with_saved(environment);
  } else if (!config.init_from.empty()) {
    StateDict weights = model_state(*arena, optimizer->masters());
    read_checkpoint(config.init_from, weights, "model.");
    optimizer->masters_changed();
  }
  checkpoints->prepare(state);
  if (is_first() && (!found_ || step < static_cast<uint64_t>(config.steps))) {  // a finished run's record stays as it was
    if (tokenizer && !fs::exists(file("tokenizer.json"))) tokenizer->save(file("tokenizer.json"));
    replace_file(file("config.toml"), to_toml(config));
    replace_file(file("shards.txt"), loader->shard_list());
  }
}

void Run::describe() {
  const TransformerConfig& m = model->config();
  console.line(table_text("configuration (what is not at its default)", config_rows(config)));
  if (!tokenizer && (evaluator || config.sample_every > 0)) {
    console.warn("there is no tokenizer.json beside the shards: bits per byte are not measured and no samples are written; --tokenizer names one");
  }
  console.line(concat("model: ", m.layers, " layers of ", m.dim, ", ", m.heads, " heads (", m.kv_heads, " KV), vocabulary ", m.vocab, ", ",
                      amount_text(static_cast<double>(model->parameter_count())), " parameters, ", amount_text(m.flops_per_token(config.seq)),
                      "FLOP a token"));
  console.line(
      concat("step: ", config.total_batch_tokens, " tokens = ", comm.size(), " ranks x ", micro_steps, " micro-steps x ", config.batch, " x ",
             config.seq, "; ", config.steps, " steps are ",
             number(static_cast<double>(config.steps) * static_cast<double>(samples) / static_cast<double>(loader->samples_per_epoch()), "%.2f"),
             " epochs"));
  if (resumed_step) console.line(concat("resumed at step ", step));
}

void Run::save() {
  const StepState counters = trainer->counters();
  const nlohmann::json scalars = {{"step", step},
                                  {"cursor", cursor},
                                  {"tokens", step * static_cast<uint64_t>(config.total_batch_tokens)},
                                  {"adam_t", counters.adam_t},
                                  {"skipped", counters.skipped},
                                  {"seed", config.seed},
                                  {"spike", spikes.state().pack()},
                                  {"data", loader->fingerprint()}};
  state.scalars = scalars.dump();
  checkpoints->save(step, state, to_toml(config));
}

void Run::roll_back(uint64_t to, const std::string& reason) {
  const uint64_t bad_end = cursor;
  const uint64_t bad_step = step;
  checkpoints->roll_back();
  checkpoints->find_newest(Checkpoints::Resume::must, to);
  checkpoints->load(state);
  optimizer->masters_changed();
  const SpikeState before = spikes.state();
  take_counters();
  SpikeState after = spikes.state();
  after.rollbacks = before.rollbacks;  // going back does not refill the budget
  spikes.restore(after);
  const Loader::Place place = loader->place(cursor);
  if (is_first()) bad_batches->add({bad_step, cursor, bad_end - cursor, place.file, place.offset, reason, true});
  console.warn(concat("rolled back from step ", bad_step, " to ", step, ": ", reason, "; samples [", cursor, ", ", bad_end, ") are left out"));
  cursor = bad_end;
}

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
