#include "parallel/vocab_parallel.h"

#include <algorithm>

#include "core/autograd/node.h"
#include "kernels/api/check.h"

namespace heddle {

VocabRows::VocabRows(int64_t vocabulary, const MeshShape& mesh) {
  HEDDLE_CHECK(vocabulary > 0, "vocabulary", "a table of ", vocabulary, " tokens");
  HEDDLE_CHECK(0 <= mesh.tp_rank && mesh.tp_rank < mesh.tp, "vocabulary", "rank ", mesh.tp_rank, " of ", mesh.tp, " that share it");
  memory_ = (vocabulary + mesh.tp - 1) / mesh.tp;
  shard_ = {.first = memory_ * mesh.tp_rank, .vocabulary = vocabulary};
}

ParameterSpec VocabRows::spec(ParamKind kind, int64_t dim, float init_std) const {
  const int64_t first = std::min(shard_.first, shard_.vocabulary);
  return {.kind = kind,
          .parts = {{.global = {shard_.vocabulary, dim}, .box = {{first, first + held()}, {0, dim}}}},
          .init_std = init_std,
          .padding = memory_ - held()};
}

VocabParallelEmbedding::VocabParallelEmbedding(const VocabParallelOptions& options, const MeshShape& mesh)
    : mesh_(mesh), rows_(options.vocab, mesh), weight_(add("weight", rows_.spec(ParamKind::embedding, options.dim, options.init_std))) {}

VocabParallelHead::VocabParallelHead(const VocabParallelOptions& options, const MeshShape& mesh)
    : mesh_(mesh), rows_(options.vocab, mesh), weight_(add("weight", rows_.spec(ParamKind::head, options.dim, options.init_std))) {}

VocabParallelHead::VocabParallelHead(const VocabParallelEmbedding& tied) : mesh_(tied.mesh()), rows_(tied.rows()), weight_(tied.weight()) {
  tie("weight", weight_);
}

Tensor VocabParallelHead::loss(const Tensor& x, const Tensor& targets, LossOptions options) const {
  options.shard = rows_.shard();
  return linear_cross_entropy(column_input(x, mesh_), weight_, targets, options);
}

Tensor VocabParallelHead::token_losses(const Tensor& x, const Tensor& targets, LossOptions options) const {
  options.shard = rows_.shard();
  return heddle::token_losses(x, weight_, targets, options);
}

Tensor VocabParallelHead::logits(const Tensor& x) const {
  NoGradGuard no_grad;
  const WeightUse weight(weight_);
  return linear(x, slice(weight.values(), 0, 0, rows_.held()));
}

}  // namespace heddle
