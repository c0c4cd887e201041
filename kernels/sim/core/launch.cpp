// A launch: its checks, the blocks laid out as groups, the workers that run groups until none is left.
#include <algorithm>
#include <condition_variable>
#include <cstdlib>
#include <mutex>
#include <string_view>
#include <thread>

#include "kernels/api/check.h"
#include "kernels/sim/core/machine_internal.h"
#include "kernels/sim/core/mutation.h"
#include "kernels/sim/cudart/memory.h"

namespace heddle::sim {

namespace {

constexpr uint64_t kIdle = ~uint64_t{0};
constexpr uint64_t kMaxCoResidentThreads = 132 * 2048;  // a cooperative grid must fit a device: 132 multiprocessors of 2048 threads (H100)

// ---- options ----

uint64_t number(std::string_view text, const char* what) {
  uint64_t value = 0;
  bool digits = !text.empty() && text.size() <= 18;
  for (const char c : text) {
    digits = digits && c >= '0' && c <= '9';
    value = value * 10 + static_cast<uint64_t>(c - '0');
  }
  HEDDLE_CHECK(digits, "sim", what, " takes a number, not '", text, "'");
  return value;
}

void parse_mode(std::string_view text, Options& options) {
  constexpr std::string_view kSeeded = "random:";
  const bool seeded = text.substr(0, kSeeded.size()) == kSeeded;
  HEDDLE_CHECK(text == "eager" || text == "lazy" || text == "random" || seeded, "sim", "HEDDLE_SIM_MODE is eager, lazy or random[:seed], not '", text,
               "'");
  options.mode = text == "eager" ? AsyncMode::eager : text == "lazy" ? AsyncMode::lazy : AsyncMode::random;
  if (seeded) options.seed = number(text.substr(kSeeded.size()), "HEDDLE_SIM_MODE=random:");
}

Options from_environment() {
  require_good_mutation_variable();
  Options options;
  if (const char* mode = std::getenv("HEDDLE_SIM_MODE"); mode != nullptr && *mode != 0) parse_mode(mode, options);
  if (const char* threads = std::getenv("HEDDLE_SIM_THREADS"); threads != nullptr && *threads != 0)
    options.threads = static_cast<int>(std::min<uint64_t>(number(threads, "HEDDLE_SIM_THREADS"), 1024));
  return options;
}

Options& the_options() {
  static Options options = from_environment();
  return options;
}

// ---- groups ----

void lay_out(BlockState& block, const Launch& launch, Group& group, uint32_t slot, Index3 index, uint32_t rank, Index3 in_cluster) {
  const Index3& dim = launch.geometry.block;
  const auto threads = static_cast<uint32_t>(dim.volume());
  const uint32_t warps = (threads + kWarpSize - 1) / kWarpSize;
  block.group = &group;
  block.slot = slot;
  block.index = index;
  block.linear = index.x + uint64_t{launch.geometry.grid.x} * (index.y + uint64_t{launch.geometry.grid.y} * index.z);
  block.cluster_rank = rank;
  block.cluster_size = static_cast<uint32_t>(launch.geometry.cluster.volume());
  block.cluster_index = in_cluster;
  const bool same_shape = block.thread_count == threads && block.shape == dim;
  block.live = threads;
  block.ready_warps = warps == 32 ? ~0u : (1u << warps) - 1;
  block.current_warp = 0;
  if (!same_shape) {
    block.thread_count = threads;
    block.warp_count = warps;
    block.shape = dim;
    block.threads.clear();
    block.threads.resize(threads);
    block.warps.clear();
    block.warps.resize(warps);
    block.warpgroups.clear();
    block.warpgroups.resize(threads / kWarpgroupSize);
    Index3 at{0, 0, 0};
    for (uint32_t i = 0; i < threads; ++i) {
      ThreadState& thread = block.threads[i];
      thread.index = at;
      thread.linear = i;
      thread.lane = i % kWarpSize;
      thread.warp = &block.warps[i / kWarpSize];
      thread.block = &block;
      if (++at.x == dim.x) {
        at.x = 0;
        if (++at.y == dim.y) {
          at.y = 0;
          ++at.z;
        }
      }
    }
    for (uint32_t w = 0; w < warps; ++w) {
      WarpState& warp = block.warps[w];
      warp.id = w;
      warp.block = &block;
      warp.lanes = &block.threads[w * kWarpSize];
      const uint32_t lanes = std::min(kWarpSize, threads - w * kWarpSize);
      warp.existing = lanes == 32 ? ~0u : (1u << lanes) - 1;
    }
  }
  for (ThreadState& thread : block.threads) {
    thread.stage = ThreadState::Stage::unstarted;
    thread.cluster_arrived = false;
    thread.id = slot * kMaxThreadsPerBlock + thread.linear;
    thread.wait_address = 0;
    thread.cluster_phase = 0;
    thread.copies.clear();
    thread.bulk.clear();
    thread.bulk_sources_waited = 0;
    thread.site = {"", 0, "(not started)"};
  }
  for (WarpState& warp : block.warps) {
    warp.live = warp.ready = warp.existing;
    warp.pending.arrived = 0;
    warp.apart.clear();
  }
  for (Barrier& barrier : block.barriers) barrier = Barrier{};
  for (Warpgroup& warpgroup : block.warpgroups) warpgroup = Warpgroup{};
  block.mbarriers.clear();
}

Index3 unflatten(uint64_t i, const Index3& dim) {
  return {static_cast<uint32_t>(i % dim.x), static_cast<uint32_t>(i / dim.x % dim.y), static_cast<uint32_t>(i / dim.x / dim.y)};
}

void set_up_group(Worker& worker, LaunchState& state, uint64_t index) {
  const Launch& launch = *state.launch;
  const Geometry& geometry = launch.geometry;
  const Index3& cluster = geometry.cluster;
  const Index3 clusters{geometry.grid.x / cluster.x, geometry.grid.y / cluster.y, geometry.grid.z / cluster.z};
  const auto cluster_size = static_cast<uint32_t>(cluster.volume());
  const auto cluster_count = static_cast<uint32_t>(launch.cooperative ? clusters.volume() : 1);
  Group& group = worker.group;
  group.launch = &launch;
  group.shared = &state;
  group.index = index;
  group.block_count = cluster_count * cluster_size;
  group.current_block = 0;
  group.async.clear();
  group.idle_spins = 0;
  group.failed = false;
  group.unwind_block = group.unwind_thread = 0;
  group.ready_blocks.assign((group.block_count + 63) / 64, 0);
  while (group.blocks.size() < group.block_count) group.blocks.push_back(std::make_unique<BlockState>());
  for (uint32_t slot = 0; slot < group.block_count; ++slot) {
    const Index3 at = unflatten(launch.cooperative ? slot / cluster_size : index, clusters);
    const uint32_t rank = slot % cluster_size;
    const Index3 inside = unflatten(rank, cluster);
    BlockState& block = *group.blocks[slot];
    lay_out(block, launch, group, slot, {at.x * cluster.x + inside.x, at.y * cluster.y + inside.y, at.z * cluster.z + inside.z}, rank, inside);
    open_window(worker, block);
    group.ready_blocks[slot / 64] |= uint64_t{1} << (slot % 64);
  }
  const auto threads = static_cast<uint32_t>(geometry.block.volume());
  group.live = uint64_t{group.block_count} * threads;
  group.clusters.assign(cluster_count, ClusterBarrier{});
  for (ClusterBarrier& barrier : group.clusters) barrier.live = cluster_size * threads;
  group.grid = ClusterBarrier{};
  group.grid.live = group.block_count * threads;
}

// ---- workers ----

// Runs groups of one launch until none is left or one has failed. `id` is the worker's place in LaunchState::running.
void work(LaunchState& state, Worker& worker, size_t id) {
  const Options& options = the_options();
  worker.shuffle_order = options.mode == AsyncMode::random;
  worker.defer = options.mode != AsyncMode::eager;
  cudart::install_fault_handler();
  current_worker = &worker;
  current_geometry = &state.launch->geometry;
  for (;;) {
    const uint64_t index = state.next_group.fetch_add(1);
    if (index >= state.group_count) break;
    state.running[id].store(index);
    worker.random.reseed(options.seed * 0xD1B54A32D192ED03ull + index + 1);
    worker.async_odds = 2u << worker.random.below(9);  // from nearly at once to after several wgmmas of 128 arrivals each
    set_up_group(worker, state, index);
    run_group(worker);
    if (!worker.group.failed) continue;
    std::lock_guard lock(state.mutex);
    if (state.failure.empty()) {
      state.failure = worker.group.failure;
      state.failure_site = worker.group.failure_site;
    }
    state.next_group = state.group_count;
  }
  state.running[id].store(kIdle);
  current_worker = nullptr;
  current_geometry = nullptr;
}

// Threads that live as long as the process, since making one costs more than a small kernel.
class Pool {
 public:
  ~Pool() {
    {
      std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    begin_.notify_all();
    for (std::thread& thread : threads_) thread.join();
  }

  // Runs work() on the caller and on helpers.
  void run(LaunchState& state, size_t workers) {
    while (workers_.size() < workers) workers_.push_back(std::make_unique<Worker>());
    while (threads_.size() + 1 < workers) {
      const size_t id = threads_.size() + 1;
      threads_.emplace_back([this, id] { help(id); });
    }
    {
      std::lock_guard lock(mutex_);
      state_ = &state;
      helpers_ = workers - 1;
      left_ = helpers_;
      ++turn_;
    }
    if (workers > 1) begin_.notify_all();
    work(state, *workers_[0], 0);
    std::unique_lock lock(mutex_);
    done_.wait(lock, [this] { return left_ == 0; });
  }

 private:
  void help(size_t id) {
    uint64_t seen = 0;
    std::unique_lock lock(mutex_);
    for (;;) {
      begin_.wait(lock, [&] { return stopping_ || turn_ != seen; });
      if (stopping_) return;
      seen = turn_;
      if (id > helpers_) continue;
      LaunchState& state = *state_;
      lock.unlock();
      work(state, *workers_[id], id);
      lock.lock();
      if (--left_ == 0) done_.notify_one();
    }
  }

  std::mutex mutex_;
  std::condition_variable begin_, done_;
  std::vector<std::thread> threads_;
  std::vector<std::unique_ptr<Worker>> workers_;
  LaunchState* state_ = nullptr;
  size_t helpers_ = 0, left_ = 0;
  uint64_t turn_ = 0;
  bool stopping_ = false;
};

Launcher the_launcher = nullptr;

}  // namespace

std::string kernel_name(const char* text) {
  std::string_view name = text;
  while (name.size() > 2 && name.front() == '(' && name.back() == ')') name = name.substr(1, name.size() - 2);
  return std::string(name);
}

bool lower_groups_are_running(const Group& group) {
  return std::any_of(group.shared->running.begin(), group.shared->running.end(),
                     [&](const std::atomic<uint64_t>& at) { return at.load() < group.index; });
}

Options options() {
  return the_options();
}

void set_options(const Options& options) {
  the_options() = options;
}

void validate(const Launch& launch) {
  const Index3 &grid = launch.geometry.grid, &block = launch.geometry.block, &cluster = launch.geometry.cluster;
  const auto text = [](const Index3& i) { return concat("(", i.x, ",", i.y, ",", i.z, ")"); };
  const auto check = [&](bool good, const auto&... parts) {
    if (!good) fail("sim", concat("kernel ", kernel_name(launch.kernel), ": ", parts...));
  };
  check(grid.volume() != 0 && grid.x <= 0x7fffffffu && grid.y <= 65535 && grid.z <= 65535, "grid ", text(grid),
        " is empty or beyond (2^31-1, 65535, 65535)");
  check(block.volume() != 0 && block.volume() <= kMaxThreadsPerBlock && block.z <= 64, "block ", text(block),
        " is empty, beyond 1024 threads or 64 in z");
  check(cluster.volume() != 0 && cluster.volume() <= kMaxBlocksPerCluster, "cluster ", text(cluster), " is empty or beyond ", kMaxBlocksPerCluster,
        " blocks (more need an attribute of the kernel that HEDDLE_LAUNCH_AS does not set)");
  check(grid.x % cluster.x == 0 && grid.y % cluster.y == 0 && grid.z % cluster.z == 0, "cluster ", text(cluster), " does not divide grid ",
        text(grid));
  check(launch.dynamic_shared <= kMaxSharedBytes, launch.dynamic_shared, " bytes of dynamic shared memory; a block has at most ", kMaxSharedBytes);
  check(!launch.cooperative || grid.volume() * block.volume() <= kMaxCoResidentThreads, "cooperative launch of ", grid.volume() * block.volume(),
        " threads; a device holds ", kMaxCoResidentThreads, " at once");
}

void run(const Launch& launch) {
  validate(launch);
  HEDDLE_CHECK(current_worker == nullptr, "sim", "a kernel launches kernel ", kernel_name(launch.kernel), "; there is no dynamic parallelism here");
  static std::mutex one_at_a_time;
  static Pool pool;
  static uint32_t launches = 0;
  std::lock_guard lock(one_at_a_time);

  LaunchState state;
  state.launch = &launch;
  state.id = ++launches;
  state.group_count = launch.cooperative ? 1 : launch.geometry.grid.volume() / launch.geometry.cluster.volume();
  const Options& options = the_options();  // before anything has begun: it refuses a bad environment
  const int wanted = checker != nullptr ? 1 : options.threads;
  const size_t cores = wanted > 0 ? static_cast<size_t>(wanted) : std::max(1u, std::thread::hardware_concurrency());
  const size_t workers = static_cast<size_t>(std::min<uint64_t>(cores, state.group_count));
  state.running = std::vector<std::atomic<uint64_t>>(workers);
  for (auto& at : state.running) at = kIdle;
  if (checker != nullptr) checker->launch_begin(launch);
  pool.run(state, workers);
  if (checker != nullptr) checker->launch_end();
  if (!state.failure.empty())
    fail("sim", concat("kernel ", kernel_name(launch.kernel), ": ", state.failure), ExitCode::runtime, state.failure_site.file,
         state.failure_site.line);
}

void submit(Launch launch, void* native_stream) {
  if (the_launcher != nullptr) return the_launcher(std::move(launch), native_stream);
  run(launch);
}

void set_launcher(Launcher launcher) {
  the_launcher = launcher;
}

}  // namespace heddle::sim
