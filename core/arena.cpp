#include "core/arena.h"

#include <algorithm>

#include "core/launch.h"
#include "kernels/api/pointwise.h"
#include "kernels/api/random.h"

namespace heddle {

Arena::Arena(const Module& module, Layout layout, Device device, DType compute, bool gradients) : layout_(std::move(layout)) {
  HEDDLE_CHECK(is_floating(compute), "arena", "values of dtype ", name_of(compute));
  const std::vector<Parameter> all = module.parameters();
  HEDDLE_CHECK(all.size() == layout_.slots().size(), "arena", "a layout of ", layout_.slots().size(), " parameters for a module of ", all.size());
  values_ = Tensor::zeros({layout_.size()}, compute, device, MemoryTag::parameter);
  if (gradients) grads_ = Tensor::zeros({layout_.trainable().end}, accumulator_of(compute), device, MemoryTag::gradient);
  for (const Layout::Slot& slot : layout_.slots()) {
    const Parameter& p = all[slot.parameter];
    TensorImpl& impl = p.tensor().impl();
    HEDDLE_CHECK(p.name() == slot.name && impl.shape.numel() == slot.range.size(), "arena", "the layout has \"", slot.name,
                 "\" where the module has \"", p.name(), "\"");
    parameters_.push_back(p);
    impl.storage = values_.storage();
    impl.data = values_.impl().data + slot.range.begin * size_of(compute);
    impl.dtype = compute;
    impl.device = device;
    impl.requires_grad = gradients && slot.section != Section::frozen;
    impl.grad = impl.requires_grad ? make_view_tensor(grads_, impl.shape, impl.strides, slot.range.begin) : Tensor();
    impl.grad_bound = impl.requires_grad;
    impl.grad_written = false;
  }
}

std::vector<Tensor> Arena::leaves() const {
  std::vector<Tensor> all;
  for (const Parameter& p : parameters_) {
    if (p.tensor().requires_grad()) all.push_back(p.tensor());
  }
  return all;
}

Range Arena::range(const Parameter& parameter) const {
  for (size_t i = 0; i < parameters_.size(); ++i) {
    if (parameters_[i].same(parameter)) return layout_.slots()[i].range;
  }
  fail("arena", concat("\"", parameter.name(), "\" is not in this arena"));
}

void Arena::begin_step() {
  for (const Parameter& p : parameters_) p.tensor().impl().grad_written = false;
}

void Arena::init(uint64_t seed) {
  const Device device = values_.device();
  for (const Layout::Place& place : layout_.places()) {
    const ParameterSpec& spec = layout_.slots()[place.slot].spec;
    if (spec.init_std == 0) {
      if (place.range.size() > 0) launch(kernels::fill, {flat_view(values_, place.range), spec.init_mean}, device);
      continue;
    }
    // Runs that are dense both here and in the unsharded tensor.
    const RngKey key{.seed = seed, .purpose = RngPurpose::init, .name = place.key};
    const Box whole = whole_box(place.part.global);
    for_each_run(place.part.box, place.part.box, whole, [&](int64_t here, int64_t global, int64_t n) {
      const Range run{place.range.begin + here, place.range.begin + here + n};
      launch(kernels::normal,
             {.out = flat_view(values_, run), .key = key, .first = static_cast<uint64_t>(global), .mean = spec.init_mean, .std = spec.init_std},
             device);
    });
  }
  values_.storage()->bump_version();
}

View flat_view(const Tensor& buffer, Range flat) {
  return make_view(buffer.impl().data + flat.begin * size_of(buffer.dtype()), buffer.dtype(), {flat.size()});
}

void add_state(StateDict& state, const std::string& prefix, const Layout& layout, const Tensor& buffer, std::span<const PackedRange> ranges) {
  for (const PackedRange& range : ranges) {
    for (const Layout::Piece& piece : layout.pieces(range.arena)) {
      const Part& part = layout.places()[piece.place].part;
      StateDict::Entry entry;
      entry.name = prefix + "." + part.name;
      entry.data.data = buffer.impl().data + (range.at + piece.range.begin - range.arena.begin) * size_of(buffer.dtype());
      entry.data.dtype = buffer.dtype();
      entry.data.rank = static_cast<int>(piece.box.size());
      int64_t stride = 1;
      for (size_t axis = piece.box.size(); axis-- > 0;) {
        entry.data.shape[axis] = piece.box[axis].size();
        entry.data.stride[axis] = stride;
        stride *= piece.box[axis].size();
      }
      entry.global = part.global;
      entry.box = piece.box;
      state.tensors.push_back(std::move(entry));
    }
  }
}

}  // namespace heddle
