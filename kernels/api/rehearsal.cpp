#include "kernels/api/rehearsal.h"

#include "kernels/api/slots.h"

namespace heddle::kernels {
namespace {

constexpr std::string_view kName = "rehearsal";
bool rehearsing = false;
std::function<void(const RehearsedKernels::Call&)> listener;

template <auto* kKernel, DeviceType kDevice, class Args>
const Candidate<Args>* chosen(const Args& args) {
  return kKernel->first_but(kName, kDevice, args);
}

template <auto* kKernel, DeviceType kDevice, class Args>
size_t scratch_of_chosen(const Args& args) {
  const Candidate<Args>* const candidate = chosen<kKernel, kDevice, Args>(args);
  return candidate && candidate->scratch ? candidate->scratch(args) : 0;
}

template <auto* kKernel, DeviceType kDevice, class Args>
void tell(const Args& args, Stream) {
  if (!listener) return;
  const Candidate<Args>* const candidate = chosen<kKernel, kDevice, Args>(args);
  listener({kKernel->op(), candidate ? candidate->name : "", shape_of_call(args), cost_of(args), &args});
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
  kernel.add(kDevice, {kName, refuses<Args>, scratch_of_chosen<kKernel, kDevice, Args>, tell<kKernel, kDevice, Args>});
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
  listener = {};
  for_each_kernel([](auto& kernel) { kernel.force({}); });
}

void RehearsedKernels::listen(std::function<void(const Call&)> heard) {
  listener = std::move(heard);
}

}  // namespace heddle::kernels
