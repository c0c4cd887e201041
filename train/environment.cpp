#include "train/environment.h"

#include <elf.h>
#include <link.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>

#include "kernels/api/check.h"

#ifndef HEDDLE_VERSION
#error "HEDDLE_VERSION comes from train/CMakeLists.txt"
#endif

namespace heddle {
namespace {

constexpr std::string_view kFolder = "folder";

struct Object {
  std::string path;  // "" for the program
  std::string build_id;
};

// The linker's note NT_GNU_BUILD_ID of each loaded object (ELF notes: elf(5)).
std::string build_id_of(const dl_phdr_info& info) {
  constexpr const char* kHex = "0123456789abcdef";
  constexpr uint32_t kNoteBuildId = 3;
  for (int i = 0; i < info.dlpi_phnum; ++i) {
    const ElfW(Phdr)& header = info.dlpi_phdr[i];
    if (header.p_type != PT_NOTE) continue;
    const char* at = reinterpret_cast<const char*>(info.dlpi_addr + header.p_vaddr);
    const char* const end = at + header.p_memsz;
    const auto padded = [&](size_t n) { return header.p_align == 8 ? (n + 7) / 8 * 8 : (n + 3) / 4 * 4; };
    while (at + sizeof(ElfW(Nhdr)) <= end) {
      ElfW(Nhdr) note;
      std::memcpy(&note, at, sizeof note);
      const char* const name = at + sizeof note;
      const char* const content = name + padded(note.n_namesz);
      if (content + note.n_descsz > end) break;
      if (note.n_type == kNoteBuildId && note.n_namesz == 4 && std::memcmp(name, "GNU", 4) == 0) {
        std::string id;
        for (size_t b = 0; b < note.n_descsz; ++b) {
          const auto byte = static_cast<unsigned char>(content[b]);
          id += kHex[byte >> 4];
          id += kHex[byte & 15];
        }
        return id;
      }
      at = content + padded(note.n_descsz);
    }
  }
  return "none";
}

std::vector<Object> loaded_objects() {
  std::vector<Object> objects;
  ::dl_iterate_phdr(
      [](dl_phdr_info* info, size_t, void* to) {
        static_cast<std::vector<Object>*>(to)->push_back({info->dlpi_name, build_id_of(*info)});
        return 0;
      },
      &objects);
  return objects;
}

std::string compiler() {
#if defined(__clang__)
  return concat("clang ", __clang_major__, ".", __clang_minor__, ".", __clang_patchlevel__);
#else
  return concat("g++ ", __GNUC__, ".", __GNUC_MINOR__, ".", __GNUC_PATCHLEVEL__);
#endif
}

void add_line(std::string& text, std::string_view name, std::string value) {
  for (char& c : value) c = c >= 0x20 && c < 0x7f ? c : '?';
  while (!value.empty() && value.back() == ' ') value.pop_back();
  text += concat(name, ": ", value, "\n");
}

std::map<std::string, std::string> lines_of(std::string_view text) {
  std::map<std::string, std::string> lines;
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size());
    const std::string_view line = text.substr(0, end);
    const size_t colon = line.find(": ");
    if (colon != line.npos) lines.emplace(line.substr(0, colon), line.substr(colon + 2));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return lines;
}

// Libraries whose code makes the numbers, by how their names begin. A launcher or a terminal brings others into the process by the dozen.
constexpr std::string_view kComputing[] = {"libm.",        "libmvec.",  "libc.",      "libstdc++.", "libc++.",  "libgomp.",    "libomp.",
                                           "libiomp",      "libdnnl.",  "libmkl_",    "libblas",    "libcblas", "libopenblas", "libblis",
                                           "libflexiblas", "liblapack", "libamdlibm", "libsvml",    "libimf",   "libmpi.",     "libcuda",
                                           "libcublas",    "libcudnn",  "libnvrtc",   "libnccl."};

// "a, b, c" without those that compute nothing.
std::string computing_of(std::string_view list) {
  std::string out;
  while (!list.empty()) {
    const size_t end = std::min(list.find(", "), list.size());
    const std::string_view item = list.substr(0, end);
    if (std::any_of(std::begin(kComputing), std::end(kComputing), [&](std::string_view name) { return item.starts_with(name); })) {
      out += concat(out.empty() ? "" : ", ", item);
    }
    list.remove_prefix(std::min(end + 2, list.size()));
  }
  return out;
}

// "a, b, c" without what `other` lists too.
std::string without_common(std::string_view list, std::string_view other) {
  const std::string all = concat(", ", other, ", ");
  std::string out;
  while (!list.empty()) {
    const size_t end = std::min(list.find(", "), list.size());
    const std::string_view item = list.substr(0, end);
    if (all.find(concat(", ", item, ", ")) == std::string::npos) out += concat(out.empty() ? "" : ", ", item);
    list.remove_prefix(std::min(end + 2, list.size()));
  }
  return out.empty() ? "fewer" : out;
}

}  // namespace

