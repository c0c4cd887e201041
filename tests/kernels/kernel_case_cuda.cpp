#include <cuda_runtime.h>

#include "kernels/arch/platform.h"
#include "kernels/cuda/device.cuh"
#include "kernels/sim/core/machine.h"
#include "kernels/sim/cudart/cudart.h"
#include "tests/kernels/kernel_case.h"

namespace heddle::test {
namespace {

// Before the first Buffer is made.
const bool kWatching = [] {
  buffer_watch.made = [](const std::byte* block, size_t bytes) {
    static_assert(WatchedMemory<std::byte>::kSpace == sim::kGuardBytes);
    sim::register_global(block, bytes, sim::kGuardBytes);
    sim::note_host_write(block, bytes);
  };
  buffer_watch.every_access = sim::checking;
  buffer_watch.gone = [](const std::byte* block) { sim::unregister_global(block); };
  return true;
}();

}  // namespace

void register_kernels() {
  kernels::register_cuda_kernels();
  kernels::register_vendor_kernels();
}

void finish_kernels() {
  check_cuda(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
}

void in_another_order(int n, const std::function<void()>& f) {
  const sim::Options before = sim::options();
  sim::Options options = before;
  options.mode = n == 0 ? sim::AsyncMode::eager : n == 1 ? sim::AsyncMode::lazy : sim::AsyncMode::random;
  options.seed = static_cast<uint64_t>(5 + n);
  sim::set_options(options);
  f();
  sim::set_options(before);
}

void on_few_multiprocessors(const std::function<void()>& f) {
  const sim::RuntimeOptions before = sim::runtime_options();
  const auto become = [](const sim::RuntimeOptions& options) {
    sim::reset_runtime(options);
    kernels::cuda::known_device_facts = nullptr;
  };
  sim::RuntimeOptions few = before;
  few.multiprocessors = 2;
  become(few);
  f();
  become(before);
}

}  // namespace heddle::test
