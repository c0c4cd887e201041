// Every implementation the CPU offers: one a slot of kernels/api/slots.h; matmul.cpp and attention.cpp list theirs, in the order `choose` tries them.
#include <mutex>

#include "kernels/api/slots.h"
#include "kernels/cpu/register_internal.h"

namespace heddle::kernels {

// What a family's file offers for each of its slots.
namespace cpu {
#define HEDDLE_DECLARE_CANDIDATE(Args, slot) \
  Refusal refuses(const Args&);              \
  size_t scratch(const Args&);               \
  void run(const Args&, Stream);
HEDDLE_KERNEL_SLOTS(HEDDLE_DECLARE_CANDIDATE)
#undef HEDDLE_DECLARE_CANDIDATE
}  // namespace cpu

namespace {

// A slot has one candidate here, of the family's own functions, unless its family lists several.
template <class Args>
constexpr bool kListsItsOwn =
    std::is_same_v<Args, MatmulArgs> || std::is_same_v<Args, AttentionForwardArgs> || std::is_same_v<Args, AttentionBackwardArgs>;

constexpr std::string_view name_of_candidate(std::string_view slot) {
  if (slot == "embedding_forward" || slot == "embedding_backward" || slot == "store_rows") return "rows";
  if (slot == "normal" || slot == "dropout" || slot == "sample") return "philox";
  if (slot == "swiglu_matmul") return "in_two";
  if (slot == "finish_norm" || slot == "advance_step") return "host";
  return "simd";
}

void add_all() {
  for_each_kernel([]<class Args>(Kernel<Args>& kernel) {
    if constexpr (kListsItsOwn<Args>) {
      return;
    } else if constexpr (requires(Args args) { args.scratch; }) {
      kernel.add(DeviceType::cpu, {name_of_candidate(kernel.op()), cpu::refuses, cpu::scratch, cpu::run});
    } else {
      kernel.add(DeviceType::cpu, {name_of_candidate(kernel.op()), cpu::refuses, nullptr, cpu::run});
    }
  });
  cpu::register_cpu_matmul();
  cpu::register_cpu_attention();
}

}  // namespace

void register_cpu_kernels() {
  static std::once_flag once;
  std::call_once(once, add_all);
}

}  // namespace heddle::kernels
