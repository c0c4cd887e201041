// The configuration of a pretraining run: one struct, one table of its options.
//
// Values come from, in rising order: built-in default, what follows from other options, what the run that is resumed had, the config file, the
// environment (HEDDLE_TOTAL_BATCH_TOKENS), flags (--total-batch-tokens). Each field remembers which, and a written config.toml keeps what somebody
// stated apart from what followed. The table (options()) drives flags, TOML keys, environment names, --help, --print-config, config.toml and the
// check on resume; a field that is not in it does not exist. Errors are Error(usage) unless said.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "models/config.h"
#include "train/config/option.h"

namespace heddle {

enum class ResumeMode : uint8_t { automatic, must, never };
enum class OptimizerChoice : uint8_t { adamw, muon };
enum class ScheduleChoice : uint8_t { cosine, linear, constant, wsd };
enum class PrecisionChoice : uint8_t { automatic, bf16, fp32 };
enum class DeviceChoice : uint8_t { automatic, cpu, cuda };
enum class GradReduceChoice : uint8_t { fp32, bf16 };
enum class GraphsChoice : uint8_t { automatic, off };
enum class GemmChoice : uint8_t { automatic, heddle, vendor };

// Where a value comes from; a later one wins over an earlier one.
enum class Source : uint8_t {
  built_in,
  derived,  // it follows from other options
  kept,     // the resumed run had it, by derivation or default
  saved,    // an earlier start of the resumed run stated it
  file,     // from here on: this start states it
  environment,
  flag
};
struct Origin {
  Source source = Source::built_in;
  std::string place;  // "depth 12", "run.toml:7", "HEDDLE_LR", "--lr"
};

struct RunConfig {
  // Run
  std::string out;
  ResumeMode resume = ResumeMode::automatic;
  std::string init_from;  // a run directory or checkpoint whose weights start the run
  int64_t seed = 42;
  int64_t steps = 0;          // horizon in optimizer steps; 0: from tokens
  int64_t tokens = 0;         // horizon in tokens; 0: from steps
  double minutes = 0;         // horizon by the clock, decided once (train/horizon.h); 0: from steps or tokens
  double time_limit = 0;      // seconds of wall clock after which the run saves and exits 75; 0: none
  double hang_timeout = 600;  // seconds without progress, or without a rank's sign of life, that end the job; 0: none
  bool dry_run = false;
  int64_t world = 0;  // ranks to plan for in a dry run; 0: those started

  // Model. 0 or "": from the preset or depth
  std::string model;
  int64_t depth = 0;
  int64_t layers = 0, heads = 0, kv_heads = 0, head_dim = 0, dim = 0, mlp_dim = 0, vocab = 0;
  int64_t seq = 1024;        // T, tokens of a sample
  int64_t window = 0;        // tokens that attention sees, the current one included; 0: all up to it
  std::string mlp = "gelu";  // a kind of core/nn/mlp.h
  NormType norm = NormType::layer;
  Position position = Position::learned;
  double rope_theta = 10000;
  bool qk_norm = false, bias = true, tied = true;
  bool zero_init_out = false;  // residual projections start at zero

  // Data
  std::vector<std::string> data, val;  // globs of token shards
  std::string tokenizer;
  int64_t batch = 8;               // B, sequences of a rank and micro-step
  int64_t total_batch_tokens = 0;  // of one optimizer step over all ranks; 0: batch * seq * dp
  bool doc_mask = true;

  // Optimizer
  OptimizerChoice optimizer = OptimizerChoice::adamw;
  double lr = 3e-4;
  int64_t warmup = 0;  // steps
  ScheduleChoice schedule = ScheduleChoice::cosine;
  double final_lr_fraction = 0.1;
  double decay_fraction = 0.2;
  double weight_decay = 0.1, grad_clip = 1.0;
  double beta1 = 0.9, beta2 = 0.95, eps = 1e-8;
  double muon_lr = 0.02, muon_momentum = 0.95;
  double embed_lr_scale = 1, head_lr_scale = 1;
  double z_loss = 0;

  // Safety
  double spike_z = 0;
  int64_t spike_rollbacks = 3;
  int64_t nonfinite_limit = 5;
  int64_t replica_check_every = 1000;

  // Machine
  DeviceChoice device = DeviceChoice::automatic;
  PrecisionChoice precision = PrecisionChoice::automatic;
  int64_t threads = 0;  // of a rank; 0: what OpenMP chooses
  bool memory_check = true;
  int64_t dp = 0;  // data-parallel ranks; 0: world / tp
  int64_t tp = 1;
  bool sp = false;
  int64_t zero = 0;  // ZeRO stage; follows from dp
  GradReduceChoice grad_reduce = GradReduceChoice::fp32;
  bool recompute = false, deterministic = false;
  GraphsChoice graphs = GraphsChoice::automatic;
  GemmChoice gemm = GemmChoice::automatic;
  std::vector<std::string> kernel;  // "op=candidate"

