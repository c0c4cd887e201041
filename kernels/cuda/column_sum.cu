// The CUDA candidate of column_sum. Bound by memory: x is read once.
#include "kernels/api/reduce.h"
#include "kernels/cuda/ordered_sum.cuh"
#include "kernels/cuda/register.h"

namespace heddle::kernels::cuda {
namespace {

template <class T>
struct ColumnTerms {
  using Element = T;
  using Fetched = uint4;
  static constexpr int kSums = 1;
  const T* x;
  int64_t row_stride;

  template <class At>
  __device__ __forceinline__ uint4 fetch(int row, const At& at) const {
    return thread::load_read_once(x + row * row_stride, at);
  }
  __device__ __forceinline__ void add(int, const uint4& fetched, float (&sums)[kSums][kWidth<T>]) const {
    float values[kWidth<T>];
    thread::unpack(fetched, values);
#pragma unroll
    for (int e = 0; e < kWidth<T>; ++e) sums[0][e] += values[e];
  }
};

Partials partials_of(const ColumnSumArgs& args) {
  return {reinterpret_cast<float*>(args.scratch.data()), ColumnTiles::of(args.x.size(0)).tiles, 1, static_cast<int>(args.x.size(1))};
}

template <class T>
void launch(const ColumnSumArgs& args, Stream stream) {
  const Partials partials = partials_of(args);
  launch_column_partials(ColumnTerms<T>{args.x.as<const T>(), args.x.step(0)}, static_cast<int>(args.x.size(0)), all_wide({&args.x}), partials,
                         stream);
  launch_add_partials<T>(partials, {{row_sink(args.out), {}}}, stream);
}

Refusal refuses(const ColumnSumArgs& args) {
  if (Refusal refusal = contradiction(args)) return refusal;
  return row_limits("x", args.x);
}

size_t scratch(const ColumnSumArgs& args) {
  return partials_of(args).bytes();
}

void run(const ColumnSumArgs& args, Stream stream) {
  check_scratch("column_sum", args.scratch, scratch(args));
  if (args.x.size(1) == 0) return;
  args.x.dtype == DType::bf16 ? launch<bf16>(args, stream) : launch<float>(args, stream);
}

}  // namespace

void register_column_sum() {
  column_sum.add(DeviceType::cuda, {"row_tiles", refuses, scratch, run});
}

}  // namespace heddle::kernels::cuda
