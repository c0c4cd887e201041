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
#include <utility>
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

struct Address {
  std::string module;
  uint64_t offset;
};

Address address_of(const void* pc) {
  Dl_info info;
  if (dladdr(pc, &info) == 0 || info.dli_fname == nullptr) return {};
  std::string module = info.dli_fname;
  char self[4096];
  if (module.find('/') == std::string::npos) {
    const char* real = realpath("/proc/self/exe", self);
    if (real != nullptr) module = real;
  }
  return {module, static_cast<uint64_t>(static_cast<const char*>(pc) - static_cast<const char*>(info.dli_fbase)) - 1};  // the call, not behind it
}

// Asks addr2line, which knows the chain of inlined calls; innermost first. Line 0 where it knows no line. One process for all: it reads the whole
// program's tables each time.
std::vector<Site> look_up(const std::string& module, const std::vector<uint64_t>& offsets) {
  std::vector<Site> found;
  std::string command = concat("addr2line -a -i -e ", shell_quoted(module));
  for (const uint64_t offset : offsets) {
    char address[32];
    std::snprintf(address, sizeof address, "0x%llx", static_cast<unsigned long long>(offset));
    command += concat(" ", address);
    found.push_back({for_ever(concat(module, "+", address)), 0, ""});
  }
  FILE* pipe = popen((command + " 2>/dev/null").c_str(), "r");
  if (pipe == nullptr) return found;
  char line[4096];
  size_t next = 0;
  while (std::fgets(line, sizeof line, pipe) != nullptr) {
    const std::string_view text = line;
    if (text.rfind("0x", 0) == 0) ++next;  // the address, then its chain
    const size_t colon = text.rfind(':');
    if (colon == std::string_view::npos || text[0] == '?' || next == 0 || next > found.size()) continue;
    const int number = std::atoi(line + colon + 1);
    Site& site = found[next - 1];
    const bool any = site.line != 0;
    if (number == 0 || (any && (!is_library(site.file) || is_library(text.substr(0, colon))))) continue;
    site = {for_ever(std::string(text.substr(0, colon))), number, ""};
  }
  pclose(pipe);
  return found;
}

std::map<uint32_t, Site> known_places;  // of program counters

// Where the compiler has merged the code of several lines it names none: what stands before is taken.
void look_up(const std::string& module, std::vector<std::pair<uint64_t, uint32_t>> places) {
  constexpr uint64_t kFarthest = 32;
  for (uint64_t back = 0; back < kFarthest && !places.empty(); ++back) {
    std::vector<uint64_t> offsets;
    for (const auto& [offset, place] : places) offsets.push_back(offset - std::min(back, offset));
    const std::vector<Site> found = look_up(module, offsets);
    std::vector<std::pair<uint64_t, uint32_t>> left;
    for (size_t i = 0; i < places.size(); ++i) {
      if (back == 0 || found[i].line != 0) known_places[places[i].second] = found[i];
      if (found[i].line == 0) left.push_back(places[i]);
    }
    places = left;
  }
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

void know_places(const std::vector<uint32_t>& places) {
  constexpr size_t kAtOnce = 1000;  // of a command line
  std::map<std::string, std::vector<std::pair<uint64_t, uint32_t>>> unknown;
  for (const uint32_t place : places) {
    if ((place & kIsSite) != 0 || !known_places.try_emplace(place, Site{"an unknown program", 0, ""}).second) continue;
    const auto offset = static_cast<int32_t>(place << 1) >> 1;  // 31 bits, signed
    const Address address = address_of(anchor() + offset);
    if (address.module.empty()) continue;
    auto& of_module = unknown[address.module];
    of_module.emplace_back(address.offset, place);
    if (of_module.size() == kAtOnce) look_up(address.module, std::exchange(of_module, {}));
  }
  for (const auto& [module, of_module] : unknown) look_up(module, of_module);
}

Site place_site(uint32_t place) {
  if ((place & kIsSite) != 0) return sites()[place & ~kIsSite];
  know_places({place});
  return known_places[place];
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
