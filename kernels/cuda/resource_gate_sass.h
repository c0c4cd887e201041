// Machine code as cuobjdump -sass prints it, for resource_gate.cpp.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

namespace heddle::kernels::cuda {

// One line of cuobjdump -sass: "/*1250*/ @!P0 BRA 0x1000 ;".
struct Instruction {
  uint64_t address = 0, target = 0;  // target: of a branch
  std::string opcode, base;          // "MEMBAR.ALL.GPU", "MEMBAR"

  bool fences_gpu() const { return base == "MEMBAR" && opcode.find("GPU") != std::string::npos; }
  bool local() const { return base == "LDL" || base == "STL"; }
};

inline bool read_instruction(const std::string& line, Instruction& out) {
  const size_t open = line.find("/*"), close = line.find("*/");
  if (open == std::string::npos || close == std::string::npos || line.find(';') == std::string::npos) return false;
  out.address = std::strtoull(line.c_str() + open + 2, nullptr, 16);
  std::istringstream words(line.substr(close + 2));
  words >> out.opcode;
  if (out.opcode.rfind('@', 0) == 0) words >> out.opcode;
  out.base = out.opcode.substr(0, out.opcode.find_first_of(".;"));
  out.target = 0;
  if (out.base == "BRA") {
    const size_t at = line.find("0x", close);
    if (at != std::string::npos) out.target = std::strtoull(line.c_str() + at, nullptr, 16);
  }
  return true;
}

// What must not be in an innermost loop that feeds the tensor cores. (Waits for a barrier are loops of their own, of three instructions.)
inline std::vector<std::string> loop_faults(const std::vector<Instruction>& code) {
  std::vector<std::string> faults;
  using Loop = std::pair<uint64_t, uint64_t>;
  std::vector<Loop> loops;
  for (const Instruction& i : code) {
    if (i.target == 0 || i.target >= i.address) continue;
    const bool feeds = std::any_of(code.begin(), code.end(), [&](const Instruction& other) {
      return other.address >= i.target && other.address <= i.address && (other.base == "HMMA" || other.base == "HGMMA" || other.base == "UTMALDG");
    });
    if (feeds) loops.emplace_back(i.target, i.address);
  }
  for (const Loop& loop : loops) {
    const bool innermost = std::none_of(loops.begin(), loops.end(),
                                        [&](const Loop& other) { return other != loop && other.first >= loop.first && other.second <= loop.second; });
    if (!innermost) continue;
    for (const Instruction& i : code) {
      if (i.address < loop.first || i.address > loop.second || !(i.fences_gpu() || i.local() || i.base == "CCTL")) continue;
      std::ostringstream fault;
      fault << i.opcode << " at 0x" << std::hex << i.address << " in the main loop 0x" << loop.first << " to 0x" << loop.second;
      faults.push_back(fault.str());
    }
  }
  return faults;
}

}  // namespace heddle::kernels::cuda
