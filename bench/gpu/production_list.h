// How production_cases.cpp and its neighbours write their entries.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <type_traits>
#include <utility>

#include "bench/gpu/production.h"
#include "kernels/api/check.h"
#include "kernels/api/fault.h"
#include "kernels/api/kernel.h"

namespace heddle::bench {

// One call and what it amounts to.
template <class Args>
struct Problem {
  Args args;
  double flops = 0, bytes = 0;
  std::string torch = {};
};

inline constexpr int64_t kZeroedBytes = 64 << 10;

// What core/launch.h gives a kernel beside its arguments; what is to be looked at afterwards.
struct Equipment {
  std::span<std::byte> zeroed;
  const kernels::Fault* fault = nullptr;
  std::string faults() const;  // "" or what is wrong with them
};
template <class Args>
Equipment equip(Args& args, const kernels::Candidate<Args>& candidate, Memory& memory) {
  Equipment equipment;
  if constexpr (requires { args.scratch; }) {
    const size_t bytes = candidate.scratch ? candidate.scratch(args) : 0;
    if (bytes > 0) args.scratch = {memory.raw(bytes), bytes};
  }
  if constexpr (requires { args.zeroed; }) {
    equipment.zeroed = {memory.zeros(DType::u8, {kZeroedBytes}).data, static_cast<size_t>(kZeroedBytes)};
    args.zeroed = equipment.zeroed;
  }
  if constexpr (requires { args.fault; }) equipment.fault = args.fault = memory.put(kernels::Fault{});
  return equipment;
}
inline constexpr Stream kStream{Device{DeviceType::cuda, 0}};

// For operands that another kernel makes: what it writes is Memory::zeros.
template <class Args>
void run_now(const kernels::Kernel<Args>& kernel, Args args, Memory& memory) {
  if (memory.planned()) return;
  const kernels::Candidate<Args>& candidate = kernel.choose(DeviceType::cuda, args);
  equip(args, candidate, memory);
  memory.reset();
  candidate.run(args, kStream);
}

class Entries {
 public:
  explicit Entries(Sizes sizes) : sizes_(sizes) {}
  Sizes sizes() const { return sizes_; }
  ProductionList take() { return std::move(list_); }

  // make(memory) -> Problem<Args>. A case for every candidate that takes it.
  template <class Args, class Make>
  void add(const kernels::Kernel<Args>& kernel, const std::string& shape, const Make& make) {
    Memory plan(Memory::kPlan);
    const Problem<Args> planned = make(plan);
    bool taken = false;
    for (const kernels::Candidate<Args>& candidate : kernel.candidates(DeviceType::cuda)) {
      if (candidate.name == "host" || (candidate.refuses && candidate.refuses(planned.args))) continue;
      list_.cases.push_back({concat(kernel.op(), " ", candidate.name, " ", shape), !taken, planned.flops, planned.bytes, planned.torch,
                             [make, candidate, sizes = sizes_] { return prepared<Args>(make, candidate, sizes); }});
      taken = true;
    }
    if (!taken) list_.missing.push_back(concat(kernel.op(), " ", shape, ": ", kernel.reasons(DeviceType::cuda, planned.args)));
  }

 private:
  template <class Args, class Make>
  static Prepared prepared(const Make& make, const kernels::Candidate<Args>& candidate, Sizes sizes) {
    Prepared p;
    p.memory = std::make_unique<Memory>(Memory::kAllocate);
    Args args = make(*p.memory).args;
    p.outputs = outputs(args, *p.memory);
    const Equipment equipment = equip(args, candidate, *p.memory);
    p.after = [equipment] { return equipment.faults(); };
    p.run = [args, run = candidate.run] { run(args, kStream); };
    if constexpr (std::is_same_v<Args, kernels::MatmulArgs>) {
      if (sizes == Sizes::production) p.peer = cublaslt_matmul(args);
    }
    return p;
  }

  Sizes sizes_;
  ProductionList list_;
};

// ---- the entries, by family ----
void add_matmul(Entries&);
void add_attention(Entries&);
void add_rows(Entries&);
void add_elements(Entries&);
void add_optimizer(Entries&);

}  // namespace heddle::bench
