// The tensor memory accelerator: tiles by tensor map, bulk copies. A task captures all it needs when it is issued, because its thread may be gone
// when it runs. Source: PTX ISA, "Tensors" (tiled mode, out-of-bounds accesses, swizzling modes) and "Asynchronous Data Movement".
#include <algorithm>
#include <bit>
#include <memory>
#include <vector>

#include "kernels/sim/cudart/tensor_map.h"
#include "kernels/sim/ptx/ptx_internal.h"

namespace heddle::ptx {

using sim::Agent;
using sim::Site;
using sim::TensorMap;

namespace {

constexpr uint32_t kChunk = 16;  // what a swizzle moves as one

Swizzle swizzle_of(const TensorMap& map) {
  switch (map.swizzle) {
    case CU_TENSOR_MAP_SWIZZLE_32B: return Swizzle::bytes32;
    case CU_TENSOR_MAP_SWIZZLE_64B: return Swizzle::bytes64;
    case CU_TENSOR_MAP_SWIZZLE_128B: return Swizzle::bytes128;
    default: return Swizzle::none;
  }
}

TensorMap checked_map(const CUtensorMap* map, const detail::Coordinates& at, const Site& site) {
  require_aligned(map, 64, "the tensor map", site);
  const TensorMap decoded = sim::decode(*map, site);
  if (static_cast<int>(decoded.rank) != at.rank) {
    sim::fault("tensor map rank", std::to_string(at.rank) + " coordinates for a map of rank " + std::to_string(decoded.rank), site);
  }
  if (decoded.interleave != CU_TENSOR_MAP_INTERLEAVE_NONE) {
    sim::fault("tensor map interleave", "interleaved layouts are not simulated", site);
  }
  const uint32_t row_bytes = decoded.box[0] * decoded.element_bytes;
  const Swizzle swizzle = swizzle_of(decoded);
  if (swizzle != Swizzle::none && row_bytes != swizzle_bytes(swizzle)) {
    sim::fault("tensor map swizzle",
               "a box row of " + std::to_string(row_bytes) + " bytes under a swizzle of " + std::to_string(swizzle_bytes(swizzle)) +
                   ": where its rows lie is not specified; let them be equal",
               site);
  }
  return decoded;
}

// One tile: where its rows lie in the tensor and in shared memory. A row is what lies along dimension 0, contiguous in both.
class Tile {
 public:
  Tile(const TensorMap& map, const detail::Coordinates& at) : map_(map), at_(at), swizzle_(swizzle_of(map)) {}

  uint32_t row_bytes() const { return map_.box[0] * map_.element_bytes; }
  uint32_t bytes() const { return row_bytes() * rows(); }
  uint32_t rows() const {
    uint32_t count = 1;
    for (uint32_t d = 1; d < map_.rank; ++d) count *= map_.extent(d);
    return count;
  }

  struct Row {
    std::byte* global;    // of byte `begin` of the row
    uint32_t begin, end;  // the part inside the tensor, in bytes of the row; empty where begin == end
  };
  Row row(uint32_t index) const {
    std::byte* address = map_.address;
    for (uint32_t d = 1; d < map_.rank; ++d) {
      const int64_t i = at_.at[d] + static_cast<int64_t>(index % map_.extent(d)) * map_.element_stride[d];
      index /= map_.extent(d);
      if (i < 0 || i >= static_cast<int64_t>(map_.size[d])) return {nullptr, 0, 0};
      address += static_cast<uint64_t>(i) * map_.stride[d];
    }
    const int64_t first = std::max<int64_t>(at_.at[0], 0);
    const int64_t last = std::min<int64_t>(static_cast<int64_t>(at_.at[0]) + map_.box[0], static_cast<int64_t>(map_.size[0]));
    if (first >= last) return {nullptr, 0, 0};
    return {address + first * map_.element_bytes, static_cast<uint32_t>(first - at_.at[0]) * map_.element_bytes,
            static_cast<uint32_t>(last - at_.at[0]) * map_.element_bytes};
  }

