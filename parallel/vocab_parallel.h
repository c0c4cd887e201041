// Embedding and head of a vocabulary that tensor-parallel ranks share (Shoeybi et al. 2019, Megatron-LM, arXiv:1909.08053, section 3).
//
//   vocabulary 10, tp 3, 4 rows of memory each:   rank 0  0 1 2 3    rank 1  4 5 6 7    rank 2  8 9 - -
//
// Rows are dealt in equal pieces, in order. What the last pieces have too much is padding: in memory, so that ranks have equal layouts, but in no
// box, so that files and digests know nothing of it, and masked in the loss. One rank is a piece without padding.
#pragma once

#include <cstdint>

#include "core/layout.h"
#include "core/nn/module.h"
#include "core/ops/ops.h"
#include "parallel/tensor_parallel.h"

namespace heddle {

// The rows of a (vocabulary, dim) table that this rank holds.
class VocabRows {
 public:
  // Error for a vocabulary without tokens or a rank outside the mesh.
  VocabRows(int64_t vocabulary, const MeshShape& mesh);

  const VocabShard& shard() const { return shard_; }
  int64_t memory() const { return memory_; }             // rows, with padding: equal on all ranks
  int64_t held() const { return shard_.held(memory_); }  // rows that are tokens; the first ones

  ParameterSpec spec(ParamKind kind, int64_t dim, float init_std) const;  // of the table

 private:
  VocabShard shard_;
  int64_t memory_;
};

struct VocabParallelOptions {
  int64_t vocab = 0, dim = 0;
  float init_std = 0.02f;
};

// weight (vocab, dim).
class VocabParallelEmbedding final : public Module {
 public:
  VocabParallelEmbedding(const VocabParallelOptions& options, const MeshShape& mesh);

  // weight[tokens] + position, (B, T, C): a rank's summand is zero for tokens that others hold. position (P, C) and document_start (B, T) may be
  // undefined; rank 0 adds the positions before the sum, and their gradient is whole on every rank.
  Tensor forward(const Tensor& tokens, const Weight& position = {}, const Tensor& document_start = {}) const {
    return row_output(embedding(tokens, weight_, position, document_start, rows_.shard()), mesh_);
  }
  const Parameter& weight() const { return weight_; }
  const VocabRows& rows() const { return rows_; }
  const MeshShape& mesh() const { return mesh_; }

 private:
  MeshShape mesh_;
  VocabRows rows_;
  Parameter weight_;
};

// Logits and loss of x (B, T, C). weight (vocab, dim): its own, or the embedding's.
class VocabParallelHead final : public Module {
 public:
  VocabParallelHead(const VocabParallelOptions& options, const MeshShape& mesh);
  explicit VocabParallelHead(const VocabParallelEmbedding& tied);

  // As linear_cross_entropy and heddle::token_losses, with `options.shard` filled in. A head of several ranks needs options.gather.
  Tensor loss(const Tensor& x, const Tensor& targets, LossOptions options = {}) const;          // ()
  Tensor token_losses(const Tensor& x, const Tensor& targets, LossOptions options = {}) const;  // (N)
  // Of the tokens that this rank holds: x (N, C) to (N, rows().held()). Not for training.
  Tensor logits(const Tensor& x) const;
  const Parameter& weight() const { return weight_; }
  const VocabRows& rows() const { return rows_; }

 private:
  MeshShape mesh_;
  VocabRows rows_;
  Parameter weight_;
};

}  // namespace heddle
