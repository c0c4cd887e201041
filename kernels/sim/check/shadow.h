// What the check flavour remembers of each byte: its last write and the reads since. One cell covers 16 bytes until somebody touches part of it; then
// it splits, down to single bytes, so that neighbours never blame each other and vector accesses stay cheap.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <vector>

namespace heddle::sim {

inline constexpr uint32_t kByOp = 0x80000000u;    // in `who`: an async op did it, and `when` is the op
inline constexpr uint32_t kAtomic = 0x40000000u;  // in `who`: the access was atomic
inline constexpr uint32_t kWrote = 0x20000000u;   // in `who`, among the reads: the plain write before the atomic ones, which must be ordered after it
inline constexpr uint32_t kWhoMask = 0x1fffffffu;

// An access. Reads by lanes of one warp with one stamp share a record: `who` is then the warp's first thread.
struct Record {
  uint32_t when = 0;   // the thread's stamp, or the op
  uint32_t who = 0;    // the thread's id in its group, and the flags above
  uint32_t where = 0;  // its place: check_report.h
  uint32_t lanes = 0;  // relative to `who`; 0: no access
  bool same_access(const Record& other) const { return when == other.when && who == other.who && lanes == other.lanes; }
};

struct alignas(64) Cell {  // one cache line
  Record write;
  std::array<Record, 2> reads;
  Cell* parts = nullptr;    // once split, the rest of this cell is stale
  uint32_t more_reads = 0;  // the first ReadBlock of its pool; 0: none
  bool initialised = false;
};
static_assert(sizeof(Cell) == 64);

// Reads that found no place in their cell.
struct alignas(64) ReadBlock {
  std::array<Record, 3> reads;  // the first `count`
  uint32_t count = 0, next = 0;
};
static_assert(sizeof(ReadBlock) == 64);

inline constexpr uint32_t kCellBytes = 16;
inline constexpr size_t kPageCells = 1024;  // of global memory, allocated together

// 16 bytes split into words, words into halves, halves into bytes.
constexpr uint32_t part_bytes(uint32_t bytes) {
  return bytes == 16 ? 4 : bytes / 2;
}

// Owns what cells point to.
class CellPool {
 public:
  void split(Cell& cell, uint32_t bytes);   // each part starts as a copy
  void forget(Cell& cell, uint32_t bytes);  // whole again, no history, initialised
  void clear_reads(Cell& cell);
  void add_read(Cell& cell, const Record& record);  // beyond those in the cell itself
  // f(record) for each of those, until one returns true.
  template <class F>
  bool any_more_read(const Cell& cell, F f) {
    for (uint32_t i = cell.more_reads; i != 0; i = block(i).next)
      for (uint32_t r = 0; r < block(i).count; ++r)
        if (f(block(i).reads[r])) return true;
    return false;
  }
  void clear();  // every cell that used this pool is stale

 private:
  static constexpr size_t kChunk = 1024;
  std::vector<std::unique_ptr<std::array<Cell, kChunk * 4>>> chunks_;
  size_t next_ = 0;  // quads handed out
  std::vector<Cell*> free_;
  ReadBlock& block(uint32_t index) { return (*read_blocks_[index / kChunk])[index % kChunk]; }
  uint32_t new_block();
  std::vector<std::unique_ptr<std::array<ReadBlock, kChunk>>> read_blocks_;
  uint32_t next_block_ = 1;  // number 0 is none
  uint32_t free_block_ = 0;  // a chain
};

}  // namespace heddle::sim
