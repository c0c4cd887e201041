#include "kernels/api/fault.h"

#include "kernels/api/check.h"

namespace heddle::kernels {

std::string fault_text(const Fault& f) {
  const std::string place = concat("[b = ", f.row, "][t = ", f.column, "]");
  switch (f.kind) {
    case FaultKind::none: break;
    case FaultKind::token: return concat("token outside the vocabulary: tokens", place, " = ", f.value, ", V = ", f.limit);
    case FaultKind::position: return concat("position outside the table: b = ", f.row, ", t = ", f.column, " gives ", f.value, ", P = ", f.limit);
    case FaultKind::target: return concat("target outside the vocabulary: targets[", f.row, "] = ", f.value, ", V = ", f.limit);
    case FaultKind::document_start: return concat("document_start", place, " is ", f.value, ", not in [0, ", f.limit, "]");
    case FaultKind::row: return concat("row outside the cache: rows[", f.row, "] = ", f.value, ", M = ", f.limit);
    case FaultKind::cache_position: return concat("position outside the cache: position[", f.row, "] = ", f.value, ", not in [0, ", f.limit, "]");
  }
  return "no fault";
}

}  // namespace heddle::kernels
