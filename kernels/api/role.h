// What an operand is to a call: each_operand(args, visit) (operands.h) gives it for every one.
#pragma once

#include <cstdint>

#include "kernels/api/types.h"

namespace heddle::kernels {

// What may stand in it before the call, and whether the call writes it.
enum class Role : uint8_t {
  normal,    // any numbers
  positive,  // above zero: sums, second moments, divisors
  index,     // i32 or u8: 0 is a sound one, and so are those below the rows of what they choose from, which are spread over it
  updated,   // any numbers, and written: what is added to, or changed in place
  moment,    // above zero and changed in place
  written    // whatever stood there
};

template <class Visit>
void visit_sink(Sink& s, Visit& visit) {
  visit(s.to, s.accumulate ? Role::updated : Role::written);
}

}  // namespace heddle::kernels
