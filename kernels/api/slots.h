// Every Kernel slot there is.
#pragma once

#include <tuple>

#include "kernels/api/attention.h"
#include "kernels/api/cross_entropy.h"
#include "kernels/api/embedding.h"
#include "kernels/api/matmul.h"
#include "kernels/api/norm.h"
#include "kernels/api/optimizer.h"
#include "kernels/api/pointwise.h"
#include "kernels/api/random.h"
#include "kernels/api/reduce.h"
#include "kernels/api/rope.h"

namespace heddle::kernels {

// visit(kernel) for every slot.
template <class Visit>
void for_each_kernel(const Visit& visit) {
  std::apply([&](auto&... kernel) { (visit(kernel), ...); },
             std::tie(matmul, attention_forward, attention_backward, norm_forward, norm_backward, axpby, multiply, map, map_backward, swiglu,
                      swiglu_backward, fill, rope, embedding_forward, embedding_backward, cross_entropy, sum, column_sum, softmax, softmax_backward,
                      normal, dropout, adamw, muon_momentum, normalize, muon_apply, finish_norm, advance_step));
}

}  // namespace heddle::kernels
