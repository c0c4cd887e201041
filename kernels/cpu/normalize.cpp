// Division by the Frobenius norm: see kernels/api/optimizer.h. Made of the two kernels that fix its order of additions.
#include <cmath>

#include "kernels/api/optimizer.h"
#include "kernels/api/pointwise.h"
#include "kernels/api/reduce.h"
#include "kernels/cpu/rules_internal.h"

namespace heddle::kernels::cpu {

Refusal refuses(const SumArgs&);
Refusal refuses(const AxpbyArgs&);
void run(const SumArgs&, Stream);
void run(const AxpbyArgs&, Stream);

namespace {

SumArgs squares(const NormalizeArgs& args, double& total) {
  return {.x = args.x, .out = {make_view(&total, {1}), false}, .squares = true};
}

}  // namespace

Refusal refuses(const NormalizeArgs& args) {
  double total = 0;
  if (Refusal refusal = refuses(squares(args, total))) return refusal;
  return refuses(AxpbyArgs{.a = args.x, .out = {args.out, false}});
}

void run(const NormalizeArgs& args, Stream stream) {
  double total = 0;
  run(squares(args, total), stream);
  run(AxpbyArgs{.a = args.x, .out = {args.out, false}, .alpha = 1 / (std::sqrt(total) + args.eps)}, stream);
}

}  // namespace heddle::kernels::cpu
