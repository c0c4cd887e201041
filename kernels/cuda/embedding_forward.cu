// The CUDA candidate of embedding_forward: f32 and bf16.
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/embedding_forward.cuh"
#include "kernels/cuda/register.h"

namespace heddle::kernels::cuda {
namespace {

Refusal refuses(const EmbeddingForwardArgs& args) {
  if (Refusal refusal = contradiction(args)) return refusal;
  if (args.out.dtype == DType::f64) return refused("f32 and bf16 only, not ", args.out);
  if (args.tokens.numel() > INT32_MAX || args.out.size(2) > INT32_MAX) return refused("out ", args.out, ": more than 2^31 rows or columns");
  return {};
}

template <class T>
void run_of(const EmbeddingForwardArgs& args, Stream stream) {
  EmbeddingForwardParams<T> p{.tokens = {Indices(args.tokens), args.shard, args.weight.size(0), args.fault},
                              .positions = {Indices(args.start), args.position ? args.position.size(0) : 0, args.fault},
                              .weight = args.weight.as<const T>(),
                              .position = args.position.as<const T>(),
                              .out = args.out.as<T>(),
                              .weight_row = args.weight.step(0),
                              .position_row = args.position ? args.position.step(0) : 0,
                              .out_b = args.out.step(0),
                              .out_t = args.out.step(1),
                              .rows = static_cast<int>(args.tokens.numel()),
                              .length = static_cast<int>(args.tokens.size(1)),
                              .columns = static_cast<int>(args.out.size(2)),
                              .team_shift = 0};
  if (p.rows == 0) return;
  constexpr int kElements = 16 / static_cast<int>(sizeof(T));
  const bool wide =
      p.columns % kElements == 0 && rows_aligned_16(args.weight) && rows_aligned_16(args.out) && (!args.position || rows_aligned_16(args.position));
  if (wide) {
    launch_embedding_forward<T, kElements>(p, stream);
  } else {
    launch_embedding_forward<T, 1>(p, stream);
  }
}

void run(const EmbeddingForwardArgs& args, Stream stream) {
  if (args.out.dtype == DType::bf16) {
    run_of<bf16>(args, stream);
  } else {
    run_of<float>(args, stream);
  }
}

}  // namespace

void register_embedding_forward() {
  embedding_forward.add(DeviceType::cuda, {"rows", refuses, nullptr, run});
}

}  // namespace heddle::kernels::cuda
