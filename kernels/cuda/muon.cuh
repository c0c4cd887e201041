// The two halves of Muon around its matrix products: see kernels/api/optimizer.h for the formulas.
//
// Bound by memory. Momentum: grad is read, momentum read and written, out written: 14 bytes a parameter with a bf16 update, 16 with an f32 one.
// Apply: the update is read, the master read and written, the value written: 12 bytes with bf16 update and values, 16 with f32 ones (12 where values
// are their own masters).
#pragma once

#include "kernels/api/optimizer.h"
#include "kernels/cuda/flat.cuh"

namespace heddle::kernels::cuda {

template <class T>
struct MuonMomentumParams {
  const float* grad;
  float* momentum;
  T* out;
  int64_t n;
  float beta;
  bool nesterov, wide;
  const StepState* step;
};

template <class T>
__global__ void __launch_bounds__(kFlatThreads) muon_momentum_kernel(const MuonMomentumParams<T> p) {
  const bool apply = p.step->apply != 0;
  const float clip = p.step->clip_scale, rest = 1 - p.beta;
  for_flat_tiles(flat_tiles(p.n), [&](int64_t tile) {
    const FlatPlace place(tile * kFlatTile, p.n, p.wide);
    float out[4] = {};
    if (apply) {
      float grad[4], momentum[4];
      place.load(p.grad, grad);
      place.load(p.momentum, momentum);
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const float g = rest * (grad[e] * clip);
        momentum[e] = p.beta * momentum[e] + g;
        out[e] = p.nesterov ? g + p.beta * momentum[e] : momentum[e];
      }
      place.store(p.momentum, momentum);
    }
    place.store(p.out, out);
  });
}

template <class Value, class Update>
struct MuonApplyParams {
  Value* value;
  float* master;
  const Update* update;
  int64_t n;
  OptimizerGroup group;
  float scale;
  bool in_place;  // master is value
  bool wide;
  const StepState* step;
};

template <class Value, class Update>
__global__ void __launch_bounds__(kFlatThreads) muon_apply_kernel(const MuonApplyParams<Value, Update> p) {
  if (p.step->apply == 0) return;
  const float rate = p.group.lr * p.step->lr;
  for_flat_tiles(flat_tiles(p.n), [&](int64_t tile) {
    const FlatPlace place(tile * kFlatTile, p.n, p.wide);
    float update[4], master[4];
    place.load(p.update, update);
    place.load(p.master, master);
#pragma unroll
    for (int e = 0; e < 4; ++e) master[e] -= rate * (p.scale * update[e] + p.group.weight_decay * master[e]);
    place.store(p.master, master);
    if (!p.in_place) place.store(p.value, master);
  });
}

template <class T>
void launch_muon_momentum(const MuonMomentumArgs& args, Stream stream) {
  MuonMomentumParams<T> p{};
  p.grad = args.grad.as<const float>();
  p.momentum = args.momentum.as<float>();
  p.out = args.out.as<T>();
  p.n = args.grad.numel();
  p.beta = args.beta;
  p.nesterov = args.nesterov;
  p.wide = flat_wide(p.grad, p.momentum, p.out);
  p.step = args.step;
  const int64_t blocks = flat_blocks(p.n);
  if (blocks > 0) HEDDLE_LAUNCH((muon_momentum_kernel<T>), static_cast<unsigned>(blocks), kFlatThreads, 0, stream, p);
}

template <class Value, class Update>
void launch_muon_apply(const MuonApplyArgs& args, Stream stream) {
  MuonApplyParams<Value, Update> p{};
  p.value = args.value.as<Value>();
  p.master = args.master.as<float>();
  p.update = args.update.as<const Update>();
  p.n = args.master.numel();
  p.group = args.group;
  p.scale = args.scale;
  p.in_place = args.master.data == args.value.data;
  p.wide = flat_wide(p.value, p.master, p.update);
  p.step = args.step;
  const int64_t blocks = flat_blocks(p.n);
  if (blocks > 0) HEDDLE_LAUNCH((muon_apply_kernel<Value, Update>), static_cast<unsigned>(blocks), kFlatThreads, 0, stream, p);
}

}  // namespace heddle::kernels::cuda
