#include "parallel/tensor_parallel.h"

#include "core/ops/common.h"
#include "kernels/api/reduce.h"

namespace heddle {
namespace {

// y as it is, for a bias that rank 0 adds: its gradient there, the column sum of dy, is computed on every rank, so that replicas stay equal without
// talking.
class BiasElsewhereNode final : public Node {
 public:
  std::string_view name() const override { return "bias_elsewhere"; }
  void backward(std::span<const Tensor> dy, std::span<GradSlot> dx) override {
    dx[0].give(dy[0]);
    if (dx[1].needed()) launch(kernels::column_sum, {.x = rows_of(dy[0]), .out = dx[1].sink()}, dy[0].device());
  }
  void release_saved() override {}
};

Part part(const std::string& name, std::vector<int64_t> global, Box box, bool partial = false) {
  return {.name = name, .global = std::move(global), .box = std::move(box), .partial_gradient = partial};
}

}  // namespace

// With a tp group's Communicator: backward sums dx over it.
Tensor column_input(const Tensor& x, [[maybe_unused]] const MeshShape& mesh) {
  return x;
}

// With a tp group's Communicator: forward sums y over it.
Tensor row_output(const Tensor& y, [[maybe_unused]] const MeshShape& mesh) {
  return y;
}

Range tp_share(std::string_view what, int64_t count, const MeshShape& mesh, bool shared) {
  const int64_t tp = mesh.tp, rank = mesh.tp_rank;
  HEDDLE_CHECK(0 <= rank && rank < tp, "tensor parallel", "rank ", rank, " of ", tp);
  if (shared && count > 0 && tp % count == 0) return {rank * count / tp, rank * count / tp + 1};
  HEDDLE_CHECK(count % tp == 0, "tensor parallel", what, ": ", count, " over ", tp, " ranks: each holds as many as the others",
               shared ? ", or several hold one" : "");
  return {rank * count / tp, (rank + 1) * count / tp};
}

ColumnLinear::ColumnLinear(int64_t in, const std::vector<Rows>& stack, const Options& options, const MeshShape& mesh) : mesh_(mesh) {
  std::string name;
  ParameterSpec weight{.init_std = options.init_std}, bias{.kind = ParamKind::bias};
  for (const Rows& rows : stack) {
    HEDDLE_CHECK(rows.unit > 0 && rows.count % rows.unit == 0, "column linear", "\"", rows.name, "\": ", rows.count, " rows in units of ", rows.unit);
    Range mine = tp_share(concat("rows of \"", rows.name, "\" in units of ", rows.unit), rows.count / rows.unit, mesh, rows.shared);
    mine = {mine.begin * rows.unit, mine.end * rows.unit};
    name += rows.name;
    weight.parts.push_back(part(rows.name + ".weight", {rows.count, in}, {mine, {0, in}}, rows.shared));
    bias.parts.push_back(part(rows.name + ".bias", {rows.count}, {mine}, rows.shared));
  }
  weight_ = add(name + ".weight", std::move(weight));
  if (options.bias) bias_ = add(name + ".bias", std::move(bias));
}

RowLinear::RowLinear(int64_t in, int64_t out, const Options& options, const MeshShape& mesh) : mesh_(mesh) {
  HEDDLE_CHECK(options.unit > 0 && in % options.unit == 0, "row linear", in, " columns in units of ", options.unit);
  const Range mine = tp_share(concat("columns in units of ", options.unit), in / options.unit, mesh);
  ParameterSpec weight{.init_std = options.init_std};
  weight.parts.push_back(part("", {out, in}, {{0, out}, {mine.begin * options.unit, mine.end * options.unit}}));
  weight_ = add("weight", std::move(weight));
  if (options.bias) bias_ = add("bias", {.kind = ParamKind::bias, .parts = {{.global = {out}}}});
}

Tensor RowLinear::output(const Tensor& y) const {
  Tensor out = y;
  if (bias_ && mesh_.tp_rank != 0 && recording({&y, &bias_.tensor()})) {
    out = y.detach();
    record(std::make_shared<BiasElsewhereNode>(), {&y, &bias_.tensor()}, {&out});
  }
  return row_output(out, mesh_);
}

}  // namespace heddle
