// Host side of what follows a matrix product's main kernel.
#include "kernels/cuda/matmul_finish.cuh"

#include "kernels/cuda/matmul_plan.cuh"
#include "kernels/cuda/ordered_sum.cuh"

namespace heddle::kernels::cuda {
namespace {

template <bool kBf16>
void launch_split_sum(const SplitSumParams& p, Stream stream) {
  constexpr SplitSumConfig kConfig{.bf16_operands = kBf16};
  const int warps = ceil_div(p.epilogue.m, kConfig.rows) * ceil_div(p.epilogue.n, kConfig.columns);
  HEDDLE_LAUNCH((split_sum_kernel<Configured<kConfig>>), static_cast<unsigned>(ceil_div(warps, kConfig.threads / 32)), kConfig.threads, 0, stream, p);
}

int rows_per_part(const MatmulPlan& plan) {
  return plan.splits > 1 ? SplitSumConfig{}.rows : plan.rows_per_part;
}
int64_t parts(const MatmulArgs& args, const MatmulPlan& plan) {
  return args.column_sum ? (shape_of(args).m + rows_per_part(plan) - 1) / rows_per_part(plan) : 0;
}
int64_t split_elements(const MatmulArgs& args, const MatmulPlan& plan) {
  const MatmulShape shape = shape_of(args);
  return plan.splits > 1 ? shape.m * scratch_row(shape.n) : 0;
}

// Scratch: the columns' partial sums, then the parts of K.
float* column_partials(const MatmulArgs& args) {
  return reinterpret_cast<float*>(args.scratch.data());
}
float* split_parts(const MatmulArgs& args, const MatmulPlan& plan) {
  return column_partials(args) + parts(args, plan) * scratch_row(shape_of(args).n);
}

}  // namespace

size_t matmul_scratch(const MatmulArgs& args, const MatmulPlan& plan) {
  return sizeof(float) * static_cast<size_t>(parts(args, plan) * scratch_row(shape_of(args).n) + plan.splits * split_elements(args, plan));
}

MatmulTarget matmul_target(const MatmulArgs& args, const MatmulPlan& plan) {
  HEDDLE_CHECK(args.scratch.size() >= matmul_scratch(args, plan), "matmul", "scratch too small: ", args.scratch.size(), " of ",
               matmul_scratch(args, plan), " bytes");
  if (plan.splits == 1) return {matmul_epilogue(args, args.column_sum ? column_partials(args) : nullptr), 0};
  MatmulEpilogue alone{};
  alone.c = split_parts(args, plan);
  alone.c_row = scratch_row(shape_of(args).n);
  alone.m = static_cast<int>(shape_of(args).m);
  alone.n = static_cast<int>(alone.c_row);
  alone.f32_out = alone.aligned = true;
  return {alone, split_elements(args, plan)};
}

void finish_matmul(const MatmulArgs& args, const MatmulPlan& plan, Stream stream) {
  const MatmulShape shape = shape_of(args);
  if (plan.splits > 1 && shape.m * shape.n > 0) {
    const SplitSumParams p{split_parts(args, plan), plan.splits, scratch_row(shape.n), split_elements(args, plan),
                           matmul_epilogue(args, args.column_sum ? column_partials(args) : nullptr)};
    args.a.dtype == DType::bf16 ? launch_split_sum<true>(p, stream) : launch_split_sum<false>(p, stream);
  }
  if (args.column_sum && shape.n > 0) {
    const Partials from{column_partials(args), static_cast<int>(parts(args, plan)), 1, static_cast<int>(shape.n)};
    launch_add_partials<bf16>(from, {{row_sink(args.column_sum)}}, stream);  // to f32 as well
  }
}

}  // namespace heddle::kernels::cuda
