// How attention over a KV cache is cut up when the queries are few: from the shape alone.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

namespace heddle::kernels::cuda {

// A key is read by `lanes` neighbours of a warp, 16 bytes each; a block takes `rows` of a KV head's rows: its group's heads at each query.
struct AttentionDecodeConfig {
  int lanes = 8, rows = 1;

  static constexpr int kThreads = 128, kWarps = kThreads / 32;
  static constexpr int kMostQueries = 8, kMostColumns = 128;

  constexpr int keys() const { return 32 / lanes; }             // that a warp reads with one instruction
  constexpr int in_flight() const { return rows > 4 ? 2 : 4; }  // such instructions at a time, of keys and of values
  constexpr int warp_step() const { return keys() * in_flight(); }
  constexpr int blocks() const { return rows > 4 ? 2 : rows > 1 ? 3 : 5; }  // that share a multiprocessor at least
};

// Rows of a block for `rows` rows of a KV head.
constexpr int decode_rows(int64_t rows) {
  return rows <= 1 ? 1 : rows <= 4 ? 4 : 8;
}

// The keys that any query sees, in parts that blocks of their own walk. A part is no shorter than what pays for its partial sums, which are two
// numbers and a row of f32 for each row of queries.
struct DecodePlan {
  static constexpr int64_t kLeastKeys = 128, kUnit = 64, kBlocks = 1024;  // kBlocks: several for each of a GPU's multiprocessors
  int rows = 0, tiles = 0;                                                // of a KV head
  int first_key = 0, keys_per_split = 0, splits = 0;

  static constexpr DecodePlan of(int64_t batches, int64_t kv_heads, int64_t group, int64_t queries, int64_t keys, int64_t window) {
    DecodePlan plan;
    const int64_t rows = queries * group, tile = decode_rows(rows), tiles = (rows + tile - 1) / tile;
    const int64_t first = window > 0 ? std::max<int64_t>(keys - queries - window + 1, 0) : 0, seen = keys - first;
    const int64_t wanted = (seen * std::max<int64_t>(batches * kv_heads * tiles, 1) + kBlocks - 1) / kBlocks;
    const int64_t each = (std::max(wanted, kLeastKeys) + kUnit - 1) / kUnit * kUnit;
    plan.rows = static_cast<int>(rows);
    plan.tiles = static_cast<int>(tiles);
    plan.first_key = static_cast<int>(first);
    plan.keys_per_split = static_cast<int>(each);
    plan.splits = static_cast<int>((seen + each - 1) / each);
    return plan;
  }

  // Scratch: for each row of queries and split a row of sums, then maximum and sum of all. One split needs none.
  constexpr size_t sums(int64_t all_rows, int64_t head_dim) const { return static_cast<size_t>(all_rows * splits * head_dim); }
  constexpr size_t bytes(int64_t all_rows, int64_t head_dim) const {
    return splits > 1 ? sizeof(float) * (sums(all_rows, head_dim) + static_cast<size_t>(2 * all_rows * splits)) : 0;
  }
};

}  // namespace heddle::kernels::cuda
