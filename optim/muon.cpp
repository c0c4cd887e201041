#include "optim/muon.h"

#include <algorithm>
#include <cmath>

#include "core/launch.h"
#include "kernels/api/matmul.h"
#include "kernels/api/pointwise.h"

namespace heddle {
namespace {

constexpr double kA = 3.4445, kB = -4.7750, kC = 2.0315;

// What of `owned` lies in `section`.
std::vector<Range> within(std::span<const PackedRange> owned, Range section) {
  std::vector<Range> ranges;
  for (const PackedRange& range : owned) {
    const Range common{std::max(range.arena.begin, section.begin), std::min(range.arena.end, section.end)};
    if (common.begin < common.end) ranges.push_back(common);
  }
  return ranges;
}

}  // namespace

NewtonSchulz::NewtonSchulz(DType dtype, Device device) : a_(Tensor::full({1}, kA, dtype, device)) {}

// With X normalised to Frobenius norm 1: A = X X^T (or X^T X, the smaller one), P = a I + b A + c A^2, X <- P X (or X P). A^2 is asked for as A A^T,
// which matmul knows to be symmetric.
void NewtonSchulz::operator()(const Tensor& x, int iterations) const {
  const Device device = x.device();
  const bool tall = x.size(0) > x.size(1);
  const int64_t m = std::min(x.size(0), x.size(1));
  launch(kernels::normalize, {.x = x.view(), .out = x.view()}, device);
  Tensor gram = Tensor::empty({m, m}, x.dtype(), device, MemoryTag::workspace), poly = Tensor::empty({m, m}, x.dtype(), device, MemoryTag::workspace);
  Tensor from = x, to = Tensor::empty(x.shape(), x.dtype(), device, MemoryTag::workspace);
  View diagonal = poly.view();  // (m, 1) with row stride m + 1
  diagonal.shape = {m, 1};
  diagonal.stride = {m + 1, 1};
  View spread = a_.view();
  spread.rank = 2;
  spread.shape = {m, 1};
  spread.stride = {0, 0};
  for (int i = 0; i < iterations; ++i) {
    launch(kernels::matmul, {.a = from.view(), .b = from.view(), .trans_a = tall, .trans_b = !tall, .c = {gram.view(), false}}, device);
    launch(kernels::matmul, {.a = gram.view(), .b = gram.view(), .trans_b = true, .c = {poly.view(), false}}, device);
    launch(kernels::axpby, {.a = poly.view(), .b = gram.view(), .out = {poly.view(), false}, .alpha = kC, .beta = kB}, device);
    launch(kernels::axpby, {.a = spread, .out = {diagonal, true}}, device);
    if (tall) {
      launch(kernels::matmul, {.a = from.view(), .b = poly.view(), .c = {to.view(), false}}, device);
    } else {
      launch(kernels::matmul, {.a = poly.view(), .b = from.view(), .c = {to.view(), false}}, device);
    }
    std::swap(from, to);
  }
  if (!from.same(x)) launch(kernels::axpby, {.a = from.view(), .out = {x.view(), false}}, device);
}

Muon::Muon(Arena& arena, const MuonOptions& options, const AdamWOptions& rest, const LrScale& lr_scale, std::optional<std::vector<Range>> owned)
    : Optimizer(arena, std::move(owned)),
      options_(options),
      newton_schulz_(arena.grads().dtype(), arena.values().device()),
      rest_(arena, within(owned_, arena.layout().section(Section::rest)), rest, lr_scale) {
  const Layout& layout = arena.layout();
  momentum_ranges_ = pack(within(owned_, layout.section(Section::matrix)));
  momentum_ = Tensor::zeros({packed_size(momentum_ranges_)}, arena.grads().dtype(), arena.values().device(), MemoryTag::optimizer);
  for (const PackedRange& range : momentum_ranges_) {
    for (size_t i = 0; i < layout.places().size(); ++i) {
      const Layout::Place& place = layout.places()[i];
      if (place.range.end <= range.arena.begin || place.range.begin >= range.arena.end) continue;
      const Layout::Slot& slot = layout.slots()[place.slot];
      const Part& part = place.part;
      HEDDLE_CHECK(part.global.size() == 2, "muon", part.name, " has rank ", part.global.size(), "; matrices have 2");
      HEDDLE_CHECK(part.box == whole_box(part.global) && range.arena.begin <= place.range.begin && place.range.end <= range.arena.end, "muon",
                   part.name, " is only partly on this rank; it needs whole matrices");
      const float lr = options.lr * slot.spec.lr_scale * (lr_scale ? lr_scale(slot) : 1);
      matrices_.push_back(
          {i, part.global[0], part.global[1], place.range, range.at + place.range.begin - range.arena.begin, {lr, options.weight_decay}});
    }
  }
}

void Muon::momentum(const Matrix& matrix, const Tensor& update, const StepState* step) const {
  launch(kernels::muon_momentum,
         {.grad = flat_view(arena_.grads(), matrix.arena),
          .momentum = flat_view(momentum_, {matrix.momentum_at, matrix.momentum_at + matrix.arena.size()}),
          .out = flat_view(update, {0, matrix.arena.size()}),
          .beta = options_.momentum,
          .nesterov = options_.nesterov,
          .step = step},
         masters_.device());
}

void Muon::apply(const Matrix& matrix, const Tensor& update, const StepState* step) const {
  const float scale = std::sqrt(std::max(1.0f, static_cast<float>(matrix.rows) / static_cast<float>(matrix.columns)));
  launch(kernels::muon_apply,
         {.value = flat_view(arena_.values(), matrix.arena),
          .master = master(matrix.arena),
          .update = flat_view(update, {0, matrix.arena.size()}),
          .group = matrix.group,
          .scale = scale,
          .step = step},
         masters_.device());
}

void Muon::step(const StepState* step) {
  for (const Matrix& matrix : matrices_) {
    const Tensor update = Tensor::empty({matrix.rows, matrix.columns}, momentum_.dtype(), momentum_.device(), MemoryTag::workspace);  // (R, C)
    momentum(matrix, update, step);
    orthogonalise(update);
    apply(matrix, update, step);
  }
  rest_.step(arena_, masters_, owned_, step);
  values_written();
}

void Muon::add_moments(StateDict& state) const {
  heddle::add_state(state, "optim.momentum", arena_.layout(), momentum_, momentum_ranges_);
  rest_.add_state(state, arena_.layout());
}

std::unique_ptr<Optimizer> make_muon(Arena& arena, const MuonOptions& muon, const AdamWOptions& rest, const LrScale& lr_scale,
                                     std::optional<std::vector<Range>> owned) {
  return std::make_unique<Muon>(arena, muon, rest, lr_scale, std::move(owned));
}

}  // namespace heddle
