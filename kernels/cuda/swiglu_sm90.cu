// The Hopper candidate of swiglu_matmul: gate and up of the same columns in one block's accumulators.
#include "kernels/api/multiprocessors.h"
#include "kernels/api/swiglu_matmul_rules.h"
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/gemm_sm90.cuh"
#include "kernels/cuda/refusals.h"
#include "kernels/cuda/register.h"

namespace heddle::kernels::cuda {
namespace {

using Launch = void (*)(const GemmSm90Args&, Stream);

template <int kTile>
constexpr Launch launcher() {
  constexpr GemmSm90Config kConfig = [] {
    GemmSm90Config config = kGemmSm90Tiles[kTile];
    config.out = GemmOut::gated;
    return config;
  }();
  return launch_gemm_sm90<kConfig>;
}

Refusal refuses(const SwigluMatmulArgs& args) {
  if (Refusal contract = contradiction(args)) return contract;
  if (args.x.dtype != DType::bf16) return refused("bf16 operands only, not ", args.x);
  for (const View* view : {&args.x, &args.w, &args.both, &args.out}) {
    if (!*view) continue;
    if (Refusal unaligned = refuses_unaligned_rows(*view)) return unaligned;
  }
  if (args.x.size(1) == 0) return refused("K is 0");
  if (args.out.size(1) % 8 != 0) return refused("F is no multiple of 8, so that up's columns do not start at a multiple of 16 bytes: ", args.out);
  if (Refusal sides = refuses_long_sides(MatmulArgs{.a = args.x, .b = args.w, .trans_b = true})) return sides;
  if (compute_capability() != 90) return refused("a Hopper GPU only, not compute capability ", compute_capability());
  return {};
}

void run(const SwigluMatmulArgs& args, Stream stream) {
  if (args.out.numel() == 0) return;
  GemmSm90Args call{};
  call.a = args.x.as<const bf16>();
  call.b = args.w.as<const bf16>();
  call.m = static_cast<int>(args.out.size(0));
  call.n = static_cast<int>(args.out.size(1));
  call.k = static_cast<int>(args.x.size(1));
  call.lda = args.x.step(0);
  call.ldb = args.w.step(0);
  call.splits = 1;
  call.epilogue.c = args.out.data;
  call.epilogue.c_row = args.out.step(0);
  call.epilogue.m = call.m;
  call.epilogue.n = call.n;
  call.epilogue.preact = args.both.data;
  call.epilogue.preact_row = args.both ? args.both.step(0) : 0;
  call.blocks = multiprocessors_beside_communication(multiprocessors());
  const int tile = choose_gemm_sm90(call.m, args.w.size(0), call.blocks, call.splits);
  static_assert(kGemmSm90Tiles.size() == 3);
  (tile == 0 ? launcher<0>() : tile == 1 ? launcher<1>() : launcher<2>())(call, stream);
}

}  // namespace

void register_swiglu_sm90() {
  swiglu_matmul.add(DeviceType::cuda, {"wgmma_sm90", refuses, nullptr, run});
}

}  // namespace heddle::kernels::cuda
