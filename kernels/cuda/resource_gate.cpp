// What the compiler made of each kernel, without a GPU:  resource_gate ARCH NVCC_VERSION PTXAS_LOG GOLDEN_FOLDER [--sass FILE] [--write]
//
// Reads the output of nvcc -Xptxas -v and, with --sass, that of cuobjdump -sass. Fails on
//   - spilled registers, local memory, notes that ptxas gave something up (wgmma serialised, setmaxnreg ignored);
//   - machine code without the instructions that a kernel lives from, or with those it must not need (kInstructionRules);
//   - in a main loop (an innermost loop with tensor-core products or TMA loads): fences of the whole GPU, invalidations of L1, local memory;
//   - anything that differs from golden/nvcc-VERSION.txt: registers, shared memory, blocks per multiprocessor, instruction counts.
// For a compiler without a table the newest table gives bounds: shared memory as there, at most kOtherCompilerRegisters more registers.
// --write makes the rows of ARCH anew instead of comparing them.
#include <cxxabi.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <map>
#include <memory>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "kernels/cuda/attention_bwd_sm80_config.h"
#include "kernels/cuda/attention_fwd_sm80_config.h"
#include "kernels/cuda/attention_simt_config.h"
#include "kernels/cuda/gemm_simt_config.h"
#include "kernels/cuda/gemm_sm80_config.h"
#include "kernels/cuda/gemm_sm90_config.h"
#include "kernels/cuda/resource_gate_sass.h"

namespace {

using namespace heddle::kernels::cuda;  // NOLINT: this program's subject

// Instructions that are counted, by the first part of their name; then accesses to global memory of 128 bits a thread, fences of the whole GPU and
// invalidations of L1.
enum Counted { kHmma, kHgmma, kLdgsts, kLdsm, kUtmaldg, kGlobal128, kFenceGpu, kInvalidate, kCountedSize };
constexpr std::array<const char*, kCountedSize> kCountedNames = {"HMMA", "HGMMA", "LDGSTS", "LDSM", "UTMALDG", "GLOBAL.128", "MEMBAR.GPU", "CCTL"};
using Counts = std::array<int, kCountedSize>;

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
    {"softmax_kernel", {kGlobal128}, {}},
    {"softmax_backward_kernel", {kGlobal128}, {}},
    {"sum_kernel", {kGlobal128}, {}},
};
constexpr int kOtherCompilerRegisters = 16;

// Threads a block of kernels without a configuration.
// clang-format off
const std::map<std::string, int> kThreads = {
    {"adamw_kernel", 256},
    {"add_partials_kernel", 256},
    {"advance_step_kernel", 1},
    {"attention_delta_kernel", 256},
    {"column_partials_kernel", 256},
    {"dropout_kernel", 256},
    {"embedding_forward_kernel", 256},
    {"embedding_scatter_kernel", 256},
    {"fill_kernel", 256},
    {"finish_norm_kernel", 1},
    {"group_count_kernel", 256},
    {"group_move_kernel", 256},
    {"group_starts_kernel", 256},
    {"map_kernel", 256},
    {"muon_apply_kernel", 256},
    {"muon_momentum_kernel", 256},
    {"normal_kernel", 256},
    {"scale_by_norm_kernel", 256},
    {"sum_of_squares_kernel", 256},
    {"transpose_kernel", 256},
};
// clang-format on

struct Row {
  int threads = 0, dynamic_shared = 0;                            // of a launch
  int registers_asked = 0;                                        // of a block, by setmaxnreg
  int registers = 0, static_shared = 0, spilled = 0, blocks = 0;  // blocks: per multiprocessor
  Counts counts = {-1, -1, -1, -1, -1, -1, -1, -1};               // -1: not looked at
  int local_accesses = 0;
  std::vector<std::string> loop_faults;  // "MEMBAR.ALL.GPU at 0x1230 in the loop 0x1000 to 0x1800"
};

std::string text_of(const std::filesystem::path& path) {
  std::ifstream in(path);
  if (!in) throw std::runtime_error("cannot read " + path.string());
  std::ostringstream text;
  text << in.rdbuf();
  return text.str();
}

std::string demangled(const std::string& name) {
  int status = 0;
  const std::unique_ptr<char, void (*)(void*)> text(abi::__cxa_demangle(name.c_str(), nullptr, nullptr, &status), std::free);
  return status == 0 ? text.get() : name;
}

