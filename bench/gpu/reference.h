// What a kernel must give, by the plainest kernel that can be written: one thread an element, every element from the definition, in float64. One
// overload of outputs() per contract of kernels/api.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "bench/gpu/device.h"
#include "kernels/api/slots.h"

namespace heddle::bench {

// The elements looked at: every step-th of an output, in row-major order. `got` is what the kernel under test wrote there.
struct Sample {
  int64_t step = 1, count = 0;
  double *want = nullptr, *magnitude = nullptr, *got = nullptr;  // device memory
};

struct Output {
  std::string name;
  View view;
  bool added = false;  // to Memory::kStart
  double terms = 1;    // roundings on the way: test::Bound{view.dtype, terms}(want, magnitude) is allowed
  double cost = 1;     // loads behind one element of the reference
  std::function<void(const Sample&)> reference;
};

// The arguments are those of the call; what is changed in place is read from memory.before().
std::vector<Output> outputs(const kernels::MatmulArgs&, const Memory&);
std::vector<Output> outputs(const kernels::AttentionForwardArgs&, const Memory&);
std::vector<Output> outputs(const kernels::AttentionBackwardArgs&, const Memory&);
std::vector<Output> outputs(const kernels::NormForwardArgs&, const Memory&);
std::vector<Output> outputs(const kernels::NormBackwardArgs&, const Memory&);
std::vector<Output> outputs(const kernels::AxpbyArgs&, const Memory&);
std::vector<Output> outputs(const kernels::MultiplyArgs&, const Memory&);
std::vector<Output> outputs(const kernels::MapArgs&, const Memory&);
std::vector<Output> outputs(const kernels::MapBackwardArgs&, const Memory&);
std::vector<Output> outputs(const kernels::SwigluArgs&, const Memory&);
std::vector<Output> outputs(const kernels::SwigluBackwardArgs&, const Memory&);
std::vector<Output> outputs(const kernels::FillArgs&, const Memory&);
std::vector<Output> outputs(const kernels::RopeArgs&, const Memory&);
std::vector<Output> outputs(const kernels::EmbeddingForwardArgs&, const Memory&);
std::vector<Output> outputs(const kernels::EmbeddingBackwardArgs&, const Memory&);
std::vector<Output> outputs(const kernels::CrossEntropyStatsArgs&, const Memory&);
std::vector<Output> outputs(const kernels::CrossEntropyArgs&, const Memory&);
std::vector<Output> outputs(const kernels::SumArgs&, const Memory&);
std::vector<Output> outputs(const kernels::ColumnSumArgs&, const Memory&);
std::vector<Output> outputs(const kernels::SoftmaxArgs&, const Memory&);
std::vector<Output> outputs(const kernels::SoftmaxBackwardArgs&, const Memory&);
std::vector<Output> outputs(const kernels::NormalArgs&, const Memory&);
std::vector<Output> outputs(const kernels::DropoutArgs&, const Memory&);
std::vector<Output> outputs(const kernels::AdamWArgs&, const Memory&);
std::vector<Output> outputs(const kernels::MuonMomentumArgs&, const Memory&);
std::vector<Output> outputs(const kernels::NormalizeArgs&, const Memory&);
std::vector<Output> outputs(const kernels::MuonApplyArgs&, const Memory&);

}  // namespace heddle::bench
