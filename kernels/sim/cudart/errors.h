// How the simulated runtime fails inside, and how that becomes a cudaError_t.
#pragma once

#include <cuda_runtime_api.h>

#include <string>

#include "kernels/api/check.h"

namespace heddle::sim::cudart {

// Thrown by the runtime's own functions; caught where a CUDA call ends.
struct Failure {
  cudaError_t code;
  std::string text;  // what is wrong, with names and values; empty: CUDA's words say it all
};

template <class... Parts>
[[noreturn]] void refuse(cudaError_t code, const Parts&... parts) {
  if constexpr (sizeof...(parts) == 0) {
    throw Failure{code, {}};
  } else {
    throw Failure{code, concat(parts...)};
  }
}

const char* error_name(cudaError_t code);   // "cudaErrorInvalidValue"
const char* error_words(cudaError_t code);  // "invalid argument"

// The last error of this host thread, as cudaGetLastError sees it. The sticky error of the process is kept by the Runtime.
void set_last_error(const Failure& failure);
Failure take_last_error();
Failure peek_last_error();
// Remembered besides, so that cudaGetErrorString can tell the story of a code that a call has just returned.
std::string last_report_of(cudaError_t code);
void forget_errors();

}  // namespace heddle::sim::cudart