  // Where byte `offset` of the tile lies, relative to a tile that starts at shared address `start`.
  uint32_t place(uint32_t start, uint32_t offset) const { return swizzled(start + offset, swizzle_) - start; }

  std::byte fill() const { return map_.fill == CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE ? std::byte{0} : std::byte{0xFF}; }  // all ones is a NaN
  const TensorMap& map() const { return map_; }

 private:
  TensorMap map_;
  detail::Coordinates at_;
  Swizzle swizzle_;
};

// Calls f(offset, bytes) for each piece of [begin, end) that lies in one 16-byte chunk.
template <class F>
void by_chunk(uint32_t begin, uint32_t end, F f) {
  for (uint32_t offset = begin; offset < end;) {
    const uint32_t bytes = std::min(end, (offset / kChunk + 1) * kChunk) - offset;
    f(offset, bytes);
    offset += bytes;
  }
}

void load_tile(Agent& agent, const Tile& tile, std::byte* shared, uint32_t start) {
  const uint32_t row_bytes = tile.row_bytes();
  std::vector<std::byte> line(row_bytes);
  if (sim::checking) {
    std::vector<uint32_t> chunks;
    chunks.reserve(tile.bytes() / kChunk);
    by_chunk(0, tile.bytes(), [&](uint32_t offset, uint32_t) { chunks.push_back(tile.place(start, offset)); });
    sim::note_write_chunks(agent, shared, chunks);
  }
  for (uint32_t r = 0; r < tile.rows(); ++r) {
    const Tile::Row row = tile.row(r);
    std::fill(line.begin(), line.begin() + row.begin, tile.fill());
    std::fill(line.begin() + row.end, line.end(), tile.fill());
    if (row.begin < row.end) {
      sim::note_read(agent, row.global, row.end - row.begin);
      std::memcpy(line.data() + row.begin, row.global, row.end - row.begin);
    }
    by_chunk(0, row_bytes, [&](uint32_t offset, uint32_t bytes) {
      std::byte* to = shared + tile.place(start, r * row_bytes + offset);
      std::memcpy(to, line.data() + offset, bytes);
    });
  }
}

// The part of the tile that lies inside the tensor, row after row; the rest of shared memory is not looked at.
void fetch_tile(Agent& agent, const Tile& tile, const std::byte* shared, uint32_t start, std::vector<std::byte>& staging) {
  const uint32_t row_bytes = tile.row_bytes();
  staging.resize(tile.bytes());
  for (uint32_t r = 0; r < tile.rows(); ++r) {
    const Tile::Row row = tile.row(r);
    by_chunk(row.begin, row.end, [&](uint32_t offset, uint32_t bytes) {
      const std::byte* from = shared + tile.place(start, r * row_bytes + offset);
      sim::note_read(agent, from, bytes);
      std::memcpy(staging.data() + r * row_bytes + offset, from, bytes);
    });
  }
}

// *to += *from as one atomic operation on an unsigned word of the element's size.
template <class Word, class Add>
void atomic_add(std::byte* to, const std::byte* from, Add add) {
  auto* word = reinterpret_cast<Word*>(to);
  const Word by = load<Word>(from);
  Word old = __atomic_load_n(word, __ATOMIC_RELAXED);
  while (!__atomic_compare_exchange_n(word, &old, add(old, by), true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
  }
}

void add_element(CUtensorMapDataType type, std::byte* to, const std::byte* from) {
  switch (type) {
    case CU_TENSOR_MAP_DATA_TYPE_FLOAT32:
      return atomic_add<uint32_t>(to, from,
                                  [](uint32_t a, uint32_t b) { return std::bit_cast<uint32_t>(std::bit_cast<float>(a) + std::bit_cast<float>(b)); });
    case CU_TENSOR_MAP_DATA_TYPE_BFLOAT16:
      return atomic_add<uint16_t>(to, from, [](uint16_t a, uint16_t b) { return static_cast<uint16_t>(bf16_bits(bf16_value(a) + bf16_value(b))); });
    case CU_TENSOR_MAP_DATA_TYPE_FLOAT16:
      return atomic_add<uint16_t>(to, from, [](uint16_t a, uint16_t b) { return static_cast<uint16_t>(f16_bits(f16_value(a) + f16_value(b))); });
    case CU_TENSOR_MAP_DATA_TYPE_INT32:
    case CU_TENSOR_MAP_DATA_TYPE_UINT32: return atomic_add<uint32_t>(to, from, [](uint32_t a, uint32_t b) { return a + b; });
    default: return atomic_add<uint64_t>(to, from, [](uint64_t a, uint64_t b) { return a + b; });  // the 64-bit integers: see addable
  }
}

bool addable(CUtensorMapDataType type) {  // PTX ISA, cp.reduce.async.bulk.tensor: the types that .add takes
  switch (type) {
    case CU_TENSOR_MAP_DATA_TYPE_FLOAT32:
    case CU_TENSOR_MAP_DATA_TYPE_BFLOAT16:
    case CU_TENSOR_MAP_DATA_TYPE_FLOAT16:
    case CU_TENSOR_MAP_DATA_TYPE_INT32:
    case CU_TENSOR_MAP_DATA_TYPE_UINT32:
    case CU_TENSOR_MAP_DATA_TYPE_INT64:
    case CU_TENSOR_MAP_DATA_TYPE_UINT64: return true;
    default: return false;
  }
}

void write_tile(Agent& agent, const Tile& tile, const std::vector<std::byte>& staging, detail::TileWrite kind) {
  const uint32_t row_bytes = tile.row_bytes();
  for (uint32_t r = 0; r < tile.rows(); ++r) {
    const Tile::Row row = tile.row(r);
    if (row.begin == row.end) continue;
    const std::byte* from = staging.data() + r * row_bytes + row.begin;
    if (kind == detail::TileWrite::store) {
      sim::note_write(agent, row.global, row.end - row.begin);
      std::memcpy(row.global, from, row.end - row.begin);
    } else {
      sim::note_atomic(agent, row.global, row.end - row.begin);
      for (uint32_t e = 0; e < row.end - row.begin; e += tile.map().element_bytes) add_element(tile.map().type, row.global + e, from + e);
    }
  }
}

uint32_t own_rank() {
  return sim::this_block().cluster_rank;
}

}  // namespace

// ---- tiles ----

void tma_prefetch_descriptor(const CUtensorMap* map, Where at) {
  const Site site = at.op("prefetch.tensormap");
  require_aligned(map, 64, "the tensor map", site);
  sim::decode(*map, site);
}
void detail::tma_prefetch(const CUtensorMap* map, const Coordinates& from, Where at) {
  checked_map(map, from, at.op("cp.async.bulk.prefetch.tensor"));
}

void detail::tma_load(uint32_t smem, const CUtensorMap* map, uint32_t mbarrier, const Coordinates& from, uint32_t blocks, Where at) {
  const Site site = at.op(blocks == kThisBlock ? "cp.async.bulk.tensor load" : "cp.async.bulk.tensor multicast load");
  const Tile tile(checked_map(map, from, site), from);
  own_shared(smem, tile.bytes(), 128, site);
  own_shared(mbarrier, 8, 8, site);
  uint32_t targets = blocks == kThisBlock ? 1u << own_rank() : blocks;
  if (targets >> sim::this_block().cluster_size != 0) {
    sim::fault("multicast mask", "names blocks beyond the cluster's " + std::to_string(sim::this_block().cluster_size), site);
  }
  // One block of several goes without.
  if (std::popcount(targets) > 1 && sim::mutation_at(site, sim::kMayWeaken) == sim::Mutation::weaken) targets ^= std::bit_floor(targets);
  const uint32_t start = smem & ((1u << sim::kSharedRankShift) - 1);  // the swizzle follows the address inside a block
  for (uint32_t rest = targets; rest != 0; rest &= rest - 1) {
    const auto rank = static_cast<uint32_t>(std::countr_zero(rest));
    std::byte* shared = sim::shared_pointer(sim::shared_in_rank(smem, rank, site), tile.bytes(), site);
    sim::issue_on_mbarrier(
        sim::shared_in_rank(mbarrier, rank, site), tile.bytes(), [tile, shared, start](Agent& agent) { load_tile(agent, tile, shared, start); },
        site);
  }
}

void detail::tma_store(const CUtensorMap* map, uint32_t smem, const Coordinates& to, TileWrite kind, Where at) {
  const Site site = at.op(kind == TileWrite::store ? "cp.async.bulk.tensor store" : "cp.reduce.async.bulk.tensor.add");
  const Tile tile(checked_map(map, to, site), to);
  if (kind == TileWrite::reduce_add && !addable(tile.map().type)) {
    sim::fault("tensor map type", "no .add for element type " + std::to_string(tile.map().type), site);
  }
  const std::byte* shared = own_shared(smem, tile.bytes(), 128, site);
  const uint32_t start = smem & ((1u << sim::kSharedRankShift) - 1);
  const auto staging = std::make_shared<std::vector<std::byte>>();
  sim::issue_bulk([=](Agent& agent) { fetch_tile(agent, tile, shared, start, *staging); },
                  [=](Agent& agent) { write_tile(agent, tile, *staging, kind); }, site);
}

// ---- bulk copies ----

namespace {
std::byte* bulk_operands(const void* global, uint32_t smem, uint32_t bytes, const Site& site) {
  require_aligned(global, 16, "the global address", site);
  if (bytes == 0 || bytes % 16 != 0) sim::fault("bulk size", "bytes must be a positive multiple of 16, not " + std::to_string(bytes), site);
  return own_shared(smem, bytes, 16, site);
}

// write(agent, bytes) gets what shared memory held when the op read it.
template <class Write>
void issue_from_shared(const std::byte* shared, uint32_t bytes, Write write, const Site& site) {
  const auto staging = std::make_shared<std::vector<std::byte>>();
  sim::issue_bulk(
      [=](Agent& agent) {
        sim::note_read(agent, shared, bytes);
        staging->assign(shared, shared + bytes);
      },
      [=](Agent& agent) { write(agent, staging->data()); }, site);
}
}  // namespace

void bulk_load(uint32_t smem, const void* global, uint32_t bytes, uint32_t mbarrier, Where at) {
  const Site site = at.op("cp.async.bulk load");
  std::byte* shared = bulk_operands(global, smem, bytes, site);
  own_shared(mbarrier, 8, 8, site);
  sim::issue_on_mbarrier(
      mbarrier, bytes,
      [=](Agent& agent) {
        sim::note_read(agent, global, bytes);
        sim::note_write(agent, shared, bytes);
        std::memcpy(shared, global, bytes);
      },
      site);
}

void bulk_store(void* global, uint32_t smem, uint32_t bytes, Where at) {
  const Site site = at.op("cp.async.bulk store");
  issue_from_shared(
      bulk_operands(global, smem, bytes, site), bytes,
      [=](Agent& agent, const std::byte* from) {
        sim::note_write(agent, global, bytes);
        std::memcpy(global, from, bytes);
      },
      site);
}

void bulk_reduce_add_f32(float* global, uint32_t smem, uint32_t bytes, Where at) {
  const Site site = at.op("cp.reduce.async.bulk.add.f32");
  issue_from_shared(
      bulk_operands(global, smem, bytes, site), bytes,
      [=](Agent& agent, const std::byte* from) {
        sim::note_atomic(agent, global, bytes);
        for (uint32_t i = 0; i < bytes; i += 4) {
          add_element(CU_TENSOR_MAP_DATA_TYPE_FLOAT32, reinterpret_cast<std::byte*>(global) + i, from + i);
        }
      },
      site);
}

void bulk_commit(Where at) {
  sim::bulk_commit(at.op("cp.async.bulk.commit_group"));
}
void detail::bulk_wait(uint32_t pending, bool sources_only, Where at) {
  sim::bulk_wait(pending, sources_only, at.op(sources_only ? "cp.async.bulk.wait_group.read" : "cp.async.bulk.wait_group"));
}

}  // namespace heddle::ptx
