// Kernel<Args>: one operation, a short ordered list of implementations per device type.
//
// Lists are filled by explicit calls (register_cpu_kernels(), register_cuda_kernels()), never by static initialisers. `choose` takes the
// candidate forced by name, else the first that does not refuse; when all refuse, one error says who refused and why.
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
  Refusal (*refuses)(const Args&);           // pure, by refused(...); nullptr: takes everything
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
    for (size_t device = 0; device < lists_.size(); ++device) {
      forced_[device] = {};
      for (const Candidate<Args>& candidate : lists_[device]) {
        if (candidate.name == name) forced_[device] = name;
      }
    }
  }

  const Candidate<Args>& choose(DeviceType device, const Args& args) const {
    const std::string_view forced = forced_[static_cast<size_t>(device)];
    for (const Candidate<Args>& candidate : candidates(device)) {
      if (!forced.empty() && candidate.name != forced) continue;
      if (!candidate.refuses || !candidate.refuses(args)) return candidate;
    }
    fail(op_, concat("no kernel on ", device == DeviceType::cpu ? "cpu" : "cuda", " takes these arguments; ", reasons(device, args)));
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
  std::vector<Candidate<Args>>& list(DeviceType device) { return lists_[static_cast<size_t>(device)]; }

  std::string_view op_;
  std::array<std::string_view, 2> forced_{};  // must outlive its use: a literal, or a candidate's own name
  std::array<std::vector<Candidate<Args>>, 2> lists_{};
};

// Fills every Kernel slot of the CPU. Idempotent.
void register_cpu_kernels();
// Fills the CUDA lists with what kernels/cuda has, the newest architecture first, and on a simulated device with `host` behind it. Idempotent; called
// by the device's runtime (core/device_cuda.cpp).
void register_cuda_kernels();
// Simulated CUDA devices only: every slot ends with the candidate `host`, the CPU's kernel as work of the stream.
void register_host_kernels();

// "rope, adamw": the ops whose list on this device begins with a candidate of that name. Empty: none.
std::string ops_led_by(DeviceType, std::string_view candidate);

// "matmul=eigen", as --kernel takes it: forces that candidate (ForcedKernels: for a while). Error(usage) lists the ops, or the op's candidates.
void force_kernel(std::string_view choice);

}  // namespace heddle::kernels
