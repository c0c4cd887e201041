// What the tests of devices share: a device array of floats that kernels work on, and which order a simulated device runs its streams in.
#pragma once

#include <cmath>
#include <cstdlib>
#include <string>
#include <vector>

#include "core/launch.h"
#include "core/tensor.h"
#include "kernels/api/pointwise.h"
#include "tests/support/catch.h"
#include "tests/support/devices.h"

namespace heddle::test {

// The order is random, so that what streams and events do not promise goes wrong: only then a planted fault must show.
inline bool random_order() {
  const char* order = std::getenv("HEDDLE_SIM_STREAMS");
  return runtime(DeviceType::cuda).simulated() && (!order || std::string(order).rfind("random", 0) == 0);
}

inline std::vector<Device> cuda_devices() {
  std::vector<Device> all = devices();
  std::erase(all, Device{});
  return all;
}

inline void fill(const Tensor& x, double value, Stream stream) {
  const StreamGuard guard(stream);
  launch(kernels::fill, {x.view(), value}, x.device());
}
// to = by * from
inline void scale(const Tensor& to, const Tensor& from, double by, Stream stream) {
  const StreamGuard guard(stream);
  launch(kernels::axpby, {.a = from.view(), .out = {to.view(), false}, .alpha = by}, to.device());
}
inline Tensor filled(double value, Device device, int64_t n = 1000) {
  return Tensor::full({n}, value, DType::f32, device);
}
// Every element, which must all be alike.
inline double value_of(const Tensor& x) {
  const std::vector<double> values = x.to_vector();
  for (double v : values) {
    if (v != values[0]) return std::nan("");
  }
  return values[0];
}

}  // namespace heddle::test
