// Where in the host program a CUDA call was made. The real signatures leave no room for a file and a line, so the return addresses are kept and
// looked up when a report needs them.
#pragma once

#include <array>
#include <string>

namespace heddle::sim::cudart {

// The address a function returns to; in an always-inline function it is the caller's.
[[gnu::always_inline]] inline void* return_address() {
  return __builtin_extract_return_addr(__builtin_return_address(0));
}

// One CUDA call: its name and up to kFrames return addresses, innermost first.
struct CallSite {
  static constexpr int kFrames = 4;
  const char* api = "";
  std::array<void*, kFrames> frames = {};

  // "cudaMalloc called by heddle::allocate (core/storage.cpp:41) < heddle::train (train/loop.cpp:7)": files and lines where debug information and
  // addr2line are found, else functions, else module offsets.
  std::string text() const;
};

CallSite call_site(const char* api, void* return_address);       // the caller alone: cheap, for every call
CallSite call_site_deep(const char* api, void* return_address);  // its callers too: for allocations

}  // namespace heddle::sim::cudart
