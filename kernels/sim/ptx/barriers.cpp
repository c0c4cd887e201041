// Instructions that synchronise: named barriers, mbarriers, proxy fences, clusters, dependent launches.
#include "kernels/sim/ptx/ptx_internal.h"

namespace heddle::ptx {

using sim::Site;

// ---- named barriers ----

namespace {
void require_barrier(uint32_t id, uint32_t threads, const Site& site) {
  if (id >= sim::kMaxNamedBarriers) sim::fault("barrier id", "0 to 15, not " + std::to_string(id), site);
  if (threads == 0 || threads % sim::kWarpSize != 0 || threads > sim::this_block().thread_count) {
    sim::fault(
        "barrier size",
        "threads must be a multiple of 32 up to the block's " + std::to_string(sim::this_block().thread_count) + ", not " + std::to_string(threads),
        site);
  }
}
}  // namespace

void bar_sync(uint32_t id, uint32_t threads, Where at) {
  const Site site = at.op("bar.sync");
  require_barrier(id, threads, site);
  sim::barrier_sync(id, threads, site);
}
void bar_arrive(uint32_t id, uint32_t threads, Where at) {
  const Site site = at.op("bar.arrive");
  require_barrier(id, threads, site);
  sim::barrier_arrive(id, threads, site);
}

// ---- mbarriers ----

namespace {
constexpr uint32_t kMaxArrivals = (1u << 20) - 1;  // PTX ISA, "Contents of the mbarrier object"

uint32_t own_mbarrier(uint32_t address, const Site& site) {
  own_shared(address, 8, 8, site);
  return address;
}
uint32_t cluster_mbarrier_at(uint32_t address, const Site& site) {
  require_aligned(address, 8, "the mbarrier", site);
  sim::shared_pointer(address, 8, site);
  return address;
}
}  // namespace

void mbarrier_init(uint32_t mbarrier, uint32_t arrivals, Where at) {
  const Site site = at.op("mbarrier.init");
  if (arrivals == 0 || arrivals > kMaxArrivals) sim::fault("mbarrier count", "1 to 2^20 - 1, not " + std::to_string(arrivals), site);
  sim::mbarrier_init(own_mbarrier(mbarrier, site), arrivals, site);
}
void mbarrier_inval(uint32_t mbarrier, Where at) {
  const Site site = at.op("mbarrier.inval");
  sim::mbarrier_invalidate(own_mbarrier(mbarrier, site), site);
}
void mbarrier_arrive(uint32_t mbarrier, Where at) {
  const Site site = at.op("mbarrier.arrive");
  sim::mbarrier_arrive(own_mbarrier(mbarrier, site), 1, 0, sim::Releases::all, site);
}
void mbarrier_expect_tx(uint32_t mbarrier, uint32_t bytes, Where at) {
  const Site site = at.op("mbarrier.expect_tx");
  sim::mbarrier_arrive(own_mbarrier(mbarrier, site), 0, bytes, sim::Releases::nothing, site);
}
void mbarrier_arrive_expect_tx(uint32_t mbarrier, uint32_t bytes, Where at) {
  const Site site = at.op("mbarrier.arrive.expect_tx");
  sim::mbarrier_arrive(own_mbarrier(mbarrier, site), 1, bytes, sim::Releases::all, site);
}
void mbarrier_arrive_cluster(uint32_t cluster_mbarrier, Where at) {
  const Site site = at.op("mbarrier.arrive.shared::cluster");
  sim::mbarrier_arrive(cluster_mbarrier_at(cluster_mbarrier, site), 1, 0, sim::Releases::all, site);
}
void mbarrier_arrive_async_reads(uint32_t cluster_mbarrier, Where at) {
  const Site site = at.op("mbarrier.arrive.shared::cluster (async reads)");
  sim::mbarrier_arrive(cluster_mbarrier_at(cluster_mbarrier, site), 1, 0, sim::Releases::async_ops, site);
}
void mbarrier_arrive_expect_tx_cluster(uint32_t cluster_mbarrier, uint32_t bytes, Where at) {
  const Site site = at.op("mbarrier.arrive.expect_tx.shared::cluster");
  sim::mbarrier_arrive(cluster_mbarrier_at(cluster_mbarrier, site), 1, bytes, sim::Releases::all, site);
}
bool mbarrier_test(uint32_t mbarrier, uint32_t parity, Where at) {
  const Site site = at.op("mbarrier.test_wait.parity");
  return sim::mbarrier_test(own_mbarrier(mbarrier, site), parity & 1, site);
}
void mbarrier_wait(uint32_t mbarrier, uint32_t parity, Where at) {
  const Site site = at.op("mbarrier.try_wait.parity");
  sim::mbarrier_wait(own_mbarrier(mbarrier, site), parity & 1, site);
}
void mbarrier_wait_cluster(uint32_t mbarrier, uint32_t parity, Where at) {
  const Site site = at.op("mbarrier.try_wait.parity.acquire.cluster");
  sim::mbarrier_wait(own_mbarrier(mbarrier, site), parity & 1, site);
}
void fence_mbarrier_init(Where at) {
  sim::mbarrier_init_fence(at.op("fence.mbarrier_init"));
}

// ---- proxies ----

void fence_proxy_async_shared(Where at) {
  sim::proxy_fence_async(at.op("fence.proxy.async.shared::cta"));
}
void fence_proxy_async_global(Where at) {
  sim::proxy_fence_async(at.op("fence.proxy.async.global"));
}
void fence_proxy_async(Where at) {
  sim::proxy_fence_async(at.op("fence.proxy.async"));
}

// ---- clusters ----
// .aligned: the warp arrives together.

namespace {
void converge(const Site& site) {
  sim::collect(sim::this_thread().warp->live, nullptr, nullptr, site);
}
}  // namespace

void cluster_arrive(Where at) {
  const Site site = at.op("barrier.cluster.arrive.release");
  converge(site);
  sim::cluster_arrive(true, site);
}
void cluster_arrive_relaxed(Where at) {
  const Site site = at.op("barrier.cluster.arrive.relaxed");
  converge(site);
  sim::cluster_arrive(false, site);
}
void cluster_wait(Where at) {
  const Site site = at.op("barrier.cluster.wait");
  converge(site);
  sim::cluster_wait(site);
}
uint32_t cluster_rank(Where) {
  return sim::this_block().cluster_rank;
}
uint32_t cluster_size(Where) {
  return sim::this_block().cluster_size;
}
uint32_t mapa(uint32_t smem, uint32_t rank, Where at) {
  const Site site = at.op("mapa.shared::cluster");
  if (rank >= sim::this_block().cluster_size) {
    sim::fault("cluster rank", "the cluster has " + std::to_string(sim::this_block().cluster_size) + " blocks, rank is " + std::to_string(rank),
               site);
  }
  return sim::shared_in_rank(smem, rank, site);
}

// ---- dependent launches ----
// Grids run one after another here, so these have nothing to do.
void griddepcontrol_wait(Where) {}
void griddepcontrol_launch_dependents(Where) {}

}  // namespace heddle::ptx
