#include "kernels/api/check.h"
#include "kernels/api/vendor_library.h"
#include "kernels/sim/vendor/cublaslt.h"

namespace heddle::kernels {

void* open_vendor_library(std::initializer_list<const char*> names, std::string& why) {
  static char token;
  for (const std::string_view name : names) {
    if (name.starts_with("libcublasLt") && !sim::cublaslt::is_hidden()) return &token;
    why += concat(why.empty() ? "" : "; ", name, ": a simulated device has none");
  }
  return nullptr;
}

void* vendor_function(void*, const char* name) {
  return sim::cublaslt::find(name);
}

}  // namespace heddle::kernels
