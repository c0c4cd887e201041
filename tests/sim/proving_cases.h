// Whole kernels of kernels/cuda against float64: the cases, as plain data and functions. tests/sim runs them on the simulated machine in every mode.
#pragma once

#include <functional>
#include <string>
#include <vector>

namespace heddle::test {

struct ProvingCase {
  std::string name;                  // "gemm_sm80 small forward 130 x 72 x 333"
  int capability = 80;               // of the GPU it needs
  std::function<std::string()> run;  // "" or what is wrong
};

// Every kernel in every layout: lengths that are whole tiles, ragged and shorter than a tile; at least three times round each ring of stages.
std::vector<ProvingCase> proving_cases();
// One small case per kernel, for many seeds.
std::vector<ProvingCase> short_proving_cases();
// These, and one whole small case for each other way in which a kernel lays out shared memory.
std::vector<ProvingCase> layout_proving_cases();

}  // namespace heddle::test
