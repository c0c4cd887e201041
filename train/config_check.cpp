// Combinations of options that cannot work.
#include <bit>

#include "train/config.h"

namespace heddle {
namespace {

template <class... Parts>
[[noreturn]] void refuse(const Parts&... parts) {
  fail_usage("config", concat(parts...));
}

// The user wrote it, and not what it would be anyway (a saved config.toml restates every default).
bool changed(const RunConfig& c, std::string_view name) {
  const auto& option = RunConfig::option(name);
  return c.is_set(name) && option.toml_text(c) != option.toml_text(RunConfig{});
}

void check_model(const RunConfig& c) {
  if (!c.model.empty() && c.depth > 0) refuse("--model ", c.model, " and --depth ", c.depth, " both choose the sizes: give one");
  if (c.dim > 0 && c.heads > 0) {
    if (c.dim % c.heads != 0) {
      refuse("--dim ", c.dim, " is not divisible by --heads ", c.heads, ": give a multiple, for example --dim ", (c.dim / c.heads + 1) * c.heads);
    }
    if (c.position == PositionChoice::rope && (c.dim / c.heads) % 2 != 0) {
      refuse("--position rope needs an even head width, but --dim ", c.dim, " / --heads ", c.heads, " = ", c.dim / c.heads);
    }
  }
  if (c.heads > 0 && c.kv_heads > 0 && c.heads % c.kv_heads != 0) {
    refuse("--heads ", c.heads, " is not divisible by --kv-heads ", c.kv_heads, ": every key/value head serves the same number of query heads");
  }
  if (c.position != PositionChoice::rope && changed(c, "rope-theta")) refuse("--rope-theta only acts with --position rope");
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
  if (c.deterministic && c.dp > 0 && !std::has_single_bit(static_cast<uint64_t>(c.dp))) {
    refuse("--deterministic adds gradients in a balanced binary tree: --dp ", c.dp, " must be a power of two");
  }
}

void check_batch(const RunConfig& c) {
  if (c.total_batch_tokens == 0) return;
  const int64_t ranks = c.dp > 0 ? c.dp : 1;  // unknown: a multiple of seq x batch is needed in any case
  const int64_t unit = c.seq * c.batch * ranks;
  if (c.total_batch_tokens % unit != 0) {
    const int64_t below = c.total_batch_tokens / unit * unit;
    refuse("--total-batch-tokens ", c.total_batch_tokens, " is not a multiple of --seq ", c.seq, " x --batch ", c.batch,
           c.dp > 0 ? concat(" x --dp ", c.dp) : "", " = ", unit, ": the nearest are ", below > 0 ? concat(below, " and ") : "", below + unit);
  }
}

void check_optimizer(const RunConfig& c) {
  if (c.steps > 0 && c.tokens > 0 && c.is_set("steps") && c.is_set("tokens")) {
    refuse("--steps ", c.steps, " and --tokens ", c.tokens, " both set the horizon: give one");
  }
  if (c.beta1 >= 1 || c.beta2 >= 1) refuse("--beta1 ", c.beta1, " and --beta2 ", c.beta2, " must be below 1");
  if (c.optimizer == OptimizerChoice::adamw) {
    for (const std::string_view name : {"muon-lr", "muon-momentum"}) {
      if (changed(c, name)) refuse("--", name, " only acts with --optimizer muon");
    }
  }
  if (c.muon_momentum >= 1) refuse("--muon-momentum ", c.muon_momentum, " must be below 1");
  if (c.schedule != ScheduleChoice::wsd && changed(c, "decay-fraction")) refuse("--decay-fraction only acts with --schedule wsd");
  if (c.schedule == ScheduleChoice::constant && changed(c, "final-lr-fraction")) refuse("--final-lr-fraction does not act with --schedule constant");
  if (c.steps > 0 && c.warmup > c.steps) refuse("--warmup ", c.warmup, " is longer than the run of --steps ", c.steps);
}

void check_output(const RunConfig& c) {
  if (c.val.empty() && changed(c, "eval-every") && c.eval_every > 0) refuse("--eval-every ", c.eval_every, " needs --val, the shards to evaluate on");
  if (c.sample_every == 0 && !c.sample_prompt.empty()) refuse("--sample-prompt only acts with --sample-every N");
  for (const std::string& choice : c.kernel) {
    const size_t equals = choice.find('=');
    if (equals == 0 || equals == std::string::npos || equals + 1 == choice.size()) {
      refuse("--kernel ", choice, ": write OP=NAME, for example --kernel matmul=onednn");
    }
  }
}

}  // namespace

void validate(const RunConfig& config) {
  check_model(config);
  check_parallel(config);
  check_batch(config);
  check_optimizer(config);
  check_output(config);
}

void require_runnable(const RunConfig& c) {
  if (c.model.empty() && c.depth == 0 && (c.layers == 0 || c.dim == 0 || c.heads == 0)) {
    refuse("no model: give --model PRESET, --depth N, or --layers, --heads and --dim");
  }
  if (c.dry_run) return;
  if (c.out.empty()) refuse("no run directory: give --out DIR");
  if (c.data.empty()) refuse("no training data: give --data GLOB (shards made by heddle tokenize)");
  if (c.steps == 0 && c.tokens == 0 && c.depth == 0) refuse("no horizon: give --steps N or --tokens N");
}

}  // namespace heddle
