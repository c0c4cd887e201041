// A kernel's configuration as a type.
#pragma once

namespace heddle::kernels::cuda {

// kernel<Configured<GemmSm80Config{128, 256}>>. The value itself would do as the template argument, but the host code that nvcc 12 and 13 generate
// for a launch cannot spell a class-type argument whose class lives in a namespace; inside a type it can.
template <auto kValue>
struct Configured {
  static constexpr auto value = kValue;
};

}  // namespace heddle::kernels::cuda
