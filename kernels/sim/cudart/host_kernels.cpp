// The candidate `host` of simulated CUDA devices: the CPU's kernel as work of a stream, on device memory. With it a whole training step runs there,
// with real streams, events and copies, before the last kernel is written; it is no CUDA kernel and says so (RuntimeCounters, kernel_summary).
#include <memory>

#include "kernels/api/host_kernels.h"
#include "kernels/api/slots.h"
#include "kernels/sim/cudart/cudart.h"

namespace heddle::kernels {
namespace {

template <class Args>
struct Host {
  static inline const Kernel<Args>* kernel = nullptr;  // an argument type has one slot

  static Refusal refuses(const Args& args) {
    for (const Candidate<Args>& candidate : kernel->candidates(DeviceType::cpu)) {
      if (!candidate.refuses || !candidate.refuses(args)) return {};
    }
    return refusals_in_words ? Refusal(kernel->reasons(DeviceType::cpu, args)) : refused();
  }
  static size_t scratch(const Args& args) {
    const Candidate<Args>& candidate = kernel->choose(DeviceType::cpu, args);
    return candidate.scratch ? candidate.scratch(args) : 0;
  }
  static void run(const Args& args, Stream stream) {
    const auto chosen = kernel->choose(DeviceType::cpu, args).run;
    sim::launch_on_host(
        kernel->op().data(), [args, chosen] { chosen(args, Stream{}); }, stream.native);
  }
};

}  // namespace

bool only_host_kernels() {
  return sim::runtime_options().host_kernels == sim::HostKernels::only;
}

void register_host_kernels() {
  if (sim::runtime_options().host_kernels == sim::HostKernels::never) return;
  register_cpu_kernels();
  for_each_kernel([]<class Args>(Kernel<Args>& kernel) {
    Host<Args>::kernel = &kernel;
    kernel.add(DeviceType::cuda, {"host", Host<Args>::refuses, Host<Args>::scratch, Host<Args>::run});
  });
}

}  // namespace heddle::kernels