  // Output
  int64_t log_every = 0, eval_every = 250, eval_tokens = int64_t{1} << 20, save_every = 1000, keep_last = 3, keep_every = 0;
  int64_t sample_every = 0, sample_tokens = 64;
  std::string sample_prompt;
  bool tensorboard = true, progress = true;

  // Field name -> where it was written; fields left at their built-in default are absent.
  std::map<std::string, Origin, std::less<>> origins;
  // What the config file says under [derived], which a new run computes anew: field name -> value in TOML form.
  std::map<std::string, std::string, std::less<>> recomputed;

  static std::span<const Option<RunConfig>> options();
  static const Option<RunConfig>& option(std::string_view name);  // by flag name; throws Error on an unknown one

  bool is_set(std::string_view name) const { return source(name) >= Source::saved; }    // somebody stated it, now or at an earlier start
  bool is_fixed(std::string_view name) const { return source(name) >= Source::kept; }   // stated, or the resumed run had it: not to be derived
  bool is_stated(std::string_view name) const { return source(name) >= Source::file; }  // by this start
  Source source(std::string_view name) const;
  std::string origin_text(std::string_view name) const;  // "default", "from depth 12", "saved", "run.toml:7", "--lr"
  // Notes that code computed the field's value: `config.dim = 768; config.mark_derived("dim", "model gpt2")`. `why` shows in --print-config.
  void mark_derived(std::string_view name, std::string why);
  // Back to the built-in default, as if nobody had stated it.
  void drop(std::string_view name);
  // Parses and stores one value, as a flag or variable would. A list's first write from a higher source replaces what lower ones wrote.
  void set(std::string_view name, std::string_view text, Source source, const std::string& place);
};

// One flag as it stood on the command line.
struct FlagValue {
  std::string name, text;
};

// Defaults < `file` (if not empty) < HEDDLE_* in `environment` ("NAME=value" strings) < flags. Unknown keys and HEDDLE_ names are errors with
// the nearest match; file errors name file:line. HEDDLE_CONFIG names a file when `file` is empty.
RunConfig make_run_config(const std::string& file, std::span<const std::string> environment, std::span<const FlagValue> flags);

// HEDDLE_* variables that are not options: other parts of heddle read them.
std::span<const std::string_view> other_environment();

// "total-batch-tokens" -> "HEDDLE_TOTAL_BATCH_TOKENS"
std::string environment_name(std::string_view option);

// Applies a TOML document to `config`: flat keys, and a table [derived] of what followed from them when a run wrote the document. A config file's
// statements count alone (source `file`); for a run that goes on (source `saved`) [derived] fixes its values as `kept`. Documents without that table
// are of a version that did not tell the two apart: on resuming all their values are `kept`. `place` is how errors call it. In config_file.cpp, the
// only place that sees toml++.
void apply_toml(RunConfig& config, std::string_view text, const std::string& place, Source source);
void apply_toml_file(RunConfig& config, const std::filesystem::path& file, Source source);

// The whole configuration as a config file: what was stated in table order, each with a note where it was written, then [derived] with the rest.
// What is a matter of one launch (--time-limit, --threads, ...) is a note that nobody reads, unless `of_launch`.
std::string to_toml(const RunConfig& config, bool of_launch = false);

// Judges a configuration, as far as its fields are known (a 0 that will be derived is not judged): combinations that cannot work have one message
// each, which names the flags and the cure. An option that does not act beside another one (--decay-fraction under --schedule cosine) is an error
// where the same or a later source states it; where it was stated before the other one, it is dropped. The shape of the model is judged by
// TransformerConfig::resolved().
void validate(RunConfig& config);
// What a run needs that has no default: a model, --out, --data, a horizon. With `planned` the model alone. `own_model`: the program brings that.
void require_runnable(const RunConfig& config, bool planned = false, bool own_model = false);

struct ResumeDifference {
  std::string field, saved, given;  // values in TOML form
  ResumeClass resume = ResumeClass::free;
  Origin origin;  // of the given value
};

// The fields the user set to another value than the saved config.toml holds, in table order. What concerns one launch is none of them: no earlier
// launch is remembered, so nothing changed.
std::vector<ResumeDifference> compare_for_resume(std::string_view saved_toml, const RunConfig& given, const std::string& place = "config.toml");

// The fields in which the config.toml that lies in a run directory differs from the checkpoint's `saved_toml`, and which `now`, the configuration
// that goes on, neither states nor has: somebody edited them, or a start that wrote them never saved. Comma-separated, in table order.
std::string edited_fields(std::string_view file_toml, std::string_view saved_toml, const RunConfig& now, const std::string& place = "config.toml");
// One line that names the fields of a config file's [derived] that came out different; "": none did.
std::string recomputed_text(const RunConfig& now);

struct ResumedConfig {
  RunConfig config;                          // given where stated or a matter of the launch (dp, threads, ...), else the saved run's
  std::vector<ResumeDifference> overridden;  // to be logged: accepted differences of class override_with_flag and free
};

// Decides every difference by its class. Throws Error(mismatch) that lists all refused fields, both values and the cure.
ResumedConfig resume_config(std::string_view saved_toml, const RunConfig& given, const std::string& place = "config.toml");

}  // namespace heddle
