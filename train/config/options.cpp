// The table: every option of a run, in the order --help and config.toml show them.
#include <array>
#include <limits>

#include "train/config/run_config.h"

namespace heddle {
namespace {

using std::string_view;
constexpr auto kResume = std::to_array<string_view>({"auto", "must", "never"});
constexpr auto kNorm = std::to_array<string_view>({"layer", "rms"});
constexpr auto kPosition = std::to_array<string_view>({"learned", "rope", "none"});
constexpr auto kOptimizer = std::to_array<string_view>({"adamw", "muon"});
constexpr auto kSchedule = std::to_array<string_view>({"cosine", "linear", "constant", "wsd"});
constexpr auto kPrecision = std::to_array<string_view>({"auto", "bf16", "fp32"});
constexpr auto kGradReduce = std::to_array<string_view>({"fp32", "bf16"});
constexpr auto kGraphs = std::to_array<string_view>({"auto", "off"});
constexpr auto kGemm = std::to_array<string_view>({"auto", "heddle", "vendor"});
constexpr auto kDevice = std::to_array<string_view>({"auto", "cpu", "cuda"});

constexpr auto kMust = ResumeClass::must_match;
constexpr auto kOverride = ResumeClass::override_with_flag;
constexpr auto kFree = ResumeClass::free;

// Largest sizes accepted: far above any model, low enough that products of three stay within int64.
constexpr double kMaxSteps = 1LL << 40, kMaxStepTokens = 1LL << 40, kMaxTokens = 1LL << 60, kMaxEvery = 1LL << 40;
constexpr double kMaxDim = 1 << 20, kMaxLayers = 1 << 14, kMaxSeq = 1 << 24, kMaxBatch = 1 << 16, kMaxRanks = 1 << 20, kMaxVocab = 1 << 24;

using C = RunConfig;

std::vector<Option<C>> make_table() {
  std::vector<Option<C>> table;
  table.reserve(100);
  string_view group;
  // Name, field, what a resumed run may do with it, placeholder, help.
  const auto add = [&](string_view name, Option<C>::Member field, ResumeClass resume, string_view value, string_view help) -> Option<C>& {
    return table.emplace_back(make_option<C>(name, field, group, value, help, resume));
  };

  group = "Run";
  add("out", &C::out, kFree, "DIR", "run directory: checkpoints, logs, config.toml").optional();
  add("resume", choice<&C::resume>(kResume), kFree, "auto|must|never",
      "auto: continue the run in --out, if there is one; must: fail without one; never: refuse one")
      .per_launch();
  add("init-from", &C::init_from, kMust, "DIR", "start from the weights of this run directory or checkpoint").optional();
  add("seed", &C::seed, kMust, "N", "seed of initialisation, data order and dropout");
  add("steps", &C::steps, kOverride, "N", "horizon in optimizer steps (or --tokens, --minutes)").optional().between(1, kMaxSteps);
  add("tokens", &C::tokens, kOverride, "N", "horizon in training tokens (or --steps, --minutes); at least those of one step")
      .optional()
      .between(1, kMaxTokens);
  add("minutes", &C::minutes, kMust, "M", "horizon by the clock: as many steps, with validations and saves, as end by then; measured once")
      .optional()
      .between(0.001, 1e7);
  add("time-limit", DurationOf<C>{&C::time_limit}, kFree, "TIME",
      "save and exit with code 75 after this wall clock, mid-schedule: 90m, 11h30m, 1-00:00:00; 0s: never")
      .optional()
      .per_launch();
  add("hang-timeout", DurationOf<C>{&C::hang_timeout}, kFree, "TIME",
      "exit 86 and name the rank that shows no progress or no sign of life for so long; 0s: never")
      .per_launch();
  add("dry-run", &C::dry_run, kFree, "", "print the derived configuration and the memory plan, then stop").command_only();
  add("world", &C::world, kFree, "N", "with --dry-run: plan for this many ranks").optional().between(1, kMaxRanks).command_only();

  group = "Model";
  add("model", &C::model, kMust, "PRESET", "preset whose sizes and layers are the defaults of this group").optional();
  add("depth", &C::depth, kMust, "N", "one dial: width, heads, learning rate and horizon follow from the number of layers")
      .optional()
      .between(1, kMaxLayers);
  add("layers", &C::layers, kMust, "N", "transformer blocks").optional().between(1, kMaxLayers);
  add("heads", &C::heads, kMust, "N", "query heads; divides --dim").optional().between(1, kMaxDim);
  add("kv-heads", &C::kv_heads, kMust, "N", "key/value heads (grouped-query attention); divides --heads; default: --heads")
      .optional()
      .between(1, kMaxDim);
  add("head-dim", &C::head_dim, kMust, "N", "width of a head; default: --dim / --heads").optional().between(1, 256);
  add("dim", &C::dim, kMust, "N", "width of the residual stream").optional().between(1, kMaxDim);
  add("mlp-dim", &C::mlp_dim, kMust, "N", "hidden width of the MLP; default: from the preset, else 4 x --dim").optional().between(1, kMaxDim);
  add("seq", &C::seq, kMust, "N", "tokens of a sample (context length)").between(1, kMaxSeq);
  add("vocab", &C::vocab, kMust, "N", "vocabulary size; default: what the data says").optional().between(2, kMaxVocab);
  add("window", &C::window, kMust, "N", "tokens that attention sees, the current one included; 0: all up to it").between(0, kMaxSeq);
  add("mlp", &C::mlp, kMust, "KIND", "kind of MLP: gelu, relu2, swiglu; a wrong name lists all there are");
  add("norm", choice<&C::norm>(kNorm), kMust, "layer|rms", "LayerNorm or RMSNorm");
  add("position", choice<&C::position>(kPosition), kMust, "learned|rope|none", "how positions enter");
  add("rope-theta", &C::rope_theta, kMust, "X", "base of the rotary frequencies").between(1, 1e12);
  add("qk-norm", &C::qk_norm, kMust, "", "RMSNorm on queries and keys of each head");
  add("bias", &C::bias, kMust, "", "biases in linear layers and norms");
  add("tied", &C::tied, kMust, "", "the head shares the embedding's weight");
  add("zero-init-out", &C::zero_init_out, kMust, "", "residual projections start at zero instead of small random values");

  group = "Data";
  add("data", &C::data, kFree, "GLOB...", "training token shards; repeat, or let the shell expand").optional();
  add("val", &C::val, kFree, "GLOB...", "validation token shards").optional();
  add("tokenizer", &C::tokenizer, kFree, "FILE", "tokenizer.json; default: the one beside the data").optional();
  add("batch", &C::batch, kFree, "N", "sequences of a rank and micro-step").between(1, kMaxBatch);
  add("total-batch-tokens", &C::total_batch_tokens, kOverride, "N",
      "tokens of a step over all ranks; a multiple of --seq x --batch x --dp; default: just that")
      .optional()
      .between(1, kMaxStepTokens);
  add("doc-mask", &C::doc_mask, kOverride, "", "attention stays within a document");

  group = "Optimizer";
  add("optimizer", choice<&C::optimizer>(kOptimizer), kMust, "adamw|muon", "muon: Muon for matrices, AdamW for the rest");
  add("lr", &C::lr, kOverride, "X", "peak learning rate of AdamW: of all parameters, under muon of those that are no matrix")
      .between(0, 1e3)
      .as_float();
  add("muon-lr", &C::muon_lr, kOverride, "X", "peak learning rate of the matrices under muon").between(0, 1e3).as_float();
  add("muon-momentum", &C::muon_momentum, kOverride, "X", "momentum of Muon").at_least(0).below(1).as_float();
  add("embed-lr-scale", &C::embed_lr_scale, kOverride, "X", "factor on --lr for embeddings").between(0, 1e6).as_float();
  add("head-lr-scale", &C::head_lr_scale, kOverride, "X", "factor on --lr for an untied head").between(0, 1e6).as_float();
  add("warmup", &C::warmup, kOverride, "N", "steps of linear warm-up").between(0, kMaxSteps);
  add("schedule", choice<&C::schedule>(kSchedule), kOverride, "cosine|linear|constant|wsd",
      "shape after warm-up; wsd: constant, then a linear decay at the end");
  add("final-lr-fraction", &C::final_lr_fraction, kOverride, "X", "learning rate at the horizon, as a fraction of the peak").between(0, 1);
  add("decay-fraction", &C::decay_fraction, kOverride, "X", "wsd: the last part of the steps that decays").between(0, 1);
  add("weight-decay", &C::weight_decay, kOverride, "X", "decoupled weight decay of matrices and embeddings").between(0, 1e3).as_float();
  add("grad-clip", &C::grad_clip, kOverride, "X", "limit on the global gradient norm; 0: none").between(0, 1e9).as_float();
  add("beta1", &C::beta1, kOverride, "X", "AdamW, first moment").at_least(0).below(1).as_float();
  add("beta2", &C::beta2, kOverride, "X", "AdamW, second moment").at_least(0).below(1).as_float();
  add("eps", &C::eps, kOverride, "X", "AdamW, denominator; a gradient that is zero divides by it alone").between(1e-30, 1).as_float();
  add("z-loss", &C::z_loss, kOverride, "X", "weight of the squared log-partition in the loss; 0: off").between(0, 1e3).as_float();

  group = "Safety";
  add("spike-z", &C::spike_z, kOverride, "X", "withhold updates whose loss or gradient norm is X deviations above its mean; 0: off, 6 is sound")
      .between(0, 1e6);
  add("spike-rollbacks", &C::spike_rollbacks, kFree, "N", "returns to an earlier checkpoint before a run that keeps diverging stops")
      .between(0, 1000);
  add("nonfinite-limit", &C::nonfinite_limit, kFree, "N", "steps in a row with a NaN or Inf gradient (each withheld) before a roll-back")
      .between(1, 1000);
  add("replica-check-every", &C::replica_check_every, kFree, "N",
      "steps between comparisons, bit for bit, of what several ranks hold alike; 0: never")
      .between(0, kMaxEvery);

  group = "Machine";
  add("device", choice<&C::device>(kDevice), kFree, "auto|cpu|cuda", "where to run");
  add("precision", choice<&C::precision>(kPrecision), kOverride, "auto|bf16|fp32",
      "of weights and activations; sums, masters and moments are fp32; auto: bf16 on cuda, fp32 on cpu");
  add("threads", &C::threads, kFree, "N", "CPU threads of a rank; results do not depend on it").optional().between(0, 4096).per_launch();
  add("memory-check", &C::memory_check, kFree, "", "refuse a run on the CPU whose estimated memory is more than what is available").per_launch();
  add("dp", &C::dp, kFree, "N", "data-parallel ranks; default: all ranks / --tp").optional().between(1, kMaxRanks).per_launch();
  add("tp", &C::tp, kFree, "N", "tensor-parallel ranks; this version takes 1").between(1, 1024);
  add("sp", &C::sp, kFree, "", "sequence parallelism within a tensor-parallel group; not in this version");
  add("zero", &C::zero, kFree, "0|1", "1 deals masters and moments out to the data-parallel ranks; default: 1 with several ranks, else 0")
      .between(0, 1)
      .per_launch();
  add("grad-reduce", choice<&C::grad_reduce>(kGradReduce), kOverride, "fp32|bf16",
      "of gradients on their way between ranks; bf16 halves the bytes, sums are fp32 all the same");
  add("recompute", &C::recompute, kFree, "", "recompute each block in backward: less memory, same result");
  add("deterministic", &C::deterministic, kOverride, "", "bit-identical for any --dp and --zero; gradients are summed by --batch, which must stay");
  add("graphs", choice<&C::graphs>(kGraphs), kFree, "auto|off",
      "auto: on cuda, steps after the first are recorded and launched as graphs, with the same bits");
  add("gemm", choice<&C::gemm>(kGemm), kFree, "auto|heddle|vendor",
      "matrix products on cuda; vendor: cuBLASLt's where it can; auto: what is faster here")
      .per_launch();
  add("kernel", &C::kernel, kFree, "OP=NAME...", "use this kernel candidate for an op; a wrong name lists them").optional();

  group = "Output";
  add("log-every", &C::log_every, kFree, "N", "steps between console lines; default: about fifty lines a run").optional().between(1, kMaxEvery);
  add("eval-every", &C::eval_every, kFree, "N", "steps between validations; 0: only at the end").between(0, kMaxEvery);
  add("eval-tokens", &C::eval_tokens, kFree, "N", "tokens of one validation, at most").between(1, kMaxTokens);
  add("save-every", &C::save_every, kFree, "N", "steps between checkpoints; 0: only at the end and when asked to stop").between(0, kMaxEvery);
  add("keep-last", &C::keep_last, kFree, "N", "newest checkpoints that stay").between(2, std::numeric_limits<int>::max());
  add("keep-every", &C::keep_every, kFree, "N", "checkpoints of steps divisible by N stay for ever; 0: none").between(0, kMaxEvery);
  add("sample-every", &C::sample_every, kFree, "N", "steps between text samples; 0: never").between(0, kMaxEvery);
  add("sample-prompt", &C::sample_prompt, kFree, "TEXT", "what samples continue").optional();
  add("sample-tokens", &C::sample_tokens, kFree, "N", "length of a sample").between(1, kMaxSeq);
  add("tensorboard", &C::tensorboard, kFree, "", "write TensorBoard event files");
  add("progress", &C::progress, kFree, "", "progress bar when the console is a terminal");
  return table;
}

}  // namespace

std::span<const Option<RunConfig>> RunConfig::options() {
  static const std::vector<Option<RunConfig>> table = make_table();
  return table;
}

}  // namespace heddle
