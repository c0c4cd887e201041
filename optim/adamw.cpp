#include "optim/adamw.h"

#include <algorithm>

#include "core/launch.h"

namespace heddle {

AdamWPart::AdamWPart(const Arena& arena, std::vector<Range> ranges, const AdamWOptions& options, const LrScale& lr_scale)
    : ranges_(pack(ranges)), options_(options) {
  const Device device = arena.values().device();
  const DType dtype = arena.grads().dtype();
  const int64_t n = packed_size(ranges_);
  m_ = Tensor::zeros({n}, dtype, device, MemoryTag::optimizer);
  v_ = Tensor::zeros({n}, dtype, device, MemoryTag::optimizer);
  // Parameters with the same rate and decay share a group; blocks of padding belong to the parameter before them, whose zeros they keep.
  std::vector<kernels::OptimizerGroup> groups;
  std::vector<double> group_of_block(static_cast<size_t>(n / kernels::kArenaBlock), 0);
  std::vector<int32_t> arena_block;
  const std::vector<Layout::Slot>& slots = arena.layout().slots();
  for (const PackedRange& range : ranges_) {
    HEDDLE_CHECK(range.arena.begin % kernels::kArenaBlock == 0 && range.arena.end % kernels::kArenaBlock == 0, "adamw", "range [", range.arena.begin,
                 ", ", range.arena.end, ") is not of whole blocks of ", kernels::kArenaBlock);
    size_t next = 0;  // the first slot behind the block at hand
    for (int64_t at = 0; at < range.arena.size(); at += kernels::kArenaBlock) {
      const int64_t element = range.arena.begin + at;
      arena_block.push_back(static_cast<int32_t>(element / kernels::kArenaBlock));
      const size_t before = next;
      while (next < slots.size() && slots[next].range.begin <= element) ++next;
      const size_t block = static_cast<size_t>((range.at + at) / kernels::kArenaBlock);
      if (next == before && at > 0) {
        group_of_block[block] = group_of_block[block - 1];
        continue;
      }
      const Layout::Slot& slot = slots[next - 1];
      const bool decays = slot.spec.kind == ParamKind::matrix || slot.spec.kind == ParamKind::embedding || slot.spec.kind == ParamKind::head;
      const kernels::OptimizerGroup group{options.lr * slot.spec.lr_scale * (lr_scale ? lr_scale(slot) : 1), decays ? options.weight_decay : 0};
      auto it = std::find_if(groups.begin(), groups.end(), [&](const auto& g) { return g.lr == group.lr && g.weight_decay == group.weight_decay; });
      const auto index = it - groups.begin();
      if (it == groups.end()) groups.push_back(group);
      HEDDLE_CHECK(groups.size() <= groups_.size(), "adamw", "more than ", groups_.size(), " different (learning rate, weight decay) groups");
      group_of_block[block] = static_cast<double>(index);
    }
  }
  std::copy(groups.begin(), groups.end(), groups_.begin());
  group_of_block_ = Tensor::from(group_of_block, {static_cast<int64_t>(group_of_block.size())}, DType::u8, device);
  if (ranges_.size() > 1) arena_block_ = Tensor::from(arena_block, {static_cast<int64_t>(arena_block.size())}, device);
}

void AdamWPart::step(const Arena& arena, const Tensor& masters, std::span<const PackedRange> owned, const StepState* step) const {
  if (ranges_.empty()) return;
  // One range is a window of everything; of several the kernel takes the whole buffers and a table.
  const bool in_place = masters.same(arena.values());
  const Range window = ranges_.size() == 1 ? ranges_[0].arena : Range{0, arena.layout().trainable().end};
  View master = flat_view(arena.values(), window);
  if (!in_place) {
    // Its blocks come in the order of the masters, though others may lie between and around them.
    const auto place = [&](int64_t element) {
      for (const PackedRange& range : owned) {
        if (range.arena.begin <= element && element < range.arena.end) return range.at + element - range.arena.begin;
      }
      fail("adamw", concat("element ", element, " has no master on this rank"));
    };
    const int64_t begin = place(ranges_[0].arena.begin), end = place(ranges_.back().arena.end - 1) + 1;
    HEDDLE_CHECK(end - begin == m_.numel(), "adamw", "the masters of ", m_.numel(), " elements do not lie in one piece");
    master = flat_view(masters, {begin, end});
  }
  launch(kernels::adamw,
         {.value = flat_view(arena.values(), window),
          .master = master,
          .grad = flat_view(arena.grads(), window),
          .m = m_.view(),
          .v = v_.view(),
          .group_of_block = group_of_block_.view(),
          .arena_block = arena_block_.view(),
          .groups = groups_,
          .beta1 = options_.beta1,
          .beta2 = options_.beta2,
          .eps = options_.eps,
          .step = step},
         masters.device());
}

void AdamWPart::add_state(StateDict& state, const Layout& layout) const {
  heddle::add_state(state, "optim.m", layout, m_, ranges_);
  heddle::add_state(state, "optim.v", layout, v_, ranges_);
}

namespace {

std::vector<Range> arena_ranges(std::span<const PackedRange> packed) {
  std::vector<Range> ranges;
  for (const PackedRange& range : packed) ranges.push_back(range.arena);
  return ranges;
}

class AdamW final : public Optimizer {
 public:
  AdamW(Arena& arena, const AdamWOptions& options, const LrScale& lr_scale, std::optional<std::vector<Range>> owned)
      : Optimizer(arena, std::move(owned)), part_(arena, arena_ranges(owned_), options, lr_scale) {}
  void step(const StepState* step) override {
    part_.step(arena_, masters_, owned_, step);
    values_written();
  }

 protected:
  void add_moments(StateDict& state) const override { part_.add_state(state, arena_.layout()); }

 private:
  AdamWPart part_;
};

}  // namespace

std::unique_ptr<Optimizer> make_adamw(Arena& arena, const AdamWOptions& options, const LrScale& lr_scale, std::optional<std::vector<Range>> owned) {
  return std::make_unique<AdamW>(arena, options, lr_scale, std::move(owned));
}

}  // namespace heddle
