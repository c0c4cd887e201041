#include "train/memory_plan.h"

#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <fstream>
#include <limits>
#include <sstream>
#include <string>

#include "core/nn/mlp.h"
#include "kernels/api/check.h"
#include "parallel/unit_tree.h"
#include "train/assembly.h"
#include "train/report/console.h"

namespace heddle {
namespace {

constexpr double kUnknown = std::numeric_limits<double>::infinity();

// The number behind `key` in a file of lines "key number ..."; without a key the file's only number. Infinity: no such file, key or number ("max").
double number_in(const std::string& path, std::string_view key = {}) {
  std::ifstream in(path);
  for (std::string line; std::getline(in, line);) {
    std::istringstream words(line);
    std::string word;
    double number = 0;
    if (!key.empty() && !(words >> word && word == key)) continue;
    return words >> number ? number : kUnknown;
  }
  return kUnknown;
}

// What a control group leaves, and the groups around it. Cache that can be dropped counts as free.
double control_group_memory() {
  struct Version {
    std::string root, limit, used, cache;
  };
  const Version second = {"/sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"};
  const Version first = {"/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"};
  double least = kUnknown;
  std::ifstream groups("/proc/self/cgroup");  // "0::/path", or "5:memory:/path"
  for (std::string line; std::getline(groups, line);) {
    const size_t names = line.find(':'), place = line.find(':', names + 1);
    if (names == std::string::npos || place == std::string::npos) continue;
    const std::string controllers = line.substr(names + 1, place - names - 1);
    if (!controllers.empty() && controllers.find("memory") == std::string::npos) continue;
    const Version& v = controllers.empty() ? second : first;
    for (std::string path = line.substr(place + 1);; path.erase(path.rfind('/'))) {
      const std::string folder = v.root + (path == "/" ? "" : path) + "/";
      const double limit = number_in(folder + v.limit), used = number_in(folder + v.used), cache = number_in(folder + "memory.stat", v.cache);
      if (limit < kUnknown && used < kUnknown) least = std::min(least, std::max(0.0, limit - used + (cache < kUnknown ? cache : 0)));
      if (path.find('/') == std::string::npos) break;
    }
  }
  return least;
}

// Ranks that share this machine, as their launcher says: Open MPI, MPICH and Intel MPI.
int ranks_here() {
  for (const char* name : {"OMPI_COMM_WORLD_LOCAL_SIZE", "MPI_LOCALNRANKS"}) {
    if (const char* value = std::getenv(name)) return std::max(1, std::atoi(value));
  }
  return 1;
}

// Elements of what a rank keeps of the optimizer's state.
struct Kept {
  double matrices = 0, rest = 0;
  double total() const { return matrices + rest; }
};
Kept kept_by(const Layout& layout, int rank) {
  const int64_t border = layout.section(Section::matrix).end;
  Kept kept;
  for (const Range& range : layout.owned(rank)) {
    kept.matrices += static_cast<double>(std::max<int64_t>(0, std::min(range.end, border) - range.begin));
    kept.rest += static_cast<double>(std::max<int64_t>(0, range.end - std::max(range.begin, border)));
  }
  return kept;
}

double optimizer_bytes(const RunConfig& c, const Kept& kept) {
  return c.optimizer == OptimizerChoice::muon ? 4 * kept.matrices + 8 * kept.rest : 8 * kept.total();
}

// Bytes for summing gradients, beside the model's own. --deterministic keeps sums of micro-steps, like the digits of a binary counter, and gets of
// every other rank's what is its own to add; with --grad-reduce bf16 ranks send copies; whole matrices are sorted by owner for reduce_scatter.
double reduction_bytes(const RunConfig& c, const Layout& layout, double owned) {
  constexpr int64_t kCounted = 4096;  // micro-steps; of more the bound is good enough
  const int64_t ranks = layout.mesh().dp, units = std::max<int64_t>(c.total_batch_tokens / (c.batch * c.seq * ranks), 1);
  const double trained = static_cast<double>(layout.trainable().size());
  if (c.deterministic) {
    const bool aligned = ranks == 1 || (units & (units - 1)) == 0;
    const int64_t bound = 2 * static_cast<int64_t>(std::bit_width(static_cast<uint64_t>(units)));
    int64_t waiting = aligned ? bound / 2 - 1 : 0, sums = 0, fewest = bound;
    for (int64_t rank = 0; rank < ranks; ++rank) {
      const auto mine = static_cast<int64_t>(tree_nodes(rank * units, units).size());
      sums += mine;
      fewest = std::min(fewest, mine);
      if (!aligned) waiting = std::max(waiting, units <= kCounted ? tree_waiting(rank * units, units) : bound);
    }
    return 4 * (static_cast<double>(waiting) * trained + static_cast<double>(sums - fewest) * owned);
  }
  if (ranks == 1) return 0;
  if (c.grad_reduce == GradReduceChoice::bf16) return 2 * (trained - owned) + 2 * static_cast<double>(ranks - 1) * owned;
  const bool sorted = c.zero > 0 && c.optimizer == OptimizerChoice::muon;
  return sorted ? 4 * static_cast<double>(layout.section(Section::matrix).size()) : 0;
}

}  // namespace

double activation_bytes(const RunConfig& c, const TransformerConfig& m, DType dtype) {
  const double value = static_cast<double>(size_of(dtype));
  const double rows = static_cast<double>(c.batch) * static_cast<double>(c.seq), dim = static_cast<double>(m.dim);
  const double heads = static_cast<double>(m.heads), width = static_cast<double>(m.heads + 2 * m.kv_heads) * static_cast<double>(m.head_dim);
  const double hidden = static_cast<double>(m.mlp_dim) * mlp_kind(m.mlp).matrices();
  // In a block: both norms' outputs and the stream between, qkv (twice with QK norm), attention output and LSE, the MLP's hidden.
  const double block = rows * (value * (4 * dim + width * (m.qk_norm ? 2 : 1) + heads * static_cast<double>(m.head_dim) + hidden) + 4 * heads);
  const double layers = static_cast<double>(m.layers);
  return m.recompute ? layers * rows * value * dim + block : layers * block;
}

namespace {

MemoryPlan plan_state(const RunConfig& c, const Layout& layout, DType dtype) {
  const double value = static_cast<double>(size_of(dtype)), trained = static_cast<double>(layout.trainable().size());
  const double matrices = static_cast<double>(layout.section(Section::matrix).size());
  const Kept all{matrices, trained - matrices};
  Kept kept = all;
  double owned = 0;  // the most of any rank
  if (const int ranks = layout.mesh().dp; ranks > 1) {
    Kept most;
    for (int rank = 0; rank < ranks; ++rank) {
      const Kept of_rank = kept_by(layout, rank);
      owned = std::max(owned, of_rank.total());
      if (4 * of_rank.total() + optimizer_bytes(c, of_rank) > 4 * most.total() + optimizer_bytes(c, most)) most = of_rank;
    }
    if (c.zero > 0) kept = most;
  }
  MemoryPlan plan;
  plan.parameters = value * static_cast<double>(layout.size());
  plan.masters = dtype == DType::f32 ? 0 : 4 * kept.total();
  plan.gradients = 4 * trained + reduction_bytes(c, layout, owned);
  plan.optimizer = optimizer_bytes(c, kept);
  const double frozen = dtype == DType::f32 ? value * static_cast<double>(layout.section(Section::frozen).size()) : 0;
  plan.snapshot = 4 * kept.total() + plan.optimizer + frozen;
  plan.checkpoint = 4 * all.total() + optimizer_bytes(c, all) + frozen;
  return plan;
}

}  // namespace

MemoryPlan plan_memory(const RunConfig& c, const TransformerConfig& m, const Layout& layout, DType dtype) {
  MemoryPlan plan = plan_state(c, layout, dtype);
  plan.activations = activation_bytes(c, m, dtype);
  return plan;
}

double available_memory() {
  constexpr double kKiB = 1024;
  double available = number_in("/proc/meminfo", "MemAvailable:") * kKiB;
  if (const double swap = number_in("/proc/meminfo", "SwapFree:"); swap < kUnknown) available += swap * kKiB;
  available = std::min(available, control_group_memory());
  struct rlimit limit {};
  const double pages = number_in("/proc/self/statm");  // its first number: all that is mapped
  if (::getrlimit(RLIMIT_AS, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY && pages < kUnknown) {
    const double mapped = pages * static_cast<double>(::sysconf(_SC_PAGESIZE));
    available = std::min(available, std::max(0.0, static_cast<double>(limit.rlim_cur) - mapped) * ranks_here());  // the limit of one process
  }
  return available;
}

void require_memory(std::string_view op, const RunConfig& c, const Transformer& model, DType dtype, Device device, bool saves) {
  if (device.type != DeviceType::cpu || !c.memory_check) return;
  const int ranks = ranks_here();
  const double available = available_memory();
  const Layout layout = make_layout(c, model);
  const auto need = [&](int64_t batch, bool recompute) {
    RunConfig changed = c;
    changed.batch = batch;
    TransformerConfig shape = model.config();
    shape.recompute = recompute;
    MemoryPlan plan = plan_memory(changed, shape, layout, dtype);
    if (!saves) plan.snapshot = 0;
    return ranks * plan.total();
  };
  const double needed = need(c.batch, c.recompute);
  if (needed <= available) return;

  // What changes no result, the cheapest first.
  std::string advice;
  for (const bool recompute : {c.recompute, true}) {
    for (int64_t batch = c.batch; batch >= 1 && advice.empty(); --batch) {
      if (c.batch % batch != 0 || need(batch, recompute) > available) continue;
      const bool smaller = batch < c.batch, more = recompute && !c.recompute;
      advice = concat(smaller ? concat("--batch ", batch, c.total_batch_tokens > 0 ? " (the same update in more micro-steps)" : "") : "",
                      smaller && more ? " with " : "", more ? "--recompute" : "", " needs ", bytes_text(need(batch, recompute)));
    }
  }
  if (advice.empty()) {
    advice = concat("no --batch makes it fit: weights, gradients", saves ? ", " : " and ",
                    c.optimizer == OptimizerChoice::muon ? "momentum" : "moments", saves ? " and the snapshot for checkpoints" : "", " alone need ",
                    bytes_text(need(1, true)), "; a smaller model (--depth, --layers, --dim) does, or a shorter --seq if that is what is large");
  }
  const MemoryPlan plan = plan_memory(c, model.config(), layout, dtype);
  fail(op,
       concat("this run needs about ", bytes_text(needed), ranks > 1 ? concat(" for the ", ranks, " ranks on this machine") : "", ", of which ",
              bytes_text(ranks * plan.activations), " are activations of --batch ", c.batch, " x --seq ", c.seq, "; ", bytes_text(available),
              " of memory are available. ", advice, ". heddle pretrain --dry-run shows where it goes, --no-memory-check starts all the same"),
       ExitCode::out_of_memory);
}

void require_state_memory(std::string_view op, const RunConfig& c, const Layout& layout, DType dtype, Device device) {
  if (device.type != DeviceType::cpu || !c.memory_check) return;
  const double needed = ranks_here() * plan_state(c, layout, dtype).total(), available = available_memory();
  if (needed <= available) return;
  fail(op,
       concat("weights, gradients, moments and the snapshot for checkpoints need about ", bytes_text(needed), "; ", bytes_text(available),
              " of memory are available: train a smaller model; --no-memory-check starts all the same"),
       ExitCode::out_of_memory);
}

void require_batch_memory(std::string_view op, const TransformerConfig& shape, int64_t batch, int64_t seq, DType dtype, Device device) {
  if (device.type != DeviceType::cpu) return;
  RunConfig config;
  config.batch = batch;
  config.seq = seq;
  TransformerConfig block = shape;
  block.layers = 1;
  block.recompute = false;
  const double needed = ranks_here() * activation_bytes(config, block, dtype), available = available_memory();
  if (needed <= available) return;
  fail(op,
       concat("--batch ", batch, " of sequences of ", seq, " needs about ", bytes_text(needed), "; ", bytes_text(available),
              " of memory are available: give a smaller --batch"),
       ExitCode::out_of_memory);
}

}  // namespace heddle
