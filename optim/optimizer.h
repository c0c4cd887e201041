// Optimizers over an arena. They update what this rank owns of its values from its gradients, and never communicate.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/arena.h"
#include "core/state.h"
#include "kernels/api/optimizer.h"
#include "kernels/api/step_state.h"

namespace heddle {

struct AdamWOptions {
  float lr = 3e-4f, weight_decay = 0.1f;  // decay: matrices, embeddings and heads, not gains and biases
  float beta1 = 0.9f, beta2 = 0.95f, eps = 1e-8f;
};

struct MuonOptions {
  float lr = 0.02f, weight_decay = 0;
  float momentum = 0.95f;
  bool nesterov = true;
  int iterations = 5;  // of Newton-Schulz
};

// A factor on the base learning rate of one parameter, beside its own spec's lr_scale.
using LrScale = std::function<float(const Layout::Slot&)>;

// Holds masters: f32 (f64) copies of the owned values, the values themselves when they have that dtype.
class Optimizer {
 public:
  virtual ~Optimizer() = default;
  // One update from arena.grads(); reads lr, clip_scale, apply and adam_t from `step` (device memory).
  virtual void step(const StepState* step) = 0;
  // Masters and moments, by Part: "model.<name>", "optim.<moment>.<name>". Frozen Parts come as their values. The memory is the optimizer's or the
  // arena's own: loading writes there.
  void add_state(StateDict& state) const;
  // After masters were written from outside: values = round(master).
  void masters_changed();

  // The owned arena ranges and where their masters lie in masters().
  const std::vector<PackedRange>& owned() const { return owned_; }
  const Tensor& masters() const { return masters_; }

 protected:
  // `owned`: ascending disjoint ranges of the trainable sections, as Layout::owned() gives them, maybe none; nullopt: all of them.
  Optimizer(Arena& arena, std::optional<std::vector<Range>> owned);
  virtual void add_moments(StateDict& state) const = 0;
  void values_written();
  View master(Range arena) const;  // of a range inside an owned one

  Arena& arena_;
  std::vector<PackedRange> owned_;
  Tensor masters_;
};

std::unique_ptr<Optimizer> make_adamw(Arena& arena, const AdamWOptions& options, const LrScale& lr_scale = {},
                                      std::optional<std::vector<Range>> owned = std::nullopt);

// Muon (Jordan et al. 2024) on every Part of the matrix section, AdamW on the rest. The update of an (R, C) matrix is its momentum, orthogonalised by
// Newton-Schulz iterations and scaled by sqrt(max(1, R / C)). Error when `owned` cuts a matrix, or this rank holds one only in part.
std::unique_ptr<Optimizer> make_muon(Arena& arena, const MuonOptions& muon, const AdamWOptions& rest, const LrScale& lr_scale = {},
                                     std::optional<std::vector<Range>> owned = std::nullopt);

}  // namespace heddle
