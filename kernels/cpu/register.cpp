// Every implementation the CPU offers, in the order `choose` tries them. matmul.cpp and attention.cpp list theirs.
#include <mutex>

#include "kernels/cpu/register_internal.h"

namespace heddle::kernels {
namespace {

void add_all() {
  constexpr DeviceType device = DeviceType::cpu;
  // name, refuses, scratch, run
  axpby.add(device, {"simd", cpu::refuses, nullptr, cpu::run});
  multiply.add(device, {"simd", cpu::refuses, nullptr, cpu::run});
  map.add(device, {"simd", cpu::refuses, nullptr, cpu::run});
  map_backward.add(device, {"simd", cpu::refuses, nullptr, cpu::run});
  swiglu.add(device, {"simd", cpu::refuses, nullptr, cpu::run});
  swiglu_backward.add(device, {"simd", cpu::refuses, nullptr, cpu::run});
  fill.add(device, {"simd", cpu::refuses, nullptr, cpu::run});
  norm_forward.add(device, {"simd", cpu::refuses, nullptr, cpu::run});
  norm_backward.add(device, {"simd", cpu::refuses, cpu::scratch, cpu::run});
  rope.add(device, {"simd", cpu::refuses, nullptr, cpu::run});
  embedding_forward.add(device, {"rows", cpu::refuses, nullptr, cpu::run});
  embedding_backward.add(device, {"rows", cpu::refuses, cpu::scratch, cpu::run});
  cross_entropy.add(device, {"simd", cpu::refuses, nullptr, cpu::run});
  sum.add(device, {"simd", cpu::refuses, nullptr, cpu::run});
  column_sum.add(device, {"simd", cpu::refuses, cpu::scratch, cpu::run});
  softmax.add(device, {"simd", cpu::refuses, nullptr, cpu::run});
  softmax_backward.add(device, {"simd", cpu::refuses, nullptr, cpu::run});
  normal.add(device, {"philox", cpu::refuses, nullptr, cpu::run});
  dropout.add(device, {"philox", cpu::refuses, nullptr, cpu::run});
  adamw.add(device, {"simd", cpu::refuses, nullptr, cpu::run});
  muon_momentum.add(device, {"simd", cpu::refuses, nullptr, cpu::run});
  normalize.add(device, {"simd", cpu::refuses, nullptr, cpu::run});
  muon_apply.add(device, {"simd", cpu::refuses, nullptr, cpu::run});
  finish_norm.add(device, {"host", cpu::refuses, nullptr, cpu::run});
  advance_step.add(device, {"host", cpu::refuses, nullptr, cpu::run});
  cpu::register_cpu_matmul();
  cpu::register_cpu_attention();
}

}  // namespace

void register_cpu_kernels() {
  static std::once_flag once;
  std::call_once(once, add_all);
}

}  // namespace heddle::kernels
