// The slots themselves: one definition each, empty until register_cpu_kernels() or register_cuda_kernels() fills them.
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

namespace heddle::kernels {

constinit Kernel<MatmulArgs> matmul{"matmul"};
constinit Kernel<AttentionForwardArgs> attention_forward{"attention_forward"};
constinit Kernel<AttentionBackwardArgs> attention_backward{"attention_backward"};
constinit Kernel<NormForwardArgs> norm_forward{"norm_forward"};
constinit Kernel<NormBackwardArgs> norm_backward{"norm_backward"};
constinit Kernel<AxpbyArgs> axpby{"axpby"};
constinit Kernel<MultiplyArgs> multiply{"multiply"};
constinit Kernel<MapArgs> map{"map"};
constinit Kernel<MapBackwardArgs> map_backward{"map_backward"};
constinit Kernel<SwigluArgs> swiglu{"swiglu"};
constinit Kernel<SwigluBackwardArgs> swiglu_backward{"swiglu_backward"};
constinit Kernel<FillArgs> fill{"fill"};
constinit Kernel<RopeArgs> rope{"rope"};
constinit Kernel<EmbeddingForwardArgs> embedding_forward{"embedding_forward"};
constinit Kernel<EmbeddingBackwardArgs> embedding_backward{"embedding_backward"};
constinit Kernel<CrossEntropyArgs> cross_entropy{"cross_entropy"};
constinit Kernel<SumArgs> sum{"sum"};
constinit Kernel<ColumnSumArgs> column_sum{"column_sum"};
constinit Kernel<SoftmaxArgs> softmax{"softmax"};
constinit Kernel<SoftmaxBackwardArgs> softmax_backward{"softmax_backward"};
constinit Kernel<NormalArgs> normal{"normal"};
constinit Kernel<DropoutArgs> dropout{"dropout"};
constinit Kernel<AdamWArgs> adamw{"adamw"};
constinit Kernel<MuonMomentumArgs> muon_momentum{"muon_momentum"};
constinit Kernel<NormalizeArgs> normalize{"normalize"};
constinit Kernel<MuonApplyArgs> muon_apply{"muon_apply"};
constinit Kernel<FinishNormArgs> finish_norm{"finish_norm"};
constinit Kernel<AdvanceStepArgs> advance_step{"advance_step"};

}  // namespace heddle::kernels
