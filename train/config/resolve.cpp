#include "train/config/resolve.h"

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "checkpoint/checkpoints.h"
#include "checkpoint/run_directory.h"
#include "core/io/strict_json.h"
#include "kernels/api/printable.h"
#include "train/config/shape.h"
#include "train/environment.h"

namespace heddle {
namespace {

void refuse_unbuilt(const RunConfig& c) {
  if (c.tp > 1 || c.sp) fail_usage("pretrain", "--tp and --sp: this version shares a run over data-parallel ranks only; use --dp");
}

void derive_ranks(RunConfig& c, int64_t ranks) {
  if (!c.is_set("dp")) {
    c.dp = ranks;
    c.mark_derived("dp", "the launch");
  }
  if (c.dp != ranks)
    fail_usage("pretrain", concat("--dp ", c.dp, ", but ", counted(ranks, "rank"), ranks == 1 ? " was" : " were", " started; use mpirun -np ", c.dp));
  if (!c.is_set("zero") && c.dp > 1) {
    c.zero = 1;
    c.mark_derived("zero", concat("dp ", c.dp));
  }
}

// --depth leaves rate, schedule, optimizer and horizon open: about 20 tokens a parameter (Hoffmann et al. 2022), and the plain values of small
// models.
void derive_recipe(RunConfig& c, const TransformerConfig& model) {
  if (c.depth == 0) return;
  const std::string why = concat("depth ", c.depth);
  const auto derive = [&]<class T>(std::string_view name, T& field, T value) {
    if (c.is_fixed(name)) return;
    field = value;
    c.mark_derived(name, why);
  };
  if (!c.is_set("steps") && !c.is_set("minutes")) derive("tokens", c.tokens, 20 * model.matrix_parameters());
  derive("optimizer", c.optimizer, OptimizerChoice::muon);
  derive("lr", c.lr, 3e-3 * std::min(1.0, 512.0 / static_cast<double>(model.dim)));
  derive("schedule", c.schedule, ScheduleChoice::linear);
}

// A horizon that is asked for now must not be in the past. One that an earlier start asked for, and that is reached, makes the run a finished one.
void require_ahead(const RunConfig& c, const RunFacts& facts) {
  const auto refuse = [&](std::string_view name, int64_t horizon, uint64_t now, const std::string& reached) {
    if (!c.is_stated(name) || static_cast<uint64_t>(horizon) >= now) return;
    fail_usage("config", concat("--", name, " ", horizon, " (", c.origin_text(name), ") lies before ", reached, " that the run in ", c.out,
                                " has reached: give more, or another --out for a new run"));
  };
  refuse("steps", c.steps, facts.step, concat("step ", facts.step));
  refuse("tokens", c.tokens, facts.tokens, concat("the ", facts.tokens, " tokens"));
}

// A horizon in tokens is counted in tokens: those that are left pay for so many steps of today's size.
void derive_horizon(RunConfig& c, const RunFacts& facts) {
  require_ahead(c, facts);
  if (!c.is_fixed("total-batch-tokens")) {
    c.total_batch_tokens = c.batch * c.seq * c.dp;
    c.mark_derived("total-batch-tokens", "batch x seq x dp");
  }
  if (c.is_set("steps") || c.tokens == 0) return;
  const auto left = std::max<int64_t>(0, c.tokens - static_cast<int64_t>(facts.tokens));
  c.steps = static_cast<int64_t>(facts.step) + left / c.total_batch_tokens;
  c.mark_derived("steps", "tokens / total-batch-tokens");
  if (c.steps == 0 && !facts.goes_on) {
    fail_usage("config", concat("--tokens ", c.tokens, " (", c.origin_text("tokens"), ") is less than one step of --total-batch-tokens ",
                                c.total_batch_tokens, " (", c.origin_text("total-batch-tokens"), "): give more, or a smaller step"));
  }
}

bool has_checkpoint(const std::string& run) {
  std::error_code none;
  for (const auto& entry : std::filesystem::directory_iterator(std::filesystem::path(run) / "ckpt", none)) {
    if (std::filesystem::exists(entry.path() / kManifest, none)) return true;
  }
  return false;
}

}  // namespace

TransformerConfig resolve(RunConfig& c, const RunFacts& facts) {
  constexpr int64_t kSmallestVocab = 2;
  refuse_unbuilt(c);
  require_runnable(c, true);
  if (!c.model.empty() && c.depth > 0) validate(c);  // says that they are two ways to choose one thing
  derive_ranks(c, facts.ranks);
  // The vocabulary of a preset stands in for data that nobody has looked at.
  const bool open = facts.vocab == 0 && !c.is_fixed("vocab") && c.model.empty();
  const TransformerConfig shape = model_config(c, open ? kSmallestVocab : facts.vocab);
  if (open) c.drop("vocab");
  derive_recipe(c, shape);
  if (open && c.source("tokens") == Source::derived) c.drop("tokens");  // too few for the data's vocabulary, and other options are judged by them
  derive_horizon(c, facts);
  validate(c);
  return shape;
}

void resolve_run(RunConfig& c, const RunFacts& facts) {
  refuse_unbuilt(c);
  require_runnable(c, true, true);
  derive_ranks(c, facts.ranks);
  derive_horizon(c, facts);
  validate(c);
}

void require_no_model_options(const RunConfig& c) {
  for (const Option<RunConfig>& option : RunConfig::options()) {
    const OptionInfo info = option.info();
    const bool of_the_data = option.name == "vocab" || option.name == "seq";
    if (info.group == "Model" && !of_the_data && c.is_stated(option.name))
      fail_usage("pretrain", concat("--", option.name, " (", c.origin_text(option.name), ") describes a model, and this program brings its own"));
  }
}

SavedRun with_saved_run(const RunConfig& config) {
  if (config.out.empty() || config.resume == ResumeMode::never || !has_checkpoint(config.out)) return {config, {}, ""};
  const Checkpoints::Loaded found = describe_checkpoint(config.out);
  const nlohmann::json counters = parse_strict_json(found.scalars, config.out + " (counters of the checkpoint)");
  const auto count = [&](const char* name) {
    return counters.contains(name) && counters[name].is_number_unsigned() ? counters[name].get<uint64_t>() : 0;
  };
  return {resume_config(found.config, config, concat("the configuration of step ", found.step)).config,
          {.goes_on = true, .step = found.step, .tokens = count("tokens")},
          folder_of(found.environment)};
}

int64_t step_samples(const RunConfig& c) {
  return c.total_batch_tokens / c.seq;
}

int64_t micro_steps(const RunConfig& c) {
  return step_samples(c) / (c.batch * c.dp);
}

}  // namespace heddle
