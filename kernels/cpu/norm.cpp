// LayerNorm and RMSNorm with the residual addition fused: see kernels/api/norm.h.
#include "kernels/api/norm.h"

#include <cmath>

#include "kernels/api/rules.h"
#include "kernels/cpu/rows_internal.h"

namespace heddle::kernels::cpu {
namespace {

// body(column, n) over a row of C elements.
template <class Body>
HEDDLE_INLINE void for_chunks(int64_t columns, const Body& body) {
  for (int64_t column = 0; column < columns; column += kChunk) body(column, std::min(kChunk, columns - column));
}

// Three passes over a row that stays in L1 or L2: add and sum; sum the squares; normalise. Statistics are those of s as it is stored, so that
// backward, which only has the stored s, sees the same row.
template <class T>
void forward(const NormForwardArgs& args) {
  const int64_t columns = args.x.size(-1);
  const bool layer = args.kind == NormKind::layer;
  const RowNest<4> nest({args.x, args.residual, args.sum, args.y}, true);
  const View& s_view = args.sum ? args.sum : args.x;
  const size_t s_operand = args.sum ? 2 : 0;

  for_tiles(nest.rows(), rows_per_tile(columns), nest.rows() * columns, [&](int64_t begin, int64_t end) {
    Input<T> x(args.x), residual(args.residual, T{0}), s(s_view), gain(args.gain, T{1}), bias(args.bias, T{0});
    Output<T> sum(args.sum), y(args.y);
    for (int64_t row = begin; row < end; ++row) {
      const auto at = nest.offsets(row);
      T mean = 0;
      if (args.sum || layer) {
        for_chunks(columns, [&](int64_t column, int64_t n) {
          if (args.sum) {
            map_lanes(
                n, sum.at(at[2] + column, n), [](auto a, auto b) HEDDLE_LANEWISE { return a + b; }, x.at(at[0] + column, n),
                residual.at(at[1] + column, n));
            sum.commit();
          }
          if (layer) {
            mean += sum_lanes<1>(
                n, [](auto a) HEDDLE_LANEWISE { return std::array{a}; }, s.at(at[s_operand] + column, n))[0];
          }
        });
        mean /= static_cast<T>(columns);
      }
      T squares = 0;
      for_chunks(columns, [&](int64_t column, int64_t n) {
        const auto square = [=](auto a) HEDDLE_LANEWISE { return std::array{(a - mean) * (a - mean)}; };
        squares += sum_lanes<1>(n, square, s.at(at[s_operand] + column, n))[0];
      });
      const T rstd = 1 / std::sqrt(squares / static_cast<T>(columns) + static_cast<T>(args.eps));
      for_chunks(columns, [&](int64_t column, int64_t n) {
        map_lanes(
            n, y.at(at[3] + column, n), [=](auto a, auto g, auto b) HEDDLE_LANEWISE { return (a - mean) * rstd * g + b; },
            s.at(at[s_operand] + column, n), gain.at(column, n), bias.at(column, n));
        y.commit();
      });
      if (layer) args.mean.as<T>()[row] = mean;
      args.rstd.as<T>()[row] = rstd;
    }
  });
}

// Rows whose d_gain and d_bias are summed into one partial: a function of the shape.
int64_t rows_per_partial(int64_t rows, int64_t columns) {
  constexpr int64_t kLeastRows = 32, kMostPartials = 256;
  return std::max({rows_per_tile(columns), kLeastRows, ceil_div(rows, kMostPartials)});
}

// With n = (s - mean) rstd and g = dy gain:  dx = rstd (g - mean(g) - n mean(g n)) + d_residual; rms norm has no mean(g).
template <class T>
void backward(const NormBackwardArgs& args) {
  const int64_t columns = args.x.size(-1);
  const bool layer = args.kind == NormKind::layer, wants_parameters = args.d_gain || args.d_bias;
  const RowNest<4> nest({args.x, args.dy, args.d_residual, args.dx.to}, true);
  const int64_t rows = nest.rows(), per_tile = rows_per_partial(rows, columns), tiles = ceil_div(rows, per_tile);
  T* const partials = reinterpret_cast<T*>(args.scratch.data());  // (tiles, 2, C): gain, bias

  for_tiles(rows, per_tile, 2 * rows * columns, [&](int64_t begin, int64_t end) {
    Input<T> x(args.x), dy(args.dy), d_residual(args.d_residual, T{0}), gain(args.gain, T{1});
    Output<T> dx(args.dx);
    T* const d_gain = partials + begin / per_tile * 2 * columns;
    T* const d_bias = d_gain + columns;
    if (wants_parameters) std::memset(d_gain, 0, static_cast<size_t>(2 * columns) * sizeof(T));
    for (int64_t row = begin; row < end; ++row) {
      const auto at = nest.offsets(row);
      const T mean = layer ? args.mean.as<const T>()[row] : T{0}, rstd = args.rstd.as<const T>()[row];
      T sum_g = 0, sum_gn = 0;
      for_chunks(columns, [&](int64_t column, int64_t n) {
        const auto terms = [=](auto s, auto d, auto w) HEDDLE_LANEWISE {
          const auto g = d * w;
          return std::array{g, g * (s - mean)};
        };
        const auto [a, b] = sum_lanes<2>(n, terms, x.at(at[0] + column, n), dy.at(at[1] + column, n), gain.at(column, n));
        sum_g += a;
        sum_gn += b;
      });
      const T mean_g = layer ? sum_g / static_cast<T>(columns) : T{0}, mean_gn = sum_gn * rstd / static_cast<T>(columns);
      for_chunks(columns, [&](int64_t column, int64_t n) {
        const auto input = [=](auto s, auto d, auto w, auto r) HEDDLE_LANEWISE { return rstd * (d * w - mean_g - (s - mean) * rstd * mean_gn) + r; };
        const T *s = x.at(at[0] + column, n), *d = dy.at(at[1] + column, n), *w = gain.at(column, n), *r = d_residual.at(at[2] + column, n);
        T *to = dx.at(at[3] + column, n), *dw = d_gain + column, *db = d_bias + column;
        if (args.d_bias) {
          const auto all = [=](auto s_, auto d_, auto w_, auto r_, auto dw_, auto db_) HEDDLE_LANEWISE {
            return std::array{input(s_, d_, w_, r_), dw_ + d_ * ((s_ - mean) * rstd), db_ + d_};
          };
          map_lanes(n, std::array{to, dw, db}, all, s, d, w, r, dw, db);
        } else if (args.d_gain) {
          const auto both = [=](auto s_, auto d_, auto w_, auto r_, auto dw_) HEDDLE_LANEWISE {
            return std::array{input(s_, d_, w_, r_), dw_ + d_ * ((s_ - mean) * rstd)};
          };
          map_lanes(n, std::array{to, dw}, both, s, d, w, r, dw);
        } else {
          map_lanes(n, to, input, s, d, w, r);
        }
        dx.commit();
      });
    }
  });
  if (args.d_gain) add_partials(partials, tiles, 2 * columns, columns, args.d_gain);
  if (args.d_bias) add_partials(partials + columns, tiles, 2 * columns, columns, args.d_bias);
}

}  // namespace

Refusal refuses(const NormForwardArgs& args) {
  return contradiction(args);
}
void run(const NormForwardArgs& args, Stream) {
  with_compute_type(args.x.dtype == DType::f64, [&](auto zero) { forward<decltype(zero)>(args); });
}

Refusal refuses(const NormBackwardArgs& args) {
  return contradiction(args);
}
size_t scratch(const NormBackwardArgs& args) {
  if (!args.d_gain && !args.d_bias) return 0;
  const int64_t rows = row_count(args.x), columns = args.x.size(-1);
  return static_cast<size_t>(ceil_div(rows, rows_per_partial(rows, columns)) * 2 * columns * size_of(accumulator_of(args.x.dtype)));
}
void run(const NormBackwardArgs& args, Stream) {
  check_scratch("norm_backward", args.scratch, scratch(args));
  with_compute_type(args.x.dtype == DType::f64, [&](auto zero) { backward<decltype(zero)>(args); });
}

}  // namespace heddle::kernels::cpu
