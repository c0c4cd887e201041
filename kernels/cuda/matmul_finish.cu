// Host side of what follows a matrix product's main kernel.
#include "kernels/cuda/matmul_finish.cuh"

#include "kernels/cuda/matmul_finish.h"

namespace heddle::kernels::cuda {
namespace {

template <bool kBf16>
void launch_split_sum(const SplitSumParams& p, Stream stream) {
  constexpr SplitSumConfig kConfig{.bf16_operands = kBf16};
  const int warps = ceil_div(p.epilogue.m, kConfig.rows) * ceil_div(p.epilogue.n, kConfig.columns);
  HEDDLE_LAUNCH((split_sum_kernel<Configured<kConfig>>), static_cast<unsigned>(ceil_div(warps, kConfig.threads / 32)), kConfig.threads, 0, stream, p);
}

void launch_add_column_parts(const ColumnPartsParams& p, Stream stream) {
  constexpr ColumnPartsConfig kConfig;
  HEDDLE_LAUNCH((add_column_parts_kernel<Configured<kConfig>>), static_cast<unsigned>(ceil_div(p.n, 32)), kConfig.threads, 0, stream, p);
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

}  // namespace

size_t matmul_scratch(const MatmulArgs& args, const MatmulPlan& plan) {
  return sizeof(float) * static_cast<size_t>(parts(args, plan) * scratch_row(shape_of(args).n) + plan.splits * split_elements(args, plan));
}

void run_matmul(const MatmulArgs& args, const MatmulPlan& plan, Stream stream, const std::function<void(const MatmulTarget&)>& main) {
  const MatmulShape shape = shape_of(args);
  if (shape.n == 0) return;
  HEDDLE_CHECK(args.scratch.size() >= matmul_scratch(args, plan), "matmul", "scratch too small: ", args.scratch.size(), " of ",
               matmul_scratch(args, plan), " bytes");
  const int64_t row = scratch_row(shape.n);
  float* column_partials = reinterpret_cast<float*>(args.scratch.data());
  float* split_parts = column_partials + parts(args, plan) * row;
  MatmulTarget target{matmul_epilogue(args, args.column_sum ? column_partials : nullptr)};

  if (shape.m > 0 && plan.splits == 1) main(target);
  if (shape.m > 0 && plan.splits > 1) {
    SplitSumParams sum{split_parts, plan.splits, row, split_elements(args, plan), target.epilogue};
    target.split_stride = sum.split_stride;
    MatmulEpilogue& parts_alone = target.epilogue = {};
    parts_alone.c = split_parts;
    parts_alone.c_row = row;
    parts_alone.m = sum.epilogue.m;
    parts_alone.n = static_cast<int>(row);
    parts_alone.f32_out = parts_alone.aligned = true;
    main(target);
    args.a.dtype == DType::bf16 ? launch_split_sum<true>(sum, stream) : launch_split_sum<false>(sum, stream);
  }
  if (args.column_sum) {
    const View& to = args.column_sum.to;
    launch_add_column_parts({column_partials, row, static_cast<int>(parts(args, plan)), static_cast<int>(shape.n), to.data, to.dtype == DType::f32,
                             args.column_sum.accumulate},
                            stream);
  }
}

}  // namespace heddle::kernels::cuda
