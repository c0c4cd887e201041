#include "optim/optimizer.h"

#include "core/launch.h"
#include "kernels/api/pointwise.h"

namespace heddle {

Optimizer::Optimizer(Arena& arena, std::optional<std::vector<Range>> only) : arena_(arena) {
  const Layout& layout = arena.layout();
  HEDDLE_CHECK(arena.grads(), "optimizer", "the arena was made without gradients");
  std::vector<Range> owned;
  if (only) {
    owned = std::move(*only);
  } else if (layout.trainable().size() > 0) {
    owned = {layout.trainable()};
  }
  int64_t end = 0;
  for (const Range& range : owned) {
    HEDDLE_CHECK(end <= range.begin && range.begin < range.end && range.end <= layout.trainable().end, "optimizer", "owned range [", range.begin,
                 ", ", range.end, ") of ", layout.trainable().end, " elements, after ", end);
    end = range.end;
  }
  const Tensor& values = arena.values();
  const DType dtype = arena.grads().dtype();
  if (values.dtype() == dtype) {
    masters_ = values;
    for (const Range& range : owned) owned_.push_back({range, range.begin});
    return;
  }
  owned_ = pack(owned);
  masters_ = Tensor::empty({packed_size(owned_)}, dtype, values.device(), MemoryTag::optimizer);
  for (const PackedRange& range : owned_) {
    launch(kernels::axpby, {.a = flat_view(values, range.arena), .out = {master(range.arena), false}}, values.device());
  }
}

View Optimizer::master(Range arena) const {
  for (const PackedRange& range : owned_) {
    if (range.arena.begin > arena.begin || arena.end > range.arena.end) continue;
    const int64_t begin = range.at + arena.begin - range.arena.begin;
    return flat_view(masters_, {begin, begin + arena.size()});
  }
  fail("optimizer", concat("elements [", arena.begin, ", ", arena.end, ") are not owned by this rank"));
}

void Optimizer::add_state(StateDict& state) const {
  const Layout& layout = arena_.layout();
  heddle::add_state(state, "model", layout, masters_, owned_);
  const Range frozen = layout.section(Section::frozen);
  const PackedRange whole{frozen, frozen.begin};
  heddle::add_state(state, "model", layout, arena_.values(), {&whole, 1});
  add_moments(state);
}

void Optimizer::masters_changed() {
  if (!masters_.same(arena_.values())) {
    for (const PackedRange& range : owned_) {
      launch(kernels::axpby, {.a = master(range.arena), .out = {flat_view(arena_.values(), range.arena), false}}, masters_.device());
    }
  }
  values_written();
}

void Optimizer::values_written() {
  arena_.values().storage()->bump_version();
}

}  // namespace heddle
