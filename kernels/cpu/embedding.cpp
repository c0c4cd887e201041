// Token and position embedding: see kernels/api/embedding.h.
#include "kernels/api/embedding.h"

#include "kernels/cpu/rows_internal.h"
#include "kernels/cpu/rules_internal.h"

namespace heddle::kernels::cpu {
namespace {

int32_t at(const View& v, int64_t b, int64_t t) {
  return v.as<const int32_t>()[b * v.stride[0] + t * v.stride[1]];
}
int64_t position_of(const View& start, int64_t b, int64_t t) {
  return start ? t - at(start, b, t) : t;
}

// Bad indices are found before anything is read by them. `rows`, `positions`: sizes of the tables, < 0 when there is none to index.
bool indices_are_inside(Fault* fault, const View& tokens, const View& start, int64_t rows, int64_t positions) {
  for (int64_t b = 0; b < tokens.size(0); ++b) {
    for (int64_t t = 0; t < tokens.size(1); ++t) {
      if (rows >= 0) {
        const int32_t token = at(tokens, b, t);
        if (token < 0 || token >= rows) {
          return noted(fault, {.kind = FaultKind::token, .row = b, .column = t, .value = token, .limit = rows});
        }
      }
      if (positions >= 0) {
        const int64_t position = position_of(start, b, t);
        if (position < 0 || position >= positions) {
          return noted(fault, {.kind = FaultKind::position, .row = b, .column = t, .value = position, .limit = positions});
        }
      }
    }
  }
  return true;
}

template <class T>
void forward(const EmbeddingForwardArgs& args) {
  const int64_t length = args.tokens.size(1), columns = args.out.size(2), rows = args.tokens.size(0) * length;
  for_tiles(rows, rows_per_tile(columns), rows * columns, [&](int64_t begin, int64_t end) {
    Input<T> weight(args.weight), position(args.position, T{0}), elsewhere(View{}, T{0});
    Output<T> out(args.out);
    for (int64_t row = begin; row < end; ++row) {
      const int64_t b = row / length, t = row - b * length;
      const int64_t held = args.shard.row(at(args.tokens, b, t), args.weight.size(0));
      const int64_t from = held * args.weight.stride[0], to = b * args.out.stride[0] + t * args.out.stride[1];
      const int64_t place = args.position ? position_of(args.start, b, t) * args.position.stride[0] : 0;
      for (int64_t column = 0; column < columns; column += kChunk) {
        const int64_t n = std::min(kChunk, columns - column);
        map_lanes(
            n, out.at(to + column, n), [](auto w, auto p) HEDDLE_LANEWISE { return w + p; },
            held < 0 ? elsewhere.at(0, n) : weight.at(from + column, n), position.at(place + column, n));
        out.commit();
      }
    }
  });
}

// sink[r] (+)= sum of the rows n of d_out with index(n) == r, in the order of n; a negative index is in no r. The rows of one r are found through a
// linked list in scratch and summed in the compute type before they are stored: each element of the sink is one thread's, and its sum does not depend
// on the tiles. A large table is cut by rows, whole rows at a time; a small one by columns, because a few of its rows hold most of the work.
template <class T, class Index>
void scatter_rows(const EmbeddingBackwardArgs& args, const Sink& sink, const Index& index) {
  const int64_t length = args.tokens.size(1), rows = args.tokens.size(0) * length, table = sink.to.size(0), columns = sink.to.size(1);
  int32_t* const head = reinterpret_cast<int32_t*>(args.scratch.data());  // (table): first n of each r, -1: none
  int32_t* const next = head + table;                                     // (rows): the n after this one with the same r
  std::fill(head, head + table, -1);
  for (int64_t n = rows - 1; n >= 0; --n) {
    const int64_t r = index(n / length, n % length);
    if (r < 0) continue;
    next[n] = head[r];
    head[r] = static_cast<int32_t>(n);
  }
  const int64_t tile_rows = table < 1024 ? std::max<int64_t>(table, 1) : 32, tile_columns = table < 1024 ? 64 : kChunk;
  const int64_t across = ceil_div(columns, tile_columns), tiles = ceil_div(table, tile_rows) * across;
  const int64_t touched = rows + (sink.accumulate ? 0 : table);
  for_each_uneven_tile(tiles, touched * columns, [&](int64_t tile) {
    const int64_t first = tile / across * tile_rows, begin = tile % across * tile_columns, n = std::min(tile_columns, columns - begin);
    Input<T> d_out(args.d_out), before(sink.to);
    Output<T> out(sink.to);
    alignas(64) T total[kChunk];
    for (int64_t r = first; r < std::min(table, first + tile_rows); ++r) {
      int32_t row = head[r];
      if (row < 0 && sink.accumulate) continue;
      const int64_t to = r * sink.to.stride[0] + begin;
      if (sink.accumulate) {
        const T* old = before.at(to, n);
        std::copy(old, old + n, total);
      } else {
        std::fill(total, total + n, T{0});
      }
      for (; row >= 0; row = next[row]) {
        const int64_t b = row / length, t = row - b * length;
        map_lanes(
            n, total, [](auto x, auto y) HEDDLE_LANEWISE { return x + y; }, total,
            d_out.at(b * args.d_out.stride[0] + t * args.d_out.stride[1] + begin, n));
      }
      std::copy(total, total + n, out.at(to, n));
      out.commit();
    }
  });
}

}  // namespace

Refusal refuses(const EmbeddingForwardArgs& args) {
  return contradiction(args);
}
void run(const EmbeddingForwardArgs& args, Stream) {
  if (!indices_are_inside(args.fault, args.tokens, args.start, args.shard.tokens(args.weight.size(0)), args.position ? args.position.size(0) : -1))
    return;
  with_compute_type(args.out.dtype == DType::f64, [&](auto zero) { forward<decltype(zero)>(args); });
}

Refusal refuses(const EmbeddingBackwardArgs& args) {
  return contradiction(args);
}
size_t scratch(const EmbeddingBackwardArgs& args) {
  const int64_t table = std::max(args.d_weight ? args.d_weight.to.size(0) : 0, args.d_position ? args.d_position.to.size(0) : 0);
  return static_cast<size_t>(table + args.tokens.numel()) * sizeof(int32_t);
}
void run(const EmbeddingBackwardArgs& args, Stream) {
  check_scratch("embedding_backward", args.scratch, scratch(args));
  if (!indices_are_inside(args.fault, args.tokens, args.start, args.d_weight ? args.shard.tokens(args.d_weight.to.size(0)) : -1,
                          args.d_position ? args.d_position.to.size(0) : -1)) {
    return;
  }
  with_compute_type(args.d_out.dtype == DType::f64, [&](auto zero) {
    using T = decltype(zero);
    if (args.d_weight) {
      const int64_t table = args.d_weight.to.size(0);
      scatter_rows<T>(args, args.d_weight, [&](int64_t b, int64_t t) { return args.shard.row(at(args.tokens, b, t), table); });
    }
    if (args.d_position) scatter_rows<T>(args, args.d_position, [&](int64_t b, int64_t t) { return position_of(args.start, b, t); });
  });
}

}  // namespace heddle::kernels::cpu
