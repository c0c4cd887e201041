#include "kernels/sim/check_shadow.h"

namespace heddle::sim {

void CellPool::split(Cell& cell, uint32_t bytes) {
  Cell* parts;
  if (!free_.empty()) {
    parts = free_.back();
    free_.pop_back();
  } else {
    if (next_ == chunks_.size() * kChunk) chunks_.push_back(std::make_unique<std::array<Cell, kChunk * 4>>());
    parts = &(*chunks_[next_ / kChunk])[next_ % kChunk * 4];
    ++next_;
  }
  const std::vector<Record> more = cell.more_reads != 0 ? more_reads(cell) : std::vector<Record>();
  for (uint32_t i = 0; i < bytes / part_bytes(bytes); ++i) {
    parts[i] = cell;
    parts[i].more_reads = 0;
    for (const Record& record : more) add_read(parts[i], record);
  }
  clear_reads(cell);
  cell.parts = parts;
}

void CellPool::forget(Cell& cell, uint32_t bytes) {
  if (cell.parts != nullptr) {
    for (uint32_t i = 0; i < bytes / part_bytes(bytes); ++i) forget(cell.parts[i], part_bytes(bytes));
    free_.push_back(cell.parts);
  }
  clear_reads(cell);
  cell = Cell{};
  cell.initialised = true;
}

void CellPool::clear_reads(Cell& cell) {
  cell.reads = {};
  if (cell.more_reads == 0) return;
  more_reads(cell).clear();
  free_lists_.push_back(cell.more_reads);
  cell.more_reads = 0;
}

void CellPool::add_read(Cell& cell, const Record& record) {
  if (cell.more_reads == 0) {
    if (free_lists_.empty()) {
      lists_.push_back(std::make_unique<std::vector<Record>>());
      free_lists_.push_back(static_cast<uint32_t>(lists_.size()));
    }
    cell.more_reads = free_lists_.back();
    free_lists_.pop_back();
  }
  more_reads(cell).push_back(record);
}

void CellPool::clear() {
  next_ = 0;
  free_.clear();
  free_lists_.clear();
  for (uint32_t i = 0; i < lists_.size(); ++i) {
    lists_[i]->clear();
    free_lists_.push_back(i + 1);
  }
}

}  // namespace heddle::sim
