// Arena: one flat buffer for all values of a model, one for all gradients, with the same offsets.
//
// values: the compute dtype. grads: f32 (f64 for f64 values). Parameters start at multiples of 128 elements; the padding between them is zero and
// belongs to no norm and no file. Matrices come first, which may be what Muon takes, then everything else.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/nn/module.h"
#include "core/state.h"

namespace heddle {

class Arena {
 public:
  // Gives every parameter of `module` its memory and its gradient's. slices: the ranges of slice(i) are equal multiples of 128 elements.
  Arena(const Module& module, Device device, DType compute, int slices = 1);

  const Tensor& values() const { return values_; }  // (size)
  const Tensor& grads() const { return grads_; }    // (size)
  int64_t size() const { return size_; }
  int64_t matrices_end() const { return matrices_end_; }
  const std::vector<Parameter>& parameters() const { return parameters_; }  // in arena order
  std::vector<Tensor> leaves() const;                                       // in arena order
  Range range(const Parameter&) const;                                      // elements, padding excluded
  Range slice(int i) const;

  // The next write of every gradient is "=", later ones "+=".
  void begin_step();

  // Draws every parameter anew: N(mean, std) by Philox keyed by (seed, init, index of the parameter), independent of any sharding.
  void init(uint64_t seed);

 private:
  std::vector<Parameter> parameters_;
  std::vector<Range> ranges_;
  Tensor values_, grads_;
  int64_t size_ = 0, matrices_end_ = 0;
  int slices_ = 1;
};

}  // namespace heddle
