// The slots themselves: one definition each, empty until register_cpu_kernels() or register_cuda_kernels() fills them.
#include <algorithm>

#include "kernels/api/forced_kernels.h"
#include "kernels/api/slots.h"

namespace heddle::kernels {

#define HEDDLE_DEFINE_SLOT(Args, slot) constinit Kernel<Args> slot{#slot};
HEDDLE_KERNEL_SLOTS(HEDDLE_DEFINE_SLOT)
#undef HEDDLE_DEFINE_SLOT

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
