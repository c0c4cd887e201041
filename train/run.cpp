#include "train/run.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <filesystem>

#include "checkpoint/loading.h"
#include "data/file.h"
#include "infer/device_state.h"
#include "infer/identity.h"
#include "infer/load.h"
#include "kernels/api/kernel.h"
#include "kernels/api/printable.h"
#include "models/presets.h"
#include "parallel/launch.h"
#include "train/assembly.h"
#include "train/config/shape.h"
#include "train/environment.h"
#include "train/gemm_choices.h"
#include "train/memory_plan.h"
#include "train/run_data.h"
#include "train/run_files.h"
#include "train/threads.h"

namespace heddle {
namespace {

namespace fs = std::filesystem;

std::string number(double value, const char* format) {
  char text[64];
  std::snprintf(text, sizeof text, format, value);
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

}  // namespace

Run::Run(RunConfig given, Mesh& of, MakeLearner make, const std::function<double()>& elapsed)
    : config(std::move(given)),
      mesh(of),
      console({.enabled = is_first(), .progress = config.progress, .terminal = !launch_of_this_process().found && ::isatty(STDERR_FILENO) == 1}),
      make_(std::move(make)) {
  use_threads(config.threads);
  device = choose_device(config.device);
  if (!config.model.empty()) preset(config.model);  // an unknown name is an error before anything is made
  if (make_) require_no_model_options(config);
  if (config.out.empty()) fail("pretrain", "no run directory: --out RUN", ExitCode::usage);
  // Where no job has started yet nothing is made before all else has been found right: a start that fails leaves no trace.
  const bool begun = has_begun();
  if (!begun && config.resume == ResumeMode::must) fail("pretrain", concat(config.out, " holds no checkpoint to resume from"), ExitCode::bad_data);
  if (!begun) require_room_for(config.out);
  if (is_first()) require_own_files(config.out, begun);
  if (begun) open_directory();
  settle();
  open_data();
  build();
  if (config.minutes > 0 && config.steps == 0) set_horizon_by_clock(elapsed);
  if (!found_ && !config.init_from.empty()) load_initial_weights();
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
  return control().gather_text(begun ? "begun" : "").front() == "begun";
}

void Run::open_directory() {
  CheckpointOptions options;
  options.keep_last = static_cast<int>(config.keep_last);
  options.keep_every = static_cast<uint64_t>(config.keep_every);
  options.copy_in = copy_into(device);
  options.copy_out = copy_out_of(device);
  options.queued_copies = queued_copies(device);
  options.log = [this](const std::string& line) { console.warn(line); };
  options.on_hung = [](const Error& e) {
    std::fprintf(stderr, "heddle: %s\n", e.what());  // from whichever rank finds it: the first one may be the one that hangs
    abort_world(static_cast<int>(ExitCode::hung));
  };
  checkpoints = std::make_unique<Checkpoints>(config.out, control(), options);
  const Checkpoints::Resume mode = config.resume == ResumeMode::must    ? Checkpoints::Resume::must
                                   : config.resume == ResumeMode::never ? Checkpoints::Resume::never
                                                                        : Checkpoints::Resume::automatic;
  found_ = checkpoints->find_newest(mode);
  if (found_) {
    if (!make_) describe_model(found_->scalars, config.out);  // of this version?
    ResumedConfig resumed = resume_config(found_->config, config, "the configuration of step " + std::to_string(found_->step));
    for (const ResumeDifference& d : resumed.overridden) {
      console.line(concat("resume: ", d.field, " was ", d.saved, ", now ", d.given, " (", d.origin.place, ")"));
      trajectory_changed_ = trajectory_changed_ || d.resume == ResumeClass::override_with_flag;
    }
    config = std::move(resumed.config);
  }
}

RunFacts Run::facts(int64_t vocab) const {
  return {.ranks = control().size(), .vocab = vocab, .goes_on = found_.has_value(), .step = step, .tokens = tokens};
}

// Fills what follows in the configuration from all that is known by now.
void Run::complete() {
  const RunFacts known = facts(loader ? loader->vocab() : 0);
  if (make_) {
    resolve_run(config, known);
  } else {
    resolve(config, known);
  }
}

// Completes `of` and makes what it says is trained; nullptr as long as nobody knows the vocabulary of a model of the program's own.
std::unique_ptr<Learner> Run::make_learner(RunConfig& of, int64_t vocab) const {
  if (!make_) return transformer_learner(resolve(of, facts(vocab)));
  resolve_run(of, facts(vocab));
  if (of.is_fixed("vocab")) vocab = of.vocab;
  return vocab > 0 ? make_(of, vocab) : nullptr;
}

void Run::settle() {
  require_runnable(config, false, static_cast<bool>(make_));
  complete();
  forced_kernels_ = kernels::ForcedKernels(config.kernel);
  vendor_kernels_.emplace(config.gemm, device);
  if (!vendor_kernels_->missing().empty()) console.warn(vendor_kernels_->missing());
}

// --gemm auto: rank 0 measures for all, as ranks do the same products on purpose. A simulated GPU's times say nothing: measured where a test asks.
void Run::choose_products(const TransformerConfig& shape) {
  if (config.gemm != GemmChoice::automatic || device.type != DeviceType::cuda || !config.kernel.empty()) return;
  if (runtime(device.type).simulated() && !std::getenv("HEDDLE_SIM_GEMM_TIMES")) return;
  if (products_chosen_) return;  // the parts of --minutes' measured steps were made before those of the run
  products_chosen_ = true;
  std::string names;  // a line each
  if (is_first()) {
    const auto tell = [this](const std::string& line) { console.warn(line); };
    const GemmChoices choices = choose_gemms(config, shape, device, file("gemm.json"), cache_folder(), tell);
    for (const std::string& name : choices.of_vendor()) names += name + "\n";
    if (!choices.products.empty()) console.line(summary(choices));
  }
  names = control().gather_text(names).front();
  kernels::ProductNames products;
  for (size_t at = 0, end; (end = names.find('\n', at)) != names.npos; at = end + 1) products.insert(names.substr(at, end - at));
  vendor_kernels_.emplace(std::move(products));
}

void Run::check_memory(int64_t vocab) const {
  RunConfig probe = config;
  const DType dtype = compute_dtype(config.precision, device);
  if (make_) {
    const std::unique_ptr<Learner> shape = make_learner(probe, vocab);
    if (shape && found_) require_same_model(*shape);
    if (shape && found_) check_model_tensors(make_layout(probe, shape->module()), [this](auto wanted) { checkpoints->check(wanted, "model."); });
    if (shape) require_state_memory("pretrain", probe, make_layout(probe, shape->module()), dtype, device);
  } else {
    const Transformer shape(resolve(probe, facts(vocab)));
    if (found_ && probe.vocab > 0) check_model_tensors(make_layout(probe, shape), [this](auto wanted) { checkpoints->check(wanted, "model."); });
    require_memory("pretrain", probe, shape, dtype, device, true);
  }
  control().barrier();  // before any rank takes what another one is still counting on
}

void Run::open_data() {
  if (found_) require_saved_paths(config, folder_of(found_->environment));
  ModelTokenizer found = find_tokenizer(config);
  LoaderOptions options = loader_options(config, found);
  check_memory(options.vocab.value_or(0));  // the vocabulary may be known only to the shards: at least this much
  options.reading = shared_reading(control());
  loader = std::make_unique<Loader>(options);
  if (loader->tokenizer()) tokenizer_fingerprint_ = loader->tokenizer()->fingerprint;
  tokenizer = std::move(found.tokenizer);
  samples = step_samples(config);
  micro_steps = heddle::micro_steps(config);
  if (!config.val.empty()) {
    WindowOptions windows;
    windows.shards = config.val;
    windows.seq = config.seq;
    windows.pack = config.doc_mask;
    windows.tokenizer = loader->tokenizer();
    windows.vocab = options.vocab;
    windows.eot = options.eot;
    evaluator = std::make_unique<Evaluator>(windows, config.batch, config.eval_tokens, tokenizer ? &*tokenizer : nullptr, device, control());
  }
}

void Run::build() {
  check_memory(loader->vocab());
  if (make_) {
    learner = make_learner(config, loader->vocab());
  } else {
    TransformerConfig shape = resolve(config, facts(loader->vocab()));
    if (found_) {  // the model is what the checkpoint says it is
      const bool recompute = shape.recompute;
      shape = describe_model(found_->scalars, config.out).config;
      shape.recompute = recompute;
    }
    choose_products(shape);
    learner = transformer_learner(shape);
  }
  arena = std::make_unique<Arena>(learner->module(), make_layout(config, learner->module(), mesh.shape().dp_rank), device,
                                  compute_dtype(config.precision, device));
  arena->init(static_cast<uint64_t>(config.seed));
  optimizer = make_optimizer(config, *arena);
  Trainer::Options options = trainer_options(config);
  options.graphs = options.graphs && learner->recordable();
  options.tell = [this](const std::string& line) { console.line(line); };
  if (evaluator && options.graphs) evaluator->record_batches(options.tell);
  trainer = std::make_unique<Trainer>([this](const Batch& batch, const ObjectiveOptions& options) { return learner->loss(batch, options); }, *arena,
                                      *optimizer, mesh.dp(), options);
  spikes = SpikeGuard({.nonfinite_limit = config.nonfinite_limit, .rollbacks = config.spike_rollbacks});
  bad_batches = std::make_unique<BadBatchLedger>(file("bad_batches.jsonl"));
  optimizer->add_state(state);
}

void Run::describe() {
  console.line(table_text("configuration (what is not at its default)", config_rows(config)));
  if (const std::string text = recomputed_text(config); !text.empty()) console.line(text);
  if (!tokenizer && (evaluator || config.sample_every > 0)) {
    console.warn("there is no tokenizer.json beside the shards: bits per byte are not measured and no samples are written; --tokenizer names one");
  } else if (config.tokenizer.empty()) {
    const std::string& stranger = loader->unidentified().empty() && evaluator ? evaluator->unidentified() : loader->unidentified();
    if (!stranger.empty()) console.warn(unidentified_text(stranger, loader->tokenizer() ? loader->tokenizer()->name : ""));
  }
  if (device.type == DeviceType::cuda) {
    const Runtime& cuda = runtime(device.type);
    console.line(concat("device: ", name_of(device), ", ", cuda.describe(device.index), cuda.simulated() ? ", simulated on the CPU" : ""));
    // Never passed off as CUDA kernels: nothing that this run shows is true of a GPU there.
    if (const std::string ops = kernels::ops_led_by(device.type, "host"); !ops.empty())
      console.line(concat("device: the CPU's kernels (host) stand in for ", ops));
  }
  if (const std::vector<std::string> both = is_first() && evaluator ? shards_in_both(config) : std::vector<std::string>(); !both.empty()) {
    console.warn(concat("--val ", both.front(), both.size() > 1 ? concat(" and ", both.size() - 1, " more") : "",
                        ": among the shards of --data as well; a loss on what is trained on says nothing about new text"));
  }
  console.line(coverage_text(*loader));
  console.line(concat("model: ", learner->summary()));
  console.line(concat("model: ", amount_text(static_cast<double>(learner->module().parameter_count())), " parameters, ",
                      amount_text(learner->flops_per_token(config.seq)), "FLOP a token"));
  if (config.optimizer == OptimizerChoice::muon && config.is_stated("lr") && !config.is_set("muon-lr")) {
    console.line(concat("--lr ", config.lr, " is AdamW's, for embeddings, head and gains; the matrices follow --muon-lr ", config.muon_lr));
  }
  const double epochs = static_cast<double>(config.steps) * static_cast<double>(samples) / static_cast<double>(loader->samples_per_epoch());
  console.line(concat("step: ", counted(config.total_batch_tokens, "token"), " = ", counted(control().size(), "rank"), " x ",
                      counted(micro_steps, "micro-step"), " x ", config.batch, " x ", config.seq));
  console.line(concat("horizon: ", counted(config.steps, "step"), " = ", number(epochs, "%.2f"), " epochs"));
  // Repeats are as good as new data up to about 4 epochs, and next to nothing after about 16 (Muennighoff et al. 2023).
  if (epochs > 16) {
    console.warn(concat("the data is seen ", number(epochs, "%.0f"), " times; beyond 16 a repeat gains next to nothing"));
  } else if (epochs > 4) {
    console.line("more than 4 epochs: repeated data is worth less than new data from there on");
  }
  if (resumed_step) console.line(concat("resumed at step ", step));
}

}  // namespace heddle
