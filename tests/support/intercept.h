// A kernel that acts like the CPU's and then, or before, does something to the run: how a test reaches into the middle of a step. It takes what the
// CPU's own list takes, by the candidate that the list would choose: which candidates there are, and in which order, differs from CPU to CPU.
#pragma once

#include "kernels/api/kernel.h"

namespace heddle::test {

template <class Args>
class Intercept {
 public:
  using Act = void (*)(const Args&);
  Intercept(kernels::Kernel<Args>& kernel, Act before, Act after) : kernel_(kernel) {
    kernels::register_cpu_kernels();
    before_ = before, after_ = after;
    constexpr std::string_view kName = "intercepted by a test";
    if (own(kernel).candidates(DeviceType::cpu).size() == kernel.candidates(DeviceType::cpu).size()) {
      kernel.add(DeviceType::cpu, {kName, nullptr,
                                   [](const Args& args) {
                                     const auto scratch = chosen(args).scratch;
                                     return scratch ? scratch(args) : size_t{0};
                                   },
                                   [](const Args& args, Stream stream) {
                                     if (before_) before_(args);
                                     chosen(args).run(args, stream);
                                     if (after_) after_(args);
                                   }});
      // A device whose host does the op comes by here as well.
      for (const auto& candidate : std::vector(kernel.candidates(DeviceType::cuda))) {
        if (candidate.name == "host") kernel.add(DeviceType::cuda, {kName, candidate.refuses, candidate.scratch, candidate.run});
      }
    }
    kernel.force(kName);
  }
  ~Intercept() { kernel_.force(""); }
  Intercept(const Intercept&) = delete;
  Intercept& operator=(const Intercept&) = delete;

 private:
  // The lists as they were before any test.
  static const kernels::Kernel<Args>& own(const kernels::Kernel<Args>& kernel) {
    static const kernels::Kernel<Args> before = [&] {
      kernels::Kernel<Args> copy = kernel;
      copy.force("");
      return copy;
    }();
    return before;
  }
  static const kernels::Candidate<Args>& chosen(const Args& args) { return own(kernels::Kernel<Args>("")).choose(DeviceType::cpu, args); }
  static inline Act before_ = nullptr, after_ = nullptr;
  kernels::Kernel<Args>& kernel_;
};

}  // namespace heddle::test