struct Kernel {
  std::string key;          // "gemm_sm80_kernel{128,256,32,64,64,4,0,0,0}"
  std::string name;         // "gemm_sm80_kernel"
  std::vector<int> values;  // of its configuration
};

// From a demangled instantiation: the function's name and the numbers between the braces of Configured<...>.
Kernel kernel_of(const std::string& mangled) {
  const std::string text = demangled(mangled);
  Kernel kernel;
  const size_t end = text.find("_kernel");
  if (end == std::string::npos) throw std::runtime_error("no kernel name in " + text);
  const size_t begin = text.find_last_of(": ", end);
  kernel.name = text.substr(begin == std::string::npos ? 0 : begin + 1, end + 7 - (begin == std::string::npos ? 0 : begin + 1));
  kernel.key = kernel.name;
  const size_t open = text.find('{', end), close = text.find('}', end);
  if (open == std::string::npos) {
    // No configuration: "adamw_kernel<heddle::bf16>(...)" has its types in its key.
    const size_t types = end + 7;
    for (size_t i = types, depth = 0; i < text.size() && (text[i] == '<' || depth > 0); ++i) {
      depth += text[i] == '<' ? 1 : 0;
      depth -= text[i] == '>' ? 1 : 0;
      kernel.key += text[i];
    }
    for (const char* part : {"heddle::kernels::cuda::", "heddle::", "(anonymous namespace)::", " "}) {
      for (size_t at; (at = kernel.key.find(part)) != std::string::npos;) kernel.key.erase(at, std::string(part).size());
    }
    return kernel;
  }
  std::string inside = text.substr(open + 1, close - open - 1);
  std::istringstream items(inside);
  for (std::string item; std::getline(items, item, ',');) {
    if (const size_t cast = item.find(')'); cast != std::string::npos) item = item.substr(cast + 1);  // "(heddle::Major)1"
    if (item.find("true") != std::string::npos) item = "1";
    if (item.find("false") != std::string::npos) item = "0";
    kernel.values.push_back(std::atoi(item.c_str()));
  }
  kernel.key += '{';
  for (size_t i = 0; i < kernel.values.size(); ++i) {
    if (i > 0) kernel.key += ',';
    kernel.key += std::to_string(kernel.values[i]);
  }
  kernel.key += '}';
  // Other template arguments, such as the dtype.
  const size_t rest = text.find_first_not_of("> ", close + 1);
  if (rest != std::string::npos && text[rest] == ',') kernel.key += text.substr(rest + 2, text.find('>', rest) - rest - 2);
  return kernel;
}

// How the kernel is launched follows from its configuration.
void set_launch(Row& row, const Kernel& kernel) {
  const auto at = [&](size_t i) { return i < kernel.values.size() ? kernel.values[i] : 0; };
  const auto major = [&](size_t i) { return static_cast<heddle::Major>(at(i)); };
  if (kernel.name == "gemm_sm80_kernel") {
    const GemmSm80Config c{at(0), at(1), at(2), at(3), at(4), at(5), major(6), major(7)};
    row.threads = c.threads();
    row.dynamic_shared = c.shared_bytes();
  } else if (kernel.name == "gemm_sm90_kernel") {
    const GemmSm90Config c{at(0), at(1), at(2), at(3), at(4), major(5), major(6), static_cast<GemmOut>(at(7))};
    row.threads = c.threads();
    row.dynamic_shared = c.shared_bytes();
    row.registers_asked = 128 * (c.producer_registers() + c.consumers * c.consumer_registers());
  } else if (kernel.name == "attention_fwd_sm80_kernel") {
    const AttentionFwdSm80Config c{at(0), at(1), at(2), at(3)};
    row.threads = c.threads();
    row.dynamic_shared = c.shared_bytes();
  } else if (kernel.name == "gemm_simt_kernel") {
    row.threads = GemmSimtConfig{at(0), at(1), at(2), at(3), at(4), at(5) != 0}.threads();
  } else if (kernel.name == "split_sum_kernel") {
    row.threads = at(0);
  } else if (kernel.name == "norm_forward_kernel" || kernel.name == "norm_backward_kernel" || kernel.name == "softmax_kernel" ||
             kernel.name == "softmax_backward_kernel" || kernel.name == "cross_entropy_stats_kernel" || kernel.name == "cross_entropy_kernel") {
    row.threads = at(2);  // RowsConfig
  } else if (kernel.name == "sum_kernel") {
    row.threads = at(0);
  } else if (kernel.name == "attention_bwd_sm80_kernel") {
    const AttentionBwdSm80Config c{static_cast<AttentionSide>(at(0)), at(1), at(2), at(3), at(4), at(5)};
    row.threads = c.threads();
    row.dynamic_shared = c.shared_bytes();
  } else if (kernel.name.rfind("attention_simt_", 0) == 0) {
    const AttentionSimtConfig c{at(0)};
    row.threads = c.kThreads;
    row.dynamic_shared = static_cast<int>(kernel.name == "attention_simt_forward_kernel" ? c.forward_bytes(c.head_dim)
                                          : kernel.name == "attention_simt_keys_kernel"  ? c.keys_bytes(c.head_dim)
                                                                                         : c.queries_bytes(c.head_dim));
  } else if (const auto fixed = kThreads.find(kernel.name); fixed != kThreads.end()) {
    row.threads = fixed->second;
  } else {
    throw std::runtime_error(kernel.name +
                             ": say in set_launch of resource_gate.cpp with how many threads and how much shared memory it is launched");
  }
}

