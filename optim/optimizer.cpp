#include "optim/optimizer.h"

#include <algorithm>

#include "core/launch.h"
#include "kernels/api/pointwise.h"

namespace heddle {

Optimizer::Optimizer(Arena& arena) : arena_(arena) {
  const Tensor& values = arena.values();
  if (values.dtype() == arena.grads().dtype()) {
    masters_ = values;
  } else {
    masters_ = Tensor::empty(values.shape(), arena.grads().dtype(), values.device(), MemoryTag::optimizer);
    launch(kernels::axpby, {.a = values.view(), .out = {masters_.view(), false}}, values.device());
  }
}

void add_flat_state(StateDict& state, const std::string& prefix, const Arena& arena, const Tensor& tensor, int64_t begin) {
  for (const Parameter& p : arena.parameters()) {
    const Range range = arena.range(p);
    if (range.begin < begin || range.end > begin + tensor.numel()) continue;
    const ShardSpec& shard = p.spec().shard;
    StateDict::Entry entry;
    entry.name = prefix + "." + p.name();
    entry.data = p.tensor().view();  // the parameter's own geometry, over the flat tensor's memory
    entry.data.dtype = tensor.dtype();
    entry.data.data = tensor.impl().data + (range.begin - begin) * size_of(tensor.dtype());
    entry.global = shard.global;
    for (size_t axis = 0; axis < shard.global.size(); ++axis) {
      entry.box.push_back(static_cast<int>(axis) == shard.axis ? shard.slice : Range{0, shard.global[axis]});
    }
    state.tensors.push_back(std::move(entry));
  }
}

void Optimizer::add_state(StateDict& state) const {
  add_flat_state(state, "model", arena_, masters_, 0);
  add_moments(state);
}

void Optimizer::masters_changed() {
  if (!masters_.same(arena_.values())) {
    launch(kernels::axpby, {.a = masters_.view(), .out = {arena_.values().view(), false}}, masters_.device());
  }
  values_written();
}

void Optimizer::values_written() {
  arena_.values().storage()->bump_version();
}

AdamWPart::AdamWPart(const Arena& arena, Range range, const AdamWOptions& options, const LrScale& lr_scale) : range_(range), options_(options) {
  const Device device = arena.values().device();
  const DType dtype = arena.grads().dtype();
  m_ = Tensor::zeros({range.size()}, dtype, device, MemoryTag::optimizer);
  v_ = Tensor::zeros({range.size()}, dtype, device, MemoryTag::optimizer);
  // Parameters with the same rate and decay share a group; blocks of padding belong to the parameter before them, whose zeros they keep.
  std::vector<kernels::OptimizerGroup> groups;
  std::vector<double> group_of_block(static_cast<size_t>(range.size() / kernels::kArenaBlock), 0);
  for (const Parameter& p : arena.parameters()) {
    const Range at = arena.range(p);
    if (at.begin < range.begin || at.begin >= range.end) continue;
    const bool decays = p.spec().kind == ParamKind::matrix || p.spec().kind == ParamKind::embedding;
    const kernels::OptimizerGroup group{options.lr * p.spec().lr_scale * (lr_scale ? lr_scale(p) : 1), decays ? options.weight_decay : 0};
    auto it = std::find_if(groups.begin(), groups.end(), [&](const auto& g) { return g.lr == group.lr && g.weight_decay == group.weight_decay; });
    const auto index = it - groups.begin();
    if (it == groups.end()) groups.push_back(group);
    HEDDLE_CHECK(groups.size() <= groups_.size(), "adamw", "more than ", groups_.size(), " different (learning rate, weight decay) groups");
    for (int64_t block = (at.begin - range.begin) / kernels::kArenaBlock; block < static_cast<int64_t>(group_of_block.size()); ++block) {
      group_of_block[static_cast<size_t>(block)] = static_cast<double>(index);
    }
  }
  std::copy(groups.begin(), groups.end(), groups_.begin());
  group_of_block_ = Tensor::from(group_of_block, {static_cast<int64_t>(group_of_block.size())}, DType::u8, device);
}

void AdamWPart::step(const Arena& arena, const Tensor& masters, const StepState* step) {
  if (range_.size() == 0) return;
  const auto part = [&](const Tensor& t) { return make_view(t.impl().data + range_.begin * size_of(t.dtype()), t.dtype(), {range_.size()}); };
  launch(kernels::adamw,
         {.value = part(arena.values()),
          .master = part(masters),
          .grad = part(arena.grads()),
          .m = m_.view(),
          .v = v_.view(),
          .group_of_block = group_of_block_.view(),
          .groups = groups_,
          .beta1 = options_.beta1,
          .beta2 = options_.beta2,
          .eps = options_.eps,
          .step = step},
         masters.device());
}

namespace {

class AdamW final : public Optimizer {
 public:
  AdamW(Arena& arena, const AdamWOptions& options, const LrScale& lr_scale) : Optimizer(arena), part_(arena, {0, arena.size()}, options, lr_scale) {}
  void step(const StepState* step) override {
    part_.step(arena_, masters_, step);
    values_written();
  }

 protected:
  void add_moments(StateDict& state) const override {
    add_flat_state(state, "optim.m", arena_, part_.m(), 0);
    add_flat_state(state, "optim.v", arena_, part_.v(), 0);
  }

 private:
  AdamWPart part_;
};

}  // namespace

std::unique_ptr<Optimizer> make_adamw(Arena& arena, const AdamWOptions& options, const LrScale& lr_scale) {
  return std::make_unique<AdamW>(arena, options, lr_scale);
}

}  // namespace heddle
