// Rotary position embedding: see kernels/api/rope.h.
#include "kernels/api/rope.h"

#include "kernels/api/elementwise_rules.h"
#include "kernels/cpu/rows_internal.h"

namespace heddle::kernels::cpu {
namespace {

int64_t offset_of(const View& v, int64_t b, int64_t t, int64_t h) {
  return b * v.stride[0] + t * v.stride[1] + h * v.stride[2];
}

template <class T>
void rotate(const RopeArgs& args) {
  const int64_t batch = args.x.size(0), length = args.x.size(1), heads = args.x.size(2), half = args.x.size(3) / 2;
  const bool in_place = args.x.data == args.out.data;
  const T sign = args.inverse ? T{-1} : T{1};
  for_tiles(batch * length, rows_per_tile(heads * 2 * half), args.x.numel(), [&](int64_t begin, int64_t end) {
    Input<T> x1(args.x), x2(args.x), cosine(args.table), sine(args.table);
    Output<T> y1(args.out), y2(args.out);
    for (int64_t row = begin; row < end; ++row) {
      const int64_t b = row / length, t = row - b * length;
      for (int64_t column = 0; column < half; column += kChunk) {
        const int64_t n = std::min(kChunk, half - column), angle = (args.first + t) * args.table.stride[0] + column;
        const T *c = cosine.at(angle, n), *s = sine.at(angle + half, n);
        for (int64_t h = 0; h < heads; ++h) {
          if (h >= args.rotated && in_place) break;
          const int64_t from = offset_of(args.x, b, t, h) + column, to = offset_of(args.out, b, t, h) + column;
          const T *p = x1.at(from, n), *q = x2.at(from + half, n);
          const std::array<T*, 2> out = {y1.at(to, n), y2.at(to + half, n)};
          if (h < args.rotated) {
            const auto turn = [=](auto a, auto d, auto cos, auto sin) HEDDLE_LANEWISE {
              return std::array{a * cos - d * (sin * sign), d * cos + a * (sin * sign)};
            };
            map_lanes(n, out, turn, p, q, c, s);
          } else {
            map_lanes(
                n, out,
                [](auto a, auto d) HEDDLE_LANEWISE {
                  return std::array{a, d};
                },
                p, q);
          }
          y1.commit();
          y2.commit();
        }
      }
    }
  });
}

}  // namespace

Refusal refuses(const RopeArgs& args) {
  return contradiction(args);
}
void run(const RopeArgs& args, Stream) {
  with_compute_type(args.x.dtype == DType::f64, [&](auto zero) { rotate<decltype(zero)>(args); });
}

}  // namespace heddle::kernels::cpu
