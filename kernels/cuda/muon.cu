// The CUDA candidates of muon_momentum and muon_apply: f32 gradients, momentum and masters; updates and values in f32 or bf16.
#include "kernels/cuda/muon.cuh"
#include "kernels/cuda/register.h"

namespace heddle::kernels::cuda {
namespace {

Refusal refuses_momentum(const MuonMomentumArgs& args) {
  if (Refusal refusal = contradiction(args)) return refusal;
  return args.grad.dtype == DType::f32 ? Refusal() : refused("grad must be f32, not ", args.grad);
}

void run_momentum(const MuonMomentumArgs& args, Stream stream) {
  if (args.out.dtype == DType::bf16) {
    launch_muon_momentum<bf16>(args, stream);
  } else {
    launch_muon_momentum<float>(args, stream);
  }
}

Refusal refuses_apply(const MuonApplyArgs& args) {
  if (Refusal refusal = contradiction(args)) return refusal;
  return args.master.dtype == DType::f32 ? Refusal() : refused("master must be f32, not ", args.master);
}

template <class Update>
void run_apply_of(const MuonApplyArgs& args, Stream stream) {
  if (args.value.dtype == DType::bf16) {
    launch_muon_apply<bf16, Update>(args, stream);
  } else {
    launch_muon_apply<float, Update>(args, stream);
  }
}

void run_apply(const MuonApplyArgs& args, Stream stream) {
  if (args.update.dtype == DType::bf16) {
    run_apply_of<bf16>(args, stream);
  } else {
    run_apply_of<float>(args, stream);
  }
}

}  // namespace

void register_muon() {
  muon_momentum.add(DeviceType::cuda, {"flat", refuses_momentum, nullptr, run_momentum});
  muon_apply.add(DeviceType::cuda, {"flat", refuses_apply, nullptr, run_apply});
}

}  // namespace heddle::kernels::cuda