std::string processor() {
  std::ifstream in("/proc/cpuinfo");
  std::string other;
  for (std::string line; std::getline(in, line) && !line.empty();) {  // the first processor's paragraph
    const size_t colon = line.find(": ");
    if (colon == std::string::npos) continue;
    if (line.rfind("model name", 0) == 0) return line.substr(colon + 2);
    if (line.rfind("CPU ", 0) == 0) other += line.substr(colon + 2) + " ";  // aarch64: implementer, architecture, variant, part, revision
  }
  return other.empty() ? "unknown" : other;
}

std::string environment_text(const RunConfig& config, Device device, int ranks) {
  constexpr size_t kDigits = 12;
  std::string program = "unknown";
  std::vector<std::string> libraries;
  for (const Object& o : loaded_objects()) {
    if (o.path.empty()) {
      if (program == "unknown") program = o.build_id;
    } else if (const std::string name = o.path.substr(o.path.rfind('/') + 1); name.rfind("linux-vdso", 0) != 0) {
      libraries.push_back(concat(name, " ", o.build_id.substr(0, kDigits)));
    }
  }
  std::sort(libraries.begin(), libraries.end());
  std::string list;
  for (const std::string& library : libraries) list += concat(list.empty() ? "" : ", ", library);
  std::string text;
  add_line(text, "program", concat("heddle " HEDDLE_VERSION ", build ", program));
  add_line(text, "compiler", concat(compiler(), ", " HEDDLE_BUILD_TYPE ", -march=" HEDDLE_BUILD_MARCH));
  add_line(text, "processor", processor());
  add_line(text, "device", device.type == DeviceType::cpu ? "cpu" : runtime(device.type).describe(device.index));
  add_line(text, "libraries", list);
  std::string kernels;
  for (const std::string& choice : config.kernel) kernels += concat(kernels.empty() ? "" : ", ", choice);
  if (config.gemm == GemmChoice::vendor) kernels += concat(kernels.empty() ? "" : ", ", "matmul=cublaslt where it can");
  if (!kernels.empty()) add_line(text, "kernels", kernels);
  std::error_code unknown;
  add_line(text, kFolder, std::filesystem::current_path(unknown).string());
  add_line(text, "layout",
           config.deterministic ? concat("deterministic, batch ", config.batch)
                                : concat("dp ", ranks, ", batch ", config.batch, ranks > 1 ? concat(", zero ", config.zero) : ""));
  return text;
}

std::string folder_of(std::string_view environment) {
  const std::map<std::string, std::string> lines = lines_of(environment);
  const auto found = lines.find(std::string(kFolder));
  return found == lines.end() ? "" : found->second;
}

std::vector<EnvironmentChange> compare_environments(std::string_view saved, std::string_view now) {
  std::vector<EnvironmentChange> changes;
  std::map<std::string, std::string> before = lines_of(saved);
  before.erase(std::string(kFolder));
  for (const auto& [name, value] : lines_of(now)) {
    if (name == kFolder) continue;
    const auto it = before.find(name);
    if (it == before.end()) {
      changes.push_back({name, "", value});
    } else {
      const bool list = name == "libraries";
      const std::string was = list ? computing_of(it->second) : it->second, is = list ? computing_of(value) : value;
      if (was != is) changes.push_back({name, list ? without_common(was, is) : was, list ? without_common(is, was) : is});
      before.erase(it);
    }
  }
  for (const auto& [name, value] : before) changes.push_back({name, value, ""});
  return changes;
}

}  // namespace heddle
