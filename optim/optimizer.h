// Optimizers over an arena. They update this rank's values from its gradients and never communicate.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "core/arena.h"
#include "core/state.h"
#include "kernels/api/optimizer.h"
#include "kernels/api/step_state.h"

namespace heddle {

struct AdamWOptions {
  float lr = 3e-4f, weight_decay = 0.1f;  // decay: matrices and embeddings, not gains and biases
  float beta1 = 0.9f, beta2 = 0.95f, eps = 1e-8f;
};

struct MuonOptions {
  float lr = 0.02f, weight_decay = 0;
  float momentum = 0.95f;
  bool nesterov = true;
  int iterations = 5;  // of Newton-Schulz
};

// A factor on the base learning rate of one parameter, beside its own spec's lr_scale.
using LrScale = std::function<float(const Parameter&)>;

// Adds "<prefix>.<parameter>" for every parameter that lies in arena elements [begin, begin + flat.numel()); the entries view the memory of `flat`.
void add_flat_state(StateDict& state, const std::string& prefix, const Arena& arena, const Tensor& flat, int64_t begin);

// Holds masters: f32 (f64) copies of the values in the order of the arena, the values themselves when they have that dtype.
class Optimizer {
 public:
  virtual ~Optimizer() = default;
  // One update from arena.grads(); reads lr, clip_scale, apply and adam_t from `step` (device memory).
  virtual void step(const StepState* step) = 0;
  // Masters and moments, by parameter: "model.<name>", "optim.<moment>.<name>". Their memory is the optimizer's own: loading writes there.
  void add_state(StateDict& state) const;
  // After masters were written from outside: values = round(master).
  void masters_changed();

  const Tensor& masters() const { return masters_; }

 protected:
  explicit Optimizer(Arena& arena);
  virtual void add_moments(StateDict& state) const = 0;
  void values_written();

  Arena& arena_;
  Tensor masters_;
};

// AdamW on arena elements [begin, end) in one launch.
class AdamWPart {
 public:
  AdamWPart(const Arena& arena, Range range, const AdamWOptions& options, const LrScale& lr_scale);
  void step(const Arena& arena, const Tensor& masters, const StepState* step);
  const Tensor& m() const { return m_; }
  const Tensor& v() const { return v_; }
  Range range() const { return range_; }

 private:
  Range range_;
  AdamWOptions options_;
  Tensor m_, v_, group_of_block_;
  std::array<kernels::OptimizerGroup, kernels::kMaxGroups> groups_{};
};

std::unique_ptr<Optimizer> make_adamw(Arena& arena, const AdamWOptions& options, const LrScale& lr_scale = {});

// Muon (Jordan et al. 2024) on every matrix, AdamW on the rest. The update of an (R, C) matrix is its momentum, orthogonalised by Newton-Schulz
// iterations and scaled by sqrt(max(1, R / C)).
std::unique_ptr<Optimizer> make_muon(Arena& arena, const MuonOptions& muon, const AdamWOptions& rest, const LrScale& lr_scale = {});

// x (R, C) f32 or bf16 <- an approximation of the nearest semi-orthogonal matrix. Quintic iteration with coefficients (3.4445, -4.7750, 2.0315),
// which drives every singular value into about [0.7, 1.2].
void newton_schulz(const Tensor& x, int iterations);

}  // namespace heddle
