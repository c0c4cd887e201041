// What each file of this folder offers to register.cpp: overloads on the argument struct. `refuses` says why arguments cannot be run,
// `scratch` how many bytes run() needs, `run` does the work.
#pragma once

#include "kernels/api/cross_entropy.h"
#include "kernels/api/embedding.h"
#include "kernels/api/norm.h"
#include "kernels/api/optimizer.h"
#include "kernels/api/pointwise.h"
#include "kernels/api/random.h"
#include "kernels/api/reduce.h"
#include "kernels/api/rope.h"

namespace heddle::kernels::cpu {

// pointwise.cpp
Refusal refuses(const AxpbyArgs&);
Refusal refuses(const MultiplyArgs&);
Refusal refuses(const MapArgs&);
Refusal refuses(const MapBackwardArgs&);
Refusal refuses(const SwigluArgs&);
Refusal refuses(const SwigluBackwardArgs&);
Refusal refuses(const FillArgs&);
void run(const AxpbyArgs&, Stream);
void run(const MultiplyArgs&, Stream);
void run(const MapArgs&, Stream);
void run(const MapBackwardArgs&, Stream);
void run(const SwigluArgs&, Stream);
void run(const SwigluBackwardArgs&, Stream);
void run(const FillArgs&, Stream);

// norm.cpp
Refusal refuses(const NormForwardArgs&);
Refusal refuses(const NormBackwardArgs&);
size_t scratch(const NormBackwardArgs&);
void run(const NormForwardArgs&, Stream);
void run(const NormBackwardArgs&, Stream);

// rope.cpp
Refusal refuses(const RopeArgs&);
void run(const RopeArgs&, Stream);

// embedding.cpp
Refusal refuses(const EmbeddingForwardArgs&);
Refusal refuses(const EmbeddingBackwardArgs&);
size_t scratch(const EmbeddingBackwardArgs&);
void run(const EmbeddingForwardArgs&, Stream);
void run(const EmbeddingBackwardArgs&, Stream);

// cross_entropy.cpp
Refusal refuses(const CrossEntropyArgs&);
void run(const CrossEntropyArgs&, Stream);

// reduce.cpp
Refusal refuses(const SumArgs&);
Refusal refuses(const ColumnSumArgs&);
Refusal refuses(const SoftmaxArgs&);
Refusal refuses(const SoftmaxBackwardArgs&);
size_t scratch(const ColumnSumArgs&);
void run(const SumArgs&, Stream);
void run(const ColumnSumArgs&, Stream);
void run(const SoftmaxArgs&, Stream);
void run(const SoftmaxBackwardArgs&, Stream);

// random.cpp
Refusal refuses(const NormalArgs&);
Refusal refuses(const DropoutArgs&);
void run(const NormalArgs&, Stream);
void run(const DropoutArgs&, Stream);

// optimizer.cpp
Refusal refuses(const AdamWArgs&);
Refusal refuses(const MuonMomentumArgs&);
Refusal refuses(const MuonApplyArgs&);
Refusal refuses(const NormalizeArgs&);
Refusal refuses(const FinishNormArgs&);
Refusal refuses(const AdvanceStepArgs&);
void run(const AdamWArgs&, Stream);
void run(const MuonMomentumArgs&, Stream);
void run(const MuonApplyArgs&, Stream);
void run(const NormalizeArgs&, Stream);
void run(const FinishNormArgs&, Stream);
void run(const AdvanceStepArgs&, Stream);

// matmul.cpp and attention.cpp list their own candidates.
void register_cpu_matmul();
void register_cpu_attention();

}  // namespace heddle::kernels::cpu
