// What the compiler made of each kernel, without a GPU:  resource_gate ARCH NVCC_VERSION PTXAS_LOG GOLDEN_FOLDER [--sass FILE] [--write]
//
// Reads the output of nvcc -Xptxas -v, of which what is for ARCH, and, with --sass, that of cuobjdump -sass. Fails on
//   - spilled registers, local memory, notes that ptxas gave something up (wgmma serialised, setmaxnreg ignored);
//   - machine code without the instructions that a kernel lives from, or with those it must not need (kInstructionRules);
//   - in a main loop (resource_gate_loops.h): fences of the whole GPU, invalidations of L1, local memory; moves of accumulators in a matmul's;
//   - anything that differs from golden/ (resource_gate_table.h): registers, shared memory, occupancy, instruction counts, what a main loop does.
// For a compiler without a table the newest table gives bounds: shared memory as there, at most kOtherCompilerRegisters more registers.
// GOLDEN_FOLDER "none": nothing is compared, the rest holds. --write makes the rows of ARCH anew instead of comparing them.
#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <iostream>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "kernels/cuda/resource_gate_table.h"

namespace {

using namespace heddle::kernels::cuda;  // NOLINT: this program's subject

// What a kernel is for shows in its machine code, whatever the compiler.
struct InstructionRule {
  const char* kernel;
  std::vector<Counted> needs, forbids;
};
const InstructionRule kInstructionRules[] = {
    {"gemm_sm80_kernel", {kHmma, kLdgsts, kLdsm, kGlobal128}, {kHgmma, kUtmaldg}},
    {"gemm_sm90_kernel", {kHgmma, kUtmaldg}, {kHmma, kLdgsts, kLdsm}},
    {"attention_fwd_sm80_kernel", {kHmma, kLdgsts, kLdsm, kGlobal128}, {kHgmma, kUtmaldg}},
    {"gemm_simt_kernel", {kGlobal128}, {}},
    {"split_sum_kernel", {kGlobal128}, {}},
    {"attention_bwd_sm80_kernel", {kHmma, kLdgsts, kLdsm, kGlobal128}, {kHgmma, kUtmaldg}},
    {"attention_delta_kernel", {kGlobal128}, {}},
    {"attention_decode_kernel", {kGlobal128}, {}},
    {"norm_forward_kernel", {kGlobal128}, {}},
    {"adamw_kernel", {kGlobal128}, {}},
    {"muon_momentum_kernel", {kGlobal128}, {}},
    {"muon_apply_kernel", {kGlobal128}, {}},
    {"fill_kernel", {kGlobal128}, {}},
    {"map_kernel", {kGlobal128}, {}},
    {"transpose_kernel", {kGlobal128}, {}},
    {"dropout_kernel", {kGlobal128}, {}},
    {"norm_backward_kernel", {kGlobal128}, {}},
    {"column_partials_kernel", {kGlobal128}, {}},
    {"cross_entropy_stats_kernel", {kGlobal128}, {}},
    {"cross_entropy_kernel", {kGlobal128}, {}},
    {"sample_kernel", {kGlobal128}, {}},
    {"softmax_kernel", {kGlobal128}, {}},
    {"softmax_backward_kernel", {kGlobal128}, {}},
    {"store_rows_kernel<uint4>", {kGlobal128}, {}},
    {"sum_kernel", {kGlobal128}, {}},
};
int number_before(const std::string& line, const std::string& what) {
  const size_t at = line.find(what);
  if (at == std::string::npos) return 0;
  size_t begin = at;
  while (begin > 0 && (std::isdigit(static_cast<unsigned char>(line[begin - 1])) || line[begin - 1] == ' ')) --begin;
  return std::atoi(line.c_str() + begin);
}

// Notes that ptxas prints as information: C75xx (wgmma serialised, setmaxnreg ignored and their kin).
bool gives_up(const std::string& line) {
  const size_t number = line.find("C75");
  if (number != std::string::npos && number + 3 < line.size() && std::isdigit(static_cast<unsigned char>(line[number + 3]))) return true;
  return line.find("serialized") != std::string::npos || line.find("setmaxnreg ignored") != std::string::npos;
}

Table table_of_log(const std::string& log, int arch, std::vector<std::string>& faults) {
  Table table;
  std::istringstream lines(log);
  Row* row = nullptr;
  for (std::string line; std::getline(lines, line);) {
    if (gives_up(line)) faults.push_back("ptxas gave something up: " + line);
    if (const size_t at = line.find("Compiling entry function '"); at != std::string::npos) {
      const size_t begin = at + 26, of = line.find("for 'sm_", begin);
      row = nullptr;
      if (of == std::string::npos || std::atoi(line.c_str() + of + 8) != arch) continue;
      const Kernel kernel = kernel_of(line.substr(begin, line.find('\'', begin) - begin));
      row = &table[kernel.key];
      row->launch = launch_of(kernel);
    } else if (row && line.find("bytes spill stores") != std::string::npos) {
      row->spilled =
          number_before(line, " bytes spill stores") + number_before(line, " bytes spill loads") + number_before(line, " bytes stack frame");
    } else if (row && line.find("Used ") != std::string::npos) {
      row->registers = number_before(line, " registers");
      row->static_shared = number_before(line, " bytes smem");
      if (arch == 80) row->sm80 = occupancy(row->launch, row->registers, row->static_shared, 80);
      row->sm90 = occupancy(row->launch, row->registers, row->static_shared, 90);
    }
  }
  return table;
}

void count(Row& row, const Instruction& i) {
  for (size_t c = 0; c < kGlobal128; ++c) row.counts[c] += i.base == kCountedNames[c];
  row.counts[kGlobal128] += (i.base == "LDG" || i.base == "STG" || i.base == "LDGSTS") && i.opcode.find(".128") != std::string::npos;
  row.counts[kFenceGpu] += i.fences_gpu();
  row.counts[kInvalidate] += i.base == "CCTL";
  row.local_accesses += i.local();
}

void count_instructions(Table& table, const std::string& sass) {
  std::istringstream lines(sass);
  Row* row = nullptr;
  std::vector<Instruction> code;
  const auto finish = [&] {
    if (row) row->loops = main_loops(code, row->launch.stage);
    code.clear();
  };
  for (std::string line; std::getline(lines, line);) {
    if (const size_t at = line.find("Function : "); at != std::string::npos) {
      finish();
      const auto found = table.find(kernel_of(line.substr(at + 11)).key);
      row = found == table.end() ? nullptr : &found->second;
      if (row) row->counts.fill(0);
      continue;
    }
    Instruction instruction;
    if (!row || !read_instruction(line, instruction)) continue;
    count(*row, instruction);
    code.push_back(instruction);
  }
  finish();
}

void check_row(const std::string& key, const Row& row, std::vector<std::string>& faults) {
  if (row.spilled > 0) faults.push_back(key + ": registers spilled or local memory used, " + std::to_string(row.spilled) + " bytes");
  if (row.launch.registers_asked > row.registers * row.launch.threads)  // setmaxnreg.inc would wait for ever
    faults.push_back(key + ": setmaxnreg asks for " + std::to_string(row.launch.registers_asked) + " registers, the block has " +
                     std::to_string(row.registers * row.launch.threads));
  if (row.local_accesses > 0) faults.push_back(key + ": " + std::to_string(row.local_accesses) + " accesses to local memory");
  for (const std::string& fault : row.loops.faults) faults.push_back(key + ": " + fault);
  if (row.counts[0] < 0) return;
  for (const InstructionRule& rule : kInstructionRules) {
    if (key.substr(0, key.find_first_of("{<")) != rule.kernel || key.find("AnyFloat") != std::string::npos) continue;  // AnyFloat: single elements
    for (const Counted i : rule.needs) {
      if (row.counts[i] == 0) faults.push_back(key + ": no " + kCountedNames[i] + " in its machine code");
    }
    for (const Counted i : rule.forbids) {
      if (row.counts[i] > 0) faults.push_back(key + ": " + std::to_string(row.counts[i]) + " " + kCountedNames[i] + " in its machine code");
    }
  }
}

int run(std::vector<std::string> args) {
  bool write = false;
  std::string sass;
  for (size_t i = 4; i < args.size(); ++i) {
    if (args[i] == "--write") {
      write = true;
    } else if (args[i] == "--sass" && i + 1 < args.size()) {
      sass = args[++i];
    } else {
      args.clear();
    }
  }
  if (args.size() < 4) {
    std::cerr << "usage: resource_gate ARCH NVCC_VERSION PTXAS_LOG GOLDEN_FOLDER [--sass FILE] [--write]\n";
    return 2;
  }
  const int arch = std::atoi(args[0].c_str());
  std::vector<std::string> faults;
  Table table = table_of_log(text_of(args[2]), arch, faults);
  if (table.empty()) faults.push_back("no kernel in " + args[2]);
  if (!sass.empty()) {
    count_instructions(table, text_of(sass));
    for (const auto& [key, row] : table) {
      if (row.counts[0] < 0) faults.push_back(key + ": not in " + sass);
    }
  }
  print(arch, table);
  for (const auto& [key, row] : table) check_row(key, row, faults);
  if (write) {
    write_golden(args[3], args[1], arch, table);
  } else if (args[3] != "none") {
    compare_with_golden(args[3], args[1], arch, table, faults);
  }
  for (const std::string& fault : faults) std::cout << "FAULT " << fault << '\n';
  return faults.empty() ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run({argv + 1, argv + argc});
  } catch (const std::exception& error) {
    std::cerr << "resource_gate: " << error.what() << '\n';
    return 2;
  }
}
