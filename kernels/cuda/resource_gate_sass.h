// Machine code as cuobjdump -sass prints it, for resource_gate.cpp.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <sstream>
#include <string>

namespace heddle::kernels::cuda {

// What executes an instruction. mufu: the unit of special functions and conversions; other: branches, barriers, waits, constants.
enum class Pipe : uint8_t { tensor, fma, alu, mufu, lsu, uniform, other };

// One line of cuobjdump -sass: "/*1250*/ @!P0 BRA 0x1000 ;".
struct Instruction {
  uint64_t address = 0, target = 0;    // target: of a branch
  bool conditional = false;            // a branch or an end that some threads may pass by
  std::string opcode, base, operands;  // "MEMBAR.ALL.GPU", "MEMBAR"

  bool fences_gpu() const { return base == "MEMBAR" && opcode.find("GPU") != std::string::npos; }
  bool local() const { return base == "LDL" || base == "STL"; }
  bool has(const std::string& part) const { return ('.' + opcode + '.').find('.' + part + '.') != std::string::npos; }
  // Bytes that a lane of a load or store moves.
  int width() const {
    if (has("128")) return 16;
    if (has("64")) return 8;
    if (has("U16") || has("S16")) return 2;
    return has("U8") || has("S8") ? 1 : 4;
  }
};

inline bool one_of(const std::string& base, const char* names) {
  return (' ' + std::string(names) + ' ').find(' ' + base + ' ') != std::string::npos;
}

inline Pipe pipe_of(const Instruction& i) {
  if (one_of(i.base, "HMMA HGMMA")) return Pipe::tensor;
  if (one_of(i.base, "FFMA FMUL FADD IMAD HFMA2 HADD2 HMUL2")) return Pipe::fma;
  if (one_of(i.base, "MUFU F2F F2I I2F FRND POPC FLO BREV")) return Pipe::mufu;
  if (one_of(i.base, "LDS LDSM LDG LDGSTS LDL STS STSM STG STL SHFL ATOM ATOMG ATOMS RED")) return Pipe::lsu;
  if (i.base[0] == 'U' || one_of(i.base, "R2UR S2UR VOTEU")) return Pipe::uniform;
  if (one_of(i.base, "IADD3 LOP3 SHF ISETP FSETP FMNMX IMNMX SEL FSEL PRMT MOV LEA PLOP3 IABS F2FP I2FP P2R R2P VIADD VIADDMNMX VIMNMX REDUX VOTE"))
    return Pipe::alu;
  return Pipe::other;
}

inline bool read_instruction(const std::string& line, Instruction& out) {
  const size_t open = line.find("/*"), close = line.find("*/"), end = line.find(';');
  if (open == std::string::npos || close == std::string::npos || end == std::string::npos) return false;
  out = {};
  out.address = std::strtoull(line.c_str() + open + 2, nullptr, 16);
  std::istringstream words(line.substr(close + 2, end - close - 2));
  words >> out.opcode;
  out.conditional = out.opcode.rfind('@', 0) == 0;
  if (out.conditional) words >> out.opcode;
  out.base = out.opcode.substr(0, out.opcode.find_first_of(".;"));
  std::getline(words >> std::ws, out.operands);
  out.operands.resize(out.operands.find_last_not_of(' ') + 1);
  if (out.base == "BRA") {
    const size_t at = out.operands.find("0x");
    if (at != std::string::npos) out.target = std::strtoull(out.operands.c_str() + at, nullptr, 16);
    out.conditional = out.conditional || at != 0 || out.opcode != "BRA";  // "BRA P0, 0x1000", "BRA.DIV"
  }
  return true;
}

}  // namespace heddle::kernels::cuda
