#include "kernels/sim/check/shadow.h"

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
  for (uint32_t i = 0; i < bytes / part_bytes(bytes); ++i) {
    parts[i] = cell;
    parts[i].more_reads = 0;
    any_more_read(cell, [&](const Record& record) { return add_read(parts[i], record), false; });
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
  uint32_t last = cell.more_reads;
  while (block(last).next != 0) last = block(last).next;
  block(last).next = free_block_;
  free_block_ = cell.more_reads;
  cell.more_reads = 0;
}

uint32_t CellPool::new_block() {
  const uint32_t index = free_block_ != 0 ? free_block_ : next_block_++;
  if (index / kChunk == read_blocks_.size()) read_blocks_.push_back(std::make_unique<std::array<ReadBlock, kChunk>>());
  if (free_block_ != 0) free_block_ = block(index).next;
  block(index).count = block(index).next = 0;
  return index;
}

void CellPool::add_read(Cell& cell, const Record& record) {
  uint32_t first = cell.more_reads;
  if (first == 0 || block(first).count == block(first).reads.size()) {
    first = new_block();
    block(first).next = cell.more_reads;
    cell.more_reads = first;
  }
  block(first).reads[block(first).count++] = record;
}

void CellPool::clear() {
  next_ = 0;
  free_.clear();
  next_block_ = 1;
  free_block_ = 0;
}

}  // namespace heddle::sim
