// Adapter: y = x + U silu(D x), D (rank, dim), U (dim, rank), zero at first, so that training starts at the model without it (Houlsby et al. 2019).
#pragma once

#include "core/nn/layers.h"

namespace heddle {

class Adapter final : public Module {
 public:
  Adapter(int64_t dim, int64_t rank) : down_(dim, rank, {}), up_(rank, dim, {.init_std = 0}) {
    add("down", down_);
    add("up", up_);
  }
  Tensor forward(const Tensor& x) const { return heddle::add(x, up_.forward(silu(down_.forward(x)))); }  // (N, dim)

 private:
  Linear down_, up_;
};

}  // namespace heddle
