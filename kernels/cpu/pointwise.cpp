// Elementwise operations: see kernels/api/pointwise.h.
#include "kernels/api/pointwise.h"

#include "kernels/api/elementwise_rules.h"
#include "kernels/cpu/rows_internal.h"

namespace heddle::kernels::cpu {
namespace {

template <class V>
HEDDLE_INLINE V silu(V x) {
  return x / (1 + vec::exp(-x));
}
// d silu / dx = s (1 + x (1 - s)) with s = sigmoid(x)
template <class V>
HEDDLE_INLINE V silu_derivative(V x, V s) {
  return s * (1 + x * (1 - s));
}

// out = f(x) or dx (+)= f(x, dy), whatever the dtypes.
template <class T, class F>
void unary(const View& x, const Sink& out, F f) {
  const RowNest<2> nest({x, out.to}, false);
  nest.for_pieces([&](const auto& at, int64_t column, int64_t n) {
    Input<T> in(x);
    Output<T> y(out);
    map_lanes(n, y.at(at[1] + column, n), f, in.at(at[0] + column, n));
    y.commit();
  });
}
template <class T, class F>
void binary(const View& a, const View& b, const Sink& out, F f) {
  const RowNest<3> nest({a, b, out.to}, false);
  nest.for_pieces([&](const auto& at, int64_t column, int64_t n) {
    Input<T> left(a), right(b);
    Output<T> y(out);
    map_lanes(n, y.at(at[2] + column, n), f, left.at(at[0] + column, n), right.at(at[1] + column, n));
    y.commit();
  });
}

bool is_f64(const View& v) {
  return v && v.dtype == DType::f64;
}

// a's last stride is not 1. Blocks of 16 rows by 64 columns are gathered down the columns: where the rows of a lie side by side in memory, each
// cache line is read once, whatever the distance between columns.
template <class T>
void axpby_transposed(const AxpbyArgs& args, T alpha, T beta) {
  constexpr int64_t kRows = 16, kColumns = kChunk / kRows;
  const RowNest<3> nest({args.a, args.b, args.out.to}, true);
  const int64_t across = ceil_div(nest.columns(), kColumns), blocks = ceil_div(nest.rows(), kRows) * across;
  for_tiles(blocks, kTileElements / kChunk, args.a.numel(), [&](int64_t begin, int64_t end) {
    Input<T> a(args.a), b(args.b);
    Output<T> out(args.out);
    for (int64_t block = begin; block < end; ++block) {
      const int64_t first = block / across * kRows, rows = std::min(kRows, nest.rows() - first);
      const int64_t column = block % across * kColumns, n = std::min(kColumns, nest.columns() - column);
      std::array<int64_t, 3> at[kRows];
      int64_t from[kRows];
      for (int64_t r = 0; r < rows; ++r) {
        at[r] = nest.offsets(first + r);
        from[r] = at[r][0] + column * args.a.step(-1);
      }
      const T* const gathered = a.gather(from, rows, n, args.a.step(-1));
      for (int64_t r = 0; r < rows; ++r) {
        const T* const x = gathered + r * n;
        T* const y = out.at(at[r][2] + column, n);
        if (args.b) {
          const auto combine = [=](auto p, auto q) HEDDLE_LANEWISE { return alpha * p + beta * q; };
          map_lanes(n, y, combine, x, b.at(at[r][1] + column, n));
        } else {
          const auto scale = [=](auto p) HEDDLE_LANEWISE { return alpha * p; };
          map_lanes(n, y, scale, x);
        }
        out.commit();
      }
    }
  });
}

}  // namespace

Refusal refuses(const AxpbyArgs& args) {
  return contradiction(args);
}
void run(const AxpbyArgs& args, Stream) {
  with_compute_type(is_f64(args.a) || is_f64(args.b) || is_f64(args.out.to), [&](auto zero) {
    using T = decltype(zero);
    const T alpha = static_cast<T>(args.alpha), beta = static_cast<T>(args.beta);
    if (args.a.rank > 0 && args.a.size(-1) > 1 && args.a.step(-1) != 1) {
      axpby_transposed<T>(args, alpha, beta);
    } else if (args.b) {
      binary<T>(args.a, args.b, args.out, [=](auto a, auto b) HEDDLE_LANEWISE { return alpha * a + beta * b; });
    } else {
      unary<T>(args.a, args.out, [=](auto a) HEDDLE_LANEWISE { return alpha * a; });
    }
  });
}

Refusal refuses(const MultiplyArgs& args) {
  return contradiction(args);
}
void run(const MultiplyArgs& args, Stream) {
  const View b = factors_like(args.a, args.b);
  with_compute_type(is_f64(args.a),
                    [&](auto zero) { binary<decltype(zero)>(args.a, b, args.out, [](auto x, auto y) HEDDLE_LANEWISE { return x * y; }); });
}

Refusal refuses(const DivideArgs& args) {
  return contradiction(args);
}
void run(const DivideArgs& args, Stream) {
  const View b = factors_like(args.a, args.b);
  with_compute_type(is_f64(args.a), [&](auto zero) {
    using T = decltype(zero);
    const T scale = static_cast<T>(args.scale);
    if (!args.c) return binary<T>(args.a, b, args.out, [=](auto x, auto y) HEDDLE_LANEWISE { return scale * x / y; });
    const RowNest<4> nest({args.a, b, args.c, args.out.to}, false);
    nest.for_pieces([&](const auto& at, int64_t column, int64_t n) {
      Input<T> x(args.a), y(b), z(args.c);
      Output<T> out(args.out);
      const auto quotient = [=](auto p, auto q, auto r) HEDDLE_LANEWISE { return scale * p * r / q; };
      map_lanes(n, out.at(at[3] + column, n), quotient, x.at(at[0] + column, n), y.at(at[1] + column, n), z.at(at[2] + column, n));
      out.commit();
    });
  });
}

Refusal refuses(const MapArgs& args) {
  return contradiction(args);
}
void run(const MapArgs& args, Stream) {
  with_compute_type(is_f64(args.x), [&](auto zero) {
    using T = decltype(zero);
    const Sink out{args.out};
    switch (args.map) {
      case Map::gelu: return unary<T>(args.x, out, [](auto x) HEDDLE_LANEWISE { return vec::gelu(x); });
      case Map::relu2: return unary<T>(args.x, out, [](auto x) HEDDLE_LANEWISE { return vec::relu2(x); });
      case Map::silu: return unary<T>(args.x, out, [](auto x) HEDDLE_LANEWISE { return silu(x); });
      case Map::sigmoid: return unary<T>(args.x, out, [](auto x) HEDDLE_LANEWISE { return vec::sigmoid(x); });
      case Map::tanh: return unary<T>(args.x, out, [](auto x) HEDDLE_LANEWISE { return vec::tanh(x); });
      case Map::exp: return unary<T>(args.x, out, [](auto x) HEDDLE_LANEWISE { return vec::exp(x); });
      case Map::log: return unary<T>(args.x, out, [](auto x) HEDDLE_LANEWISE { return vec::log(x); });
      case Map::softcap: return unary<T>(args.x, out, [cap = static_cast<T>(args.cap)](auto x) HEDDLE_LANEWISE { return cap * vec::tanh(x / cap); });
    }
  });
}

Refusal refuses(const MapBackwardArgs& args) {
  return contradiction(args);
}
void run(const MapBackwardArgs& args, Stream) {
  with_compute_type(is_f64(args.x), [&](auto zero) {
    using T = decltype(zero);
    switch (args.map) {
      case Map::gelu: return binary<T>(args.x, args.dy, args.dx, [](auto x, auto dy) HEDDLE_LANEWISE { return dy * vec::gelu_derivative(x); });
      case Map::relu2: return binary<T>(args.x, args.dy, args.dx, [](auto x, auto dy) HEDDLE_LANEWISE { return dy * vec::relu2_derivative(x); });
      case Map::silu:
        return binary<T>(args.x, args.dy, args.dx, [](auto x, auto dy) HEDDLE_LANEWISE { return dy * silu_derivative(x, vec::sigmoid(x)); });
      case Map::sigmoid: return binary<T>(args.x, args.dy, args.dx, [](auto x, auto dy) HEDDLE_LANEWISE { return dy * vec::sigmoid_derivative(x); });
      case Map::tanh: return binary<T>(args.x, args.dy, args.dx, [](auto x, auto dy) HEDDLE_LANEWISE { return dy * vec::tanh_derivative(x); });
      case Map::exp: return binary<T>(args.x, args.dy, args.dx, [](auto x, auto dy) HEDDLE_LANEWISE { return dy * vec::exp(x); });
      case Map::log: return binary<T>(args.x, args.dy, args.dx, [](auto x, auto dy) HEDDLE_LANEWISE { return dy / x; });
      case Map::softcap:
        return binary<T>(args.x, args.dy, args.dx,
                         [cap = static_cast<T>(args.cap)](auto x, auto dy) HEDDLE_LANEWISE { return dy * vec::tanh_derivative(x / cap); });
    }
  });
}

Refusal refuses(const SwigluArgs& args) {
  return contradiction(args);
}
void run(const SwigluArgs& args, Stream) {
  const int64_t f = args.out.size(-1);
  with_compute_type(is_f64(args.x), [&](auto zero) {
    binary<decltype(zero)>(last_axis(args.x, 0, f), last_axis(args.x, f, f), Sink{args.out},
                           [](auto gate, auto up) HEDDLE_LANEWISE { return silu(gate) * up; });
  });
}

Refusal refuses(const SwigluBackwardArgs& args) {
  return contradiction(args);
}
void run(const SwigluBackwardArgs& args, Stream) {
  const int64_t f = args.d_out.size(-1);
  const View gate = last_axis(args.x, 0, f), up = last_axis(args.x, f, f), d_gate = last_axis(args.dx, 0, f),
             d_up = last_axis(args.dx, f, f);  // (N, F)
  const RowNest<5> nest({gate, up, args.d_out, d_gate, d_up}, false);
  with_compute_type(is_f64(args.x), [&](auto zero) {
    using T = decltype(zero);
    nest.for_pieces([&](const auto& at, int64_t column, int64_t n) {
      Input<T> g(gate), u(up), dy(args.d_out);
      Output<T> dg(d_gate), du(d_up);
      const std::array<T*, 2> out = {dg.at(at[3] + column, n), du.at(at[4] + column, n)};
      map_lanes(
          n, out,
          [](auto a, auto b, auto d) HEDDLE_LANEWISE {
            const auto s = vec::sigmoid(a);
            return std::array{d * b * silu_derivative(a, s), d * a * s};
          },
          g.at(at[0] + column, n), u.at(at[1] + column, n), dy.at(at[2] + column, n));
      dg.commit();
      du.commit();
    });
  });
}

Refusal refuses(const FillArgs& args) {
  return contradiction(args);
}
void run(const FillArgs& args, Stream) {
  const RowNest<1> nest({args.out}, false);
  const auto fill_with = [&](auto value) {
    using Stored = decltype(value);
    nest.for_pieces([&](const auto& at, int64_t column, int64_t n) {
      Stored* to = args.out.as<Stored>() + at[0] + column;
      std::fill(to, to + n, value);
    });
  };
  switch (args.out.dtype) {
    case DType::f32: return fill_with(static_cast<float>(args.value));
    case DType::bf16: return fill_with(bf16(static_cast<float>(args.value)));
    case DType::f64: return fill_with(args.value);
    case DType::i32: return fill_with(static_cast<int32_t>(args.value));
    case DType::u16: return fill_with(static_cast<uint16_t>(args.value));
    case DType::u8: return fill_with(static_cast<uint8_t>(args.value));
  }
}

}  // namespace heddle::kernels::cpu
