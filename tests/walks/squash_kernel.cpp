// See kernels/api/squash.h.
#include "kernels/api/squash.h"

#include <cmath>

#include "kernels/cpu/rows_internal.h"
#include "kernels/cpu/rules_internal.h"

namespace heddle::kernels::cpu {
namespace {

template <class T>
void squash_as(const SquashArgs& args) {
  const T cap = static_cast<T>(args.cap);
  const int64_t total = args.x.numel();
  for_tiles(total, kTileElements, 16 * total, [&](int64_t begin, int64_t end) {
    Input<T> in(args.x), gradient(args.dy, T{0});
    Output<T> out(args.out);
    for (int64_t i = begin; i < end; i += kChunk) {
      const int64_t n = std::min(kChunk, end - i);
      const T *const x = in.at(i, n), *const dy = gradient.at(i, n);
      T* const y = out.at(i, n);
      for (int64_t j = 0; j < n; ++j) {
        const T t = std::tanh(x[j] / cap);
        y[j] = args.dy ? dy[j] * (1 - t * t) : cap * t;
      }
      out.commit();
    }
  });
}

}  // namespace

Refusal refuses(const SquashArgs& args) {
  return Rules()
      .floating("x", args.x)
      .dense("x", args.x)
      .like_if_present("dy", args.dy, "x", args.x)
      .same_shape("out", args.out.to, "x", args.x)
      .sink_dtype("out", args.out.to, "x", args.x)
      .dense("out", args.out.to)
      .need(args.cap > 0, "cap is ", args.cap);
}
void run(const SquashArgs& args, Stream) {
  with_compute_type(args.x.dtype == DType::f64, [&](auto zero) { squash_as<decltype(zero)>(args); });
}

}  // namespace heddle::kernels::cpu
