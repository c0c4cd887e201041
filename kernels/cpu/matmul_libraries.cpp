// matmul on a BLAS-like library, called single-threaded inside fixed output tiles: the libraries' own threading changes bits with the
// number of threads. Candidates "onednn" (f32, bf16) and "eigen" (f32, bf16, f64).
#include "kernels/cpu/intrinsics_internal.h"  // before Eigen

#include <Eigen/Core>
#include <atomic>
#if HEDDLE_HAVE_ONEDNN
#include <dnnl.h>
#endif

#include "kernels/cpu/gemm_internal.h"
#include "kernels/cpu/matmul_internal.h"

namespace heddle::kernels::cpu {
namespace {

// bf16 operands are widened to f32 in slices of this depth.
constexpr int64_t kDepth = 1024;

// Large tiles keep the libraries near their peak; small outputs are still cut into several so that all threads have work.
TileGrid grid_of(const MatmulShape& s) {
  constexpr int64_t kMaxM = 256, kMaxN = 512, kMin = 96, kEnough = 8;
  const auto even = [](int64_t n, int64_t parts) { return std::max<int64_t>(16, ((n + parts - 1) / parts + 15) / 16 * 16); };
  int64_t parts_m = std::max<int64_t>(1, (s.m + kMaxM - 1) / kMaxM), parts_n = std::max<int64_t>(1, (s.n + kMaxN - 1) / kMaxN);
  while (parts_m * parts_n < kEnough) {
    const bool rows = even(s.m, parts_m) >= even(s.n, parts_n);
    if (even(rows ? s.m : s.n, 2 * (rows ? parts_m : parts_n)) < kMin) break;
    (rows ? parts_m : parts_n) *= 2;
  }
  return {s.m, s.n, even(s.m, parts_m), even(s.n, parts_n)};
}

template <class T>
struct Operand {
  const T* data;
  int64_t stride;
  bool transposed;
  const T* at(int64_t i, int64_t j) const { return data + (transposed ? j * stride + i : i * stride + j); }
};

// c (m, n) (+)= op(a) op(b); false: the library refused.
template <class T>
using Product = bool (*)(int64_t m, int64_t n, int64_t k, Operand<T> a, Operand<T> b, T* c, int64_t ldc, bool accumulate);

template <class T>
bool eigen_product(int64_t m, int64_t n, int64_t k, Operand<T> a, Operand<T> b, T* c, int64_t ldc, bool accumulate) {
  using Rows = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  using Columns = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::ColMajor>;
  using Stride = Eigen::OuterStride<>;
  Eigen::Map<Rows, 0, Stride> out(c, m, n, Stride(ldc));
  const auto multiply = [&](const auto& left, const auto& right) {
    if (accumulate) {
      out.noalias() += left * right;
    } else {
      out.noalias() = left * right;
    }
  };
  const auto with_right = [&](const auto& left) {
    if (b.transposed) {
      multiply(left, Eigen::Map<const Columns, 0, Stride>(b.data, k, n, Stride(b.stride)));
    } else {
      multiply(left, Eigen::Map<const Rows, 0, Stride>(b.data, k, n, Stride(b.stride)));
    }
  };
  if (a.transposed) {
    with_right(Eigen::Map<const Columns, 0, Stride>(a.data, m, k, Stride(a.stride)));
  } else {
    with_right(Eigen::Map<const Rows, 0, Stride>(a.data, m, k, Stride(a.stride)));
  }
  return true;
}

#if HEDDLE_HAVE_ONEDNN
bool onednn_product(int64_t m, int64_t n, int64_t k, Operand<float> a, Operand<float> b, float* c, int64_t ldc, bool accumulate) {
  return dnnl_sgemm(a.transposed ? 'T' : 'N', b.transposed ? 'T' : 'N', m, n, k, 1.0f, a.data, a.stride, b.data, b.stride, accumulate ? 1.0f : 0.0f,
                    c, ldc) == dnnl_success;
}
#endif

// Widens rows [i0, i0 + m) x columns [j0, j0 + k) of op(x) to a dense f32 copy in x's own storage order.
Operand<float> widen(Operand<bf16> x, int64_t i0, int64_t m, int64_t j0, int64_t k, float* to) {
  const int64_t rows = x.transposed ? k : m, cols = x.transposed ? m : k;
  const bf16* from = x.at(i0, j0);
  for (int64_t r = 0; r < rows; ++r) {
    int64_t c = 0;
    for (; c + vec::lanes<bf16> <= cols; c += vec::lanes<bf16>) vec::store(to + r * cols + c, vec::load(from + r * x.stride + c));
    for (; c < cols; ++c) to[r * cols + c] = static_cast<float>(from[r * x.stride + c]);
  }
  return {to, cols, x.transposed};
}

int64_t row_stride(const View& v) {
  return std::max<int64_t>(v.size(0) > 1 ? v.step(0) : v.size(1), 1);
}

template <class T, Product<vec::Accumulator<T>> kProduct>
void run_tiles(const MatmulArgs& args) {
  using A = vec::Accumulator<T>;
  const MatmulShape s = shape_of(args);
  const TileGrid grid = grid_of(s);
  const Operand<T> a{args.a.as<const T>(), row_stride(args.a), args.trans_a}, b{args.b.as<const T>(), row_stride(args.b), args.trans_b};
  A* partials = args.column_sum ? reinterpret_cast<A*>(args.scratch.data()) : nullptr;
  std::fill_n(partials, partials ? grid.tiles_m * s.n : 0, A{0});
  const bool c_is_sums = args.c.to.dtype == dtype_of<A>;
  const bool in_place = c_is_sums && (is_plain(args) || !args.c.accumulate);

  std::atomic<bool> failed = false;  // an exception must not leave a parallel region
  const auto do_tile = [&](int64_t index) {
    const Tile tile = grid.tile(index);
    const int64_t ldz = in_place ? row_stride(args.c.to) : tile.cols;
    A* z = in_place ? args.c.to.as<A>() + tile.row * ldz + tile.col : thread_buffer<A>(0, grid.tile_m * grid.tile_n);
    const bool add = in_place && args.c.accumulate;
    if (s.k == 0 && !add) {
      for (int64_t r = 0; r < tile.rows; ++r) std::fill_n(z + r * ldz, tile.cols, A{0});
    }
    if constexpr (std::is_same_v<T, A>) {
      if (s.k > 0) {
        if (!kProduct(tile.rows, tile.cols, s.k, {a.at(tile.row, 0), a.stride, a.transposed}, {b.at(0, tile.col), b.stride, b.transposed}, z, ldz,
                      add))
          failed = true;
      }
    } else {
      float* wide_a = thread_buffer<float>(1, grid.tile_m * kDepth);
      float* wide_b = thread_buffer<float>(2, grid.tile_n * kDepth);
      for (int64_t k0 = 0; k0 < s.k; k0 += kDepth) {
        const int64_t depth = std::min(kDepth, s.k - k0);
        if (!kProduct(tile.rows, tile.cols, depth, widen(a, tile.row, tile.rows, k0, depth, wide_a), widen(b, k0, depth, tile.col, tile.cols, wide_b),
                      z, ldz, add || k0 > 0))
          failed = true;
      }
    }
    if (!in_place || !is_plain(args)) finish<T>(args, tile, z, ldz, partials ? partials + tile.row / grid.tile_m * s.n + tile.col : nullptr);
  };

  // oneDNN starts its own threads unless it finds itself in a parallel region.
  const int threads = omp_get_max_threads();
  if (threads > 1 && !omp_in_parallel() && grid.count() > 1 && worth_threads(s)) {
#pragma omp parallel for schedule(dynamic)
    for (int64_t i = 0; i < grid.count(); ++i) do_tile(i);
  } else {
    omp_set_num_threads(1);
    for (int64_t i = 0; i < grid.count(); ++i) do_tile(i);
    omp_set_num_threads(threads);
  }
  HEDDLE_CHECK(!failed, "matmul", "the library refused a tile of (", s.m, ", ", s.n, ", ", s.k, ")");
  add_column_partials(args, partials, grid.tiles_m);
}

size_t scratch(const MatmulArgs& args) {
  return column_sum_scratch(args, grid_of(shape_of(args)).tiles_m);
}

void before_run(const MatmulArgs& args) {
  check(args);
  HEDDLE_CHECK(args.scratch.size() >= scratch(args), "matmul", "scratch too small: ", args.scratch.size(), " of ", scratch(args), " bytes");
}

void run_eigen(const MatmulArgs& args, Stream) {
  before_run(args);
  switch (args.a.dtype) {
    case DType::f32: return run_tiles<float, eigen_product<float>>(args);
    case DType::f64: return run_tiles<double, eigen_product<double>>(args);
    default: return run_tiles<bf16, eigen_product<float>>(args);
  }
}

#if HEDDLE_HAVE_ONEDNN
Refusal onednn_refuses(const MatmulArgs& args) {
  if (args.a.dtype == DType::f64) return refused("dnnl_sgemm has no f64");
  return std::nullopt;
}

void run_onednn(const MatmulArgs& args, Stream) {
  before_run(args);
  if (args.a.dtype == DType::f32) return run_tiles<float, onednn_product>(args);
  run_tiles<bf16, onednn_product>(args);
}
#endif

}  // namespace

void add_matmul_libraries() {
#if HEDDLE_HAVE_ONEDNN
  matmul.add(DeviceType::cpu, {"onednn", onednn_refuses, scratch, run_onednn});
#endif
  matmul.add(DeviceType::cpu, {"eigen", nullptr, scratch, run_eigen});
}

}  // namespace heddle::kernels::cpu
