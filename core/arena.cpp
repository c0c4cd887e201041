#include "core/arena.h"

#include <algorithm>

#include "core/launch.h"
#include "kernels/api/optimizer.h"
#include "kernels/api/pointwise.h"
#include "kernels/api/random.h"

namespace heddle {

Arena::Arena(const Module& module, Device device, DType compute, int slices) : slices_(slices) {
  HEDDLE_CHECK(is_floating(compute), "arena", "values of dtype ", name_of(compute));
  parameters_ = module.parameters();
  std::stable_partition(parameters_.begin(), parameters_.end(), [](const Parameter& p) { return p.spec().kind == ParamKind::matrix; });
  constexpr int64_t kBlock = kernels::kArenaBlock;
  const auto align = [](int64_t n, int64_t to) { return (n + to - 1) / to * to; };
  for (const Parameter& p : parameters_) {
    const int64_t n = p.tensor().numel();
    ranges_.push_back({size_, size_ + n});
    size_ += align(n, kBlock);
    if (p.spec().kind == ParamKind::matrix) matrices_end_ = size_;
  }
  size_ = align(size_, kBlock * slices);
  values_ = Tensor::zeros({size_}, compute, device, MemoryTag::parameter);
  grads_ = Tensor::zeros({size_}, accumulator_of(compute), device, MemoryTag::gradient);
  for (size_t i = 0; i < parameters_.size(); ++i) {
    TensorImpl& impl = parameters_[i].tensor().impl();
    const auto bind = [&](TensorImpl& to, const Tensor& flat) {
      to.storage = flat.storage();
      to.data = flat.impl().data + ranges_[i].begin * size_of(flat.dtype());
      to.dtype = flat.dtype();
      to.device = device;
    };
    bind(impl, values_);
    impl.grad = make_view_tensor(grads_, impl.shape, impl.strides, ranges_[i].begin);
    impl.grad_bound = true;
    impl.grad_written = false;
  }
}

std::vector<Tensor> Arena::leaves() const {
  std::vector<Tensor> all;
  for (const Parameter& p : parameters_) all.push_back(p.tensor());
  return all;
}

Range Arena::range(const Parameter& parameter) const {
  for (size_t i = 0; i < parameters_.size(); ++i) {
    if (parameters_[i].same(parameter)) return ranges_[i];
  }
  fail("arena", concat("\"", parameter.name(), "\" is not in this arena"));
}

Range Arena::slice(int i) const {
  const int64_t length = size_ / slices_;
  return {i * length, (i + 1) * length};
}

void Arena::begin_step() {
  for (const Parameter& p : parameters_) p.tensor().impl().grad_written = false;
}

void Arena::init(uint64_t seed) {
  for (size_t i = 0; i < parameters_.size(); ++i) {
    const ParameterSpec& spec = parameters_[i].spec();
    const Tensor& t = parameters_[i].tensor();
    if (spec.init_std == 0) {
      launch(kernels::fill, {t.view(), spec.init_mean}, t.device());
      continue;
    }
    const RngKey key{.seed = seed, .purpose = RngPurpose::init, .layer = static_cast<uint32_t>(i), .stream = 0};
    // The local tensor is `runs` dense runs of the unsharded one: one when it is whole or sliced along axis 0.
    int64_t runs = 1, stride = 0, begin = 0;  // elements of the unsharded tensor from run to run, and before the first
    if (const auto& [global, axis, slice, grad_sum, norm_owner] = spec.shard; axis >= 0) {
      for (int a = 0; a < axis; ++a) runs *= global[static_cast<size_t>(a)];
      int64_t inner = 1;
      for (size_t a = static_cast<size_t>(axis) + 1; a < global.size(); ++a) inner *= global[a];
      stride = global[static_cast<size_t>(axis)] * inner;
      begin = slice.begin * inner;
    }
    const int64_t length = t.numel() / runs;
    for (int64_t r = 0; r < runs; ++r) {
      const View run = make_view(t.impl().data + r * length * size_of(t.dtype()), t.dtype(), {length});
      const auto first = static_cast<uint64_t>(begin + r * stride);
      launch(kernels::normal, {.out = run, .key = key, .first = first, .mean = spec.init_mean, .std = spec.init_std}, t.device());
    }
  }
  values_.storage()->bump_version();
}

}  // namespace heddle
