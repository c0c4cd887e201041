// The devices a test runs on: cpu always, cuda:0 where the build and the machine have one (simulated or real; a test program that CMake is told to be
// SIMULATED_GPU has a simulated one in every build with kernels/sim).
//
//   DEVICE_TEST_CASE("norms ...") {                  // a TEST_CASE that runs on each device, in a section of the device's name
//     const Tensor x = test::random({3, 4}, 1);      // tests/support/tensors.h: made on the device of the section, test::device()
//     CHECK(gelu(x).to_vector() == ...);             // and read through copies
//   }
//   for (Device device : test::devices()) { ... }    // where a test compares devices with each other
#pragma once

#include <string>
#include <vector>

#include "core/device.h"
#include "kernels/api/kernel.h"
#include "tests/support/catch.h"

namespace heddle::test {

inline std::vector<Device> devices() {
  std::vector<Device> all{Device{}};
  constexpr Device cuda{DeviceType::cuda, 0};
  if (has_device(cuda)) all.push_back(cuda);
  return all;
}

// f64 is for the CPU's kernels, which a simulated device has as candidates.
inline bool has_f64(Device device) {
  return device.type == DeviceType::cpu || runtime(device.type).simulated();
}

namespace detail {
inline Device& device_of_section() {
  static Device current;
  return current;
}
}  // namespace detail

// Where the running section of a DEVICE_TEST_CASE makes its tensors; elsewhere the CPU. Its kernels are there.
inline Device device() {
  kernels::register_cpu_kernels();
  return detail::device_of_section();
}

class OnDevice {
 public:
  explicit OnDevice(Device now) : before_(device()) { detail::device_of_section() = now; }
  ~OnDevice() { detail::device_of_section() = before_; }
  OnDevice(const OnDevice&) = delete;
  OnDevice& operator=(const OnDevice&) = delete;

 private:
  Device before_;
};

}  // namespace heddle::test

#define HEDDLE_DEVICE_TEST_CASE(body, ...)                             \
  static void body();                                                  \
  TEST_CASE(__VA_ARGS__) {                                             \
    for (const ::heddle::Device on_this : ::heddle::test::devices()) { \
      DYNAMIC_SECTION(::heddle::name_of(on_this)) {                    \
        const ::heddle::test::OnDevice guard(on_this);                 \
        body();                                                        \
      }                                                                \
    }                                                                  \
  }                                                                    \
  static void body()
#define HEDDLE_DEVICE_TEST_BODY_AT(line) device_test_body_##line
#define HEDDLE_DEVICE_TEST_BODY(line) HEDDLE_DEVICE_TEST_BODY_AT(line)
#define DEVICE_TEST_CASE(...) HEDDLE_DEVICE_TEST_CASE(HEDDLE_DEVICE_TEST_BODY(__LINE__), __VA_ARGS__)
