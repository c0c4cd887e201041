// Reductions: see kernels/api/reduce.h.
#include "kernels/api/reduce.h"

#include "kernels/api/rules.h"
#include "kernels/cpu/softmax_internal.h"

namespace heddle::kernels::cpu {
namespace {

// Sums values pushed one after another as a balanced binary tree: push i merges the finished subtrees that its carries complete, like a binary
// counter. The tree depends on the number of values alone.
class TreeSum {
 public:
  void push(double value) {
    int level = 0;
    for (uint64_t carry = count_++; carry & 1; carry >>= 1) value = subtree_[level++] + value;
    subtree_[level] = value;
  }
  double total() const {
    double sum = 0;
    bool first = true;
    for (int level = 0; level < 64; ++level) {
      if (!((count_ >> level) & 1)) continue;
      sum = first ? subtree_[level] : subtree_[level] + sum;
      first = false;
    }
    return sum;
  }

 private:
  uint64_t count_ = 0;
  double subtree_[64];  // [l]: a finished subtree of 2^l values, where bit l of count_ is set
};

// Sum of x or x^2 over n elements, in f64, in a fixed order: sixteen lanes, then a tree over them.
template <class Stored>
double sum_of(const Stored* x, int64_t n, bool squares) {
  constexpr int64_t kLanes = 16;
  double lane[kLanes] = {};
  const auto add = [&](auto term) HEDDLE_LANEWISE {
    int64_t i = 0;
    for (; i + kLanes <= n; i += kLanes) {
#pragma omp simd
      for (int64_t l = 0; l < kLanes; ++l) lane[l] += term(x[i + l]);
    }
    for (int64_t l = 0; i < n; ++i, ++l) lane[l] += term(x[i]);
  };
  const auto widen = [](Stored v) HEDDLE_LANEWISE {
    if constexpr (std::is_same_v<Stored, bf16>) {
      return static_cast<double>(static_cast<float>(v));
    } else {
      return static_cast<double>(v);
    }
  };
  if (squares) {
    add([&](Stored v) HEDDLE_LANEWISE { return widen(v) * widen(v); });
  } else {
    add(widen);
  }
  for (int64_t half = kLanes / 2; half > 0; half /= 2) {
    for (int64_t l = 0; l < half; ++l) lane[l] += lane[l + half];
  }
  return lane[0];
}

double chunk_sum(const View& x, int64_t begin, int64_t n, bool squares) {
  switch (x.dtype) {
    case DType::f32: return sum_of(x.as<const float>() + begin, n, squares);
    case DType::bf16: return sum_of(x.as<const bf16>() + begin, n, squares);
    case DType::f64: return sum_of(x.as<const double>() + begin, n, squares);
    default: return 0;
  }
}

void add_scalar(const Sink& out, double value) {
  if (out.to.dtype == DType::f64) {
    double* to = out.to.as<double>();
    *to = out.accumulate ? *to + value : value;
  } else {
    float* to = out.to.as<float>();
    *to = static_cast<float>(out.accumulate ? static_cast<double>(*to) + value : value);
  }
}

int64_t rows_per_partial(int64_t rows) {
  constexpr int64_t kLeastRows = 32, kMostPartials = 64;
  return std::max(kLeastRows, ceil_div(rows, kMostPartials));
}

template <class T>
void column_sum_as(const ColumnSumArgs& args) {
  const int64_t rows = args.x.size(0), columns = args.x.size(1), per_tile = rows_per_partial(rows), tiles = ceil_div(rows, per_tile);
  const int64_t pieces = ceil_div(columns, kChunk);
  T* const partials = reinterpret_cast<T*>(args.scratch.data());  // (tiles, C)
  for_each_tile(tiles * pieces, rows * columns, [&](int64_t index) {
    const int64_t tile = index / pieces, column = (index - tile * pieces) * kChunk, n = std::min(kChunk, columns - column);
    Input<T> x(args.x);
    T* const sum = partials + tile * columns + column;
    std::fill(sum, sum + n, T{0});
    for (int64_t row = tile * per_tile; row < std::min(rows, (tile + 1) * per_tile); ++row) {
      map_lanes(
          n, sum, [](auto a, auto b) HEDDLE_LANEWISE { return a + b; }, sum, x.at(row * args.x.stride[0] + column, n));
    }
  });
  add_partials(partials, tiles, columns, columns, args.out);
}

template <class T>
void softmax_as(const SoftmaxArgs& args) {
  const int64_t columns = args.x.size(1);
  const T scale = static_cast<T>(args.scale);
  for_tiles(args.x.size(0), rows_per_tile(columns), 4 * args.x.numel(), [&](int64_t begin, int64_t end) {
    Input<T> x(args.x);
    Output<T> out(args.out);
    for (int64_t row = begin; row < end; ++row) {
      const int64_t from = row * args.x.stride[0], to = row * args.out.stride[0];
      const MaxSum<T> stats = max_sum(x, from, columns, scale);
      const T max = stats.max, share = 1 / stats.sum;
      for (int64_t column = 0; column < columns; column += kChunk) {
        const int64_t n = std::min(kChunk, columns - column);
        map_lanes(
            n, out.at(to + column, n), [=](auto v) HEDDLE_LANEWISE { return vec::exp(v * scale - max) * share; }, x.at(from + column, n));
        out.commit();
      }
    }
  });
}

template <class T>
void softmax_backward_as(const SoftmaxBackwardArgs& args) {
  const int64_t columns = args.y.size(1);
  const T scale = static_cast<T>(args.scale);
  for_tiles(args.y.size(0), rows_per_tile(columns), 2 * args.y.numel(), [&](int64_t begin, int64_t end) {
    Input<T> y(args.y), dy(args.dy);
    Output<T> dx(args.dx);
    for (int64_t row = begin; row < end; ++row) {
      const int64_t at_y = row * args.y.stride[0], at_dy = row * args.dy.stride[0], at_dx = row * args.dx.to.stride[0];
      T dot = 0;
      for (int64_t column = 0; column < columns; column += kChunk) {
        const int64_t n = std::min(kChunk, columns - column);
        dot += sum_lanes<1>(
            n, [](auto a, auto d) HEDDLE_LANEWISE { return std::array{a * d}; }, y.at(at_y + column, n), dy.at(at_dy + column, n))[0];
      }
      for (int64_t column = 0; column < columns; column += kChunk) {
        const int64_t n = std::min(kChunk, columns - column);
        map_lanes(
            n, dx.at(at_dx + column, n), [=](auto a, auto d) HEDDLE_LANEWISE { return scale * (d - dot) * a; }, y.at(at_y + column, n),
            dy.at(at_dy + column, n));
        dx.commit();
      }
    }
  });
}

}  // namespace

Refusal refuses(const SumArgs& args) {
  return contradiction(args);
}
size_t scratch(const SumArgs&) {
  return 0;
}
void run(const SumArgs& args, Stream) {
  constexpr int64_t kSumChunk = 64 * 1024, kWave = 512;  // partials of one wave of chunks wait on the stack
  const int64_t n = args.x.numel(), chunks = ceil_div(n, kSumChunk);
  TreeSum tree;
  for (int64_t first = 0; first < chunks; first += kWave) {
    const int64_t wave = std::min(kWave, chunks - first);
    double partial[kWave];
    for_each_tile(wave, wave * kSumChunk, [&](int64_t i) {
      const int64_t begin = (first + i) * kSumChunk;
      partial[i] = chunk_sum(args.x, begin, std::min(kSumChunk, n - begin), args.squares);
    });
    for (int64_t i = 0; i < wave; ++i) tree.push(partial[i]);
  }
  const double loss_scale = args.step ? static_cast<double>(args.step->loss_scale) : 1.0;
  add_scalar(args.out, args.scale * loss_scale * tree.total());
}

Refusal refuses(const ColumnSumArgs& args) {
  return contradiction(args);
}
size_t scratch(const ColumnSumArgs& args) {
  const int64_t rows = args.x.size(0);
  return static_cast<size_t>(ceil_div(rows, rows_per_partial(rows)) * args.x.size(1) * size_of(accumulator_of(args.x.dtype)));
}
void run(const ColumnSumArgs& args, Stream) {
  check_scratch("column_sum", args.scratch, scratch(args));
  with_compute_type(args.x.dtype == DType::f64, [&](auto zero) { column_sum_as<decltype(zero)>(args); });
}

Refusal refuses(const SoftmaxArgs& args) {
  return contradiction(args);
}
void run(const SoftmaxArgs& args, Stream) {
  with_compute_type(args.x.dtype == DType::f64, [&](auto zero) { softmax_as<decltype(zero)>(args); });
}

Refusal refuses(const SoftmaxBackwardArgs& args) {
  return contradiction(args);
}
void run(const SoftmaxBackwardArgs& args, Stream) {
  with_compute_type(args.y.dtype == DType::f64, [&](auto zero) { softmax_backward_as<decltype(zero)>(args); });
}

}  // namespace heddle::kernels::cpu
