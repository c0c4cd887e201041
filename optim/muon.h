// Muon (Jordan et al. 2024) in three phases, so that ranks which share the work can move matrices between them: momentum, orthogonalise, apply.
#pragma once

#include "optim/adamw.h"
#include "optim/optimizer.h"

namespace heddle {

// x (R, C) f32 or bf16 <- an approximation of the nearest semi-orthogonal matrix. Quintic Newton-Schulz iteration with coefficients
// (3.4445, -4.7750, 2.0315), which drives every singular value into about [0.7, 1.2].
class NewtonSchulz {
 public:
  NewtonSchulz(DType dtype, Device device);  // of every x
  void operator()(const Tensor& x, int iterations) const;

 private:
  Tensor a_;  // (1): the first coefficient, times the identity
};

class Muon final : public Optimizer {
 public:
  Muon(Arena& arena, const MuonOptions& options, const AdamWOptions& rest, const LrScale& lr_scale, std::optional<std::vector<Range>> owned);

  struct Matrix {
    size_t place = 0;  // in layout().places()
    int64_t rows = 0, columns = 0;
    Range arena;
    int64_t momentum_at = 0;
    kernels::OptimizerGroup group;
  };
  const std::vector<Matrix>& matrices() const { return matrices_; }  // the owned ones, in arena order

  void momentum(const Matrix& matrix, const Tensor& update, const StepState* step) const;  // update (R, C) <- what to orthogonalise
  void orthogonalise(const Tensor& update) const { newton_schulz_(update, options_.iterations); }
  void apply(const Matrix& matrix, const Tensor& update, const StepState* step) const;

  void step(const StepState* step) override;  // the phases of one matrix after the other, then AdamW on the rest

 protected:
  void add_moments(StateDict& state) const override;

 private:
  MuonOptions options_;
  NewtonSchulz newton_schulz_;
  std::vector<Matrix> matrices_;
  std::vector<PackedRange> momentum_ranges_;
  Tensor momentum_;
  AdamWPart rest_;
};

}  // namespace heddle
