// What the matmul candidates share: the grid of output tiles and the epilogue applied to a tile while it is in cache.
//
// A candidate computes z = op(a) op(b) of one tile, in the accumulator type, with whatever multiplies best; finish() turns z into c.
// The grid is a function of the shape alone, and so are all sums: results do not depend on the number of threads.
#pragma once

#include <omp.h>

#include <array>
#include <cstdint>
#include <memory>
#include <new>

#include "kernels/api/matmul.h"
#include "kernels/cpu/parallel_internal.h"
#include "kernels/cpu/vec_internal.h"

namespace heddle::kernels::cpu {

struct Tile {
  int64_t row, rows, col, cols;
};

// tiles_m x tiles_n tiles of tile_m x tile_n elements; the last of a row or column may be smaller.
struct TileGrid {
  int64_t m, n, tile_m, tile_n, tiles_m, tiles_n;

  TileGrid(int64_t m_, int64_t n_, int64_t tile_m_, int64_t tile_n_)
      : m(m_), n(n_), tile_m(tile_m_), tile_n(tile_n_), tiles_m((m + tile_m - 1) / tile_m), tiles_n((n + tile_n - 1) / tile_n) {}
  int64_t count() const { return tiles_m * tiles_n; }
  Tile tile(int64_t index) const {
    const int64_t row = index % tiles_m * tile_m, col = index / tiles_m * tile_n;
    return {row, std::min(tile_m, m - row), col, std::min(tile_n, n - col)};
  }
};

// Below this much arithmetic, waking other threads costs more than they give.
inline constexpr double kParallelFlops = 2e6;

inline bool worth_threads(const MatmulShape& s) {
  return 2.0 * static_cast<double>(s.m) * static_cast<double>(s.n) * static_cast<double>(s.k) >= kParallelFlops;
}

// c is z itself: no pass over it is needed.
inline bool is_plain(const MatmulArgs& args) {
  return args.epilogue == Epilogue::none && !args.bias && !args.column_sum;
}

// Symmetric products: the tiles are worked out below the diagonal and on it, then mirror() copies.
inline bool is_mirrored(const MatmulArgs& args) {
  return is_gram(args) && is_plain(args) && !args.c.accumulate;
}

// From which of a tile's rows on, in whole `unit`s, its columns from j on are wanted; tile.rows or more: none.
inline int64_t first_row(const MatmulArgs& args, const Tile& tile, int64_t j, int64_t unit) {
  return is_mirrored(args) ? std::max<int64_t>(tile.col + j - tile.row, 0) / unit * unit : 0;
}

// c(i, j) <- c(j, i) above the diagonal.
template <class C>
void mirror_as(const View& c) {
  constexpr int64_t kBlock = 16;
  const int64_t n = c.size(0), stride = c.step(0);
  for_each_uneven_tile(ceil_div(n, kBlock), n * n, [&](int64_t block) {
    const int64_t i = block * kBlock;
    for (int64_t j = i; j < n; j += kBlock) {
      const C* const from = c.as<const C>() + j * stride + i;
      C* const to = c.as<C>() + i * stride + j;
      if constexpr (vec::lanes<C> == kBlock) {
        if (i != j && j + kBlock <= n) {
          vec::F32 row[kBlock];
#pragma GCC unroll 16
          for (int r = 0; r < kBlock; ++r) row[r] = vec::load(from + r * stride);
          vec::transpose(row);
#pragma GCC unroll 16
          for (int r = 0; r < kBlock; ++r) vec::store(to + r * stride, row[r]);
          continue;
        }
      }
      for (int64_t q = 0; q < std::min(kBlock, n - j); ++q) {
        const int64_t rows = i == j ? q : kBlock;  // where i != j, i + kBlock <= j
        for (int64_t r = 0; r < rows; ++r) to[r * stride + q] = from[q * stride + r];
      }
    }
  });
}

inline void mirror(const View& c) {
  switch (c.dtype) {
    case DType::f32: return mirror_as<float>(c);
    case DType::f64: return mirror_as<double>(c);
    default: return mirror_as<bf16>(c);
  }
}

template <bool kFull, class T>
HEDDLE_INLINE vec::Vec<T> load_n(const T* p, int64_t n) {
  if constexpr (kFull) return vec::load(p);
  return vec::load_partial(p, n);
}
template <bool kFull, class T>
HEDDLE_INLINE void store_n(T* p, vec::Vec<T> v, int64_t n) {
  if constexpr (kFull) {
    vec::store(p, v);
  } else {
    vec::store_partial(p, v, n);
  }
}

// One row of a tile: n columns from `col`. C is the stored type of c.
template <class T, class C, Epilogue kEpilogue>
struct RowFinisher {
  using A = vec::Accumulator<T>;
  const A* z;
  const T* bias;  // or nullptr, as the next two
  T* preact;
  A* column_sum;
  C* c;
  bool accumulate;

