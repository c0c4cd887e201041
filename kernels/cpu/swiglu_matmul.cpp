// swiglu_matmul on a CPU: its two parts, one after the other.
#include "kernels/api/swiglu_matmul_rules.h"

namespace heddle::kernels::cpu {

using InTwo = SwigluMatmulInTwo<DeviceType::cpu>;

Refusal refuses(const SwigluMatmulArgs& args) {
  return contradiction(args);
}
size_t scratch(const SwigluMatmulArgs& args) {
  return InTwo::scratch(args);
}
void run(const SwigluMatmulArgs& args, Stream stream) {
  InTwo::run(args, stream);
}

}  // namespace heddle::kernels::cpu
