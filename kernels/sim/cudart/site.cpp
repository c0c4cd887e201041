#include "kernels/sim/cudart/site.h"

#include <cxxabi.h>
#include <dlfcn.h>
#include <execinfo.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <sstream>
#include <vector>

extern "C" char** environ;

namespace heddle::sim::cudart {
namespace {

std::string base_name(const std::string& path) {
  const size_t slash = path.rfind('/');
  return slash == std::string::npos ? path : path.substr(slash + 1);
}

std::string demangled(const std::string& name) {
  int status = 0;
  char* text = abi::__cxa_demangle(name.c_str(), nullptr, nullptr, &status);
  std::string result = status == 0 && text ? text : name;
  std::free(text);
  // Arguments say nothing here; an operator's own parentheses stay.
  const size_t arguments = result.find('(', result.compare(0, 8, "operator") == 0 ? 10 : 0);
  if (arguments != std::string::npos && arguments > 0 && result.find("(anonymous") != arguments && result.find("{lambda") == std::string::npos)
    result.resize(arguments);
  return result;
}

// addr2line -f -e module offset: two lines, function and file:line, with ?? for what it does not know.
std::string run_addr2line(const char* module, unsigned long offset) {
  int ends[2];
  if (pipe(ends) != 0) return {};
  char address[32];
  snprintf(address, sizeof address, "0x%lx", offset);
  const char* arguments[] = {"addr2line", "-f", "-e", module, address, nullptr};
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, ends[1], 1);
  posix_spawn_file_actions_addopen(&actions, 2, "/dev/null", 1, 0);
  posix_spawn_file_actions_addclose(&actions, ends[0]);
  pid_t child = -1;
  const bool started = posix_spawnp(&child, "addr2line", &actions, nullptr, const_cast<char**>(arguments), environ) == 0;
  posix_spawn_file_actions_destroy(&actions);
  close(ends[1]);
  std::string text;
  if (started) {
    char part[512];
    for (ssize_t n; (n = read(ends[0], part, sizeof part)) > 0;) text.append(part, static_cast<size_t>(n));
    int status = 0;
    waitpid(child, &status, 0);
  }
  close(ends[0]);
  return text;
}

std::string look_up(void* address) {
  // A return address may be the first byte of the next line or function.
  char* const call = static_cast<char*>(address) - 1;
  Dl_info info = {};
  if (dladdr(call, &info) == 0 || !info.dli_fname) {
    std::ostringstream text;
    text << address;
    return text.str();
  }
  const auto offset = static_cast<unsigned long>(call - static_cast<char*>(info.dli_fbase));
  // The main program of a process that is not position-independent is linked at its addresses, others at 0.
  std::istringstream lines(run_addr2line(info.dli_fname[0] ? info.dli_fname : "/proc/self/exe", offset));
  std::string function, place;
  std::getline(lines, function);
  std::getline(lines, place);
  if (function.empty() || function == "??") function = info.dli_sname ? info.dli_sname : "";
  std::ostringstream text;
  text << (function.empty() ? base_name(info.dli_fname) : demangled(function));
  const size_t discriminator = place.find(" (discriminator");
  if (discriminator != std::string::npos) place.resize(discriminator);
  if (!place.empty() && place[0] != '?') {
    text << " (" << base_name(place) << ")";
  } else if (function.empty()) {
    text << "+0x" << std::hex << offset;
  }
  return text.str();
}

std::string describe(void* address) {
  static std::mutex mutex;
  static std::map<void*, std::string> known;
  const std::lock_guard<std::mutex> lock(mutex);
  auto [entry, fresh] = known.try_emplace(address);
  if (fresh) entry->second = look_up(address);
  return entry->second;
}

}  // namespace

std::string CallSite::text() const {
  std::string result = api;
  const char* before = " called by ";
  for (void* frame : frames) {
    if (!frame) break;
    result += before + describe(frame);
    before = " < ";
  }
  return result;
}

CallSite call_site(const char* api, void* address) {
  CallSite site;
  site.api = api;
  site.frames[0] = address;
  return site;
}

CallSite call_site_deep(const char* api, void* address) {
  CallSite site = call_site(api, address);
  void* stack[24];
  const int depth = backtrace(stack, 24);
  for (int i = 0; i < depth; ++i) {
    if (stack[i] != address) continue;
    for (int k = 0; k < CallSite::kFrames && i + k < depth; ++k) site.frames[static_cast<size_t>(k)] = stack[i + k];
    break;
  }
  return site;
}

}  // namespace heddle::sim::cudart
