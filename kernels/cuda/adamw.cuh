// AdamW over a whole arena in one launch: see kernels/api/optimizer.h for the formulas.
//
// Bound by memory: grad is read, m, v and the master read and written, the value written: 30 bytes a parameter with bf16 values (28 where f32 values
// are their own masters), and five bytes of tables for each 128. A warp takes a block of the arena, so that its group and its place are uniform. The
// bias corrections, two powers in f64, are worked out once for 4096 parameters.
#pragma once

#include <array>

#include "kernels/api/optimizer.h"
#include "kernels/cuda/flat.cuh"

namespace heddle::kernels::cuda {

static_assert(kArenaBlock == kFlatTile);

template <class T>
struct AdamWParams {
  T* value;
  float *master, *m, *v;
  const float* grad;
  const uint8_t* group_of_block;
  const int32_t* arena_block;  // or null
  int64_t blocks;              // of kArenaBlock
  std::array<OptimizerGroup, kMaxGroups> groups;
  float beta1, beta2, eps;
  bool in_place;  // master is value
  bool wide;
  const StepState* step;
};

template <class T>
__global__ void __launch_bounds__(kFlatThreads) adamw_kernel(const __grid_constant__ AdamWParams<T> p) {
  HEDDLE_SHARED(float, corrections, [2]);
  if (p.step->apply == 0) return;
  if (threadIdx.x < 2) corrections[threadIdx.x] = static_cast<float>(bias_correction(threadIdx.x == 0 ? p.beta1 : p.beta2, p.step->adam_t));
  __syncthreads();
  const float correct_m = corrections[0], correct_v = corrections[1], clip = p.step->clip_scale, lr = p.step->lr;
  const float rest1 = 1 - p.beta1, rest2 = 1 - p.beta2;
  for_flat_tiles(p.blocks, [&](int64_t block) {
    const OptimizerGroup group = p.groups[p.group_of_block[block] % kMaxGroups];
    const float rate = group.lr * lr, decay = group.weight_decay;
    const FlatPlace packed(block * kArenaBlock, p.blocks * kArenaBlock, p.wide);
    FlatPlace there = packed, of_master = packed;  // there: in value and grad
    if (p.arena_block != nullptr) there.at += (p.arena_block[block] - block) * kArenaBlock;
    if (p.in_place) of_master.at = there.at;
    float grad[4], m[4], v[4], master[4];
    packed.load(p.m, m);
    packed.load(p.v, v);
    of_master.load(p.master, master);
    there.load(p.grad, grad);
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      const float g = grad[e] * clip;
      m[e] = p.beta1 * m[e] + rest1 * g;
      v[e] = p.beta2 * v[e] + rest2 * (g * g);
      master[e] -= rate * (m[e] * correct_m / (sqrtf(v[e] * correct_v) + p.eps) + decay * master[e]);
    }
    packed.store(p.m, m);
    packed.store(p.v, v);
    of_master.store(p.master, master);
    if (!p.in_place) there.store(p.value, master);
  });
}

template <class T>
void launch_adamw(const AdamWParams<T>& p, Stream stream) {
  const int64_t blocks = flat_blocks(p.blocks * kArenaBlock);
  if (blocks > 0) HEDDLE_LAUNCH((adamw_kernel<T>), static_cast<unsigned>(blocks), kFlatThreads, 0, stream, p);
}

template <class T>
AdamWParams<T> adamw_params(const AdamWArgs& args) {
  AdamWParams<T> p{};
  p.value = args.value.as<T>();
  p.master = args.master.as<float>();
  p.m = args.m.as<float>();
  p.v = args.v.as<float>();
  p.grad = args.grad.as<const float>();
  p.group_of_block = args.group_of_block.as<const uint8_t>();
  p.arena_block = args.arena_block.as<const int32_t>();
  p.blocks = args.m.numel() / kArenaBlock;
  p.groups = args.groups;
  p.beta1 = args.beta1;
  p.beta2 = args.beta2;
  p.eps = args.eps;
  p.in_place = args.master.data == args.value.data;
  p.wide = flat_wide(p.value, p.master, p.m, p.v, p.grad);
  p.step = args.step;
  return p;
}

}  // namespace heddle::kernels::cuda
