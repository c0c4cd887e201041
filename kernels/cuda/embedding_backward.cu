// The CUDA candidate of embedding_backward: f32 and bf16, with sinks of either.
#include "kernels/api/rules.h"
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/embedding_backward.cuh"
#include "kernels/cuda/register.h"

namespace heddle::kernels::cuda {
namespace {

Refusal refuses(const EmbeddingBackwardArgs& args) {
  if (Refusal refusal = contradiction(args)) return refusal;
  if (args.d_out.dtype == DType::f64) return refused("f32 and bf16 only, not ", args.d_out);
  for (const Sink* sink : {&args.d_weight, &args.d_position}) {
    if (sink->to && (sink->to.size(0) >= INT32_MAX || sink->to.size(1) > INT32_MAX - 1024))
      return refused("a table of 2^31 rows or columns: ", sink->to);
  }
  return {};
}

// Row t of the positions is row t of each line: nothing to group, and nothing outside.
bool rows_are_places(const EmbeddingBackwardArgs& args) {
  return !args.start && args.tokens.size(1) <= args.d_position.to.size(0);
}

GroupPlan plan_of(const EmbeddingBackwardArgs& args, const Sink& sink) {
  return {static_cast<int>(args.tokens.numel()), sink.to.size(0)};
}

size_t scratch(const EmbeddingBackwardArgs& args) {
  const size_t weight = args.d_weight ? plan_of(args, args.d_weight).bytes() : 0;
  const size_t position = args.d_position && !rows_are_places(args) ? plan_of(args, args.d_position).bytes() : 0;
  return weight < position ? position : weight;
}

template <class T, class Out>
void scatter_into(const EmbeddingBackwardArgs& args, const Sink& sink, const int32_t* starts, const uint2* sorted, Stream stream) {
  if (sink.to.numel() == 0) return;
  ScatterParams<T, Out> p{.d_out = args.d_out.as<const T>(),
                          .d_out_b = args.d_out.step(0),
                          .d_out_t = args.d_out.step(1),
                          .table = sink.to.as<Out>(),
                          .table_row = sink.to.step(0),
                          .accumulate = sink.accumulate,
                          .starts = starts,
                          .sorted = sorted,
                          .rows = static_cast<int>(sink.to.size(0)),
                          .columns = static_cast<int>(sink.to.size(1)),
                          .batch = static_cast<int>(args.tokens.size(0)),
                          .length = static_cast<int>(args.tokens.size(1))};
  constexpr int kElements = 16 / static_cast<int>(sizeof(Out));  // the table is most of the bytes: its stores are whole sectors
  if (p.columns % 8 == 0 && rows_aligned_16(args.d_out) && rows_aligned_16(sink.to)) {
    launch_embedding_scatter<T, Out, kElements>(p, stream);
  } else {
    launch_embedding_scatter<T, Out, 1>(p, stream);
  }
}

void scatter(const EmbeddingBackwardArgs& args, const Sink& sink, const int32_t* starts, const uint2* sorted, Stream stream) {
  if (args.d_out.dtype == DType::f32) {
    scatter_into<float, float>(args, sink, starts, sorted, stream);
  } else if (sink.to.dtype == DType::f32) {
    scatter_into<bf16, float>(args, sink, starts, sorted, stream);
  } else {
    scatter_into<bf16, bf16>(args, sink, starts, sorted, stream);
  }
}

template <class Rows>
void group_and_scatter(const EmbeddingBackwardArgs& args, const Sink& sink, const Rows& rows, Stream stream) {
  const GroupPlan plan = plan_of(args, sink);
  const Grouping grouping(plan, args.scratch.data());
  const RowOf<Rows> row_of{rows, static_cast<int>(args.tokens.size(1)), static_cast<int>(plan.rows)};
  const uint2* const sorted = launch_group_rows(plan, grouping, row_of, stream);
  scatter(args, sink, grouping.starts, sorted, stream);
}

void run(const EmbeddingBackwardArgs& args, Stream stream) {
  check_scratch("embedding_backward", args.scratch, scratch(args));
  if (args.d_weight) {
    const TokenRows rows{Indices(args.tokens), args.shard, args.d_weight.to.size(0), args.fault};
    group_and_scatter(args, args.d_weight, rows, stream);
  }
  if (!args.d_position) return;
  if (rows_are_places(args)) {
    scatter(args, args.d_position, nullptr, nullptr, stream);
  } else {
    group_and_scatter(args, args.d_position, PositionRows{Indices(args.start), args.d_position.to.size(0), args.fault}, stream);
  }
}

}  // namespace

void register_embedding_backward() {
  embedding_backward.add(DeviceType::cuda, {"grouped_rows", refuses, scratch, run});
}

}  // namespace heddle::kernels::cuda