// CUDA C++ Programming Guide, "Compute Capabilities": 64K registers in units of 256 per warp, warps four at a time, 1 KiB of shared memory per block
// for the system, at most 2048 threads and 32 blocks.
int blocks_per_multiprocessor(const Row& row, int arch) {
  const int shared = (arch == 80 ? 164 : 228) * 1024, warps = ((row.threads + 31) / 32 + 3) / 4 * 4;
  const int per_warp = (row.registers * 32 + 255) / 256 * 256;
  const int warps_by_registers = 65536 / per_warp / 4 * 4;
  const int per_block = (row.static_shared + row.dynamic_shared + 1024 + 127) / 128 * 128;
  return std::min({warps_by_registers / warps, shared / per_block, 2048 / row.threads, 32});
}

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

using Table = std::map<std::string, Row>;

Table table_of_log(const std::string& log, int arch, std::vector<std::string>& faults) {
  Table table;
  std::istringstream lines(log);
  Row* row = nullptr;
  for (std::string line; std::getline(lines, line);) {
    if (gives_up(line)) faults.push_back("ptxas gave something up: " + line);
    if (const size_t at = line.find("Compiling entry function '"); at != std::string::npos) {
      const size_t begin = at + 26;
      const Kernel kernel = kernel_of(line.substr(begin, line.find('\'', begin) - begin));
      row = &table[kernel.key];
      set_launch(*row, kernel);
    } else if (row && line.find("bytes spill stores") != std::string::npos) {
      row->spilled =
          number_before(line, " bytes spill stores") + number_before(line, " bytes spill loads") + number_before(line, " bytes stack frame");
    } else if (row && line.find("Used ") != std::string::npos) {
      row->registers = number_before(line, " registers");
      row->static_shared = number_before(line, " bytes smem");
      row->blocks = blocks_per_multiprocessor(*row, arch);
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
    if (row) row->loop_faults = loop_faults(code);
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

std::filesystem::path golden_file(const std::filesystem::path& folder, const std::string& version) {
  return folder / ("nvcc-" + version + ".txt");
}

// Rows of one architecture. A line: arch kernel threads dynamic_shared registers static_shared blocks counts...
Table golden_table(const std::filesystem::path& path, int arch) {
  Table table;
  std::istringstream lines(text_of(path));
  for (std::string line; std::getline(lines, line);) {
    if (line.empty() || line[0] == '#') continue;
    std::istringstream words(line);
    std::string key;
    int of = 0;
    Row row;
    words >> of >> key >> row.threads >> row.dynamic_shared >> row.registers >> row.static_shared >> row.blocks;
    for (int& count : row.counts) words >> count;
    if (!words) throw std::runtime_error(path.string() + ": a line that is no row: " + line);
    if (of == arch) table[key] = row;
  }
  return table;
}

std::string line_of(int arch, const std::string& key, const Row& row) {
  std::ostringstream out;
  out << arch << ' ' << key << ' ' << row.threads << ' ' << row.dynamic_shared << ' ' << row.registers << ' ' << row.static_shared << ' '
      << row.blocks;
  for (int count : row.counts) out << ' ' << count;
  return out.str();
}

void write_golden(const std::filesystem::path& path, int arch, Table table) {
  if (std::filesystem::exists(path)) {  // counts that this run has not looked at stay
    for (const auto& [key, row] : golden_table(path, arch)) {
      if (const auto found = table.find(key); found != table.end() && found->second.counts[0] < 0) found->second.counts = row.counts;
    }
  }
  std::vector<std::string> lines;
  if (std::ifstream in(path); in) {
    for (std::string line; std::getline(in, line);) {
      if (!line.empty() && line[0] != '#' && std::atoi(line.c_str()) != arch) lines.push_back(line);
    }
  }
  for (const auto& [key, row] : table) lines.push_back(line_of(arch, key, row));
  std::sort(lines.begin(), lines.end());
  std::ofstream out(path);
  out << "# arch kernel threads dynamic_shared registers static_shared blocks_per_multiprocessor";
  for (const char* name : kCountedNames) out << ' ' << name;
  out << '\n';
  for (const std::string& line : lines) out << line << '\n';
}

void compare(const Table& got, const Table& want, bool exact, std::vector<std::string>& faults) {
  for (const auto& [name, row] : got) {
    const std::string& key = name;  // clang 14 captures no structured binding
    const auto found = want.find(key);
    if (found == want.end()) {
      faults.push_back(key + ": not in the golden table");
      continue;
    }
    const auto differs = [&](const std::string& what, int is, int was) {
      if (is != was) faults.push_back(key + ": " + what + " " + std::to_string(is) + ", golden " + std::to_string(was));
    };
    const Row& golden = found->second;
    if (!exact) {
      if (row.registers > golden.registers + kOtherCompilerRegisters) differs("registers", row.registers, golden.registers);
      if (row.static_shared > golden.static_shared) differs("static shared memory", row.static_shared, golden.static_shared);
      if (row.dynamic_shared > golden.dynamic_shared) differs("dynamic shared memory", row.dynamic_shared, golden.dynamic_shared);
      continue;
    }
    differs("threads", row.threads, golden.threads);
    differs("registers", row.registers, golden.registers);
    differs("static shared memory", row.static_shared, golden.static_shared);
    differs("dynamic shared memory", row.dynamic_shared, golden.dynamic_shared);
    differs("blocks per multiprocessor", row.blocks, golden.blocks);
    for (size_t i = 0; i < row.counts.size(); ++i) {
      if (row.counts[i] >= 0 && golden.counts[i] >= 0) differs(kCountedNames[i], row.counts[i], golden.counts[i]);
    }
  }
  for (const auto& [key, row] : want) {
    if (!got.count(key)) faults.push_back(key + ": in the golden table, but not compiled");
  }
}

void check_row(const std::string& key, const Row& row, std::vector<std::string>& faults) {
  if (row.spilled > 0) faults.push_back(key + ": registers spilled or local memory used, " + std::to_string(row.spilled) + " bytes");
  if (row.registers_asked > row.registers * row.threads)  // setmaxnreg.inc would wait for ever
    faults.push_back(key + ": setmaxnreg asks for " + std::to_string(row.registers_asked) + " registers, the block has " +
                     std::to_string(row.registers * row.threads));
  if (row.local_accesses > 0) faults.push_back(key + ": " + std::to_string(row.local_accesses) + " accesses to local memory");
  for (const std::string& fault : row.loop_faults) faults.push_back(key + ": " + fault);
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
  for (const auto& [key, row] : table) {
    std::cout << line_of(arch, key, row) << '\n';
    check_row(key, row, faults);
  }
  const std::filesystem::path own = golden_file(args[3], args[1]);
  if (write) {
    write_golden(own, arch, table);
  } else if (std::filesystem::exists(own)) {
    compare(table, golden_table(own, arch), true, faults);
  } else {
    std::filesystem::path newest;
    for (const auto& entry : std::filesystem::directory_iterator(args[3])) newest = std::max(newest, entry.path());
    std::cout << "no table for nvcc " << args[1] << ": bounds from " << newest.filename().string() << '\n';
    if (newest.empty()) throw std::runtime_error("no table in " + args[3]);
    compare(table, golden_table(newest, arch), false, faults);
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
