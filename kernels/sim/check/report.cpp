#include "kernels/sim/check/report.h"

#include <dlfcn.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <set>
#include <string_view>
#include <tuple>
#include <vector>

#include "kernels/api/check.h"
#include "kernels/sim/core/machine_internal.h"

namespace heddle::sim {

namespace {

constexpr uint32_t kIsSite = 0x80000000u;

// Program counters are kept relative to this program; anything farther than 1 GiB (there is no such kernel) loses its line.
const char* anchor() {
  return reinterpret_cast<const char*>(&place_text);
}

std::vector<Site>& sites() {
  static std::vector<Site> all;
  return all;
}

const char* for_ever(const std::string& text) {
  static std::set<std::string> texts;
  return texts.insert(text).first->c_str();
}

// A place in a standard or CUDA header says little: the kernel's line is farther out.
bool is_library(std::string_view file) {
  return file.find("/usr/include/") == 0 || file.find("/usr/lib/") == 0 || file.find("/include/c++/") != std::string_view::npos ||
         file.find("cuda_bf16") != std::string_view::npos || file.find("/cuda") == 0 ||
         file.find("kernels/sim/core/device.h") != std::string_view::npos;
}

std::string shell_quoted(const std::string& text) {
  std::string quoted = "'";
  for (const char c : text) quoted += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return quoted + "'";
}

// Asks addr2line, which knows the chain of inlined calls; innermost first. Line 0 where it knows no line.
Site look_up(const std::string& module, uint64_t offset) {
  char address[32];
  std::snprintf(address, sizeof address, "0x%llx", static_cast<unsigned long long>(offset));
  const std::string command = concat("addr2line -i -e ", shell_quoted(module), " ", address, " 2>/dev/null");
  Site found{for_ever(concat(module, "+", address)), 0, ""};
  FILE* pipe = popen(command.c_str(), "r");
  if (pipe == nullptr) return found;
  char line[4096];
  bool any = false;
  while (std::fgets(line, sizeof line, pipe) != nullptr) {
    const std::string_view text = line;
    const size_t colon = text.rfind(':');
    if (colon == std::string_view::npos || text[0] == '?') continue;
    const int number = std::atoi(line + colon + 1);
    if (number == 0 || (any && is_library(found.file) == is_library(text.substr(0, colon)))) continue;
    if (any && !is_library(found.file)) continue;
    found = {for_ever(std::string(text.substr(0, colon))), number, ""};
    any = true;
  }
  pclose(pipe);
  return found;
}

Site symbolise(const void* pc) {
  Dl_info info;
  if (dladdr(pc, &info) == 0 || info.dli_fname == nullptr) return {"an unknown program", 0, ""};
  std::string module = info.dli_fname;
  char self[4096];
  if (module.find('/') == std::string::npos) {
    const char* real = realpath("/proc/self/exe", self);
    if (real != nullptr) module = real;
  }
  const uint64_t call = static_cast<uint64_t>(static_cast<const char*>(pc) - static_cast<const char*>(info.dli_fbase)) - 1;  // not behind it
  // Where the compiler has merged the code of several lines it names none: take what stands before.
  constexpr uint64_t kFarthest = 32;
  Site found{};
  for (uint64_t back = 0; found.line == 0 && back < std::min(kFarthest, call); ++back) found = look_up(module, call - back);
  return found.line != 0 ? found : look_up(module, call);
}

}  // namespace

uint32_t place_of(const void* pc) {
  return static_cast<uint32_t>(static_cast<const char*>(pc) - anchor()) & ~kIsSite;
}

uint32_t place_of(const Site& site) {
  struct Entry {
    const char* file = nullptr;
    const char* what = nullptr;
    int line = 0;
    uint32_t place = 0;
  };
  static std::array<Entry, 1024> cache;
  Entry& entry = cache[(reinterpret_cast<uintptr_t>(site.what) / 8 * 31 + static_cast<uintptr_t>(site.line)) % cache.size()];
  if (entry.file == site.file && entry.what == site.what && entry.line == site.line) return entry.place;
  static std::map<std::tuple<const char*, const char*, int>, uint32_t> known;
  const auto [at, added] = known.try_emplace({site.file, site.what, site.line}, kIsSite | static_cast<uint32_t>(sites().size()));
  if (added) sites().push_back(site);
  entry = {site.file, site.what, site.line, at->second};
  return entry.place;
}

Site place_site(uint32_t place) {
  if ((place & kIsSite) != 0) return sites()[place & ~kIsSite];
  static std::map<uint32_t, Site> known;
  const auto at = known.find(place);
  if (at != known.end()) return at->second;
  const auto offset = static_cast<int32_t>(place << 1) >> 1;  // 31 bits, signed
  return known[place] = symbolise(anchor() + offset);
}

std::string place_text(uint32_t place) {
  Site site = place_site(place);
  const std::string what = site.what;
  site.what = "";
  std::string text = site.line == 0 ? std::string(site.file) : site_text(site);
  if (text.compare(0, 4, " at ") == 0) text = text.substr(4);
  return what.empty() ? text : concat(text, " (", what, ")");
}

}  // namespace heddle::sim
