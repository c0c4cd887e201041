// matmul on heddle's own micro-product: candidate "packed" (f32, bf16, f64).
//
// b is packed once per block of columns into panels of kMicroColumns, shared by all threads; a task is a tile of c, which walks over the depth
// in slices, takes a as it lies (f32 or f64 by rows) or from a packed, widened copy of its slice, and applies the epilogue to its tile while it
// is in L2. bf16 is widened while packing: no f32 copy of a whole operand exists.
#include <omp.h>

#include "kernels/cpu/gemm_internal.h"
#include "kernels/cpu/matmul_internal.h"
#include "kernels/cpu/micro_product_internal.h"

namespace heddle::kernels::cpu {
namespace {

constexpr int64_t kDepth = 320;       // slice of K, at most: a panel of b (20 KiB) and the rows of a it meets share L1
constexpr int64_t kTileM = 96;        // rows of a tile, at most: its slice of a fills a quarter of a 512 KiB L2
constexpr int64_t kTileN = 384;       // columns of a tile, at most
constexpr int64_t kEnoughTiles = 12;  // cut smaller below this many
constexpr int64_t kThin = 96;         // fewer rows do not pay for packing b
constexpr int64_t kRowsAtOnce = 16;   // of b (k, n), packed by one thread
constexpr int64_t kPackedMiB = 8;     // of b at a time

// n cut into `parts` pieces, all but the last a multiple of `unit`.
constexpr int64_t even_part(int64_t n, int64_t parts, int64_t unit) {
  const int64_t part = (n + parts - 1) / parts;
  return std::max((part + unit - 1) / unit, int64_t{1}) * unit;
}

template <class A>
TileGrid grid_of(const MatmulShape& s) {
  const auto parts = [](int64_t n, int64_t most) { return std::max<int64_t>((n + most - 1) / most, 1); };
  int64_t parts_m = parts(s.m, kTileM), parts_n = parts(s.n, kTileN);
  const auto grid = [&] { return TileGrid(s.m, s.n, even_part(s.m, parts_m, kMicroRows), even_part(s.n, parts_n, kMicroColumns<A>)); };
  while (grid().count() < kEnoughTiles && grid().tile_n > 96) ++parts_n;
  while (grid().count() < kEnoughTiles && grid().tile_m > 36) ++parts_m;
  return grid();
}

// Rows from one panel to the next: odd, so that a row of b does not go to lines of one cache set (K is often a power of two).
constexpr int64_t panel_rows(int64_t k) {
  return k | 1;
}

// Columns of b packed at a time: whole tiles, about kPackedMiB.
template <class A>
int64_t columns_at_once(const TileGrid& grid, int64_t k) {
  const int64_t fit = (kPackedMiB << 20) / static_cast<int64_t>(sizeof(A)) / std::max<int64_t>(k, 1) / grid.tile_n;
  return std::clamp<int64_t>(fit, 1, std::max<int64_t>(grid.tiles_n, 1)) * grid.tile_n;
}

// The weight gradient: a stored (k, m), b (k, n), both long in k, and c takes the plain product. Both are packed in slabs of k, read along
// their rows and once; c itself is the accumulator from slab to slab.
constexpr int64_t kSlab = 2 * kDepth;

bool slabs_fit(const MatmulArgs& args) {
  const MatmulShape s = shape_of(args);
  const DType sums = accumulator_of(args.a.dtype);
  const int64_t columns = sums == DType::f64 ? kMicroColumns<double> : kMicroColumns<float>;
  return args.trans_a && !args.trans_b && is_plain(args) && args.c.to.dtype == sums && s.n % columns == 0 && s.k > 0;
}

// Rows of a, up to whole tiles, and columns of b in one slab.
int64_t slab_elements(const TileGrid& grid, int64_t columns) {
  return kSlab * grid.tiles_m * grid.tile_m + panel_rows(kSlab) * columns;
}

template <class A>
size_t scratch_of(const MatmulArgs& args) {
  const MatmulShape s = shape_of(args);
  const auto grid = grid_of<A>(s);
  if (slabs_fit(args)) return static_cast<size_t>(slab_elements(grid, columns_at_once<A>(grid, kSlab))) * sizeof(A);
  return static_cast<size_t>(columns_at_once<A>(grid, s.k) * panel_rows(s.k)) * sizeof(A) + column_sum_scratch(args, grid.tiles_m);
}

size_t scratch(const MatmulArgs& args) {
  return args.a.dtype == DType::f64 ? scratch_of<double>(args) : scratch_of<float>(args);
}

// b stored (k, n): rows [p0, p1) of the panels of columns [col, col + columns), read along the rows. `to` is the first panel;
// columns beyond n are zero.
template <class T>
void pack_rows_of_b(const View& b, int64_t k, int64_t p0, int64_t p1, int64_t col, int64_t columns, vec::Accumulator<T>* to) {
  using A = vec::Accumulator<T>;
  constexpr int64_t kN = kMicroColumns<A>, L = vec::lanes<A>;
  const int64_t whole = columns / kN * kN, length = panel_rows(k);
  for (int64_t p = p0; p < p1; ++p) {
    const T* from = b.as<const T>() + p * b.step(0) + col;
    A* row = to + p * kN;
    for (int64_t j = 0; j < whole; j += kN) {
      vec::store(row + j * length, vec::load(from + j));
      vec::store(row + j * length + L, vec::load(from + j + L));
    }
    if (const int64_t rest = columns - whole; rest > 0) {
      vec::store(row + whole * length, vec::load_partial(from + whole, std::min(rest, L)));
      vec::store(row + whole * length + L, vec::load_partial(from + whole + std::min(rest, L), std::max<int64_t>(rest - L, 0)));
    }
  }
}

// b stored (n, k): one panel; rows of b are its columns. Whole squares are transposed in registers.
template <class T>
void pack_panel_of_b(const View& b, int64_t k, int64_t col, int64_t columns, vec::Accumulator<T>* to) {
  using A = vec::Accumulator<T>;
  constexpr int64_t kN = kMicroColumns<A>;
  const int64_t stride = b.step(0), count = std::min(kN, columns);
  const T* from = b.as<const T>() + col * stride;
  int64_t first = 0;
  if constexpr (std::is_same_v<A, float>) {
    constexpr int L = vec::lanes<A>;
    for (; count == kN && first + L <= k; first += L) {
      for (int64_t j = 0; j < kN; j += L) {
        vec::Vec<A> row[L];
#pragma GCC unroll 16
        for (int i = 0; i < L; ++i) row[i] = vec::load(from + (j + i) * stride + first);
        vec::transpose(row);
#pragma GCC unroll 16
        for (int i = 0; i < L; ++i) vec::store(to + (first + i) * kN + j, row[i]);
      }
    }
  }
  for (int64_t p0 = first; p0 < k; p0 += kN) {
    const int64_t end = std::min(p0 + kN, k);
    for (int64_t j = 0; j < count; ++j) {
      for (int64_t p = p0; p < end; ++p) to[p * kN + j] = static_cast<A>(from[j * stride + p]);
    }
    for (int64_t j = count; j < kN; ++j) {
      for (int64_t p = p0; p < end; ++p) to[p * kN + j] = 0;
    }
  }
}

// Dense copy (rows, columns) of a strided block.
template <class T>
void pack_block(const T* from, int64_t stride, int64_t rows, int64_t columns, vec::Accumulator<T>* to, int64_t to_stride) {
  constexpr int64_t L = vec::lanes<T>;
  constexpr int64_t kAhead = 6;
  for (int64_t r = 0; r < rows; ++r, from += stride, to += to_stride) {
    if (r + kAhead < rows) vec::prefetch(from + kAhead * stride, columns);
    int64_t j = 0;
    for (; j + L <= columns; j += L) vec::store(to + j, vec::load(from + j));
    if (j < columns) vec::store_partial(to + j, vec::load_partial(from + j, columns - j), columns - j);
  }
}

// Rows [0, depth) of a stored (k, m), columns [0, width): strips of kMicroRows columns, each (strip_depth, kMicroRows), one after the other.
template <class T>
void pack_strips(const T* from, int64_t stride, int64_t depth, int64_t width, vec::Accumulator<T>* to, int64_t strip_depth) {
  using A = vec::Accumulator<T>;
  constexpr int64_t kAhead = 6;
  for (int64_t p = 0; p < depth; ++p, from += stride, to += kMicroRows) {
    if (p + kAhead < depth) vec::prefetch(from + kAhead * stride, width);
    int64_t i = 0;
    for (; i + kMicroRows <= width; i += kMicroRows) {
      for (int r = 0; r < kMicroRows; ++r) to[i * strip_depth + r] = static_cast<A>(from[i + r]);
    }
    for (int64_t r = 0; i + r < width; ++r) to[i * strip_depth + r] = static_cast<A>(from[i + r]);
  }
}

template <class T>
void multiply_tile(const MatmulArgs& args, const MatmulShape& s, const Tile& tile, const vec::Accumulator<T>* panels,
                   vec::Accumulator<T>* column_partial) {
  using A = vec::Accumulator<T>;
  constexpr int64_t kN = kMicroColumns<A>;
  // z is c itself where nothing else reads or changes c and no panel reaches beyond it.
  const View& c = args.c.to;
  const bool in_place = is_plain(args) && c.dtype == dtype_of<A> && tile.cols % kN == 0 && s.k > 0;
  const int64_t ldz = in_place ? c.step(0) : (tile.cols + kN - 1) / kN * kN;
  A* z = in_place ? c.as<A>() + tile.row * ldz + tile.col : thread_buffer<A>(0, kTileM * kTileN);
  A* slice = thread_buffer<A>(1, kTileM * kDepth);
  const bool add = in_place && args.c.accumulate;
  const int64_t stride = args.a.step(0), slices = (s.k + kDepth - 1) / kDepth, deepest = even_part(s.k, std::max<int64_t>(slices, 1), 8);
  const T* rows = args.a.as<const T>();
  if (s.k == 0 || (!in_place && is_mirrored(args))) std::fill_n(z, tile.rows * ldz, A{0});
  for (int64_t p = 0; p < s.k; p += deepest) {
    const int64_t depth = std::min(deepest, s.k - p);
    const A* a = slice;
    int64_t lda = depth;
    if (args.trans_a) {
      pack_strips(rows + p * stride + tile.row, stride, depth, tile.rows, slice, depth);
    } else if constexpr (std::is_same_v<T, A>) {
      a = rows + tile.row * stride + p;
      lda = stride;
    } else {
      pack_block(rows + tile.row * stride + p, stride, tile.rows, depth, slice, lda);
    }
    for (int64_t j = 0; j < tile.cols; j += kN) {
      const int64_t i = first_row(args, tile, j, kMicroRows);
      if (i >= tile.rows) break;
      const A* b = panels + j * panel_rows(s.k) + p * kN;
      if (args.trans_a) {
        panel_product<Order::strips>(tile.rows - i, depth, a + i * lda, lda, b, kN, z + i * ldz + j, ldz, add || p > 0, b + kN * panel_rows(s.k));
      } else {
        panel_product<Order::rows>(tile.rows - i, depth, a + i * lda, lda, b, kN, z + i * ldz + j, ldz, add || p > 0, b + kN * panel_rows(s.k));
      }
    }
  }
  if (!in_place) finish<T>(args, tile, z, ldz, column_partial);
}

template <class T>
void run_as(const MatmulArgs& args) {
  using A = vec::Accumulator<T>;
  constexpr int64_t kN = kMicroColumns<A>;
  const MatmulShape s = shape_of(args);
  const TileGrid grid = grid_of<A>(s);
  const int64_t at_once = columns_at_once<A>(grid, s.k);
  A* packed = reinterpret_cast<A*>(args.scratch.data());
  A* partials = args.column_sum ? packed + at_once * panel_rows(s.k) : nullptr;
  std::fill_n(partials, partials ? grid.tiles_m * s.n : 0, A{0});
  const bool threads = worth_threads(s);
#pragma omp parallel if (threads)
  for (int64_t first = 0; first < s.n; first += at_once) {
    const int64_t chunks = (s.k + kRowsAtOnce - 1) / kRowsAtOnce, columns = std::min(at_once, s.n - first);
    const int64_t panels = (columns + kN - 1) / kN, tiles_n = (columns + grid.tile_n - 1) / grid.tile_n;
// Either way a chunk of packing is written by one thread; which one does not matter.
#pragma omp for schedule(static)
    for (int64_t chunk = 0; chunk < (args.trans_b ? panels : chunks); ++chunk) {
      if (args.trans_b) {
        pack_panel_of_b<T>(args.b, s.k, first + chunk * kN, columns - chunk * kN, packed + chunk * kN * panel_rows(s.k));
      } else {
        pack_rows_of_b<T>(args.b, s.k, chunk * kRowsAtOnce, std::min(s.k, (chunk + 1) * kRowsAtOnce), first, columns, packed);
      }
    }
#pragma omp for schedule(dynamic)
    for (int64_t index = 0; index < grid.tiles_m * tiles_n; ++index) {
      const Tile tile = grid.tile(first / grid.tile_n * grid.tiles_m + index);
      if (first_row(args, tile, 0, 1) >= tile.rows) continue;
      multiply_tile<T>(args, s, tile, packed + (tile.col - first) * panel_rows(s.k),
                       partials ? partials + tile.row / grid.tile_m * s.n + tile.col : nullptr);
    }
  }
  if (is_mirrored(args)) mirror(args.c.to);
  add_column_partials(args, partials, grid.tiles_m);
}

// One tile of c over one slab, from row p0 of a and b on: strips (depth) and panels (depth) begin at the tile.
template <class A>
void multiply_slab_tile(const MatmulArgs& args, const Tile& tile, int64_t depth, int64_t p0, const A* strips, const A* panels) {
  constexpr int64_t kN = kMicroColumns<A>;
  const View& c = args.c.to;
  for (int64_t p = 0; p < depth; p += kDepth) {
    const int64_t rows = std::min(kDepth, depth - p);
    for (int64_t j = 0; j < tile.cols; j += kN) {
      const int64_t i = first_row(args, tile, j, kMicroRows);
      if (i >= tile.rows) break;
      const A* b = panels + j * panel_rows(depth) + p * kN;
      panel_product<Order::strips>(tile.rows - i, rows, strips + i * depth + p * kMicroRows, depth, b, kN,
                                   c.as<A>() + (tile.row + i) * c.step(0) + tile.col + j, c.step(0), args.c.accumulate || p0 + p > 0,
                                   b + kN * panel_rows(depth));
    }
  }
}

template <class T>
void run_slabs(const MatmulArgs& args) {
  using A = vec::Accumulator<T>;
  constexpr int64_t kN = kMicroColumns<A>;
  const MatmulShape s = shape_of(args);
  const TileGrid grid = grid_of<A>(s);
  const int64_t at_once = columns_at_once<A>(grid, kSlab);
  A* strips = reinterpret_cast<A*>(args.scratch.data());
  A* panels = strips + kSlab * grid.tiles_m * grid.tile_m;
#pragma omp parallel if (worth_threads(s))
  for (int64_t first = 0; first < s.n; first += at_once) {
    const int64_t columns = std::min(at_once, s.n - first), tiles_n = (columns + grid.tile_n - 1) / grid.tile_n;
    for (int64_t p0 = 0; p0 < s.k; p0 += kSlab) {
      const int64_t depth = std::min(kSlab, s.k - p0), chunks = (depth + kRowsAtOnce - 1) / kRowsAtOnce;
#pragma omp for schedule(static)
      for (int64_t chunk = 0; chunk < chunks; ++chunk) {
        const int64_t from = p0 + chunk * kRowsAtOnce, to = std::min(p0 + depth, from + kRowsAtOnce);
        pack_strips(args.a.as<const T>() + from * args.a.step(0), args.a.step(0), to - from, s.m, strips + (from - p0) * kMicroRows, depth);
        pack_rows_of_b<T>(args.b, depth, from, to, first, columns, panels - p0 * kN);
      }
#pragma omp for schedule(dynamic)
      for (int64_t index = 0; index < grid.tiles_m * tiles_n; ++index) {
        const Tile tile = grid.tile(first / grid.tile_n * grid.tiles_m + index);
        multiply_slab_tile<A>(args, tile, depth, p0, strips + tile.row * depth, panels + (tile.col - first) * panel_rows(depth));
      }
    }
  }
  if (is_mirrored(args)) mirror(args.c.to);
}

Refusal refuses(const MatmulArgs& args) {
  if (const auto m = shape_of(args).m; m < kThin) return refused("packing b does not pay for ", m, " rows");
  return std::nullopt;
}

void run(const MatmulArgs& args, Stream) {
  check(args);
  HEDDLE_CHECK(args.scratch.size() >= scratch(args), "matmul", "scratch too small: ", args.scratch.size(), " of ", scratch(args), " bytes");
  switch (args.a.dtype) {
    case DType::f32: return slabs_fit(args) ? run_slabs<float>(args) : run_as<float>(args);
    case DType::f64: return slabs_fit(args) ? run_slabs<double>(args) : run_as<double>(args);
    default: return slabs_fit(args) ? run_slabs<bf16>(args) : run_as<bf16>(args);
  }
}

}  // namespace

void add_matmul_packed() {
  matmul.add(DeviceType::cpu, {"packed", refuses, scratch, run});
}

}  // namespace heddle::kernels::cpu
