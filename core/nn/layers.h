// The layers that live on one rank; those that may be split over several are in parallel/. Each registers its parameters by name and has one typed
// forward().
#pragma once

#include <cstdint>

#include "core/nn/module.h"
#include "core/nn/norm_type.h"
#include "core/ops/ops.h"

namespace heddle {

// y = x weight^T + bias; weight (out, in).
class Linear final : public Module {
 public:
  struct Options {
    bool bias = false;
    float init_std = 0.02f;
    ParamKind kind = ParamKind::matrix;
  };
  Linear(int64_t in, int64_t out, const Options& options);
  Tensor forward(const Tensor& x) const { return linear(x, weight_, bias_); }
  const Parameter& weight() const { return weight_; }

 private:
  Parameter weight_, bias_;
};

// LayerNorm (gain, bias when `bias`) or RMSNorm (gain). `affine` false: no parameters.
class Norm final : public Module {
 public:
  struct Options {
    NormType type = NormType::layer;
    bool bias = true, affine = true;
    float eps = 1e-5f;
  };
  Norm(int64_t size, Options options);
  // y, and the sum stream + branch: the residual stream from here on. `branch` may be undefined.
  NormOutput forward(const Tensor& stream, const Tensor& branch = {}) const;

 private:
  Options options_;
  Parameter gain_, bias_;
};

}  // namespace heddle
