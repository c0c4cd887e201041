// Division by the Frobenius norm: see kernels/api/optimizer.h. Made of the two kernels that fix its order of additions.
#include <cmath>

#include "kernels/api/optimizer.h"
#include "kernels/api/pointwise.h"
#include "kernels/api/reduce.h"

namespace heddle::kernels::cpu {

void run(const SumArgs&, Stream);
void run(const AxpbyArgs&, Stream);

Refusal refuses(const NormalizeArgs& args) {
  return contradiction(args);
}
size_t scratch(const NormalizeArgs&) {
  return 0;
}
void run(const NormalizeArgs& args, Stream stream) {
  double total = 0;
  run(SumArgs{.x = args.x, .out = {make_view(&total, {1}), false}, .squares = true}, stream);
  run(AxpbyArgs{.a = args.x, .out = {args.out, false}, .alpha = 1 / (std::sqrt(total) + args.eps)}, stream);
}

}  // namespace heddle::kernels::cpu
