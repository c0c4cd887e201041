#include "kernels/api/types.h"

namespace heddle {

std::string shape_text(const View& view) {
  if (!view) return "absent";
  std::string text(name_of(view.dtype));
  text += " (";
  for (int i = 0; i < view.rank; ++i) text += (i ? ", " : "") + std::to_string(view.shape[i]);
  return text + ")";
}

}  // namespace heddle
