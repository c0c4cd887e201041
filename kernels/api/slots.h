// Every Kernel slot there is, listed once.
#pragma once

#include "kernels/api/attention.h"
#include "kernels/api/cross_entropy.h"
#include "kernels/api/embedding.h"
#include "kernels/api/matmul.h"
#include "kernels/api/norm.h"
#include "kernels/api/optimizer.h"
#include "kernels/api/pointwise.h"
#include "kernels/api/random.h"
#include "kernels/api/reduce.h"
#include "kernels/api/rope.h"
#include "kernels/api/sample.h"
#include "kernels/api/store_rows.h"
#include "kernels/api/swiglu_matmul.h"

// The one list: slot(Arguments, name) for every Kernel. kernels.cpp defines them from it.
// clang-format off
#define HEDDLE_KERNEL_SLOTS(slot)                  \
  slot(MatmulArgs, matmul)                         \
  slot(AttentionForwardArgs, attention_forward)    \
  slot(AttentionBackwardArgs, attention_backward)  \
  slot(NormForwardArgs, norm_forward)              \
  slot(NormBackwardArgs, norm_backward)            \
  slot(AxpbyArgs, axpby)                           \
  slot(MultiplyArgs, multiply)                     \
  slot(DivideArgs, divide)                         \
  slot(MapArgs, map)                               \
  slot(MapBackwardArgs, map_backward)              \
  slot(SwigluArgs, swiglu)                         \
  slot(SwigluBackwardArgs, swiglu_backward)        \
  slot(SwigluMatmulArgs, swiglu_matmul)            \
  slot(FillArgs, fill)                             \
  slot(RopeArgs, rope)                             \
  slot(EmbeddingForwardArgs, embedding_forward)    \
  slot(EmbeddingBackwardArgs, embedding_backward)  \
  slot(CrossEntropyStatsArgs, cross_entropy_stats) \
  slot(CrossEntropyArgs, cross_entropy)            \
  slot(SumArgs, sum)                               \
  slot(ColumnSumArgs, column_sum)                  \
  slot(SoftmaxArgs, softmax)                       \
  slot(SoftmaxBackwardArgs, softmax_backward)      \
  slot(NormalArgs, normal)                         \
  slot(DropoutArgs, dropout)                       \
  slot(SampleArgs, sample)                         \
  slot(StoreRowsArgs, store_rows)                  \
  slot(AdamWArgs, adamw)                           \
  slot(MuonMomentumArgs, muon_momentum)            \
  slot(NormalizeArgs, normalize)                   \
  slot(MuonApplyArgs, muon_apply)                  \
  slot(FinishNormArgs, finish_norm)                \
  slot(AdvanceStepArgs, advance_step)
// clang-format on

namespace heddle::kernels {

// visit(kernel) for every slot.
template <class Visit>
void for_each_kernel(const Visit& visit) {
#define HEDDLE_VISIT_SLOT(Args, slot) visit(slot);
  HEDDLE_KERNEL_SLOTS(HEDDLE_VISIT_SLOT)
#undef HEDDLE_VISIT_SLOT
}

}  // namespace heddle::kernels
