// The MLP of a transformer block, of a kind of core/nn/mlp.h, split over the tensor-parallel ranks by its hidden size.
#pragma once

#include <cstdint>
#include <string_view>

#include "core/nn/mlp.h"
#include "parallel/tensor_parallel.h"

namespace heddle {

class Mlp final : public Module {
 public:
  struct Options {
    std::string_view kind = "gelu";
    int64_t dim = 0, hidden = 0;  // of all ranks
    bool bias = false;
    float init_std = 0.02f, out_init_std = 0.02f;
  };
  explicit Mlp(const Options& options, const MeshShape& mesh = {});
  Tensor forward(const Tensor& x) const;  // (B, T, C) to (B, T, C)

 private:
  const MlpKind& kind_;
  ColumnLinear in_;
  RowLinear out_;
};

}  // namespace heddle
