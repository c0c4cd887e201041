// The tables in golden/ and what may not differ from them, for resource_gate.cpp.
//
//   nvcc-VERSION.txt   one line a kernel: launch, registers, blocks and warps on a multiprocessor of sm_80 and of sm_90, instructions counted
//   loops-VERSION.txt  one line a main loop: its figures (resource_gate_loops.h), the loops of a kernel by address
#pragma once

#include <array>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "kernels/cuda/resource_gate_kernel.h"

namespace heddle::kernels::cuda {

// Instructions that are counted, by the first part of their name; then accesses to global memory of 128 bits a thread, fences of the whole GPU and
// invalidations of L1.
enum Counted { kHmma, kHgmma, kLdgsts, kLdsm, kUtmaldg, kGlobal128, kFenceGpu, kInvalidate, kCountedSize };
constexpr std::array<const char*, kCountedSize> kCountedNames = {"HMMA", "HGMMA", "LDGSTS", "LDSM", "UTMALDG", "GLOBAL.128", "MEMBAR.GPU", "CCTL"};
using Counts = std::array<int, kCountedSize>;

struct Row {
  Launch launch;
  int registers = 0, static_shared = 0, spilled = 0;
  Occupancy sm80, sm90;                              // of code for sm_90, sm80 is 0
  Counts counts = {-1, -1, -1, -1, -1, -1, -1, -1};  // -1: not looked at
  int local_accesses = 0;
  MainLoops loops;
};
using Table = std::map<std::string, Row>;

std::string text_of(const std::filesystem::path& path);  // error when it cannot be read

// Prints the rows as they are written.
void print(int arch, const Table& table);
// Makes the rows of an architecture anew; what this table has not looked at (counts of -1) stays as it was.
void write_golden(const std::filesystem::path& folder, const std::string& version, int arch, Table table);
// Adds what differs to faults. For a compiler without a table the newest one gives bounds.
void compare_with_golden(const std::filesystem::path& folder, const std::string& version, int arch, const Table& table,
                         std::vector<std::string>& faults);

}  // namespace heddle::kernels::cuda
