#include <cmath>

#include "core/launch.h"
#include "kernels/api/matmul.h"
#include "kernels/api/pointwise.h"
#include "optim/optimizer.h"

namespace heddle {
namespace {

class Muon final : public Optimizer {
 public:
  Muon(Arena& arena, const MuonOptions& options, const AdamWOptions& rest, const LrScale& lr_scale)
      : Optimizer(arena), options_(options), rest_(arena, {arena.matrices_end(), arena.size()}, rest, lr_scale) {
    momentum_ = Tensor::zeros({arena.matrices_end()}, arena.grads().dtype(), arena.values().device(), MemoryTag::optimizer);
    for (const Parameter& p : arena.parameters()) {
      if (p.spec().kind != ParamKind::matrix) continue;
      HEDDLE_CHECK(p.tensor().rank() == 2, "muon", p.name(), " has rank ", p.tensor().rank(), "; matrices have 2");
      const Range range = arena.range(p);
      const int64_t columns = p.tensor().size(1);
      std::vector<int64_t> rows = p.spec().stacked_rows;
      if (rows.empty()) rows = {p.tensor().size(0)};
      int64_t begin = range.begin;
      for (int64_t r : rows) {
        const float lr = options.lr * p.spec().lr_scale * (lr_scale ? lr_scale(p) : 1);
        matrices_.push_back({begin, r, columns, {lr, options.weight_decay}});
        begin += r * columns;
      }
      HEDDLE_CHECK(begin == range.end, "muon", "the stacked rows of ", p.name(), " do not add up to ", shape_text(p.tensor().shape()));
    }
  }

  void step(const StepState* step) override {
    const Device device = masters_.device();
    for (const Matrix& matrix : matrices_) {
      const int64_t n = matrix.rows * matrix.columns;
      const auto part = [&](const Tensor& t) { return make_view(t.impl().data + matrix.begin * size_of(t.dtype()), t.dtype(), {n}); };
      Tensor update = Tensor::empty({matrix.rows, matrix.columns}, masters_.dtype(), device, MemoryTag::workspace);  // (R, C)
      const View update_flat = make_view(update.impl().data, update.dtype(), {n});
      launch(kernels::muon_momentum,
             {.grad = part(arena_.grads()),
              .momentum = part(momentum_),
              .out = update_flat,
              .beta = options_.momentum,
              .nesterov = options_.nesterov,
              .step = step},
             device);
      newton_schulz(update, options_.iterations);
      const float scale = std::sqrt(std::max(1.0f, static_cast<float>(matrix.rows) / static_cast<float>(matrix.columns)));
      launch(kernels::muon_apply,
             {.value = part(arena_.values()), .master = part(masters_), .update = update_flat, .group = matrix.group, .scale = scale, .step = step},
             device);
    }
    rest_.step(arena_, masters_, step);
    values_written();
  }

 protected:
  void add_moments(StateDict& state) const override {
    add_flat_state(state, "optim.momentum", arena_, momentum_, 0);
    add_flat_state(state, "optim.m", arena_, rest_.m(), rest_.range().begin);
    add_flat_state(state, "optim.v", arena_, rest_.v(), rest_.range().begin);
  }

 private:
  struct Matrix {
    int64_t begin, rows, columns;  // arena element, shape
    kernels::OptimizerGroup group;
  };
  MuonOptions options_;
  AdamWPart rest_;
  Tensor momentum_;
  std::vector<Matrix> matrices_;
};

}  // namespace

// With X normalised to Frobenius norm 1: A = X X^T (or X^T X, the smaller one), P = a I + b A + c A^2, X <- P X (or X P).
void newton_schulz(const Tensor& x, int iterations) {
  constexpr double a = 3.4445, b = -4.7750, c = 2.0315;
  const Device device = x.device();
  const bool tall = x.size(0) > x.size(1);
  const int64_t m = std::min(x.size(0), x.size(1));
  launch(kernels::normalize, {.x = x.view(), .out = x.view()}, device);
  Tensor gram = Tensor::empty({m, m}, x.dtype(), device, MemoryTag::workspace), poly = Tensor::empty({m, m}, x.dtype(), device, MemoryTag::workspace);
  Tensor from = x, to = Tensor::empty(x.shape(), x.dtype(), device, MemoryTag::workspace);
  const double identity_value[] = {a};
  const Tensor one = Tensor::from(identity_value, {1}, x.dtype(), device);
  View diagonal = poly.view();  // (m, 1) with row stride m + 1
  diagonal.shape = {m, 1};
  diagonal.stride = {m + 1, 1};
  View spread = one.view();
  spread.rank = 2;
  spread.shape = {m, 1};
  spread.stride = {0, 0};
  for (int i = 0; i < iterations; ++i) {
    launch(kernels::matmul, {.a = from.view(), .b = from.view(), .trans_a = tall, .trans_b = !tall, .c = {gram.view(), false}}, device);
    launch(kernels::matmul, {.a = gram.view(), .b = gram.view(), .c = {poly.view(), false}}, device);
    launch(kernels::axpby, {.a = poly.view(), .b = gram.view(), .out = {poly.view(), false}, .alpha = c, .beta = b}, device);
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

std::unique_ptr<Optimizer> make_muon(Arena& arena, const MuonOptions& muon, const AdamWOptions& rest, const LrScale& lr_scale) {
  return std::make_unique<Muon>(arena, muon, rest, lr_scale);
}

}  // namespace heddle
