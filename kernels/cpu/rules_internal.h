// Conditions on arguments (kernels/api/rules.h), and on the data that they hold.
#pragma once

#include "kernels/api/fault.h"
#include "kernels/api/rules.h"

namespace heddle::kernels::cpu {

// Notes a fault unless there is one already. Always false, for `return noted(...)`.
inline bool noted(Fault* word, const Fault& found) {
  if (word && word->kind == FaultKind::none) *word = found;
  return false;
}

}  // namespace heddle::kernels::cpu
