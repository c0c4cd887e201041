#include "kernels/cuda/resource_gate_kernel.h"

#include <cxxabi.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <memory>
#include <sstream>
#include <stdexcept>

#include "kernels/cuda/attention_bwd_sm80_config.h"
#include "kernels/cuda/attention_decode_config.h"
#include "kernels/cuda/attention_fwd_sm80_config.h"
#include "kernels/cuda/attention_simt_config.h"
#include "kernels/cuda/gemm_simt_config.h"
#include "kernels/cuda/gemm_sm80_config.h"
#include "kernels/cuda/gemm_sm90_config.h"
#include "kernels/cuda/sample_config.h"

namespace heddle::kernels::cuda {
namespace {

// Threads a block of kernels without a configuration.
// clang-format off
const std::map<std::string, int> kThreads = {
    {"adamw_kernel", 256},
    {"add_partials_kernel", 256},
    {"advance_step_kernel", 1},
    {"attention_combine_kernel", AttentionDecodeConfig::kThreads},
    {"attention_decode_kernel", AttentionDecodeConfig::kThreads},
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
    {"store_rows_kernel", 128},
    {"sum_of_squares_kernel", 256},
    {"transpose_kernel", 256},
};
// clang-format on

std::string demangled(const std::string& name) {
  int status = 0;
  const std::unique_ptr<char, void (*)(void*)> text(abi::__cxa_demangle(name.c_str(), nullptr, nullptr, &status), std::free);
  return status == 0 ? text.get() : name;
}

}  // namespace

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

Launch launch_of(const Kernel& kernel) {
  Launch launch;
  const auto at = [&](size_t i) { return i < kernel.values.size() ? kernel.values[i] : 0; };
  const auto major = [&](size_t i) { return static_cast<heddle::Major>(at(i)); };
  if (kernel.name == "gemm_sm80_kernel") {
    const GemmSm80Config c{at(0), at(1), at(2), at(3), at(4), at(5), major(6), major(7)};
    launch.threads = c.threads();
    launch.dynamic_shared = c.shared_bytes();
  } else if (kernel.name == "gemm_sm90_kernel") {
    const GemmSm90Config c{at(0), at(1), at(2), at(3), at(4), major(5), major(6), static_cast<GemmOut>(at(7))};
    launch.threads = c.threads();
    launch.dynamic_shared = c.shared_bytes();
    launch.registers_asked = 128 * (c.producer_registers() + c.consumers * c.consumer_registers());
    launch.stage.boxes = (c.a == heddle::Major::k ? 1 : c.block_m / 64) + (c.b == heddle::Major::k ? 1 : c.block_n / c.cluster / 64);
    launch.stage.bytes = c.a_bytes() + c.b_bytes() / c.cluster;
    launch.stage.bytes_received = c.stage_bytes();
  } else if (kernel.name == "attention_fwd_sm80_kernel") {
    const AttentionFwdSm80Config c{at(0), at(1), at(2), at(3)};
    launch.threads = c.threads();
    launch.dynamic_shared = c.shared_bytes();
  } else if (kernel.name == "gemm_simt_kernel") {
    launch.threads = GemmSimtConfig{at(0), at(1), at(2), at(3), at(4), at(5) != 0}.threads();
  } else if (kernel.name == "split_sum_kernel") {
    launch.threads = at(0);
  } else if (kernel.name == "norm_forward_kernel" || kernel.name == "norm_backward_kernel" || kernel.name == "softmax_kernel" ||
             kernel.name == "softmax_backward_kernel" || kernel.name == "cross_entropy_stats_kernel" || kernel.name == "cross_entropy_kernel") {
    launch.threads = at(2);  // RowsConfig
  } else if (kernel.name == "sample_kernel") {
    launch.threads = kSampleThreads;
    launch.dynamic_shared = static_cast<int>(kSampleSharedBytes);
  } else if (kernel.name == "sum_kernel" || kernel.name == "sum_doubles_kernel") {
    launch.threads = at(0);
  } else if (kernel.name == "attention_bwd_sm80_kernel") {
    const AttentionBwdSm80Config c{static_cast<AttentionSide>(at(0)), at(1), at(2), at(3), at(4), at(5)};
    launch.threads = c.threads();
    launch.dynamic_shared = c.shared_bytes();
  } else if (kernel.name.rfind("attention_simt_", 0) == 0) {
    const AttentionSimtConfig c{at(0)};
    launch.threads = c.kThreads;
    launch.dynamic_shared = static_cast<int>(kernel.name == "attention_simt_forward_kernel" ? c.forward_bytes(c.head_dim)
                                             : kernel.name == "attention_simt_keys_kernel"  ? c.keys_bytes(c.head_dim)
                                                                                            : c.queries_bytes(c.head_dim));
  } else if (const auto fixed = kThreads.find(kernel.name); fixed != kThreads.end()) {
    launch.threads = fixed->second;
  } else {
    throw std::runtime_error(kernel.name +
                             ": say in launch_of of resource_gate_kernel.cpp with how many threads and how much shared memory it is launched");
  }
  return launch;
}

// CUDA C++ Programming Guide, "Compute Capabilities": 64K registers in units of 256 per warp, warps four at a time, 1 KiB of shared memory per block
// for the system, at most 2048 threads and 32 blocks.
Occupancy occupancy(const Launch& launch, int registers, int static_shared, int arch) {
  const int shared = (arch == 80 ? 164 : 228) * 1024, own_warps = (launch.threads + 31) / 32, warps = (own_warps + 3) / 4 * 4;
  const int per_warp = (registers * 32 + 255) / 256 * 256;
  const int warps_by_registers = 65536 / per_warp / 4 * 4;
  const int per_block = (static_shared + launch.dynamic_shared + 1024 + 127) / 128 * 128;
  const int blocks = std::min({warps_by_registers / warps, shared / per_block, 2048 / launch.threads, 32});
  return {blocks, blocks * own_warps};
}

}  // namespace heddle::kernels::cuda
