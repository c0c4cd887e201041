// Combinations of options that cannot work.
#include <algorithm>

#include "train/config/run_config.h"

namespace heddle {
namespace {

template <class... Parts>
[[noreturn]] void refuse(const Parts&... parts) {
  fail_usage("config", concat(parts...));
}

// Somebody stated it, and not what it would be anyway.
bool changed(const RunConfig& c, std::string_view name) {
  static const RunConfig defaults;
  const auto& option = RunConfig::option(name);
  return c.is_set(name) && option.toml_text(c) != option.toml_text(defaults);
}

// Options that act only beside certain values of another one.
struct Dependent {
  std::string_view name, on;
  bool (*acts)(const RunConfig&);
  std::string_view needs;  // how the message goes on after the option and its value
};
constexpr Dependent kDependents[] = {
    {"muon-lr", "optimizer", [](const RunConfig& c) { return c.optimizer == OptimizerChoice::muon; }, "only acts with --optimizer muon"},
    {"muon-momentum", "optimizer", [](const RunConfig& c) { return c.optimizer == OptimizerChoice::muon; }, "only acts with --optimizer muon"},
    {"decay-fraction", "schedule", [](const RunConfig& c) { return c.schedule == ScheduleChoice::wsd; }, "only acts with --schedule wsd"},
    {"final-lr-fraction", "schedule", [](const RunConfig& c) { return c.schedule != ScheduleChoice::constant; },
     "does not act with --schedule constant"},
    {"rope-theta", "position", [](const RunConfig& c) { return c.position == Position::rope; }, "only acts with --position rope"},
    {"head-lr-scale", "tied", [](const RunConfig& c) { return !c.tied; },
     "only acts with --no-tied: a tied head is the embedding (--embed-lr-scale)"},
    {"zero-init-out", "init-from", [](const RunConfig& c) { return c.init_from.empty(); }, "does not act with --init-from, which brings the weights"},
    {"sample-prompt", "sample-every", [](const RunConfig& c) { return c.sample_every > 0; }, "only acts with --sample-every N"},
    {"sample-tokens", "sample-every", [](const RunConfig& c) { return c.sample_every > 0; }, "only acts with --sample-every N"},
    {"eval-every", "val", [](const RunConfig& c) { return !c.val.empty() || c.eval_every == 0; }, "needs --val, the shards to evaluate on"},
    {"eval-tokens", "val", [](const RunConfig& c) { return !c.val.empty(); }, "needs --val, the shards to evaluate on"},
    {"keep-every", "save-every", [](const RunConfig& c) { return c.save_every > 0 || c.keep_every == 0; }, "only acts with --save-every N"},
};

// What was stated before the option that takes its effect away has had its day; what is stated beside or after it is a mistake.
void settle_dependents(RunConfig& c) {
  for (const Dependent& d : kDependents) {
    if (!changed(c, d.name) || d.acts(c)) continue;
    if (c.is_stated(d.name) && c.source(d.name) >= c.source(d.on)) refuse("--", d.name, " ", RunConfig::option(d.name).toml_text(c), " ", d.needs);
    c.drop(d.name);
  }
}

void check_model(const RunConfig& c) {
  if (!c.model.empty() && c.depth > 0) refuse("--model ", c.model, " and --depth ", c.depth, " both choose the sizes: give one");
}

void check_parallel(const RunConfig& c) {
  if (c.world > 0 && !c.dry_run) refuse("--world only plans: add --dry-run, or start the ranks with mpirun");
  if (c.world > 0 && c.dp > 0 && c.dp * c.tp != c.world) {
    refuse("--dp ", c.dp, " x --tp ", c.tp, " = ", c.dp * c.tp, " ranks, but --world is ", c.world);
  }
  if (c.world > 0 && c.dp == 0 && c.world % c.tp != 0) refuse("--world ", c.world, " is not divisible by --tp ", c.tp);
  if (c.sp && c.tp == 1) refuse("--sp slices the sequence within a tensor-parallel group: give --tp 2 or more, or --no-sp");
  if (c.heads > 0 && c.heads % c.tp != 0) refuse("--heads ", c.heads, " is not divisible by --tp ", c.tp, ": each rank holds whole heads");
  if (c.kv_heads > 0 && c.kv_heads % c.tp != 0 && c.tp % c.kv_heads != 0) {
    refuse("--kv-heads ", c.kv_heads, " and --tp ", c.tp, ": one must divide the other");
  }
  if (c.mlp_dim > 0 && c.mlp_dim % c.tp != 0) refuse("--mlp-dim ", c.mlp_dim, " is not divisible by --tp ", c.tp);
  if (c.sp && c.seq % c.tp != 0) refuse("--sp needs --seq ", c.seq, " to be divisible by --tp ", c.tp);
  if (c.deterministic && c.grad_reduce == GradReduceChoice::bf16) {
    refuse("--deterministic and --grad-reduce bf16: what is rounded between ranks depends on their number; leave one of them out");
  }
}

void check_batch(const RunConfig& c) {
  if (c.total_batch_tokens == 0) return;
  const int64_t ranks = c.dp > 0 ? c.dp : 1;  // unknown: a multiple of seq x batch is needed in any case
  const int64_t unit = c.seq * c.batch * ranks;
  if (c.total_batch_tokens % unit == 0) return;
  const int64_t below = c.total_batch_tokens / unit * unit;
  const std::string product = concat("--seq ", c.seq, " x --batch ", c.batch, c.dp > 0 ? concat(" x --dp ", c.dp) : "", " = ", unit);
  const std::string sizes = concat(below > 0 ? concat(below, " and ") : "", below + unit), are = below > 0 ? "the nearest are " : "the nearest is ";
  if (c.is_stated("total-batch-tokens")) refuse("--total-batch-tokens ", c.total_batch_tokens, " is not a multiple of ", product, ": ", are, sizes);
  // Nobody asked for another step: what was asked for does not go with the one the run has.
  std::string batches;
  if (const int64_t samples = c.total_batch_tokens / (c.seq * ranks); c.total_batch_tokens % (c.seq * ranks) == 0) {
    int64_t batch = std::min(c.batch, samples);
    while (samples % batch != 0) --batch;
    batches = concat("give --batch ", batch, ", or ");
  }
  refuse("a step of the saved run is ", c.total_batch_tokens, " tokens (saved --total-batch-tokens), which is not a multiple of ", product, ": ",
         batches, "change its steps with --total-batch-tokens (", are, sizes, ")");
}

void check_optimizer(const RunConfig& c) {
  std::string horizon;  // the way in which it was set
  for (const std::string_view way : {"steps", "tokens", "minutes"}) {
    const auto& option = RunConfig::option(way);
    if (!c.is_set(way) || option.empty(c)) continue;
    const std::string flag = concat("--", way, " ", option.toml_text(c));
    if (!horizon.empty()) refuse(horizon, " and ", flag, " both set the horizon: give one");
    horizon = flag;
  }
  const bool horizon_is_stated = c.is_stated("steps") || c.is_stated("tokens");
  if (c.steps > 0 && c.warmup > c.steps && (c.is_stated("warmup") || horizon_is_stated)) {
    refuse("--warmup ", c.warmup, " (", c.origin_text("warmup"), ") is longer than the run of --steps ", c.steps, " (", c.origin_text("steps"), ")");
  }
}

void check_output(const RunConfig& c) {
  for (const std::string& choice : c.kernel) {
    const size_t equals = choice.find('=');
    if (equals == 0 || equals == std::string::npos || equals + 1 == choice.size()) {
      refuse("--kernel ", choice, ": write OP=NAME, for example --kernel matmul=onednn");
    }
  }
}

}  // namespace

void validate(RunConfig& config) {
  settle_dependents(config);
  check_model(config);
  check_parallel(config);
  check_batch(config);
  check_optimizer(config);
  check_output(config);
}

void require_runnable(const RunConfig& c, bool planned, bool own_model) {
  if (!own_model && c.model.empty() && c.depth == 0 && (c.layers == 0 || c.dim == 0 || c.heads == 0)) {
    refuse("no model: give --model PRESET, --depth N, or --layers, --heads and --dim");
  }
  if (planned) return;
  if (c.out.empty()) refuse("no run directory: give --out DIR");
  if (c.data.empty()) refuse("no training data: give --data GLOB (shards made by heddle tokenize)");
  if (c.steps == 0 && c.tokens == 0 && c.minutes == 0 && c.depth == 0) refuse("no horizon: give --steps N, --tokens N or --minutes M");
}

}  // namespace heddle
