#include "kernels/api/rehearsal.h"

#include "kernels/api/slots.h"

namespace heddle::kernels {
namespace {

constexpr std::string_view kName = "rehearsal";
bool rehearsing = false;

template <auto* kKernel, DeviceType kDevice, class Args>
size_t scratch_of_chosen(const Args& args) {
  for (const Candidate<Args>& candidate : kKernel->candidates(kDevice)) {
    if (candidate.name == kName || (candidate.refuses && candidate.refuses(args))) continue;
    return candidate.scratch ? candidate.scratch(args) : 0;
  }
  return 0;
}

// It stays listed, so it refuses whatever comes at another time.
template <class Args>
Refusal refuses(const Args&) {
  return rehearsing ? Refusal() : refused("only counts");
}

template <auto* kKernel, DeviceType kDevice, class Args>
void list(Kernel<Args>& kernel) {
  for (const Candidate<Args>& candidate : kernel.candidates(kDevice)) {
    if (candidate.name == kName) return;
  }
  kernel.add(kDevice, {kName, refuses<Args>, scratch_of_chosen<kKernel, kDevice, Args>, [](const Args&, Stream) {}});
}

}  // namespace

RehearsedKernels::RehearsedKernels() {
  HEDDLE_CHECK(!rehearsing, "rehearsal", "one at a time");
#define HEDDLE_LIST_REHEARSAL(Args, slot)    \
  list<&slot, DeviceType::cpu, Args>(slot);  \
  list<&slot, DeviceType::cuda, Args>(slot); \
  slot.force(kName);
  HEDDLE_KERNEL_SLOTS(HEDDLE_LIST_REHEARSAL)
#undef HEDDLE_LIST_REHEARSAL
  rehearsing = true;
}

RehearsedKernels::~RehearsedKernels() {
  rehearsing = false;
  for_each_kernel([](auto& kernel) { kernel.force({}); });
}

}  // namespace heddle::kernels
