// The loops that a kernel spends its time in, found in its machine code, for resource_gate.cpp.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "kernels/cuda/resource_gate_sass.h"

namespace heddle::kernels::cuda {

// What one warp does in one iteration that multiplies all it can, on the way round with the most instructions: with masks and with the fetch of a
// later step, each wait once. A wgmma is a quarter of its warpgroup's.
enum LoopFigure {
  kLeanest,  // instructions on the way round with the fewest: no mask, nothing to fetch
  kIssued,   // the sum of the next seven, in the order of Pipe
  kTensor,
  kFma,
  kAlu,
  kMufu,
  kLsu,
  kUniform,
  kOther,
  kProducts,  // multiplications by the tensor cores
  kSharedRead,
  kSharedWritten,  // bytes
  kGlobalRead,     // by the kernel's own loads, cp.async and TMA: of the L2 cache at most
  kGlobalWritten,
  kLoopFiguresSize
};
constexpr std::array<const char*, kLoopFiguresSize> kLoopFigureNames = {
    "leanest",  "issued",      "tensor",         "fma",         "alu",           "mufu", "lsu", "uniform", "other",
    "products", "shared_read", "shared_written", "global_read", "global_written"};
using LoopFigures = std::array<int64_t, kLoopFiguresSize>;

// What TMA brings for one stage of a ring: a box is one instruction.
struct TmaStage {
  int boxes = 0;
  int bytes = 0;           // by this block's boxes
  int bytes_received = 0;  // with those that a peer multicasts
};

struct MainLoops {
  std::vector<LoopFigures> figures;  // by address
  std::vector<std::string> faults;   // "MEMBAR.ALL.GPU at 0x1230 in the main loop 0x1000 to 0x1800"
};

// Innermost loops that feed the tensor cores or TMA; in a kernel with neither, those that multiply from shared memory. (Waits for a barrier are loops
// of their own, of three instructions.)
MainLoops main_loops(const std::vector<Instruction>& code, const TmaStage& stage);

}  // namespace heddle::kernels::cuda
