// Global memory as the checker knows it: what is allocated, and what the host wrote there.
#include <algorithm>

#include "kernels/sim/check/check_internal.h"

namespace heddle::sim {

void RaceChecker::add_global(const void* pointer, size_t bytes, size_t guard) {
  const auto* begin = static_cast<const std::byte*>(pointer);
  Allocation allocation{begin, bytes, guard, {}};
  allocation.pages.resize((bytes + kCellBytes * kPageCells - 1) / (kCellBytes * kPageCells));
  remove_global(pointer);
  globals_.emplace(begin, std::move(allocation));
  globals_begin_ = globals_.begin()->second.begin;
  globals_end_ = globals_.rbegin()->second.begin + globals_.rbegin()->second.bytes;
}

void RaceChecker::remove_global(const void* pointer) {
  const auto at = globals_.find(static_cast<const std::byte*>(pointer));
  if (at == globals_.end()) return;
  Allocation& allocation = at->second;
  for (auto& page : allocation.pages)
    if (page != nullptr)
      for (size_t i = 0; i < kPageCells; ++i) global_pool_.forget(page[i], kCellBytes);
  last_global_ = nullptr;
  globals_.erase(at);
  globals_begin_ = globals_.empty() ? nullptr : globals_.begin()->second.begin;
  globals_end_ = globals_.empty() ? nullptr : globals_.rbegin()->second.begin + globals_.rbegin()->second.bytes;
}

void RaceChecker::host_write(const void* pointer, size_t bytes) {
  const auto* byte = static_cast<const std::byte*>(pointer);
  Allocation* allocation = globals_.empty() ? nullptr : find_allocation(byte);
  if (allocation == nullptr || byte < allocation->begin) return;
  pool_ = &global_pool_;
  const auto offset = static_cast<size_t>(byte - allocation->begin);
  const size_t end = std::min(offset + bytes, allocation->bytes);
  for (size_t i = offset / kCellBytes; i * kCellBytes < end; ++i) {
    auto& page = allocation->pages[i / kPageCells];
    if (page == nullptr) page = std::make_unique<Cell[]>(kPageCells);
    initialise(page[i % kPageCells], kCellBytes, offset > i * kCellBytes ? offset - i * kCellBytes : 0,
               std::min<size_t>(kCellBytes, end - i * kCellBytes));
  }
}

void RaceChecker::initialise(Cell& cell, uint32_t cell_bytes, size_t begin, size_t end) {
  if (begin == 0 && end == cell_bytes) return global_pool_.forget(cell, cell_bytes);
  if (cell.parts == nullptr) global_pool_.split(cell, cell_bytes);
  const size_t part = part_bytes(cell_bytes);
  for (size_t i = begin / part; i * part < end; ++i)
    initialise(cell.parts[i], static_cast<uint32_t>(part), begin > i * part ? begin - i * part : 0, std::min(part, end - i * part));
}

}  // namespace heddle::sim
