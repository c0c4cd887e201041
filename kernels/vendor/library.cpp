#include <dlfcn.h>

#include "kernels/api/check.h"
#include "kernels/api/vendor_library.h"

namespace heddle::kernels {

void* open_vendor_library(std::initializer_list<const char*> names, std::string& why) {
  for (const char* name : names) {
    if (void* library = dlopen(name, RTLD_NOW | RTLD_LOCAL)) return library;
    const char* error = dlerror();
    why += concat(why.empty() ? "" : "; ", error ? error : name);
  }
  return nullptr;
}

void* vendor_function(void* library, const char* name) {
  return dlsym(library, name);
}

}  // namespace heddle::kernels
