// What a kernel found that its data may not hold. A kernel cannot throw: it does something harmless in place of what it was asked for, notes the
// first such find here, and the host hears of it when it next reads a result.
#pragma once

#include <cstdint>
#include <string>

namespace heddle::kernels {

enum class FaultKind : int32_t {
  none,
  token,           // outside the vocabulary
  position,        // outside the table of learned positions
  target,          // outside the vocabulary
  document_start,  // behind its token
  row,             // outside what rows are stored in
  cache_position,  // outside the keys of a cache
};

// In device memory. The first find stays: `kind` is taken by compare-and-swap, and whoever took it writes the rest.
struct Fault {
  FaultKind kind = FaultKind::none;
  int32_t unused = 0;
  int64_t row = 0, column = 0;  // where: of a (B, T) argument, or row alone of an (N)
  int64_t value = 0, limit = 0;
};

// "token outside the vocabulary: tokens[b = 1][t = 3] = 70000, V = 50257".
std::string fault_text(const Fault& fault);

// What the kernels' side can add to an error of the device ("; block (3,0,0) waited 2 s for ..."), set by whoever can.
inline std::string (*about_device_errors)() = nullptr;

}  // namespace heddle::kernels
