#include "kernels/sim/cudart/memory.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "kernels/sim/core/machine.h"
#include "kernels/sim/cudart/errors.h"

// AddressSanitizer's, in programs of the asan flavour; null elsewhere. This file is compiled once for all flavours.
extern "C" {
[[gnu::weak]] void __asan_poison_memory_region(const volatile void* address, size_t bytes);
[[gnu::weak]] void __asan_unpoison_memory_region(const volatile void* address, size_t bytes);
}

namespace heddle::sim::cudart {
namespace {

constexpr size_t kUnit = 256;                             // alignment that cudaMalloc promises
constexpr size_t kReserved = size_t{256} << 30;           // addresses per device; they cost nothing until used
constexpr size_t kSmallestReservation = size_t{4} << 30;  // where address space is limited
constexpr unsigned char kFresh = 0xff;
constexpr size_t kFreedRemembered = 65536;  // allocations

size_t page() {
  static const auto size = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  return size;
}
size_t round_up(size_t n, size_t unit) {
  return (n + unit - 1) / unit * unit;
}
std::byte* page_down(std::byte* p) {
  return p - reinterpret_cast<uintptr_t>(p) % page();
}
// The pages of an allocation: its data lies at their end.
std::byte* first_page(const Allocation& a) {
  return page_down(a.data);
}
size_t span(const Allocation& a) {
  return static_cast<size_t>(a.data + round_up(std::max<size_t>(a.bytes, 1), kUnit) - first_page(a));
}

// The checker learns of an allocation's bytes; the rest of its pages, which no guard page protects, AddressSanitizer keeps for itself.
void announce(const Allocation& a) {
  register_global(a.data, a.bytes, kGuardBytes);
  if (__asan_poison_memory_region == nullptr) return;
  __asan_poison_memory_region(first_page(a), static_cast<size_t>(a.data - first_page(a)));
  __asan_poison_memory_region(a.data + a.bytes, static_cast<size_t>(first_page(a) + span(a) - (a.data + a.bytes)));
}
void withdraw(const Allocation& a) {
  unregister_global(a.data);
  if (__asan_unpoison_memory_region != nullptr) __asan_unpoison_memory_region(first_page(a), span(a));
}

}  // namespace

const char* name_of(Place place) {
  switch (place) {
    case Place::pageable: return "pageable host memory";
    case Place::pinned: return "pinned host memory";
    case Place::device: return "device memory";
  }
  return "?";
}

Memory& memory() {
  static Memory* const instance = new Memory;  // outlives static objects that free device memory in their destructors
  return *instance;
}

Memory::~Memory() {
  release_all();
}

void Memory::release_all() {
  for (auto& [data, allocation] : allocations_) {
    if (allocation.life != Life::freed) withdraw(allocation);
  }
  allocations_.clear();
  for (Arena& arena : arenas_) munmap(arena.base, arena.reserved);
  arenas_.clear();
  for (auto& [data, range] : pinned_) {
    if (range.owned) munmap(data, round_up(std::max<size_t>(range.bytes, 1), page()));
  }
  pinned_.clear();
  live_ = 0;
  open_ = 0;
}

void Memory::configure(const RuntimeOptions& options) {
  const std::lock_guard lock(mutex_);
  release_all();
  options_ = options;
  for (int device = 0; device < options.devices; ++device) {
    Arena arena;
    for (arena.reserved = kReserved; arena.reserved >= kSmallestReservation; arena.reserved /= 2) {
      void* base = mmap(nullptr, arena.reserved, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
      if (base == MAP_FAILED) continue;
      arena.base = static_cast<std::byte*>(base);
      break;
    }
    if (!arena.base) refuse(cudaErrorInitializationError, "no address space for the memory of simulated device ", device);
    arenas_.push_back(arena);
  }
}

// Addresses for `bytes` and a guard page behind them. When the range is used up, freed ones are used again from its start.
std::byte* Memory::reserve(Arena& arena, size_t bytes) {
  const size_t need = bytes + page();
  if (arena.next == 0) arena.next = page();
  if (arena.next + need > arena.reserved) {
    arena.next = page();
    arena.wrapped = true;
    forget_freed();
  }
  if (arena.wrapped) {  // step over what still lives
    for (const auto& [data, allocation] : allocations_) {
      std::byte* const at = arena.base + arena.next;
      std::byte* const after = first_page(allocation) + span(allocation) + page();
      if (first_page(allocation) < at + need && at < after) arena.next = static_cast<size_t>(after - arena.base);
    }
  }
  if (arena.next + need > arena.reserved) return nullptr;
  std::byte* const at = arena.base + arena.next;
  arena.next += need;
  return at;
}

void Memory::forget_freed() {
  std::erase_if(allocations_, [](const auto& entry) { return entry.second.life == Life::freed; });
}

void Memory::protect(const Allocation& a, bool accessible) const {
  mprotect(first_page(a), span(a), accessible ? PROT_READ | PROT_WRITE : PROT_NONE);
}

std::byte* Memory::allocate(int device, size_t bytes, bool promised, const CallSite& site, const std::string& stream) {
  const std::lock_guard lock(mutex_);
  Arena& arena = arenas_.at(static_cast<size_t>(device));
  if (arena.used + bytes > options_.memory || bytes > options_.memory)
    refuse(cudaErrorMemoryAllocation, site.api, " of ", bytes, " bytes: device ", device, " has ", options_.memory, " bytes (HEDDLE_SIM_MEMORY), ",
           arena.used, " of them in use");
  const size_t units = round_up(std::max<size_t>(bytes, 1), kUnit), pages = round_up(units, page());
  std::byte* const start = reserve(arena, pages);
  if (!start || mprotect(start, pages, PROT_READ | PROT_WRITE) != 0)
    refuse(cudaErrorMemoryAllocation, site.api, " of ", bytes, " bytes: this machine gives no memory for it");
  std::memset(start, kFresh, pages);
  if (allocations_.size() > live_ + kFreedRemembered) forget_freed();
  Allocation allocation;
  allocation.data = start + pages - units;
  allocation.bytes = bytes;
  allocation.device = device;
  allocation.life = promised ? Life::promised : Life::live;
  allocation.stream_ordered = promised;
  allocation.made = site;
  allocation.made_on = stream;
  allocations_.erase(allocation.data);
  allocations_.emplace(allocation.data, allocation);
  arena.used += bytes;
  arena.high_water = std::max(arena.high_water, arena.used);
  ++live_;
  announce(allocation);
  if (options_.protect && open_ == 0) protect(allocation, false);
  return allocation.data;
}

void Memory::make_live(std::byte* data) {
  const std::lock_guard lock(mutex_);
  const auto entry = allocations_.find(data);
  if (entry != allocations_.end() && entry->second.life == Life::promised) entry->second.life = Life::live;
}

Allocation& Memory::own(void* pointer, const CallSite& site) {
  const auto entry = allocations_.find(static_cast<std::byte*>(pointer));
  if (entry == allocations_.end()) refuse(cudaErrorInvalidValue, site.api, ": ", pointer, " is ", describe(pointer), ", not what an allocation gave");
  Allocation& allocation = entry->second;
  if (allocation.life == Life::freed || allocation.free_requested)
    refuse(cudaErrorInvalidValue, site.api, ": double free of ", describe(pointer), "; freed before by ", allocation.released.text(),
           "; freed again by ", site.text());
  return allocation;
}

void Memory::request_free(void* pointer, const CallSite& site, const std::string& stream) {
  const std::lock_guard lock(mutex_);
  Allocation& allocation = own(pointer, site);
  allocation.free_requested = true;
  allocation.released = site;
  allocation.released_on = stream;
}

void Memory::retire(Allocation& allocation) {
  withdraw(allocation);
  arenas_[static_cast<size_t>(allocation.device)].used -= allocation.bytes;
  --live_;
  allocation.life = Life::freed;
  madvise(first_page(allocation), span(allocation), MADV_DONTNEED);
  protect(allocation, false);
}

void Memory::finish_free(std::byte* data) {
  const std::lock_guard lock(mutex_);
  const auto entry = allocations_.find(data);
  if (entry != allocations_.end() && entry->second.life != Life::freed) retire(entry->second);
}

void Memory::free(void* pointer, const CallSite& site) {
  const std::lock_guard lock(mutex_);
  Allocation& allocation = own(pointer, site);
  allocation.released = site;
  retire(allocation);
}

// ---- pinned host memory ----

std::byte* Memory::allocate_host(size_t bytes, bool mapped, const CallSite& site) {
  const std::lock_guard lock(mutex_);
  void* data = mmap(nullptr, round_up(std::max<size_t>(bytes, 1), page()), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (data == MAP_FAILED) refuse(cudaErrorMemoryAllocation, site.api, " of ", bytes, " bytes: the host has no memory for it");
  pinned_[static_cast<std::byte*>(data)] = {static_cast<std::byte*>(data), bytes, true, mapped, site};
  return static_cast<std::byte*>(data);
}

void Memory::free_host(void* pointer) {
  const std::lock_guard lock(mutex_);
  const auto entry = pinned_.find(static_cast<std::byte*>(pointer));
  if (entry == pinned_.end() || !entry->second.owned)
    refuse(cudaErrorInvalidValue, "cudaFreeHost: ", pointer, " is not what cudaMallocHost or cudaHostAlloc gave, or was freed before");
  munmap(entry->second.data, round_up(std::max<size_t>(entry->second.bytes, 1), page()));
  pinned_.erase(entry);
}

void Memory::register_host(void* pointer, size_t bytes, bool mapped, const CallSite& site) {
  const std::lock_guard lock(mutex_);
  if (!pointer || bytes == 0) refuse(cudaErrorInvalidValue, "cudaHostRegister of ", bytes, " bytes at ", pointer);
  if (is_device(pointer)) refuse(cudaErrorInvalidValue, "cudaHostRegister of ", describe(pointer));
  auto* const data = static_cast<std::byte*>(pointer);
  for (const auto& [start, range] : pinned_) {
    if (start < data + bytes && data < start + range.bytes)
      refuse(cudaErrorHostMemoryAlreadyRegistered, "cudaHostRegister of ", bytes, " bytes at ", pointer, ": overlaps ", range.bytes, " bytes at ",
             static_cast<void*>(start), " (", range.made.text(), ")");
  }
  pinned_[data] = {data, bytes, false, mapped, site};
}

void Memory::unregister_host(void* pointer) {
  const std::lock_guard lock(mutex_);
  const auto entry = pinned_.find(static_cast<std::byte*>(pointer));
  if (entry == pinned_.end() || entry->second.owned) refuse(cudaErrorHostMemoryNotRegistered, "cudaHostUnregister: ", pointer, " was not registered");
  pinned_.erase(entry);
}

void Memory::mark_mapped(const void* pointer) {
  const std::lock_guard lock(mutex_);
  if (const HostRange* range = find_pinned(pointer)) const_cast<HostRange*>(range)->mapped = true;
}

// ---- questions ----

int Memory::device_of(const void* pointer) const {
  const auto* const p = static_cast<const std::byte*>(pointer);
  for (size_t i = 0; i < arenas_.size(); ++i) {
    if (p >= arenas_[i].base && p < arenas_[i].base + arenas_[i].reserved) return static_cast<int>(i);
  }
  return -1;
}

bool Memory::is_device(const void* pointer) const {
  return device_of(pointer) >= 0;
}

const Allocation* Memory::find(const void* pointer) const {
  auto* const p = const_cast<std::byte*>(static_cast<const std::byte*>(pointer));
  auto entry = allocations_.upper_bound(p);
  if (entry == allocations_.begin()) return nullptr;
  --entry;
  // One past the end belongs to no other allocation (a guard page follows), and names the one that was overrun.
  return p < entry->second.data + round_up(std::max<size_t>(entry->second.bytes, 1), kUnit) + page() ? &entry->second : nullptr;
}

const HostRange* Memory::find_pinned(const void* pointer) const {
  auto* const p = const_cast<std::byte*>(static_cast<const std::byte*>(pointer));
  auto entry = pinned_.upper_bound(p);
  if (entry == pinned_.begin()) return nullptr;
  --entry;
  return p < entry->second.data + std::max<size_t>(entry->second.bytes, 1) ? &entry->second : nullptr;
}

bool Memory::find_host(const void* pointer, HostRange& out) const {
  const std::lock_guard lock(mutex_);
  const HostRange* range = find_pinned(pointer);
  if (range) out = *range;
  return range != nullptr;
}

bool Memory::find_device(const void* pointer, Allocation& out) const {
  const std::lock_guard lock(mutex_);
  const Allocation* allocation = find(pointer);
  if (allocation) out = *allocation;
  return allocation != nullptr;
}

bool Memory::may_be_written_by_kernels(const void* pointer) const {
  const std::lock_guard lock(mutex_);
  const HostRange* range = find_pinned(pointer);
  return range && range->mapped;
}

Place Memory::place_of(const void* pointer, size_t bytes, const char* role, cudaError_t error) const {
  const std::lock_guard lock(mutex_);
  const auto* const p = static_cast<const std::byte*>(pointer);
  if (is_device(pointer)) {
    const Allocation* allocation = find(pointer);
    if (!allocation) refuse(error, role, " ", pointer, " lies in no allocation of device ", device_of(pointer));
    if (allocation->life == Life::freed)
      refuse(error, role, " [", pointer, ", +", bytes, ") is used after free: ", describe(pointer), ", freed by ", allocation->released.text(),
             allocation->released_on.empty() ? "" : " on ", allocation->released_on);
    if (p + bytes > allocation->end())
      refuse(error, role, " [", pointer, ", +", bytes, ") is out of bounds: it ends ", p + bytes - allocation->end(), " bytes past the end of ",
             describe(pointer));
    return Place::device;
  }
  if (const HostRange* range = find_pinned(pointer)) {
    if (p + bytes > range->data + range->bytes && range->owned)
      refuse(error, role, " [", pointer, ", +", bytes, ") is out of bounds: it ends ", p + bytes - (range->data + range->bytes),
             " bytes past the end of ", describe(pointer));
    return p + bytes <= range->data + range->bytes ? Place::pinned : Place::pageable;
  }
  return Place::pageable;
}

void Memory::require_live(const void* pointer, size_t bytes, const char* role) const {
  const std::lock_guard lock(mutex_);
  if (!is_device(pointer)) return;
  place_of(pointer, bytes, role, cudaErrorIllegalAddress);
  const Allocation* allocation = find(pointer);
  if (allocation->life == Life::promised)
    refuse(cudaErrorIllegalAddress, role, " [", pointer, ", +", bytes, ") is used before it is allocated: ", describe(pointer), " exists once ",
           allocation->made_on, " has reached its allocation, and nothing orders this after it");
}

size_t Memory::used(int device) const {
  const std::lock_guard lock(mutex_);
  return arenas_.at(static_cast<size_t>(device)).used;
}

size_t Memory::high_water(int device) const {
  const std::lock_guard lock(mutex_);
  return arenas_.at(static_cast<size_t>(device)).high_water;
}

uint64_t Memory::live_count() const {
  const std::lock_guard lock(mutex_);
  return live_;
}

std::string Memory::describe(const void* pointer) const {
  const std::lock_guard lock(mutex_);
  const auto* const p = static_cast<const std::byte*>(pointer);
  if (const Allocation* a = is_device(pointer) ? find(pointer) : nullptr)
    return concat("byte ", p - a->data, " of ", a->bytes, " bytes of device ", a->device, " (", a->made.text(), a->made_on.empty() ? "" : " on ",
                  a->made_on, ")");
  if (is_device(pointer)) return concat("an address of device ", device_of(pointer), " in no allocation");
  if (const HostRange* range = find_pinned(pointer))
    return concat("byte ", p - range->data, " of ", range->bytes, " bytes of pinned host memory (", range->made.text(), ")");
  return concat("pageable host memory at ", pointer);
}

// ---- host accesses ----

void Memory::open() {
  const std::lock_guard lock(mutex_);
  if (open_++ > 0 || !options_.protect) return;
  for (const auto& [data, allocation] : allocations_) {
    if (allocation.life != Life::freed) protect(allocation, true);
  }
}

void Memory::close() {
  const std::lock_guard lock(mutex_);
  if (--open_ > 0 || !options_.protect) return;
  for (const auto& [data, allocation] : allocations_) {
    if (allocation.life != Life::freed) protect(allocation, false);
  }
}

}  // namespace heddle::sim::cudart
