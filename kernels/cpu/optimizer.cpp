// Optimizer updates over flat arena ranges: see kernels/api/optimizer.h.
#include "kernels/api/optimizer.h"

#include <cmath>

#include "kernels/cpu/rows_internal.h"

namespace heddle::kernels::cpu {
namespace {

// The rounded copy of the masters; nothing to do when the values are the masters.
template <class T>
void store_value(Output<T>& value, const View& value_view, const View& master_view, const T* master, int64_t begin, int64_t n) {
  if (value_view.data == master_view.data) return;
  std::memcpy(value.at(begin, n), master, static_cast<size_t>(n) * sizeof(T));
  value.commit();
}

// body(begin, n) over [0, total), n <= kChunk and a multiple of kArenaBlock where total is one.
template <class Body>
void for_blocks(int64_t total, int64_t chunk, int64_t work, const Body& body) {
  for_tiles(total, kTileElements, work, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i += chunk) body(i, std::min(chunk, end - i));
  });
}

template <class T>
void adamw_as(const AdamWArgs& args) {
  const StepState& step = *args.step;
  const T beta1 = static_cast<T>(args.beta1), beta2 = static_cast<T>(args.beta2), eps = static_cast<T>(args.eps);
  const T rest1 = 1 - beta1, rest2 = 1 - beta2, clip = static_cast<T>(step.clip_scale);
  const T correct_m = static_cast<T>(bias_correction(args.beta1, step.adam_t)), correct_v = static_cast<T>(bias_correction(args.beta2, step.adam_t));
  const uint8_t* const group_of_block = args.group_of_block.as<const uint8_t>();
  const int32_t* const arena_block = args.arena_block ? args.arena_block.as<const int32_t>() : nullptr;
  const bool in_place = args.master.data == args.value.data;
  const int64_t n = args.m.numel();
  for_tiles(n / kArenaBlock, kTileElements / kArenaBlock, 4 * n, [&](int64_t first, int64_t last) {
    Output<T> value(args.value);
    for (int64_t block = first; block < last; ++block) {
      const OptimizerGroup& group = args.groups[group_of_block[block]];
      const T rate = static_cast<T>(group.lr) * static_cast<T>(step.lr), decay = static_cast<T>(group.weight_decay);
      const int64_t begin = block * kArenaBlock, there = arena_block ? arena_block[block] * kArenaBlock : begin;
      const T* const grad = args.grad.as<const T>() + there;
      T *const master = args.master.as<T>() + (in_place ? there : begin), *const m = args.m.as<T>() + begin, *const v = args.v.as<T>() + begin;
#pragma omp simd
      for (int64_t i = 0; i < kArenaBlock; ++i) {
        const T g = grad[i] * clip;
        const T m_new = beta1 * m[i] + rest1 * g;
        const T v_new = beta2 * v[i] + rest2 * (g * g);
        m[i] = m_new;
        v[i] = v_new;
        master[i] -= rate * (m_new * correct_m / (std::sqrt(v_new * correct_v) + eps) + decay * master[i]);
      }
      store_value(value, args.value, args.master, master, there, kArenaBlock);
    }
  });
}

template <class T>
void muon_momentum_as(const MuonMomentumArgs& args) {
  const StepState& step = *args.step;
  const T beta = static_cast<T>(args.beta), rest = 1 - beta, clip = static_cast<T>(step.clip_scale);
  for_blocks(args.grad.numel(), kChunk, 2 * args.grad.numel(), [&](int64_t begin, int64_t n) {
    Output<T> out(args.out);
    T* const to = out.at(begin, n);
    const T* const grad = args.grad.as<const T>() + begin;
    T* const momentum = args.momentum.as<T>() + begin;
    if (!step.apply) {
      std::fill(to, to + n, T{0});
    } else {
      const bool nesterov = args.nesterov;
#pragma omp simd
      for (int64_t i = 0; i < n; ++i) {
        const T g = rest * (grad[i] * clip), next = beta * momentum[i] + g;
        momentum[i] = next;
        to[i] = nesterov ? g + beta * next : next;
      }
    }
    out.commit();
  });
}

template <class T>
void muon_apply_as(const MuonApplyArgs& args) {
  const StepState& step = *args.step;
  const T rate = static_cast<T>(args.group.lr) * static_cast<T>(step.lr), decay = static_cast<T>(args.group.weight_decay);
  const T scale = static_cast<T>(args.scale);
  for_blocks(args.master.numel(), kChunk, 2 * args.master.numel(), [&](int64_t begin, int64_t n) {
    Input<T> in(args.update);
    Output<T> value(args.value);
    const T* const update = in.at(begin, n);
    T* const master = args.master.as<T>() + begin;
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) master[i] -= rate * (scale * update[i] + decay * master[i]);
    store_value(value, args.value, args.master, master, begin, n);
  });
}

}  // namespace

Refusal refuses(const AdamWArgs& args) {
  return contradiction(args);
}
void run(const AdamWArgs& args, Stream) {
  const uint8_t* const group = args.group_of_block.as<const uint8_t>();
  const int32_t* const arena_block = args.arena_block ? args.arena_block.as<const int32_t>() : nullptr;
  for (int64_t block = 0; block < args.group_of_block.numel(); ++block) {
    HEDDLE_CHECK(group[block] < kMaxGroups, "adamw", "group_of_block[", block, "] = ", int{group[block]}, ", at most ", kMaxGroups, " groups exist");
    if (!arena_block) continue;
    HEDDLE_CHECK(arena_block[block] >= 0 && arena_block[block] < args.grad.numel() / kArenaBlock &&
                     (block == 0 || arena_block[block - 1] < arena_block[block]),
                 "adamw", "arena_block[", block, "] = ", arena_block[block], " of ", args.grad.numel() / kArenaBlock, " blocks");
  }
  if (!args.step->apply) return;
  with_compute_type(args.grad.dtype == DType::f64, [&](auto zero) { adamw_as<decltype(zero)>(args); });
}

Refusal refuses(const MuonMomentumArgs& args) {
  return contradiction(args);
}
void run(const MuonMomentumArgs& args, Stream) {
  with_compute_type(args.grad.dtype == DType::f64, [&](auto zero) { muon_momentum_as<decltype(zero)>(args); });
}

Refusal refuses(const MuonApplyArgs& args) {
  return contradiction(args);
}
void run(const MuonApplyArgs& args, Stream) {
  if (!args.step->apply) return;
  with_compute_type(args.master.dtype == DType::f64, [&](auto zero) { muon_apply_as<decltype(zero)>(args); });
}

}  // namespace heddle::kernels::cpu
