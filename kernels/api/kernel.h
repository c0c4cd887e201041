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
#include <vector>

#include "kernels/api/check.h"
#include "kernels/api/types.h"

namespace heddle::kernels {

// Why a candidate cannot run these arguments; nullopt: it can.
using Refusal = std::optional<std::string>;

template <class Args>
struct Candidate {
  std::string_view name;                     // "onednn", "sm80"
  Refusal (*refuses)(const Args&);           // pure; nullptr: takes everything
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

  // Makes `choose` take the candidate of this name only; an empty name ends it. For benches, tests and ForcedKernels.
  void force(std::string_view name) { forced_ = name; }

  const Candidate<Args>& choose(DeviceType device, const Args& args) const {
    std::string why;
    for (const Candidate<Args>& candidate : candidates(device)) {
      if (!forced_.empty() && candidate.name != forced_) continue;
      Refusal refusal = candidate.refuses ? candidate.refuses(args) : Refusal{};
      if (!refusal) return candidate;
      why += concat("; ", candidate.name, ": ", *refusal);
    }
    fail(op_, concat("no kernel on ", device == DeviceType::cpu ? "cpu" : "cuda", " takes these arguments",
                     why.empty() ? std::string("; none is registered") : why));
  }

 private:
  std::vector<Candidate<Args>>& list(DeviceType device) { return lists_[static_cast<size_t>(device)]; }

  std::string_view op_;
  std::string_view forced_;  // must outlive its use: a literal, or a candidate's own name
  std::array<std::vector<Candidate<Args>>, 2> lists_{};
};

// Fills every Kernel slot of the CPU. Idempotent.
void register_cpu_kernels();

// "matmul=eigen", as --kernel takes it: forces that candidate (ForcedKernels: for a while). Error(usage) lists the ops, or the op's candidates.
void force_kernel(std::string_view choice);

}  // namespace heddle::kernels
