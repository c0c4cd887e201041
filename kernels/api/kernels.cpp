// The slots themselves: one definition each, empty until register_cpu_kernels() or register_cuda_kernels() fills them.
#include <algorithm>

#include "kernels/api/forced_kernels.h"
#include "kernels/api/slots.h"

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

std::string ops_led_by(DeviceType device, std::string_view candidate) {
  std::string ops;
  for_each_kernel([&](const auto& kernel) {
    const auto& list = kernel.candidates(device);
    if (!list.empty() && list[0].name == candidate) ops += concat(ops.empty() ? "" : ", ", kernel.op());
  });
  return ops;
}

void force_kernel(std::string_view choice) {
  const size_t equals = choice.find('=');
  const std::string_view op = choice.substr(0, equals);
  const std::string_view name = equals == std::string_view::npos ? std::string_view() : choice.substr(equals + 1);
  std::string ops;
  bool done = false;
  for_each_kernel([&](auto& kernel) {
    ops += concat(ops.empty() ? "" : ", ", kernel.op());
    if (kernel.op() != op) return;
    std::string names;
    for (const DeviceType device : {DeviceType::cpu, DeviceType::cuda}) {
      for (const auto& candidate : kernel.candidates(device)) {
        names += concat(names.empty() ? "" : ", ", candidate.name);
        if (candidate.name != name) continue;
        kernel.force(candidate.name);  // lives as long as the kernel, which the caller's text may not
        done = true;
      }
    }
    if (!done) fail("kernel", concat("--kernel ", choice, ": ", op, " has the candidates ", names), ExitCode::usage);
  });
  if (!done) fail("kernel", concat("--kernel ", choice, ": the ops are ", ops), ExitCode::usage);
}

ForcedKernels::ForcedKernels(std::span<const std::string> choices) : ForcedKernels() {  // delegated: from here on a throw runs the destructor
  for (const std::string& choice : choices) {
    force_kernel(choice);
    ops_.push_back(choice.substr(0, choice.find('=')));
  }
}

ForcedKernels::~ForcedKernels() {
  for_each_kernel([&](auto& kernel) {
    if (std::find(ops_.begin(), ops_.end(), kernel.op()) != ops_.end()) kernel.force({});
  });
}

}  // namespace heddle::kernels
