// The candidate `host` of simulated devices: an op that has no CUDA kernel is done by the CPU's, in the stream's order, with the CPU's bits.
#include "tests/support/host_kernels.h"
#include "core/autograd/engine.h"
#include "core/ops/ops.h"
#include "kernels/api/slots.h"
#include "tests/core/device_support.h"
#include "tests/support/gradcheck.h"

namespace heddle {
namespace {

TEST_CASE("on a simulated device every op has a kernel, and the host's is the last but for a vendor's") {
  for (const Device device : test::cuda_devices()) {
    if (!runtime(device.type).simulated()) continue;
    kernels::for_each_kernel([](auto& kernel) {
      CAPTURE(kernel.op());
      const auto& candidates = kernel.candidates(DeviceType::cuda);
      REQUIRE(!candidates.empty());
      const size_t behind = candidates.back().name == "cublaslt" ? 1 : 0;
      REQUIRE(candidates.size() > behind);
      for (size_t i = 0; i < candidates.size(); ++i) CHECK((candidates[i].name == "host") == (i + 1 + behind == candidates.size()));
    });
    CHECK(kernels::matmul.candidates(DeviceType::cuda).size() > 1);
  }
}

TEST_CASE("ops that the host does have the CPU's bits, forward and backward") {
  for (const Device device : test::cuda_devices()) {
    if (!runtime(device.type).simulated()) continue;
    const kernels::ForcedKernels forced(test::host_kernels());
    const auto gradients = [](Device on) {
      const Tensor x = Tensor::from(random_input({6, 32}, 1, 0, 1, DType::f32, false).to_vector(), {6, 32}, DType::f32, on);
      const Tensor w = Tensor::from(random_input({64, 32}, 2, 0, 1, DType::f32, false).to_vector(), {64, 32}, DType::f32, on);
      Tensor gain = Tensor::full({32}, 1.5, DType::f32, on);
      for (Tensor t : {x, w, gain}) t.set_requires_grad(true);
      const Tensor y = linear(gelu(x), w);
      backward_from(y, Tensor::full({6, 64}, 0.5, DType::f32, on));
      return std::vector<std::vector<double>>{y.to_vector(), x.grad().to_vector(), w.grad().to_vector()};
    };
    CHECK(gradients(device) == gradients(Device{}));
  }
}

TEST_CASE("a kernel may be forced on a device; the other device goes on choosing for itself") {
  for (const Device device : test::cuda_devices()) {
    if (!runtime(device.type).simulated()) continue;
    const Tensor a = Tensor::full({16, 64}, 1, DType::bf16, device), b = Tensor::full({64, 16}, 2, DType::bf16, device);
    const Tensor here = Tensor::full({16, 64}, 1, DType::bf16), there = Tensor::full({64, 16}, 2, DType::bf16);
    for (const char* name : {"host", "mma_sm80"}) {
      kernels::matmul.force(name);
      CHECK(test::value_of(matmul(a, b)) == 128);
      CHECK(test::value_of(matmul(here, there)) == 128);
      kernels::matmul.force("");
    }
  }
}

}  // namespace
}  // namespace heddle
