// Kernels that do one instruction each and dump what it did: registers by thread, shared memory byte by byte. Real kernels: the simulated machine
// runs them in each of its flavours, nvcc assembles them, and the same cases can run on a GPU. A variant of an instruction is asked for at run time.
// What Hopper alone has (sm_90) stands in sources of its own, so that the others compile for Ampere.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/arch/fragments.h"
#include "kernels/arch/ptx_types.h"

namespace heddle::test {

// ---- one warp (ptx_warp_kernels.cu; elections, stmatrices: ptx_sm90_kernels.cu) ----

// out[mode][lane], modes idx, up, down, bfly, their lane operands in argument[mode][lane]; lanes outside members leave their entry alone.
using Shuffles = void(const uint32_t* value, const int32_t* argument, uint32_t members, uint32_t* out);
Shuffles* shuffles(int width);  // 1, 2, 4, 8, 16, 32

// out[lane][13]: ballot of bit 0, any of bit 1, all of bit 2, match any, match all, sums and extrema and bits; lanes outside members leave theirs
// alone.
inline constexpr int kVotes = 13;
__global__ void votes(const uint32_t* value, uint32_t members, uint32_t* out);
__global__ void elections(uint32_t* out);

// image: `words` words of shared memory; lane l points to row row_of_lane[l] of 16 bytes; out[lane][count] registers.
using Ldmatrices = void(const uint32_t* image, uint32_t words, const uint32_t* row_of_lane, uint32_t* out);
Ldmatrices* ldmatrices(int count, bool transposed);
// registers[lane][count] in; out: the words of shared memory afterwards.
using Stmatrices = void(const uint32_t* image, uint32_t words, const uint32_t* row_of_lane, const uint32_t* registers, uint32_t* out);
Stmatrices* stmatrices(int count, bool transposed);

enum class Mma { bf16, f16, tf32 };
using Mmas = void(const uint32_t* a, const uint32_t* b, float* d);  // a[lane][4], b[lane][2], d[lane][4] in and out
Mmas* mmas(Mma type);

// A 16 x 16 tile with element (i, j) = 16 i + j, loaded by ldmatrix.x4 with the addresses of fragments.h: out[which][lane][4], A plain, A transposed,
// a pair of B plain, transposed.
__global__ void operands_by_ldmatrix(uint32_t* out);

enum class WarpMisuse { misaligned_ldmatrix, divergent_ldmatrix, ldmatrix_outside, divergent_mma };
using Misused = void(uint32_t* out);
Misused* misused(WarpMisuse kind);

// ---- one thread (ptx_memory_kernels.cu; shifted_access, vector_atomics, announced_copies: ptx_sm90_kernels.cu) ----

inline constexpr int kUnary = 5;  // out[i][5]: ex2, lg2, rcp, rsqrt, tanh
__global__ void approximations(const float* x, int n, float* out);
__global__ void conversions(const float* x, const float* y, int n, uint32_t* out);  // out[i][3]: bf16x2(x, y), f16x2(x, y), tf32(x)
// Moves n words of 16 bytes through every form of wide access: out[form][i], four forms, then two in exchanged halves.
__global__ void wide_accesses(const uint4* in, int n, uint4* out);
enum class Wide : uint32_t { store, store_shared, load_shared, store_half_shared, load_half, store_half, add };
// One access, shift bytes after an aligned address.
__global__ void shifted_access(Wide kind, std::byte* global, uint32_t shift);
// Every thread does each atomic once. words: 8 counters; reals: 3 floats; old[3][thread], old_real: what the counters returned to each thread.
__global__ void atomics(uint32_t* words, float* reals, uint32_t* old, float* old_real);
__global__ void vector_atomics(float* reals);
// Thread i copies `bytes` from in + bytes * i, then again with size[i] of them and zeros; out: both results.
using CpAsyncs = void(const std::byte* in, const uint32_t* size, uint32_t* out);
CpAsyncs* cp_asyncs(int bytes);  // 4, 8, 16
// Two groups of one copy each. out[0], out[1]: both targets when one group may be pending (7s where nothing has come); out[2]: the second at the end.
__global__ void one_group_pending(const uint4* in, uint4* out);
__global__ void announced_copies(const uint32_t* in, uint32_t* out);  // cp.async.mbarrier.arrive.noinc
__global__ void shifted_cp_async(const std::byte* in, uint32_t shift, uint32_t bytes);

// ---- barriers, clusters (ptx_barrier_kernels.cu; named_barriers, one_barrier: ptx_named_barrier_kernels.cu) ----

// Two warps produce in turn, two consume: full and empty are named barriers of 128 threads, whatever other warps do. out[round][64]
__global__ void named_barriers(uint32_t* out, uint32_t rounds);
__global__ void one_barrier(uint32_t id, uint32_t threads);
// The ring of a pipelined kernel: a producer warp, `consumers` consumer warps, full and empty mbarriers whose phase flips with the ring. Tiles of 32
// words.
__global__ void pipeline(const uint32_t* in, uint32_t tiles, uint32_t stages, uint32_t consumers, uint32_t* out);
// Every block gives kGift + rank to its right neighbour, arrives there and announces the bytes that the neighbour loads, waits for its own.
// out[4][size]: the gift; tests of phases 0 and 1; the first word loaded.
inline constexpr uint32_t kGift = 0xA0B0C0D0u;
__global__ void ring(const uint4* in, uint32_t* out);
__global__ void fences_and_registers(uint32_t* out);

enum class BarrierMisuse {
  uninitialised,
  zero_count,
  too_many_arrivals,
  misaligned,
  deadlock,
  invalidated,
  unfenced,
  half_a_warpgroup,
  peer_address,
  peer_mbarrier,
  rank_beyond
};
Misused* misused(BarrierMisuse kind);

// ---- TMA, bulk copies (ptx_tma_kernels.cu) ----

struct Start {
  int32_t at[5];
};
// Loads one tile at byte `offset` and dumps `words` words of shared memory, which hold 0xEEEEEEEE before. The mbarrier lies behind them.
using TileLoads = void(const CUtensorMap map, Start start, uint32_t offset, uint32_t tile_bytes, uint32_t* out, uint32_t words);
TileLoads* tile_loads(int rank);
// Fills shared memory from image and stores, or adds, one tile.
using TileStores = void(const CUtensorMap map, Start start, const uint32_t* image, uint32_t words, bool add);
TileStores* tile_stores(int rank);
// A cluster: block `sender` loads a tile into the blocks of `mask`; each dumps its shared memory to out[rank].
__global__ void multicasts(const __grid_constant__ CUtensorMap map, uint32_t sender, uint16_t mask, uint32_t tile_bytes, uint32_t* out,
                           uint32_t words);
// in -> shared -> out, and sum += shared, `bytes` each.
__global__ void bulk_copies(const float* in, float* out, float* sum, uint32_t bytes);
__global__ void unchecked_tile(const __grid_constant__ CUtensorMap map, uint32_t offset, bool rank_three);

// ---- wgmma (ptx_wgmma_kernels.cu) ----

// An operand in shared memory: offset of its first byte in the image and the fields of its descriptor.
struct Operand {
  uint32_t offset = 0, leading = 16, stride = 16, base_offset = 0;
  Swizzle swizzle = Swizzle::none;
};
// image: words of shared memory; registers: A as [thread][4], null for A in shared memory; d[thread][n / 2] in and out.
using Wgmmas = void(const uint32_t* image, uint32_t words, Operand a, Operand b, const uint32_t* registers, bool accumulate, float* d);
Wgmmas* wgmmas(int n, Major a, Major b);  // n: 8 to 256 by 8; A MN-major for 64 and 128 only
// Two groups on different accumulators, products of ones; the first is of four, of which every other one accumulates. out[3][128]: the
// first and second when one group may be pending, the second at the end.
__global__ void two_groups(float* out);

enum class WgmmaMisuse { no_fence, accumulators_written, different_a, different_b, different_accumulate, outside, end_outside, one_warp_missing };
Misused* misused(WgmmaMisuse kind);

// ---- for the check flavour (ptx_race_kernels.cu) ----

enum class PtxRace {
  ldmatrix_of_stores,
  stmatrix_then_load,
  store_after_ldmatrix,
  wide_shared,
  tile_not_waited_for,
  stage_of_loads,
  tile_source_reused,
  tile_without_proxy_fence,
  wgmma_without_proxy_fence,
  wgmma_operand_overwritten,
  uninitialised_ldmatrix,
  tiles_of_two_blocks,
  wide_global,
  narrow_shared,
  async_copy_not_waited,
  bulk_not_waited,
  bulk_source_overwritten,
  bulk_source_without_proxy_fence,
  tile_overwritten_on_its_way,
  bulk_target_not_waited,
  bulk_sum_not_waited,
  cluster_words,
  bulk_source_of_other_block,
  add_acq_rel,
  cas_acq_rel,
  red_release,
  release_acquire,
  fences_of_grid,
  fences_of_cluster,
  fences_of_block,
};
using PtxRaces = void(const CUtensorMap map, bool wrong, uint32_t* out);  // map: 16 rows of 64 bf16, one box, no swizzle
PtxRaces* ptx_race(PtxRace kind);
__global__ void column_of_chunks(bool swizzle, uint32_t* out);

}  // namespace heddle::test
