// Accesses: each load and store against the memory's history.
#include <algorithm>

#include "kernels/api/check.h"
#include "kernels/sim/check/check_internal.h"
#include "kernels/sim/check/report.h"

namespace heddle::sim {
namespace {

std::string index_text(const Index3& i) {
  return concat("(", i.x, ",", i.y, ",", i.z, ")");
}

const char* verb(bool write, bool past) {
  return write ? (past ? "wrote" : "writes") : (past ? "read" : "reads");
}

}  // namespace

// ---- who looks ----

inline Observer RaceChecker::observer(const ThreadState& thread) const {
  const ThreadClock& clock = threads_[thread.id];
  Observer by;
  by.who = thread.id;
  by.when = clock.stamp;
  by.lanes = 1u << thread.lane;
  by.thread = &thread;
  by.known = clock.known.get();
  return by;
}

inline Observer RaceChecker::observer(const Agent& agent) const {
  Observer by;
  by.who = kByOp;
  by.when = agent.op;
  by.thread = agent.issuer;
  by.known = agent.clock.get();
  by.async_known = agent.async_proxy ? agent.async_clock.get() : nullptr;
  by.issued_at = agent.issued_at;
  return by;
}

// ---- order ----

const RaceChecker::GroupRun& RaceChecker::group_of(uint32_t time) const {
  const auto after = std::upper_bound(groups_.begin(), groups_.end(), time, [](uint32_t t, const GroupRun& run) { return t < run.first_time; });
  return *(after - 1);
}

bool RaceChecker::lane_ordered(uint32_t thread, uint32_t stamp, const Observer& by) const {
  if (is_current(stamp)) {
    if (!by.by_op() && thread == (by.who & kWhoMask)) return true;
    if (by.by_op() && stamp < by.issued_at && thread == static_cast<const ThreadState*>(by.thread)->id) return true;
    return by.known->time_of(thread) > stamp;
  }
  if (stamp < launch_start_) return true;
  const Clock* clock = by.known->of_group(group_of(stamp).number);
  return clock != nullptr && clock->time_of(thread) > stamp;
}

bool RaceChecker::ordered(const Record& before, const Observer& by) const {
  if ((before.who & kByOp) != 0) {
    if (before.when < first_op_) return true;                                             // of an earlier launch
    if (before.when < groups_.back().first_op && by.known->others.empty()) return false;  // of other blocks, of whom nothing is known
    const OpState& op = ops_[before.when - first_op_];
    if (op.stage == OpState::Stage::pending) return false;
    if (op.stage == OpState::Stage::adopted) return lane_ordered(op.who, op.when, by);
    const Clock* clock = by.known->of_group(op.group);
    return clock != nullptr && clock->phase_of(op.who) >= op.when;
  }
  const uint32_t thread = before.who & kWhoMask;
  if (before.lanes == 1) return lane_ordered(thread, before.when, by);
  if (is_current(before.when) && by.known->floor_of_warp(thread) > before.when) return true;
  for (uint32_t rest = before.lanes; rest != 0; rest &= rest - 1)
    if (!lane_ordered(thread + static_cast<uint32_t>(__builtin_ctz(rest)), before.when, by)) return false;
  return true;
}

// A generic write that is ordered before an async access must also have passed a proxy fence on the way.
bool RaceChecker::visible_to_proxy(const Record& write, const Observer& by) const {
  if (by.async_known == nullptr) return true;
  uint32_t thread = write.who & kWhoMask, stamp = write.when;
  if ((write.who & kByOp) != 0) {
    if (write.when < first_op_) return true;
    const OpState& op = ops_[write.when - first_op_];
    if (!op.generic || op.stage != OpState::Stage::adopted) return true;
    thread = op.who;
    stamp = op.when;
  }
  if (stamp < launch_start_) return true;
  const Clock* clock = by.async_known->of_group(group_of(stamp).number);
  return clock != nullptr && clock->time_of(thread) > stamp;
}

// ---- one cell ----

void RaceChecker::remember_read(Cell& cell, const Observer& by, uint32_t place) {
  const bool by_op = by.by_op();
  const Record mine = by_op ? Record{by.when, kByOp, place, 1} : Record{by.when, (by.who & ~(kWarpSize - 1)), place, by.lanes};
  const auto merge = [&](Record& record) {
    if (by_op || record.who != mine.who) return false;
    if (record.when != mine.when && record.lanes != mine.lanes) return false;  // another stamp: only a later look of the same lane replaces it
    record.when = mine.when;
    record.lanes |= mine.lanes;
    record.where = place;
    return true;
  };
  // A read that is ordered before this one says nothing that this one does not: who writes later must be ordered after both.
  const auto replace = [&](Record& record) {
    if (record.lanes != 0 && (((record.who ^ mine.who) & kAtomic) != 0 || !ordered(record, by))) return false;
    record = mine;
    return true;
  };
  for (Record& record : cell.reads)
    if (record.lanes != 0 && merge(record)) return;
  for (Record& record : cell.reads)
    if (replace(record)) return;
  if (!pool_->any_more_read(cell, merge) && !pool_->any_more_read(cell, replace)) pool_->add_read(cell, mine);
}

void RaceChecker::touch_whole(Cell& cell, const Observer& by, Access kind, uint32_t place) {
  const bool is_write = kind == Access::write;
  if (!is_write && !cell.initialised) complain(by, "uninitialised read", concat("reads ", address_text(), ", which nobody has written"), place);
  const auto exempt = [&](const Record& before) { return by.atomic && (before.who & kAtomic) != 0; };
  const Record& last = cell.write;
  if (last.lanes != 0 && !last.same_access(by.fine_write) && !exempt(last)) {
    if (!ordered(last, by)) race(last, true, by, kind, place);
    if (!visible_to_proxy(last, by))
      complain(by, "missing proxy fence",
               concat(verb(is_write, false), " ", address_text(), " through the async proxy; ", who_text(last), " wrote it at ",
                      place_text(last.where), " by ordinary stores, and no fence.proxy.async lies between"),
               place);
    by.fine_write = last;
  }
  Record plain_write;  // before the atomic ones
  const auto check_read = [&](const Record& record) {
    if ((record.who & kWrote) != 0) plain_write = record;
    if (record.lanes == 0 || record.same_access(by.fine_read) || exempt(record)) return false;
    if (!is_write && (record.who & kWrote) == 0) return false;
    if (!ordered(record, by)) race(record, (record.who & kWrote) != 0, by, kind, place);
    by.fine_read = record;
    return false;
  };
  if (is_write || by.atomic) {
    for (const Record& record : cell.reads) check_read(record);
    pool_->any_more_read(cell, check_read);
  }
  if (!is_write) return remember_read(cell, by, place);
  if (cell.more_reads != 0 || cell.reads[0].lanes != 0) pool_->clear_reads(cell);
  if (by.atomic) {
    if (last.lanes != 0 && (last.who & kAtomic) == 0) plain_write = {last.when, last.who | kWrote, last.where, last.lanes};
    cell.reads[0] = plain_write;
  }
  cell.write = {by.when, by.who, place, 1};
  cell.initialised = true;
}

inline void RaceChecker::touch(Cell& cell, uint32_t cell_bytes, uint32_t begin, uint32_t end, const Observer& by, Access kind, uint32_t place) {
  if (cell.parts == nullptr && begin == 0 && end == cell_bytes) return touch_whole(cell, by, kind, place);
  touch_parts(cell, cell_bytes, begin, end, by, kind, place);
}

void RaceChecker::touch_parts(Cell& cell, uint32_t cell_bytes, uint32_t begin, uint32_t end, const Observer& by, Access kind, uint32_t place) {
  if (cell.parts == nullptr) pool_->split(cell, cell_bytes);
  const uint32_t part = part_bytes(cell_bytes);
  for (uint32_t i = begin / part; i * part < end; ++i) {
    const uint32_t first = std::max(begin, i * part), last = std::min(end, (i + 1) * part);
    touch(cell.parts[i], part, first - i * part, last - i * part, by, kind, place);
  }
  if (begin == 0 && end == cell_bytes && kind == Access::write) {  // all parts alike again
    pool_->forget(cell, cell_bytes);
    cell.write = {by.when, by.who, place, 1};
  }
}

// ---- a range ----

void RaceChecker::check_static_bounds(const Observer& by, Access kind, BlockState& block, size_t offset, size_t bytes, uint32_t place) {
  const LaunchState& launch = *block.group->shared;
  const uint32_t count = launch.static_count.load(std::memory_order_relaxed);
  for (uint32_t i = 0; i < count; ++i) {
    const StaticPlace& variable = launch.statics[i];
    if (offset >= variable.offset && offset + bytes <= variable.offset + variable.bytes) return;
  }
  complain(by, "out of bounds",
           concat(verb(kind == Access::write, false), " ", bytes, " bytes of shared memory at ", address_text(), "; the block has ",
                  launch.launch->dynamic_shared, " dynamic bytes from smem+", kSharedReserved, " and ", count, " static variables"),
           place);
}

inline BlockState* RaceChecker::owner_of(const Observer& by, const std::byte* pointer) const {
  auto& block = *static_cast<BlockState*>(by.thread->block);
  if (static_cast<size_t>(pointer - block.shared) < kSharedWindowBytes) return &block;
  if (block.cluster_size == 1) return nullptr;
  for (uint32_t i = 0; i < block.cluster_size; ++i) {
    BlockState& owner = peer(block, i);
    if (static_cast<size_t>(pointer - owner.shared) < kSharedWindowBytes) return &owner;
  }
  return nullptr;
}

inline std::vector<Cell>& RaceChecker::shared_cells(const BlockState& block, size_t last) {
  pool_ = &shared_pool_;
  auto& cells = shared_[block.slot].cells;
  if (cells.size() <= last) cells.resize(std::max(last + 1, size_t{block.group->shared->dynamic_end() / kCellBytes}));
  return cells;
}

void RaceChecker::access_shared(const Observer& by, Access kind, BlockState& block, size_t offset, size_t bytes, uint32_t place) {
  current_.block = &block;
  current_.offset = offset;
  if (offset < kSharedReserved || offset + bytes > block.group->shared->dynamic_end()) check_static_bounds(by, kind, block, offset, bytes, place);
  const size_t last = (offset + bytes - 1) / kCellBytes;
  Cell* const cells = shared_cells(block, last).data();
  for (size_t i = offset / kCellBytes; i <= last; ++i) {
    const size_t begin = std::max(offset, i * kCellBytes) - i * kCellBytes, end = std::min(offset + bytes, (i + 1) * kCellBytes) - i * kCellBytes;
    touch(cells[i], kCellBytes, static_cast<uint32_t>(begin), static_cast<uint32_t>(end), by, kind, place);
  }
}

RaceChecker::Allocation* RaceChecker::find_allocation(const std::byte* pointer) {
  if (last_global_ != nullptr && pointer >= last_global_->begin && pointer < last_global_->begin + last_global_->bytes) return last_global_;
  auto after = globals_.upper_bound(pointer + kGuardBytes);
  if (after == globals_.begin()) return nullptr;
  // The allocation before the pointer, or the one that begins within a guard's length behind it.
  for (auto at = after; at != globals_.begin();) {
    --at;
    Allocation& allocation = at->second;
    if (pointer >= allocation.begin && pointer < allocation.begin + allocation.bytes) return last_global_ = &allocation;
    if (pointer + allocation.guard >= allocation.begin && pointer < allocation.begin + allocation.bytes + allocation.guard) {
      // In a guard: another allocation may still hold it.
      const auto before = at == globals_.begin() ? globals_.end() : std::prev(at);
      if (before != globals_.end() && pointer < before->second.begin + before->second.bytes) return last_global_ = &before->second;
      return &allocation;
    }
    if (allocation.begin <= pointer) return nullptr;
  }
  return nullptr;
}

void RaceChecker::access_global(const Observer& by, Access kind, const std::byte* pointer, size_t bytes, uint32_t place) {
  Allocation* allocation = find_allocation(pointer);
  if (allocation == nullptr) return;
  current_.allocation = allocation;
  if (pointer < allocation->begin || pointer + bytes > allocation->begin + allocation->bytes)
    complain(by, "out of bounds", concat(verb(kind == Access::write, false), " ", bytes, " bytes of global memory at ", address_text()), place);
  pool_ = &global_pool_;
  const auto offset = static_cast<size_t>(pointer - allocation->begin);
  for (size_t i = offset / kCellBytes; i * kCellBytes < offset + bytes; ++i) {
    auto& page = allocation->pages[i / kPageCells];
    if (page == nullptr) page = std::make_unique<Cell[]>(kPageCells);
    const size_t begin = std::max(offset, i * kCellBytes) - i * kCellBytes, end = std::min(offset + bytes, (i + 1) * kCellBytes) - i * kCellBytes;
    touch(page[i % kPageCells], kCellBytes, static_cast<uint32_t>(begin), static_cast<uint32_t>(end), by, kind, place);
  }
}

void RaceChecker::access(const Observer& by, Access kind, const void* pointer, size_t bytes, uint32_t place) {
  if (bytes == 0) return;
  const auto* byte = static_cast<const std::byte*>(pointer);
  current_ = {pointer, bytes, nullptr, 0, nullptr};
  if (BlockState* owner = owner_of(by, byte)) return access_shared(by, kind, *owner, static_cast<size_t>(byte - owner->shared), bytes, place);
  if (byte + kGuardBytes >= globals_begin_ && byte < globals_end_ + kGuardBytes) access_global(by, kind, byte, bytes, place);
}

void RaceChecker::access_chunks(const Observer& by, Access kind, const std::byte* base, std::span<const uint32_t> offsets, uint32_t place) {
  if (offsets.empty()) return;
  BlockState* owner = owner_of(by, base + offsets[0]);
  HEDDLE_CHECK(owner != nullptr, "sim", "chunks lie in shared memory");
  const size_t first = static_cast<size_t>(base - owner->shared), dynamic_end = owner->group->shared->dynamic_end();
  for (const uint32_t chunk : offsets) {
    const size_t offset = first + chunk;
    current_ = {base + chunk, kCellBytes, owner, offset, nullptr};
    if (offset < kSharedReserved || offset + kCellBytes > dynamic_end) check_static_bounds(by, kind, *owner, offset, kCellBytes, place);
    touch(shared_cells(*owner, offset / kCellBytes)[offset / kCellBytes], kCellBytes, 0, kCellBytes, by, kind, place);
  }
}

// ---- entry points ----

// Where global memory is registered, that alone is global memory: not the kernel's arguments, nor what a thread has on its stack.
void RaceChecker::count(const ThreadState& thread, const void* pointer, size_t bytes, bool shared, bool is_write, uint32_t place) {
  if (!counting || bytes == 0) return;
  if (shared || globals_.empty() || find_allocation(static_cast<const std::byte*>(pointer)) != nullptr)
    count_access(thread, pointer, bytes, shared, is_write, place);
}

// cp.async is its thread's own access. What goes through the async proxy (TMA) is counted in global memory, a row of a box as one access: in shared
// memory no lanes meet.
void RaceChecker::count(const Agent& agent, const void* pointer, size_t bytes, bool is_write) {
  if (!counting) return;
  const Observer by = observer(agent);
  const bool shared = owner_of(by, static_cast<const std::byte*>(pointer)) != nullptr;
  if (!shared || !agent.async_proxy) count(static_cast<const ThreadState&>(*by.thread), pointer, bytes, shared, is_write, place_of(agent.site));
}

void RaceChecker::read(ThreadState& thread, const void* pointer, size_t bytes, const Site& site) {
  const uint32_t place = place_of(site);
  if (counting) count(thread, pointer, bytes, is_shared(pointer), false, place);
  access(observer(thread), Access::read, pointer, bytes, place);
}

void RaceChecker::write(ThreadState& thread, const void* pointer, size_t bytes, const Site& site) {
  const uint32_t place = place_of(site);
  if (counting) count(thread, pointer, bytes, is_shared(pointer), true, place);
  access(observer(thread), Access::write, pointer, bytes, place);
}

void RaceChecker::read(Agent& agent, const void* pointer, size_t bytes) {
  count(agent, pointer, bytes, false);
  access(observer(agent), Access::read, pointer, bytes, place_of(agent.site));
}

void RaceChecker::write(Agent& agent, const void* pointer, size_t bytes) {
  op_state(agent.op).generic = !agent.async_proxy;
  count(agent, pointer, bytes, true);
  access(observer(agent), Access::write, pointer, bytes, place_of(agent.site));
}

void RaceChecker::read_chunks(Agent& agent, const std::byte* base, std::span<const uint32_t> offsets) {
  access_chunks(observer(agent), Access::read, base, offsets, place_of(agent.site));
}

void RaceChecker::write_chunks(Agent& agent, const std::byte* base, std::span<const uint32_t> offsets) {
  op_state(agent.op).generic = !agent.async_proxy;
  access_chunks(observer(agent), Access::write, base, offsets, place_of(agent.site));
}

void RaceChecker::atomic_access(ThreadState& thread, const void* pointer, size_t bytes, AtomicKind kind, uint32_t place) {
  Observer by = observer(thread);
  by.atomic = true;
  by.who |= kAtomic;
  if (kind != AtomicKind::store) access(by, Access::read, pointer, bytes, place);
  if (kind != AtomicKind::load) access(by, Access::write, pointer, bytes, place);
}

void RaceChecker::sync_object(ThreadState& thread, const void* pointer, size_t bytes, AtomicKind kind, const Site& site) {
  atomic_access(thread, pointer, bytes, kind, place_of(site));
}

void RaceChecker::atomic(Agent& agent, const void* pointer, size_t bytes) {
  Observer by = observer(agent);
  by.atomic = true;
  by.who |= kAtomic;
  access(by, Access::write, pointer, bytes, place_of(agent.site));
}

void RaceChecker::misaligned(ThreadState& thread, const void* pointer, size_t alignment, bool is_write, const char* type, const Site& site) {
  try {
    complain(observer(thread), "misaligned access",
             concat(verb(is_write, false), " a ", type, " at ", pointer, ", which is no multiple of ", alignment), place_of(site));
  } catch (const Abort&) {
  }
  left_callback();
  abandon();  // compilers hold that these callbacks do not throw
}

void RaceChecker::instrumented(ThreadState& thread, const void* pointer, size_t bytes, bool is_write, bool aligned, const void* pc) {
  const auto* byte = static_cast<const std::byte*>(pointer);
  const bool shared = static_cast<size_t>(byte - thread.block->shared) < kSharedWindowBytes || (thread.block->cluster_size > 1 && is_shared(pointer));
  if (!shared && (byte + kGuardBytes < globals_begin_ || byte >= globals_end_ + kGuardBytes) && !counting) return;
  const uint32_t place = place_of(pc);
  bool failed = false;
  try {
    count(thread, pointer, bytes, shared, is_write, place);
    const Observer by = observer(thread);
    if (aligned && reinterpret_cast<uintptr_t>(pointer) % std::min<size_t>(bytes, 8) != 0)  // clang counts 16 bytes at a multiple of 8 as aligned
      complain(by, "misaligned access", concat(verb(is_write, false), " ", bytes, " bytes at ", pointer), place);
    access(by, is_write ? Access::write : Access::read, pointer, bytes, place);
  } catch (const Abort&) {
    failed = true;
  }
  if (!failed) return;
  left_callback();
  abandon();  // compilers hold that these callbacks do not throw
}

// ---- reports ----

std::string RaceChecker::address_text() const {
  if (current_.block != nullptr) {
    const LaunchState& launch = *current_.block->group->shared;
    for (uint32_t i = 0; i < launch.static_count.load(std::memory_order_relaxed); ++i) {
      const StaticPlace& variable = launch.statics[i];
      if (current_.offset >= variable.offset && current_.offset < variable.offset + variable.bytes)
        return concat("'", variable.name, "'+", current_.offset - variable.offset, " (smem+", current_.offset, ")");
    }
    if (current_.offset >= kSharedReserved && current_.offset < launch.dynamic_end())
      return concat("dynamic shared memory+", current_.offset - kSharedReserved, " (smem+", current_.offset, ")");
    return concat("smem+", current_.offset);
  }
  if (current_.allocation != nullptr) {
    const auto offset = static_cast<const std::byte*>(current_.pointer) - current_.allocation->begin;
    return concat("byte ", offset, " of an allocation of ", current_.allocation->bytes);
  }
  return concat(current_.pointer);
}

std::string RaceChecker::who_text(const Record& record) const {
  uint32_t thread = record.who & kWhoMask, stamp = record.when;
  if ((record.who & kByOp) != 0) return "an async op";
  if (record.lanes > 1) thread += static_cast<uint32_t>(__builtin_ctz(record.lanes));
  const GroupRun& run = group_of(stamp);
  const Index3& dim = group_->launch->geometry.block;
  const uint32_t linear = thread % kMaxThreadsPerBlock;
  const Index3 at{linear % dim.x, linear / dim.x % dim.y, linear / dim.x / dim.y};
  return concat("thread ", index_text(at), " of block ", index_text(run.blocks[thread / kMaxThreadsPerBlock]));
}

void RaceChecker::complain(const Observer& by, const std::string& rule, const std::string& text, uint32_t place) {
  const Site site = place_site(place);
  const char* what = by.by_op() && *site.what != 0 ? site.what : "";
  record_failure(concat(thread_text(*by.thread), *what != 0 ? concat(" (", what, ")") : std::string(), ": ", rule, ": ", text), site);
  throw Abort{};
}

void RaceChecker::race(const Record& before, bool before_writes, const Observer& by, Access kind, uint32_t place) {
  const bool is_write = kind == Access::write;
  const char* which = before_writes ? (is_write ? "write after write" : "read after write") : "write after read";
  const bool op_in_flight = (before.who & kByOp) != 0 && ops_[before.when - first_op_].stage == OpState::Stage::pending;
  complain(by, concat("race on ", current_.block != nullptr ? "shared" : "global", " memory (", which, ")"),
           concat(verb(is_write, false), " ", current_.bytes, " bytes at ", address_text(), "; ", who_text(before), " ", verb(before_writes, true),
                  " it at ", place_text(before.where), op_in_flight ? ", and nobody has waited for that" : ", and nothing orders the two"),
           place);
}

}  // namespace heddle::sim
