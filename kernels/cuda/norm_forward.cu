// The CUDA candidate of norm_forward: bf16, up to 8192 columns.
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/norm_forward.cuh"
#include "kernels/cuda/register.h"

namespace heddle::kernels::cuda {
namespace {

bool absent_or_aligned(const View& v) {
  return !v || rows_aligned_16(v);
}

Refusal refuses(const NormForwardArgs& args) {
  if (args.x.dtype != DType::bf16) return refused("bf16 only, not ", args.x);
  if (args.x.rank != 2) return refused("x (N, C) only, not ", args.x);
  if (args.x.size(1) % 8 != 0 || args.x.size(1) > norm_config(args.kind, 8192).longest_row())
    return refused("C must be a multiple of 8 up to 8192, not ", args.x.size(1));
  for (const View* view : {&args.x, &args.residual, &args.gain, &args.bias, &args.sum, &args.y}) {
    if (!absent_or_aligned(*view)) return refused("rows must start at multiples of 16 bytes");
  }
  return {};
}

void run(const NormForwardArgs& args, Stream stream) {
  if (args.x.numel() == 0) return;
  launch_norm_forward_for(norm_config(args.kind, args.x.size(1)), norm_forward_params(args), 8 * multiprocessors(), stream);
}

}  // namespace

void register_norm() {
  norm_forward.add(DeviceType::cuda, {"rows_in_registers", refuses, nullptr, run});
}

}  // namespace heddle::kernels::cuda
