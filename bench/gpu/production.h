// Production cases: the candidates of kernels/cuda at the sizes of training, each against the reference, the same bits on every repeat, timed.
//
// The list is production_cases.cpp, one entry a kernel: arguments in device memory and what the work amounts to. Every candidate of the registry that
// takes the arguments is a case of its own, so a new one needs no line here.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "bench/gpu/device.h"
#include "bench/gpu/reference.h"

namespace heddle::bench {

// One candidate on one problem, in device memory.
struct Prepared {
  std::unique_ptr<Memory> memory;
  std::vector<Output> outputs;
  std::function<void()> run;           // queues the kernel on the default stream
  std::function<std::string()> after;  // "" or what is wrong with the workspace or the fault word
  std::function<void()> peer;          // the same by cuBLASLt, into the same memory; may be empty
};

struct ProductionCase {
  std::string name;             // "matmul wgmma_sm90 forward 4096 x 4096 x 4096"
  bool chosen = true;           // the registry takes this candidate for these arguments; others stand behind it
  double flops = 0, bytes = 0;  // of the definition: every operand read once, every result written once
  std::string torch;            // what production_torch.py times beside it: "linear 4096 4096 4096"; empty: nothing
  std::function<Prepared()> prepare;
};

enum class Sizes {
  production,  // several thousand rows
  small,       // for the simulated machine, with two multiprocessors
};
struct ProductionList {
  std::vector<ProductionCase> cases;
  std::vector<std::string> missing;  // "norm_backward layer 8192 x 768: none is registered": no candidate takes these arguments
};
ProductionList production_list(Sizes sizes);
// "" or which tile of a built list no shape above 1024 makes the kernels choose on this device.
std::string tiles_not_met(Sizes sizes);

enum class Planted { nothing, wrong_tile, unsteady, slow };

struct ProductionOptions {
  Sizes sizes = Sizes::production;
  int repeats = 5;
  bool timed = true;
  Planted planted = Planted::nothing;
  std::string record;  // a file that gets a line of numbers per case; empty: none
};
inline constexpr char kRecordHeader[] = "case\tus\tus_fastest\tTFLOP/s\tTB/s\tcublaslt_us\tcopy_us\treference_us";

// Checks, repeats, times: "" or everything that is wrong.
std::string run_production(const ProductionCase& c, const ProductionOptions& options);

// For the programs that look at one case: its median in microseconds; runs it once for a profiler.
double time_production(const ProductionCase& c, const ProductionOptions& options);
void profile_production(const ProductionCase& c);

// The product by cuBLASLt, if the library can be loaded and has it; else empty. The first call loads it. (peer_cuda.cpp)
std::function<void()> cublaslt_matmul(const kernels::MatmulArgs& args);
// "cuBLASLt 13.1 from PATH", or why there is none.
std::string cublaslt_state();

}  // namespace heddle::bench
