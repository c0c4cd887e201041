// Arena: a Layout with memory. One flat buffer for all values of a model, one for all gradients, with the same offsets.
//
// values: the compute dtype. grads: f32 (f64 for f64 values), of the trainable sections alone. Padding is zero.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/layout.h"
#include "core/nn/module.h"
#include "core/state.h"

namespace heddle {

class Arena {
 public:
  // Gives every parameter of `module`, whose layout this is, its memory; with `gradients` also its gradient's. Without, no parameter of the module
  // asks for a gradient: for inference.
  Arena(const Module& module, Layout layout, Device device, DType compute, bool gradients = true);
  Arena(const Module& module, Device device, DType compute, bool gradients = true) : Arena(module, Layout(module), device, compute, gradients) {}

  const Layout& layout() const { return layout_; }
  const Tensor& values() const { return values_; }                          // (layout().size())
  const Tensor& grads() const { return grads_; }                            // (layout().trainable().end), undefined without gradients
  const std::vector<Parameter>& parameters() const { return parameters_; }  // in arena order: that of layout().slots()
  std::vector<Tensor> leaves() const;                                       // the trainable ones, in arena order
  Range range(const Parameter&) const;                                      // elements, padding excluded

  // The next write of every gradient is "=", later ones "+=".
  void begin_step();

  // Draws every Part anew: N(mean, std) by Philox keyed by (seed, init, name of the Part), each element by its index in the unsharded tensor:
  // independent of sharding and of what other parameters there are.
  void init(uint64_t seed);

 private:
  Layout layout_;
  std::vector<Parameter> parameters_;
  Tensor values_, grads_;
};

// Elements `flat` of a buffer with one element an arena element.
View flat_view(const Tensor& buffer, Range flat);

// Adds the Parts that lie in `ranges` of the arena, as "<prefix>.<part>". The entries view the memory of `buffer`, where those ranges are packed. A
// Part that is only partly in there comes with the boxes of what is.
void add_state(StateDict& state, const std::string& prefix, const Layout& layout, const Tensor& buffer, std::span<const PackedRange> ranges);

}  // namespace heddle