  template <bool kFull>
  HEDDLE_INLINE void step(int64_t j, int64_t n) const {
    auto v = load_n<kFull>(z + j, n);
    if (bias) v += load_n<kFull>(bias + j, n);
    if constexpr (kEpilogue == Epilogue::gelu || kEpilogue == Epilogue::relu2) {
      if (preact) store_n<kFull>(preact + j, v, n);
      v = kEpilogue == Epilogue::gelu ? vec::gelu(v) : vec::relu2(v);
    } else if constexpr (is_backward(kEpilogue)) {
      const auto x = load_n<kFull>(preact + j, n);
      v *= kEpilogue == Epilogue::gelu_backward ? vec::gelu_derivative(x) : vec::relu2_derivative(x);
    }
    if (column_sum) store_n<kFull>(column_sum + j, load_n<kFull>(column_sum + j, n) + v, n);
    if (accumulate) v += load_n<kFull>(c + j, n);
    store_n<kFull>(c + j, v, n);
  }
  void run(int64_t n) const {
    constexpr int64_t kLanes = vec::lanes<T>;
    int64_t j = 0;
    for (; j + kLanes <= n; j += kLanes) step<true>(j, kLanes);
    if (j < n) step<false>(j, n - j);
  }
};

// z (rows x cols, row stride ldz) -> c, preact. column_partial (cols): the tile's own column sums are added to it; or nullptr.
// z may be c itself when c is of the accumulator type, is not accumulated into.
template <class T, class C, Epilogue kEpilogue>
void finish_as(const MatmulArgs& args, const Tile& tile, const vec::Accumulator<T>* z, int64_t ldz, vec::Accumulator<T>* column_partial) {
  const auto at = [&](const View& v, int64_t i) { return v ? v.as<T>() + i * v.step(0) + tile.col : nullptr; };
  constexpr int64_t kAhead = 3;
  for (int64_t r = 0; r < tile.rows; ++r) {
    const int64_t i = tile.row + r;
    if (r + kAhead < tile.rows) {  // rows of a tile are too short for the hardware to foresee the next
      if (args.preact) vec::prefetch(at(args.preact, i + kAhead), tile.cols);
      vec::prefetch(args.c.to.as<C>() + (i + kAhead) * args.c.to.step(0) + tile.col, tile.cols);
    }
    RowFinisher<T, C, kEpilogue>{z + r * ldz,    args.bias ? args.bias.as<const T>() + tile.col : nullptr, at(args.preact, i),
                                 column_partial, args.c.to.as<C>() + i * args.c.to.step(0) + tile.col,     args.c.accumulate}
        .run(tile.cols);
  }
}

template <class T, class C>
void finish_to(const MatmulArgs& args, const Tile& tile, const vec::Accumulator<T>* z, int64_t ldz, vec::Accumulator<T>* column_partial) {
  switch (args.epilogue) {
    case Epilogue::none: return finish_as<T, C, Epilogue::none>(args, tile, z, ldz, column_partial);
    case Epilogue::gelu: return finish_as<T, C, Epilogue::gelu>(args, tile, z, ldz, column_partial);
    case Epilogue::gelu_backward: return finish_as<T, C, Epilogue::gelu_backward>(args, tile, z, ldz, column_partial);
    case Epilogue::relu2: return finish_as<T, C, Epilogue::relu2>(args, tile, z, ldz, column_partial);
    case Epilogue::relu2_backward: return finish_as<T, C, Epilogue::relu2_backward>(args, tile, z, ldz, column_partial);
  }
}

template <class T>
void finish(const MatmulArgs& args, const Tile& tile, const vec::Accumulator<T>* z, int64_t ldz, vec::Accumulator<T>* column_partial) {
  if (args.c.to.dtype == dtype_of<T>) {
    finish_to<T, T>(args, tile, z, ldz, column_partial);
  } else {
    finish_to<T, vec::Accumulator<T>>(args, tile, z, ldz, column_partial);
  }
}

// Column sums: every row of tiles has a partial sum (N) in scratch, which its tiles fill; the partials are then added in order.
inline size_t column_sum_scratch(const MatmulArgs& args, int64_t tiles_m) {
  return args.column_sum ? static_cast<size_t>(tiles_m * shape_of(args).n * size_of(accumulator_of(args.a.dtype))) : 0;
}

template <class A>
void add_column_partials(const MatmulArgs& args, const A* partials, int64_t tiles_m) {
  if (!args.column_sum) return;
  const View& to = args.column_sum.to;
  const int64_t n = to.size(0);
  const auto write = [&](auto* out) {
    using Out = std::remove_pointer_t<decltype(out)>;
    for (int64_t j = 0; j < n; ++j) {
      A sum = 0;
      for (int64_t t = 0; t < tiles_m; ++t) sum += partials[t * n + j];
      if (args.column_sum.accumulate) sum += static_cast<A>(out[j]);
      out[j] = static_cast<Out>(sum);
    }
  };
  switch (to.dtype) {
    case DType::f32:
      if constexpr (std::is_same_v<A, float>) write(to.as<float>());
      break;
    case DType::bf16:
      if constexpr (std::is_same_v<A, float>) write(to.as<bf16>());
      break;
    default:
      if constexpr (std::is_same_v<A, double>) write(to.as<double>());
  }
}

// Memory of one thread that lives as long as the thread: packed operands and tiles of z. Grows to the largest size asked for, which the
// kernels' fixed tile sizes bound to a few MiB, so it is allocated once. 64-byte aligned; one buffer per `slot`.
template <class T>
T* thread_buffer(int slot, int64_t elements) {
  constexpr std::align_val_t kAlign{64};
  struct Free {
    void operator()(std::byte* p) const { ::operator delete(p, kAlign); }
  };
  thread_local std::array<std::unique_ptr<std::byte, Free>, 4> memory;
  thread_local std::array<size_t, 4> size{};
  const size_t bytes = static_cast<size_t>(elements) * sizeof(T), at = static_cast<size_t>(slot);
  if (size[at] < bytes) {
    memory[at].reset(static_cast<std::byte*>(::operator new(bytes, kAlign)));
    size[at] = bytes;
  }
  return reinterpret_cast<T*>(memory[at].get());
}

}  // namespace heddle::kernels::cpu
