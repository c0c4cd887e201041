// A whole safetensors file: refused with Error(bad_data), or accepted and then written again to the same meaning.
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "core/io/safetensors.h"
#include "kernels/api/check.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace heddle;
  try {
    const uint64_t n = parse_header_length(data, size, "input");
    const std::string_view json(reinterpret_cast<const char*>(data) + 8, n);
    const SafetensorsHeader header = parse_safetensors_header(json, size, "input");
    for (const FileTensor& t : header.tensors) {
      if (t.begin < header.data_begin || t.end < t.begin || t.end > size) std::abort();  // a reader would leave the file
    }
    const SafetensorsHeader layout = layout_safetensors(header.tensors, header.metadata);
    const std::string text = write_safetensors_header(layout);
    const SafetensorsHeader again = parse_safetensors_header(std::string_view(text).substr(8), layout.file_size, "written");
    if (again.metadata != header.metadata || again.tensors.size() != header.tensors.size()) std::abort();
    for (const FileTensor& t : header.tensors) {
      const FileTensor* const same = again.find(t.name);
      if (same == nullptr || same->type != t.type || same->shape != t.shape || same->end - same->begin != t.end - t.begin) std::abort();
      if (header.tensors.size() > 64) break;  // find() is linear
    }
  } catch (const Error& e) {
    if (e.code() != ExitCode::bad_data && e.code() != ExitCode::usage) std::abort();
  }
  return 0;
}
