// mbarrier objects (PTX ISA, "Parallel Synchronization and Communication Instructions: mbarrier"). The machine keeps their state beside the block;
// the eight bytes in shared memory hold a mark and an index, so that a kernel that overwrites a barrier, or uses one it never initialised, is told
// so.
#include <algorithm>
#include <cstring>

#include "kernels/api/check.h"
#include "kernels/sim/core/machine_internal.h"

namespace heddle::sim {

namespace {

constexpr uint32_t kMark = 0x6d626172;  // "mbar"
constexpr uint32_t kMaxCount = (1u << 20) - 1;

struct InMemory {
  uint32_t mark, index;
};

std::byte* object_bytes(BlockState& home, uint32_t address, const Site& site) {
  BlockState& block = block_of_address(home, address, site);
  return block.shared + (address & ((1u << kSharedRankShift) - 1));
}

std::string state_text(const Mbarrier& barrier) {
  return concat("smem+", barrier.offset, ", initialised in ", site_text(barrier.init_site), ", phase ", barrier.phase, ": ", barrier.pending, " of ",
                barrier.count, " arrivals and ", barrier.tx, " bytes missing");
}

void wake_waiters(Mbarrier& barrier) {
  auto& waiters = barrier.waiters;
  const auto still_waiting = [&](ThreadState* thread) {
    if (thread->wait_parity == (barrier.phase & 1)) return true;
    thread->wait_address = 0;
    make_ready(*thread);
    return false;
  };
  waiters.erase(std::stable_partition(waiters.begin(), waiters.end(), still_waiting), waiters.end());
}

void end_phase_if_complete(Mbarrier& barrier) {
  if (barrier.pending != 0 || barrier.tx != 0) return;
  ++barrier.phase;
  barrier.pending = barrier.count;
  if (checker != nullptr) checker->complete(barrier.clock);
  wake_waiters(barrier);
  progress_made();
}

void arrive(Mbarrier& barrier, uint32_t arrivals, int64_t tx, const Site& site) {
  barrier.tx += tx;
  if (std::abs(barrier.tx) > kMaxCount) fault("mbarrier transaction count", concat("out of range: ", state_text(barrier)), site);
  if (arrivals > barrier.pending) fault("mbarrier arrivals", concat(arrivals, " more than the phase expects: ", state_text(barrier)), site);
  barrier.pending -= arrivals;
  end_phase_if_complete(barrier);
}

bool phase_complete(const Mbarrier& barrier, uint32_t parity) {
  return (barrier.phase & 1) != parity;
}

// The object itself is memory too: whoever uses it must be ordered after its initialisation.
void touch(uint32_t address, AtomicKind kind, const Site& site) {
  if (checker != nullptr) checker->sync_object(self(), object_bytes(block_state(self()), address, site), sizeof(InMemory), kind, site);
}

}  // namespace

Mbarrier& find_mbarrier(BlockState& home, uint32_t address, const Site& site) {
  BlockState& block = block_of_address(home, address, site);
  const uint32_t offset = address & ((1u << kSharedRankShift) - 1);
  if (offset % 8 != 0) fault("misaligned mbarrier", concat("smem+", offset, " is no multiple of 8"), site);
  InMemory in_memory;
  std::memcpy(&in_memory, block.shared + offset, sizeof in_memory);
  if (in_memory.mark == kMark && in_memory.index < block.mbarriers.size()) {
    Mbarrier& barrier = block.mbarriers[in_memory.index];
    if (barrier.live && barrier.offset == offset) return barrier;
  }
  for (const Mbarrier& barrier : block.mbarriers)
    if (barrier.live && barrier.offset == offset)
      fault("mbarrier overwritten", concat("ordinary stores changed the object at ", state_text(barrier)), site);
  fault("no mbarrier", concat("smem+", offset, " holds no initialised mbarrier"), site);
}

std::string mbarrier_text(BlockState& block, uint32_t address, uint32_t parity) {
  const uint32_t offset = address & ((1u << kSharedRankShift) - 1);
  const uint32_t rank = address >> kSharedRankShift;
  for (const Mbarrier& barrier : (rank < block.cluster_size ? peer(block, rank) : block).mbarriers)
    if (barrier.live && barrier.offset == offset) return concat("parity ", parity, " of ", state_text(barrier));
  return concat("an mbarrier at smem+", offset);
}

void mbarrier_init(uint32_t address, uint32_t count, const Site& site) {
  const Mutation mutation = mutation_at(site, count > 1 ? kMayDrop | kMayWeaken : kMayDrop);
  if (mutation == Mutation::drop) return;
  if (mutation == Mutation::weaken) --count;
  ThreadState& me = self();
  BlockState& block = block_of_address(block_state(me), address, site);
  const uint32_t offset = address & ((1u << kSharedRankShift) - 1);
  if (&block != me.block) fault("mbarrier.init", "initialises a peer's barrier; the instruction takes shared::cta addresses", site);
  if (count < 1 || count > kMaxCount) fault("mbarrier.init", concat("count ", count, " is not in 1 to ", kMaxCount), site);
  std::byte* bytes = shared_pointer(address, sizeof(InMemory), site);
  if (offset % 8 != 0) fault("misaligned mbarrier", concat("smem+", offset, " is no multiple of 8"), site);
  for (const Mbarrier& other : block.mbarriers)
    if (other.live && other.offset == offset)
      fault("mbarrier.init", concat("there is one already (mbarrier.inval ends it): ", state_text(other)), site);
  note_write(bytes, sizeof(InMemory), site);
  const auto dead = std::find_if(block.mbarriers.begin(), block.mbarriers.end(), [](const Mbarrier& barrier) { return !barrier.live; });
  Mbarrier& barrier = dead != block.mbarriers.end() ? *dead : block.mbarriers.emplace_back();
  barrier = Mbarrier{};
  barrier.offset = offset;
  barrier.count = barrier.pending = count;
  barrier.live = true;
  barrier.initialiser = &me;
  barrier.init_site = site;
  const InMemory in_memory{kMark, static_cast<uint32_t>(&barrier - block.mbarriers.data())};
  std::memcpy(bytes, &in_memory, sizeof in_memory);
}

void mbarrier_init_fence(const Site& site) {
  if (mutation_at(site, kMayDrop) == Mutation::drop) return;
  ThreadState& me = self();
  for (Mbarrier& barrier : block_state(me).mbarriers)
    if (barrier.initialiser == &me) barrier.fenced = true;
  if (checker != nullptr) checker->fence(me, Order::release, Scope::cluster);
}

void mbarrier_invalidate(uint32_t address, const Site& site) {
  BlockState& block = block_state(self());
  Mbarrier& barrier = find_mbarrier(block, address, site);
  if (!barrier.waiters.empty()) fault("mbarrier.inval", concat("threads wait for ", state_text(barrier)), site);
  touch(address, AtomicKind::store, site);
  std::memset(object_bytes(block, address, site), 0xff, sizeof(InMemory));
  barrier.live = false;
}

void mbarrier_arrive(uint32_t address, uint32_t arrivals, uint32_t expect_tx_bytes, Releases releases, const Site& site) {
  const Mutation mutation = mutation_at(site, kMayDrop | kMayWeaken);
  if (mutation == Mutation::drop) return;
  if (mutation == Mutation::weaken) {
    if (expect_tx_bytes >= 16)
      expect_tx_bytes -= 16;
    else
      releases = Releases::nothing;
  }
  ThreadState& me = self();
  me.site = site;
  Mbarrier& barrier = find_mbarrier(block_state(me), address, site);
  touch(address, AtomicKind::update, site);
  if (arrivals != 0 && checker != nullptr) {
    switch (releases) {
      case Releases::all: checker->release(barrier.clock, me); break;
      case Releases::async_ops: checker->release_async_ops(barrier.clock, me); break;
      case Releases::nothing: checker->release_fenced(barrier.clock, me); break;
    }
  }
  arrive(barrier, arrivals, expect_tx_bytes, site);
}

void mbarrier_wait(uint32_t address, uint32_t parity, const Site& site) {
  const Mutation mutation = mutation_at(site, kMayDrop | kMayWeaken);
  if (mutation == Mutation::drop) return;
  ThreadState& me = self();
  me.site = site;
  parity = (parity & 1) ^ (mutation == Mutation::weaken ? 1u : 0u);
  Mbarrier& barrier = find_mbarrier(block_state(me), address, site);
  touch(address, AtomicKind::load, site);
  if (!phase_complete(barrier, parity)) {
    me.wait_address = address;
    me.wait_parity = parity;
    barrier.waiters.push_back(&me);
    const size_t index = static_cast<size_t>(&barrier - block_of_address(block_state(me), address, site).mbarriers.data());
    wait();
    // Other barriers may have been initialised meanwhile, so the reference is stale.
    if (checker != nullptr) checker->acquire(block_of_address(block_state(me), address, site).mbarriers[index].clock, me);
    return;
  }
  if (checker != nullptr) checker->acquire(barrier.clock, me);
}

bool mbarrier_test(uint32_t address, uint32_t parity, const Site& site) {
  ThreadState& me = self();
  me.site = site;
  Mbarrier& barrier = find_mbarrier(block_state(me), address, site);
  touch(address, AtomicKind::load, site);
  const bool complete = phase_complete(barrier, parity & 1);
  if (complete && checker != nullptr) checker->acquire(barrier.clock, me);
  return complete;
}

void complete_tx(AsyncOp& op) {
  const Site& site = op.writer.site;
  Mbarrier& barrier = find_mbarrier(*op.home, op.mbarrier, site);
  if (checker != nullptr) checker->attach_op(op.writer.op, barrier.clock);
  arrive(barrier, 0, -static_cast<int64_t>(op.tx_bytes), site);
}

void hardware_arrive(BlockState& home, uint32_t address, const Site& site) {
  arrive(find_mbarrier(home, address, site), 1, 0, site);
}

}  // namespace heddle::sim
