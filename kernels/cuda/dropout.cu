// Inverted dropout on a GPU: see kernels/api/random.h. Reads x and writes out once, 16 bytes of the wider dtype a lane where the shard is aligned for
// that; the ten rounds of Philox, one draw for four elements, take about as long.
#include "kernels/api/elementwise_rules.h"
#include "kernels/cuda/philox_walk.cuh"
#include "kernels/cuda/refusals.h"
#include "kernels/cuda/register.h"

namespace heddle::kernels::cuda {

struct DropoutParams {
  PhiloxWalk walk;
  std::byte *x, *out;
  RngKey key;
  const StepState* step;  // may be null
  float p, scale;         // scale: 1 / (1 - p)
  bool whole, accumulate;
};

template <class X, class Out>
__global__ void __launch_bounds__(kPhiloxThreads) dropout_kernel(const DropoutParams p) {
  constexpr int kWidth = 16 / static_cast<int>(std::max(sizeof(X), sizeof(Out)));
  int64_t at;
  uint64_t group;
  philox_unit<kWidth>(p.walk, at, group);
  if (at >= p.walk.n) return;
  float x[kWidth], y[kWidth], before[kWidth];
  load_drawn<X>(p.walk, p.x, at, p.whole, x);
  if (p.accumulate) load_drawn<Out>(p.walk, p.out, at, p.whole, before);

  RngKey key = p.key;
  if (p.step != nullptr) key.stream = p.step->rng_stream;
#pragma unroll
  for (int g = 0; g < kWidth / 4; ++g) {
    const Philox::Block words = Philox::draw(key, group + static_cast<uint64_t>(g));
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      const float kept = Philox::uniform(words[static_cast<size_t>(e)]) >= p.p ? x[4 * g + e] * p.scale : 0.0f;
      y[4 * g + e] = p.accumulate ? before[4 * g + e] + kept : kept;
    }
  }
  store_drawn<Out>(p.walk, p.out, at, p.whole, y);
}

namespace {

template <class X, class Out>
void launch_dropout(const DropoutArgs& args, Stream stream) {
  constexpr int kWidth = 16 / static_cast<int>(std::max(sizeof(X), sizeof(Out)));
  DropoutParams p{{args.first, args.x.numel()}, args.x.data, args.out.to.data,   args.key, args.step, args.p,
                  1.0f / (1.0f - args.p),       false,       args.out.accumulate};
  if (p.walk.n == 0) return;
  p.whole = p.walk.whole(args.x, kWidth) && p.walk.whole(args.out.to, kWidth);
  HEDDLE_LAUNCH((dropout_kernel<X, Out>), p.walk.blocks(kWidth), kPhiloxThreads, 0, stream, p);
}

Refusal refuses(const DropoutArgs& args) {
  return refused_on_gpu(contradiction(args), {&args.x});
}

void run(const DropoutArgs& args, Stream stream) {
  if (args.x.dtype == DType::f32) return launch_dropout<float, float>(args, stream);
  with_float(args.out.to.dtype, [&](auto out) { launch_dropout<bf16, decltype(out)>(args, stream); });
}

}  // namespace

void register_dropout() {
  dropout.add(DeviceType::cuda, {"philox", refuses, nullptr, run});
}

}  // namespace heddle::kernels::cuda
