// Kernel<Args>: one operation, a short ordered list of implementations per device type.
//
// Lists are filled by explicit calls (register_cpu_kernels(), register_cuda_kernels()), never by static initialisers. `choose` takes the
// candidate forced by name, else the preferred one, else the first that does not refuse; when all refuse, one error says who refused and why.
#pragma once

#include <array>
#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "kernels/api/check.h"
#include "kernels/api/types.h"

namespace heddle::kernels {

// Why a candidate cannot run these arguments; nullopt: it can.
using Refusal = std::optional<std::string>;

// A refusal of these parts, Views as their shapes, joined to text only where somebody will read it: a launch passes over candidates that refuse, and
// builds no strings.
inline thread_local constinit bool refusals_in_words = false;
template <class... Parts>
Refusal refused(const Parts&... parts) {
  [[maybe_unused]] const auto printed = []<class Part>(const Part& part) -> decltype(auto) {
    if constexpr (std::is_same_v<Part, View>) {
      return shape_text(part);
    } else {
      return (part);
    }
  };
  return Refusal(refusals_in_words ? concat("", printed(parts)...) : std::string());
}

// The CUDA device that this thread launches on, for candidates that ask what it is: whoever calls cudaSetDevice says so here.
inline thread_local constinit int cuda_device_of_thread = 0;

template <class Args>
struct Candidate {
  std::string_view name;                     // "onednn", "sm80"
  Refusal (*refuses)(const Args&);           // by refused(...), always alike unless a library fails; nullptr: takes everything
  size_t (*scratch)(const Args&) = nullptr;  // bytes of args.scratch that run() needs; nullptr: none
  void (*run)(const Args&, Stream) = nullptr;
};

template <class Args>
class Kernel {
 public:
  constexpr explicit Kernel(std::string_view op) : op_(op) {}

  std::string_view op() const { return op_; }
  void add(DeviceType device, Candidate<Args> candidate) { list(device).push_back(candidate); }
  const std::vector<Candidate<Args>>& candidates(DeviceType device) const { return lists_[static_cast<size_t>(device)]; }

  // Makes `choose` take the candidate of this name only, on the devices that have one; an empty name ends it. For benches, tests and ForcedKernels.
  void force(std::string_view name) {
    for (size_t device = 0; device < lists_.size(); ++device) forced_[device] = name_in(lists_[device], name);
  }

  // Makes `choose` ask the candidate of this name before all others, where none is forced; an empty name ends it.
  void prefer(std::string_view name) {
    for (size_t device = 0; device < lists_.size(); ++device) preferred_[device] = name_in(lists_[device], name);
  }
  std::string_view preferred(DeviceType device) const { return preferred_[static_cast<size_t>(device)]; }

  const Candidate<Args>& choose(DeviceType device, const Args& args) const {
    const std::string_view forced = forced_[static_cast<size_t>(device)];
    if (forced.empty()) {
      if (const Candidate<Args>* const first = first_but({}, device, args)) return *first;
    } else {
      for (const Candidate<Args>& candidate : candidates(device)) {
        if (candidate.name == forced && takes(candidate, args)) return candidate;
      }
    }
    fail(op_, concat("no kernel on ", device == DeviceType::cpu ? "cpu" : "cuda", " takes these arguments; ", reasons(device, args)));
  }

  // The first candidate that takes these arguments, the preferred one before all others, but none of the name `but`; nullptr: all refuse.
  const Candidate<Args>* first_but(std::string_view but, DeviceType device, const Args& args) const {
    const std::string_view preferred = preferred_[static_cast<size_t>(device)];
    for (const bool before : {true, false}) {
      if (before && preferred.empty()) continue;
      for (const Candidate<Args>& candidate : candidates(device)) {
        if ((candidate.name == preferred) == before && candidate.name != but && takes(candidate, args)) return &candidate;
      }
    }
    return nullptr;
  }

  // "tiles: head size 512 is above 256; ...": what each candidate of the device has against these arguments.
  std::string reasons(DeviceType device, const Args& args) const {
    std::string why;
    refusals_in_words = true;
    for (const Candidate<Args>& candidate : candidates(device)) {
      const Refusal refusal = candidate.refuses ? candidate.refuses(args) : Refusal{};
      if (refusal) why += concat(why.empty() ? "" : "; ", candidate.name, ": ", *refusal);
    }
    refusals_in_words = false;
    return why.empty() ? "none is registered" : why;
  }

 private:
  static bool takes(const Candidate<Args>& candidate, const Args& args) { return !candidate.refuses || !candidate.refuses(args); }
  // A candidate's own name, which outlives the caller's; empty: there is none of that name.
  static std::string_view name_in(const std::vector<Candidate<Args>>& list, std::string_view name) {
    for (const Candidate<Args>& candidate : list) {
      if (candidate.name == name) return candidate.name;
    }
    return {};
  }
  std::vector<Candidate<Args>>& list(DeviceType device) { return lists_[static_cast<size_t>(device)]; }

  std::string_view op_;
  std::array<std::string_view, 2> forced_{}, preferred_{};
  std::array<std::vector<Candidate<Args>>, 2> lists_{};
};

// Fills every Kernel slot of the CPU. Idempotent.
void register_cpu_kernels();
// Fills the CUDA lists with what kernels/cuda has, the newest architecture first, and on a simulated device with `host` behind it. Idempotent; called
// by the device's runtime (core/device_cuda.cpp).
void register_cuda_kernels();
// Behind all of them, and taken only where it is asked for: other people's libraries (kernels/vendor). Idempotent; called there, too.
void register_vendor_kernels();
// Simulated CUDA devices only: every slot has the candidate `host`, the CPU's kernel as work of the stream, behind heddle's own.
void register_host_kernels();

// "rope, adamw": the ops whose list on this device begins with a candidate of that name. Empty: none.
std::string ops_led_by(DeviceType, std::string_view candidate);

// "matmul=eigen", as --kernel takes it: forces that candidate (ForcedKernels: for a while). Error(usage) lists the ops, or the op's candidates.
void force_kernel(std::string_view choice);

}  // namespace heddle::kernels
