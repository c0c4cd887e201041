#include "train/dry_run.h"

#include <sys/statvfs.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <optional>

#include "data/dataset.h"
#include "data/file.h"
#include "kernels/api/printable.h"
#include "parallel/launch.h"
#include "train/assembly.h"
#include "train/config/resolve.h"
#include "train/config/shape.h"
#include "train/horizon.h"
#include "train/memory_plan.h"
#include "train/report/console.h"
#include "train/run_data.h"
#include "train/step_count.h"
#include "train/step_timer.h"
#include "train/threads.h"

namespace heddle {
namespace {

struct Plan {
  RunConfig config;
  TransformerConfig shape;
  RunFacts facts;
};

// What the data says of the vocabulary without any token being read; 0: nothing.
int64_t known_vocab(const RunConfig& config) {
  if (config.data.empty()) return 0;
  if (const ModelTokenizer found = find_tokenizer(config); found.tokenizer) return found.tokenizer->vocab_size();
  const std::optional<DatasetInfo> info = DatasetInfo::load(directory_name(expand_glob(config.data.front()).front()));
  return info ? info->vocab : 0;
}

Plan plan_run(const RunConfig& given) {
  Plan plan;
  const SavedRun saved = with_saved_run(given);
  plan.config = saved.config;
  plan.facts = saved.facts;
  const RunConfig& c = plan.config;
  require_saved_paths(c, saved.folder);
  plan.facts.ranks = c.world > 0 ? c.world : c.is_set("dp") ? c.dp * c.tp : launch_of_this_process().ranks;
  plan.facts.vocab = known_vocab(c);
  plan.shape = resolve(plan.config, plan.facts);
  return plan;
}

// A step of the whole run, in seconds, from one or two measured here; what else was done about it when that would take too long.
struct StepTime {
  std::optional<double> seconds;
  std::string how;
};
StepTime measure_step(const Plan& plan) {
  constexpr double kMostFlops = 4e12;  // of what is run at once: ten to forty seconds of a slow machine
  RunConfig c = plan.config;
  const double sequence = plan.shape.flops_per_token(c.seq) * static_cast<double>(c.seq);
  if (sequence > kMostFlops) return {std::nullopt, concat("not measured: one sequence alone is ", amount_text(sequence), "FLOP")};
  c.batch = std::clamp<int64_t>(static_cast<int64_t>(kMostFlops / sequence), 1, plan.config.batch);
  const double parts = static_cast<double>(plan.config.batch) / static_cast<double>(c.batch);
  const auto micro = static_cast<double>(micro_steps(plan.config));
  try {
    StepTimer timer(c, plan.shape, "dry-run");
    timer.step();  // allocates and warms caches
    const double one = timer.step();
    if (micro * parts == 1) return {one, "one step"};
    const double two = timer.step(2);
    return {one + std::max(0.0, two - one) * (micro * parts - 1), "steps of one and two micro-steps"};
  } catch (const Error& e) {
    if (e.code() == ExitCode::no_device) return {std::nullopt, "not measured: there is no GPU here"};
    if (e.code() != ExitCode::out_of_memory) throw;
    return {std::nullopt, "not measured: it does not fit into this machine's memory"};
  }
}

// What no allocator of ours sees of a GPU: its context and libraries, with NCCL where there are several ranks. Round figures.
double reserve_bytes(int64_t ranks) {
  constexpr double kGiB = 1024.0 * 1024 * 1024;
  return ranks > 1 ? 1.5 * kGiB : kGiB;
}

std::string number(double value, const char* format) {
  char text[64];
  std::snprintf(text, sizeof text, format, value);
  return text;
}

// Bytes free where the run directory is or would be.
double free_disk(const std::string& path) {
  std::error_code unknown;
  std::filesystem::path at = std::filesystem::absolute(path.empty() ? "." : path, unknown);
  while (!std::filesystem::exists(at, unknown) && at.has_relative_path()) at = at.parent_path();
  struct statvfs disk {};
  if (::statvfs(at.c_str(), &disk) != 0) return 0;
  return static_cast<double>(disk.f_bavail) * static_cast<double>(disk.f_frsize);
}

std::vector<TableRow> memory_rows(const Plan& plan, DType dtype, const Layout& layout, const MemoryStats& counted, DeviceType device) {
  const MemoryPlan memory = plan_memory(plan.config, plan.shape, layout, dtype);
  const auto live = [&](MemoryTag tag) { return static_cast<double>(counted.live[static_cast<size_t>(tag)]); };
  const double parameters = live(MemoryTag::parameter), gradients = live(MemoryTag::gradient), optimizer = live(MemoryTag::optimizer);
  const auto peak = static_cast<double>(counted.peak_total);
  const bool fp32 = dtype == DType::f32, muon = plan.config.optimizer == OptimizerChoice::muon;
  std::vector<TableRow> rows = {
      {"parameters", bytes_text(parameters), fp32 ? "fp32" : "bf16"},
      {"gradients", bytes_text(gradients), "fp32"},
      {"optimizer", bytes_text(optimizer), concat(fp32 ? "" : "fp32 masters, ", muon ? "momentum, AdamW for the rest" : "two moments")},
      {"activations", bytes_text(peak - parameters - gradients - optimizer), concat("and temporaries, with --batch ", plan.config.batch)},
      {"peak", bytes_text(peak), "counted: a step without kernels was run"}};
  if (device == DeviceType::cuda) {
    rows.push_back({"reserve", bytes_text(reserve_bytes(plan.facts.ranks)),
                    plan.facts.ranks > 1 ? "estimate: the CUDA context, libraries, NCCL" : "estimate: the CUDA context and libraries"});
  }
  rows.push_back({"checkpoint buffer", bytes_text(memory.snapshot), "host memory"});
  return rows;
}

// What the ranks say to each other in a step.
std::vector<TableRow> collective_rows(const StepCount& count) {
  std::vector<TableRow> rows;
  for (const StepCount::Collective& c : count.collectives) rows.push_back({c.name, counted(c.calls, "call"), concat(bytes_text(c.bytes), " a step")});
  return rows;
}

std::vector<TableRow> run_rows(const Plan& plan, DType dtype, const Layout& layout) {
  RunConfig c = plan.config;
  const StepTime step = measure_step(plan);
  if (c.minutes > 0 && c.steps == 0 && step.seconds) {
    c.steps = steps_in_minutes(c.minutes, 0, {.step = *step.seconds, .eval = {}, .save = {}}, c.warmup);
    c.mark_derived("steps", concat("minutes ", c.minutes, ", about: the run measures its own"));
  }
  std::vector<TableRow> rows = {{"vocabulary", std::to_string(plan.shape.vocab), c.origin_text("vocab")}};
  const auto left = static_cast<double>(c.steps) - static_cast<double>(plan.facts.step);
  if (c.steps > 0) {
    rows.push_back(
        {"steps", std::to_string(c.steps),
         plan.facts.step > 0 ? concat("of which ", plan.facts.step, plan.facts.step == 1 ? " is done" : " are done") : c.origin_text("steps")});
    rows.push_back({"tokens", amount_text(static_cast<double>(c.steps) * static_cast<double>(c.total_batch_tokens)),
                    concat(c.total_batch_tokens, " a step, in ", counted(micro_steps(c), "micro-step"), " of each rank")});
  }
  if (!c.data.empty()) {
    const Loader loader(loader_options(c, find_tokenizer(c)));
    const auto samples = static_cast<double>(loader.samples_per_epoch());
    rows.push_back({"data", counted(loader.samples_per_epoch(), "sample"), "an epoch"});
    if (c.steps > 0) rows.push_back({"epochs", number(static_cast<double>(c.steps) * static_cast<double>(step_samples(c)) / samples, "%.2f"), ""});
  }
  const MemoryPlan memory = plan_memory(c, plan.shape, layout, dtype);
  const int64_t forever = c.keep_every > 0 ? c.steps / c.keep_every : 0;
  rows.push_back({"disk", bytes_text(memory.checkpoint * static_cast<double>(c.keep_last + 1 + forever)),
                  concat(counted(c.keep_last + 1 + forever, "checkpoint"), " of ", bytes_text(memory.checkpoint), "; ", bytes_text(free_disk(c.out)),
                         " are free")});
  if (step.seconds) {
    rows.push_back({"a step", *step.seconds < 10 ? concat(number(*step.seconds * 1e3, "%.0f"), " ms") : duration_text(*step.seconds),
                    concat("from ", step.how, " measured here on one rank", plan.facts.ranks > 1 ? ", without communication" : "")});
    if (c.steps > 0) rows.push_back({"time", duration_text(std::max(0.0, left) * *step.seconds), "without evaluation, samples and saves"});
  } else {
    rows.push_back({"time", "?", step.how});
  }
  return rows;
}

// Where the GPU that is here has not the memory: Error(out_of_memory), with what would change no result and fit, the cheapest first.
void require_fit(const Plan& plan, double peak, Device device) {
  if (!has_device(device)) return;
  const int ranks = static_cast<int>(plan.facts.ranks);
  const double limit =
      static_cast<double>(runtime(device.type).memory_limit(device.index)) - (runtime(device.type).simulated() ? 0 : reserve_bytes(ranks));
  if (peak <= limit) return;
  const RunConfig& c = plan.config;
  std::string advice = "no --batch makes it fit, not with --recompute either; a smaller model does, or a shorter --seq";
  for (const bool recompute : {c.recompute, true}) {
    TransformerConfig shape = plan.shape;
    shape.recompute = recompute;
    bool found = false;
    for (int64_t batch = c.batch; batch >= 1 && !found; --batch) {
      if (c.batch % batch != 0 || (batch == c.batch && recompute == c.recompute)) continue;
      RunConfig changed = c;
      changed.batch = batch;
      const auto needed = static_cast<double>(count_step(changed, shape, ranks, device.type).memory.peak_total);
      found = needed <= limit;
      if (!found) continue;
      const bool smaller = batch < c.batch, more = recompute && !c.recompute;
      advice = concat(smaller ? concat("--batch ", batch, " (the same update in more micro-steps)") : "", smaller && more ? " with " : "",
                      more ? "--recompute" : "", " needs ", bytes_text(needed));
    }
    if (found) break;
  }
  fail("dry-run", concat("a rank needs ", bytes_text(peak), " of ", name_of(device), ", which has ", bytes_text(limit), " to give. ", advice),
       ExitCode::out_of_memory);
}

// Beside the configuration, which a shell may be writing to a file.
void say_recomputed(const RunConfig& config) {
  if (const std::string text = recomputed_text(config); !text.empty()) std::fprintf(stderr, "heddle: %s\n", text.c_str());
}

}  // namespace

void print_config(const RunConfig& given) {
  RunConfig config = with_saved_run(given).config;
  if (!config.model.empty() || config.depth > 0 || config.layers > 0) {
    config = plan_run(given).config;
  } else {
    validate(config);
  }
  std::fputs(to_toml(config, true).c_str(), stdout);
  say_recomputed(config);
}

void dry_run(const RunConfig& given) {
  const Plan plan = plan_run(given);
  const RunConfig& c = plan.config;
  if (plan.facts.vocab == 0 && c.vocab == 0) {
    fail_usage("pretrain", "--dry-run without --data does not know the size of the vocabulary: give --data, or --vocab N");
  }
  say_recomputed(c);
  use_threads(c.threads);
  const Transformer model(plan.shape);
  const Layout layout = make_layout(c, model);
  // Planned for a GPU, if asked for one, on any machine.
  const DeviceType device = c.device == DeviceChoice::cuda ? DeviceType::cuda : choose_device(c.device).type;
  const DType dtype = compute_dtype(c.precision, Device{device, 0});
  const StepCount count = count_step(c, plan.shape, static_cast<int>(plan.facts.ranks), device);
  std::printf("%s\n", to_toml(c, true).c_str());
  std::printf("%s\n", table_text(concat("memory of ", plan.facts.ranks == 1 ? "" : "each of ", counted(plan.facts.ranks, "rank"), ", ",
                                        amount_text(static_cast<double>(model.parameter_count())), " parameters"),
                                 memory_rows(plan, dtype, layout, count.memory, device))
                          .c_str());
  if (plan.facts.ranks > 1) std::printf("%s\n", table_text("what a rank sends and receives in a step", collective_rows(count)).c_str());
  std::fflush(stdout);  // what follows may refuse, and takes seconds
  if (device == DeviceType::cuda) require_fit(plan, static_cast<double>(count.memory.peak_total), {device, 0});
  std::printf("%s\n", table_text("the run", run_rows(plan, dtype, layout)).c_str());
}

}  // namespace heddle
