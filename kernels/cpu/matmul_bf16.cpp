// matmul of bf16 on the CPU's own instructions for it: candidates "amx" (TDPBF16PS) and "avx512_bf16" (VDPBF16PS), chosen by what this CPU has and
// not by what the program was compiled for (Intel Software Developer's Manual, volumes 1, chapter 18, and 2).
//
// Both multiply pairs along k: c(i, j) += a(i, 2p) b(2p, j) + a(i, 2p + 1) b(2p + 1, j) in f32. b is packed into panels of kColumns columns, pairs of
// k beside each other, zeros up to whole steps of k; a is read as it lies where its rows hold whole steps, or from a packed copy of a slice. The
// product of kRows x kColumns is that of all registers. Denormals count as zero, in operands and sums: the instructions know no others.
#include "kernels/cpu/intrinsics_internal.h"
#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include <atomic>
#include <cstring>

#include "kernels/api/rules.h"
#include "kernels/cpu/gemm_internal.h"
#include "kernels/cpu/matmul_internal.h"
#include "kernels/cpu/parallel_internal.h"

namespace heddle::kernels::cpu {

#if defined(__x86_64__)

namespace {

// Of functions: the rest of the file is compiled for the CPUs that all else is. Lambdas would not inherit it.
#define HEDDLE_PACKS __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq")))
#define HEDDLE_AVX512_BF16 __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")))
#define HEDDLE_AMX __attribute__((target("amx-tile,amx-bf16")))

constexpr int64_t kRows = 32, kColumns = 32, kStep = 32;  // of one product; of k, elements
constexpr int64_t kDepth = 512;                           // slice of k, at most: a panel of b (32 KiB) stays in L1
constexpr int64_t kTileM = 128, kTileN = 384;             // of a task, at most: its slice of a (128 KiB) and its sums (192 KiB) stay in L2
constexpr int64_t kSlab = 2 * kDepth;                     // of k, where a is stored (k, m)
constexpr int64_t kEnoughTiles = 12;                      // cut smaller below this many
constexpr int64_t kThin = 96;                             // fewer rows do not pay for packing b
constexpr int64_t kPackedMiB = 8;                         // of b at a time
constexpr int64_t kPairs = kStep / 2;

constexpr int64_t up(int64_t n, int64_t unit) {
  return (n + unit - 1) / unit * unit;
}

TileGrid grid_of(const MatmulShape& s) {
  int64_t parts_m = ceil_div(s.m, kTileM), parts_n = ceil_div(s.n, kTileN);
  const auto grid = [&] {
    return TileGrid(s.m, s.n, std::max(up(ceil_div(s.m, parts_m), kRows), kRows), std::max(up(ceil_div(s.n, parts_n), kColumns), kColumns));
  };
  parts_m = std::max<int64_t>(parts_m, 1), parts_n = std::max<int64_t>(parts_n, 1);
  while (grid().count() < kEnoughTiles && grid().tile_n > 96) ++parts_n;
  while (grid().count() < kEnoughTiles && grid().tile_m > 32) ++parts_m;
  return grid();
}

// ---- packing ----

HEDDLE_PACKS inline __mmask32 first(int64_t n) {
  return n >= 32 ? ~__mmask32{0} : static_cast<__mmask32>((uint32_t{1} << std::max<int64_t>(n, 0)) - 1);
}

// Rows and columns of 16 x 16 elements of 32 bits change places.
HEDDLE_PACKS inline void transpose(__m512i (&row)[16]) {
  __m512i half[16];
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) {
    half[2 * i] = _mm512_unpacklo_epi32(row[2 * i], row[2 * i + 1]);
    half[2 * i + 1] = _mm512_unpackhi_epi32(row[2 * i], row[2 * i + 1]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    row[4 * i] = _mm512_unpacklo_epi64(half[4 * i], half[4 * i + 2]);
    row[4 * i + 1] = _mm512_unpackhi_epi64(half[4 * i], half[4 * i + 2]);
    row[4 * i + 2] = _mm512_unpacklo_epi64(half[4 * i + 1], half[4 * i + 3]);
    row[4 * i + 3] = _mm512_unpackhi_epi64(half[4 * i + 1], half[4 * i + 3]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    half[i] = _mm512_shuffle_i32x4(row[i], row[4 + i], 0x88);
    half[4 + i] = _mm512_shuffle_i32x4(row[i], row[4 + i], 0xdd);
    half[8 + i] = _mm512_shuffle_i32x4(row[8 + i], row[12 + i], 0x88);
    half[12 + i] = _mm512_shuffle_i32x4(row[8 + i], row[12 + i], 0xdd);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    row[i] = _mm512_shuffle_i32x4(half[i], half[8 + i], 0x88);
    row[8 + i] = _mm512_shuffle_i32x4(half[i], half[8 + i], 0xdd);
    row[4 + i] = _mm512_shuffle_i32x4(half[4 + i], half[12 + i], 0x88);
    row[12 + i] = _mm512_shuffle_i32x4(half[4 + i], half[12 + i], 0xdd);
  }
}

// 16 columns of two rows, the second `stride` after the first, as pairs; `columns` and `rows` are there, all else is zero.
HEDDLE_PACKS inline __m512i pairs_of_rows(const bf16* from, int64_t stride, int64_t rows, int64_t columns) {
  const auto there = static_cast<__mmask16>(first(std::min<int64_t>(columns, 16)));
  const __m256i even = rows > 0 ? _mm256_maskz_loadu_epi16(there, from) : _mm256_setzero_si256();
  const __m256i odd = rows > 1 ? _mm256_maskz_loadu_epi16(there, from + stride) : _mm256_setzero_si256();
  return _mm512_or_si512(_mm512_cvtepu16_epi32(even), _mm512_slli_epi32(_mm512_cvtepu16_epi32(odd), 16));
}

// A panel (depth up to whole steps, kColumns) from b stored (k, n): `from` is its first element, `columns` of it are there.
HEDDLE_PACKS void pack_panel(const bf16* from, int64_t stride, int64_t depth, int64_t columns, bf16* to) {
  for (int64_t p = 0; p < up(depth, kStep); p += 2, to += 2 * kColumns) {
    const bf16* rows = from + p * stride;
    if (p + 8 < depth) {
      _mm_prefetch(reinterpret_cast<const char*>(rows + 8 * stride), _MM_HINT_T0);
      _mm_prefetch(reinterpret_cast<const char*>(rows + 9 * stride), _MM_HINT_T0);
    }
    _mm512_storeu_si512(to, pairs_of_rows(rows, stride, depth - p, columns));
    _mm512_storeu_si512(to + kColumns, pairs_of_rows(rows + 16, stride, columns > 16 ? depth - p : 0, columns - 16));
  }
}

// The same from b stored (n, k).
HEDDLE_PACKS void pack_panel_transposed(const bf16* from, int64_t stride, int64_t depth, int64_t columns, bf16* to) {
  for (int64_t p = 0; p < depth; p += kStep, to += kStep * kColumns) {
    for (int64_t j = 0; j < kColumns; j += 16) {
      __m512i row[16];
#pragma GCC unroll 16
      for (int i = 0; i < 16; ++i)
        row[i] = j + i < columns ? _mm512_maskz_loadu_epi16(first(depth - p), from + (j + i) * stride + p) : _mm512_setzero_si512();
      transpose(row);
#pragma GCC unroll 16
      for (int i = 0; i < 16; ++i) _mm512_storeu_si512(to + i * 2 * kColumns + 2 * j, row[i]);
    }
  }
}

// Rows of a, whole blocks of kRows, dense with whole steps of k, from a stored (m, k).
HEDDLE_PACKS void pack_rows(const bf16* from, int64_t stride, int64_t rows, int64_t depth, bf16* to) {
  const int64_t length = up(depth, kStep);
  for (int64_t i = 0; i < up(rows, kRows); ++i, to += length) {
    for (int64_t p = 0; p < length; p += kStep)
      _mm512_storeu_si512(to + p, i < rows ? _mm512_maskz_loadu_epi16(first(depth - p), from + i * stride + p) : _mm512_setzero_si512());
  }
}

// The same from a stored (k, m); a packed row is `length` long.
HEDDLE_PACKS void pack_rows_transposed(const bf16* from, int64_t stride, int64_t rows, int64_t depth, bf16* to, int64_t length) {
  for (int64_t p = 0; p < depth; p += kStep) {
    for (int64_t i = 0; i < up(rows, kRows); i += 16) {
      __m512i pair[16];
#pragma GCC unroll 16
      for (int q = 0; q < kPairs; ++q)
        pair[q] = i < rows ? pairs_of_rows(from + (p + 2 * q) * stride + i, stride, depth - p - 2 * q, rows - i) : _mm512_setzero_si512();
      transpose(pair);
#pragma GCC unroll 16
      for (int r = 0; r < 16; ++r) _mm512_storeu_si512(to + (i + r) * length + p, pair[r]);
    }
  }
}

bool has_packing() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx512dq");
}

// ---- products: c (kRows, kColumns) (+)= a (kRows, depth) times a panel (depth, kColumns); depth holds whole steps ----

struct Amx {
  // Linux lends the tiles' state to a process that asks for it (Documentation/arch/x86/xstate.rst).
  static bool here() {
    static const bool lent = [] {
      constexpr int kAsk = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
      unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
      __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx);
      return (edx >> 22 & 1) != 0 && (edx >> 24 & 1) != 0 && has_packing() && syscall(SYS_arch_prctl, kAsk, kTileData) == 0;
    }();
    return lent;
  }
  HEDDLE_AMX static void begin() {
    alignas(64) static constexpr struct {
      uint8_t palette = 1, start_row = 0, reserved[14] = {};
      uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
      uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
    } kTiles;
    _tile_loadconfig(&kTiles);
  }
  HEDDLE_AMX static void end() { _tile_release(); }
  HEDDLE_AMX static void product(int64_t depth, const bf16* a, int64_t lda, const bf16* b, float* c, int64_t ldc, bool add) {
    constexpr int64_t kBytesB = kColumns * 4, kNextB = 16 * 2;
    const int64_t bytes_a = lda * 2, bytes_c = ldc * 4;
    std::atomic_signal_fence(std::memory_order_seq_cst);  // to the compiler: g++ 12's tile loads and stores do not say that they touch memory
    if (add) {
      _tile_loadd(0, c, bytes_c);
      _tile_loadd(1, c + 16, bytes_c);
      _tile_loadd(2, c + 16 * ldc, bytes_c);
      _tile_loadd(3, c + 16 * ldc + 16, bytes_c);
    } else {
      _tile_zero(0);
      _tile_zero(1);
      _tile_zero(2);
      _tile_zero(3);
    }
    for (int64_t p = 0; p < depth; p += kStep, a += kStep, b += kStep * kColumns) {
      _tile_loadd(4, a, bytes_a);
      _tile_loadd(6, b, kBytesB);
      _tile_loadd(7, b + kNextB, kBytesB);
      _tile_loadd(5, a + 16 * lda, bytes_a);
      _tile_dpbf16ps(0, 4, 6);
      _tile_dpbf16ps(1, 4, 7);
      _tile_dpbf16ps(2, 5, 6);
      _tile_dpbf16ps(3, 5, 7);
    }
    _tile_stored(0, c, bytes_c);
    _tile_stored(1, c + 16, bytes_c);
    _tile_stored(2, c + 16 * ldc, bytes_c);
    _tile_stored(3, c + 16 * ldc + 16, bytes_c);
    std::atomic_signal_fence(std::memory_order_seq_cst);
  }
};

struct Avx512Bf16 {
  static bool here() { return __builtin_cpu_supports("avx512bf16") && has_packing(); }
  static void begin() {}
  static void end() {}
  HEDDLE_AVX512_BF16 static void product(int64_t depth, const bf16* a, int64_t lda, const bf16* b, float* c, int64_t ldc, bool add) {
    constexpr int kAtOnce = 8;  // rows: 16 sums
    for (int64_t i = 0; i < kRows; i += kAtOnce, a += kAtOnce * lda, c += kAtOnce * ldc) {
      __m512 sum[kAtOnce][2];
#pragma GCC unroll 8
      for (int r = 0; r < kAtOnce; ++r) {
        sum[r][0] = add ? _mm512_loadu_ps(c + r * ldc) : _mm512_setzero_ps();
        sum[r][1] = add ? _mm512_loadu_ps(c + r * ldc + 16) : _mm512_setzero_ps();
      }
      for (int64_t p = 0; p < depth; p += 2) {
        const __m512i b0 = _mm512_loadu_si512(b + p * kColumns), b1 = _mm512_loadu_si512(b + p * kColumns + 32);
#pragma GCC unroll 8
        for (int r = 0; r < kAtOnce; ++r) {
          int32_t pair;
          std::memcpy(&pair, a + r * lda + p, sizeof pair);
          const __m512i both = _mm512_set1_epi32(pair);
          sum[r][0] = _mm512_dpbf16_ps(sum[r][0], reinterpret_cast<__m512bh>(both), reinterpret_cast<__m512bh>(b0));
          sum[r][1] = _mm512_dpbf16_ps(sum[r][1], reinterpret_cast<__m512bh>(both), reinterpret_cast<__m512bh>(b1));
        }
      }
#pragma GCC unroll 8
      for (int r = 0; r < kAtOnce; ++r) {
        _mm512_storeu_ps(c + r * ldc, sum[r][0]);
        _mm512_storeu_ps(c + r * ldc + 16, sum[r][1]);
      }
    }
  }
};

// ---- the walk over tiles ----

// Whole panels of b packed at a time, in columns: about kPackedMiB.
int64_t columns_at_once(const TileGrid& grid, int64_t k) {
  const int64_t fit = (kPackedMiB << 20) / 2 / std::max<int64_t>(up(k, kStep), 1) / grid.tile_n;
  return std::clamp<int64_t>(fit, 1, std::max<int64_t>(grid.tiles_n, 1)) * grid.tile_n;
}

// The weight gradient: a stored (k, m), b (k, n), both long in k, and c takes the plain product. Both are packed in slabs of k, read along
// their rows and once; c itself holds the sums from slab to slab.
bool slabs_fit(const MatmulArgs& args) {
  const MatmulShape s = shape_of(args);
  return args.trans_a && !args.trans_b && is_plain(args) && args.c.to.dtype == DType::f32 && s.m % kRows == 0 && s.n % kColumns == 0 && s.k > 0;
}
constexpr int64_t kSlabRow = kSlab + kStep;  // of packed a: not a power of two, so that rows do not meet in one set of a cache

size_t scratch(const MatmulArgs& args) {
  const MatmulShape s = shape_of(args);
  const TileGrid grid = grid_of(s);
  if (slabs_fit(args)) return static_cast<size_t>(kSlabRow * s.m + kSlab * columns_at_once(grid, kSlab)) * sizeof(bf16);
  return static_cast<size_t>(columns_at_once(grid, s.k) * up(s.k, kStep)) * sizeof(bf16) + column_sum_scratch(args, grid.tiles_m);
}

// Rows [p0, p0 + depth) of b stored (k, n) into all panels of `columns` columns, each `length` deep; depth is a step, or what is left of k.
void pack_step(const bf16* from, int64_t stride, int64_t depth, int64_t columns, bf16* to, int64_t length) {
  for (int64_t j = 0; j < columns; j += kColumns) pack_panel(from + j, stride, depth, columns - j, to + j * length);
}

template <class Product>
void multiply_block(const MatmulArgs& args, const Tile& tile, int64_t depth, const bf16* a, int64_t lda, const bf16* panels, int64_t length, float* z,
                    int64_t ldz, bool add) {
  for (int64_t j = 0; j < tile.cols; j += kColumns) {
    for (int64_t i = first_row(args, tile, j, kRows); i < tile.rows; i += kRows)
      Product::product(depth, a + i * lda, lda, panels + j * length, z + i * ldz + j, ldz, add);
  }
}

template <class Product>
void multiply_tile(const MatmulArgs& args, const MatmulShape& s, const Tile& tile, const bf16* panels, float* column_partial) {
  const View& c = args.c.to;
  const int64_t rows = up(tile.rows, kRows), columns = up(tile.cols, kColumns), length = up(s.k, kStep), stride = args.a.step(0);
  // z is c itself where nothing else reads or changes c and no product reaches beyond it.
  const bool in_place = is_plain(args) && c.dtype == DType::f32 && rows == tile.rows && columns == tile.cols && s.k > 0;
  const int64_t ldz = in_place ? c.step(0) : columns;
  float* z = in_place ? c.as<float>() + tile.row * ldz + tile.col : thread_buffer<float>(0, kTileM * kTileN);
  bf16* slice = thread_buffer<bf16>(1, kTileM * kDepth);
  const bf16* from = args.a.as<const bf16>();
  const int64_t slices = ceil_div(s.k, kDepth), deepest = up(ceil_div(s.k, std::max<int64_t>(slices, 1)), kStep);
  if (s.k == 0 || (!in_place && is_mirrored(args))) std::fill_n(z, rows * ldz, 0.0f);
  for (int64_t p = 0; p < s.k; p += deepest) {
    const int64_t depth = std::min(deepest, s.k - p);
    const bf16* a = slice;
    int64_t lda = up(depth, kStep);
    if (args.trans_a) {
      pack_rows_transposed(from + p * stride + tile.row, stride, tile.rows, depth, slice, lda);
    } else if (rows == tile.rows && lda == depth) {
      a = from + tile.row * stride + p;
      lda = stride;
    } else {
      pack_rows(from + tile.row * stride + p, stride, tile.rows, depth, slice);
    }
    multiply_block<Product>(args, tile, up(depth, kStep), a, lda, panels + p * kColumns, length, z, ldz, (in_place && args.c.accumulate) || p > 0);
  }
  if (!in_place) finish<bf16>(args, tile, z, ldz, column_partial);
}

template <class Product>
void run_panels(const MatmulArgs& args) {
  const MatmulShape s = shape_of(args);
  const TileGrid grid = grid_of(s);
  const int64_t at_once = columns_at_once(grid, s.k), length = up(s.k, kStep), stride = args.b.step(0);
  bf16* packed = reinterpret_cast<bf16*>(args.scratch.data());
  float* partials = args.column_sum ? reinterpret_cast<float*>(packed + at_once * length) : nullptr;
  std::fill_n(partials, partials ? grid.tiles_m * s.n : 0, 0.0f);
#pragma omp parallel if (worth_threads(s))
  {
    Product::begin();
    for (int64_t first = 0; first < s.n; first += at_once) {
      const int64_t columns = std::min(at_once, s.n - first), tiles_n = ceil_div(columns, grid.tile_n);
      const bf16* from = args.b.as<const bf16>() + first * (args.trans_b ? stride : 1);
      if (args.trans_b) {
#pragma omp for schedule(static)
        for (int64_t panel = 0; panel < ceil_div(columns, kColumns); ++panel) {
          const int64_t j = panel * kColumns;
          pack_panel_transposed(from + j * stride, stride, s.k, columns - j, packed + j * length);
        }
      } else {
#pragma omp for schedule(static)
        for (int64_t p = 0; p < s.k; p += kStep)
          pack_step(from + p * stride, stride, std::min(kStep, s.k - p), columns, packed + p * kColumns, length);
      }
#pragma omp for schedule(dynamic)
      for (int64_t index = 0; index < grid.tiles_m * tiles_n; ++index) {
        const Tile tile = grid.tile(first / grid.tile_n * grid.tiles_m + index);
        if (first_row(args, tile, 0, 1) >= tile.rows) continue;
        multiply_tile<Product>(args, s, tile, packed + (tile.col - first) * length,
                               partials ? partials + tile.row / grid.tile_m * s.n + tile.col : nullptr);
      }
    }
    Product::end();
  }
  if (is_mirrored(args)) mirror(args.c.to);
  add_column_partials(args, partials, grid.tiles_m);
}

template <class Product>
void run_slabs(const MatmulArgs& args) {
  const MatmulShape s = shape_of(args);
  const TileGrid grid = grid_of(s);
  const int64_t at_once = columns_at_once(grid, kSlab), stride_a = args.a.step(0), stride_b = args.b.step(0), ldc = args.c.to.step(0);
  bf16* rows = reinterpret_cast<bf16*>(args.scratch.data());
  bf16* panels = rows + kSlabRow * s.m;
#pragma omp parallel if (worth_threads(s))
  {
    Product::begin();
    for (int64_t first = 0; first < s.n; first += at_once) {
      const int64_t columns = std::min(at_once, s.n - first), tiles_n = ceil_div(columns, grid.tile_n);
      for (int64_t p0 = 0; p0 < s.k; p0 += kSlab) {
        const int64_t depth = std::min(kSlab, s.k - p0);
#pragma omp for schedule(static)
        for (int64_t p = 0; p < depth; p += kStep) {
          const int64_t some = std::min(kStep, depth - p);
          pack_rows_transposed(args.a.as<const bf16>() + (p0 + p) * stride_a, stride_a, s.m, some, rows + p, kSlabRow);
          pack_step(args.b.as<const bf16>() + (p0 + p) * stride_b + first, stride_b, some, columns, panels + p * kColumns, kSlab);
        }
#pragma omp for schedule(dynamic)
        for (int64_t index = 0; index < grid.tiles_m * tiles_n; ++index) {
          const Tile tile = grid.tile(first / grid.tile_n * grid.tiles_m + index);
          float* c = args.c.to.as<float>() + tile.row * ldc + tile.col;
          for (int64_t p = 0; p < depth; p += kDepth) {
            multiply_block<Product>(args, tile, up(std::min(kDepth, depth - p), kStep), rows + tile.row * kSlabRow + p, kSlabRow,
                                    panels + (tile.col - first) * kSlab + p * kColumns, kSlab, c, ldc, args.c.accumulate || p0 + p > 0);
          }
        }
      }
    }
    Product::end();
  }
  if (is_mirrored(args)) mirror(args.c.to);
}

template <class Product>
Refusal refuses(const MatmulArgs& args) {
  if (args.a.dtype != DType::bf16) return refused("its products are of bf16, a is ", name_of(args.a.dtype));
  if (!Product::here()) return refused("this CPU, or its system, has no such instructions");
  if (const auto m = shape_of(args).m; m < kThin) return refused("packing b does not pay for ", m, " rows");
  return std::nullopt;
}

template <class Product>
void run(const MatmulArgs& args, Stream) {
  check(args);
  HEDDLE_CHECK(args.scratch.size() >= scratch(args), "matmul", "scratch too small: ", args.scratch.size(), " of ", scratch(args), " bytes");
  if (slabs_fit(args)) return run_slabs<Product>(args);
  run_panels<Product>(args);
}

}  // namespace

void add_matmul_amx() {
  matmul.add(DeviceType::cpu, {"amx", refuses<Amx>, scratch, run<Amx>});
}
void add_matmul_avx512_bf16() {
  matmul.add(DeviceType::cpu, {"avx512_bf16", refuses<Avx512Bf16>, scratch, run<Avx512Bf16>});
}
// Zen 4 and 5 multiply twice as much by it as by f32; on a Sapphire Rapids it takes 1.3 times as long as widening to f32 (bench kernels).
bool avx512_bf16_pays() {
  return true;
}

#else
void add_matmul_amx() {}
void add_matmul_avx512_bf16() {}
bool avx512_bf16_pays() {
  return false;
}
#endif

}  // namespace heddle::kernels::cpu
