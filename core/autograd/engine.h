// The backward pass.
#pragma once

#include <functional>
#include <span>

#include "core/tensor.h"

namespace heddle {

// Called on the host for a leaf once its last write is enqueued: from there its gradient is final for this pass.
using LeafHook = std::function<void(const Tensor& leaf)>;

// Fills the gradients of every leaf that reaches `loss` (one element). Nodes run latest first, so the order of all additions is fixed.
// Each leaf of `leaves` is hooked exactly once, at its last edge; those that no edge reaches get a zero gradient (unless it accumulates) and are
// hooked at the end. Saved tensors are released on the way: a graph can be used once.
void backward(const Tensor& loss, std::span<const Tensor> leaves = {}, const LeafHook& hook = {});

// The same from any tensor with its gradient as the seed; no hooks. Gradients already there are added to.
void backward_from(const Tensor& y, const Tensor& seed);

}  // namespace heddle
