// What a call of each op must do at least, whatever computes it: arithmetic, and bytes to and from memory with every operand read once and every
// result written once. Floors follow from it: a kernel takes no less than its FLOPs at a device's peak, or its bytes at the rate of a copy.
//
// FLOPs count products of matrices and attention, a multiplication and an addition as two; arithmetic on single elements hides behind its bytes.
// Attention counts the (query, key) pairs that causality and the window leave, documents apart: backward the five products it needs. What a
// candidate moves or multiplies beyond that, scratch or a second pass, is its own affair and no floor.
#pragma once

#include <string>

#include "kernels/api/slots.h"

namespace heddle::kernels {

struct Cost {
  double flops = 0, bytes = 0;
};

// cost_of(Args) and shape_of_call(Args), "4096 x 2304 x 768 NT, bias", for every slot.
#define HEDDLE_DECLARE_COST(Args, slot) \
  Cost cost_of(const Args&);            \
  std::string shape_of_call(const Args&);
HEDDLE_KERNEL_SLOTS(HEDDLE_DECLARE_COST)
#undef HEDDLE_DECLARE_COST

}  // namespace heddle::kernels
