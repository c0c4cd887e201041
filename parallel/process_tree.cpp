#include "parallel/process_tree.h"

#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <sstream>
#include <string>
#include <system_error>

#include "kernels/api/check.h"

namespace heddle {
namespace {

std::string text_of(const Process& process, const char* file) {
  std::ifstream in(concat("/proc/", process.id, "/", file), std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

}  // namespace

std::vector<Process> processes() {
  constexpr int kStartField = 22;  // of /proc/[pid]/stat
  std::vector<Process> all;
  std::error_code unknown;
  for (const auto& entry : std::filesystem::directory_iterator("/proc", unknown)) {
    const std::string name = entry.path().filename().string();
    if (name.find_first_not_of("0123456789") != std::string::npos) continue;
    std::string stat;
    std::ifstream in(entry.path() / "stat");
    std::getline(in, stat);
    const size_t end = stat.rfind(") ");  // "pid (name) state parent ...", and a name may hold anything
    if (end == std::string::npos) continue;
    std::istringstream fields(stat.substr(end + 2));
    Process p{.id = std::atoi(name.c_str())};
    fields >> p.state >> p.parent;
    std::string skipped;
    for (int field = 5; field < kStartField; ++field) fields >> skipped;
    fields >> p.start;
    if (fields && p.state != 'Z') all.push_back(p);
  }
  return all;
}

std::vector<Process> descendants(const std::vector<Process>& spared) {
  const std::vector<Process> all = processes();
  std::vector<Process> tree = {{.id = ::getpid()}};
  for (size_t i = 0; i < tree.size(); ++i) {
    for (const Process& p : all) {
      if (p.parent == tree[i].id && std::none_of(spared.begin(), spared.end(), [&](const Process& s) { return s.is(p); })) tree.push_back(p);
    }
  }
  tree.erase(tree.begin());
  return tree;
}

bool handles(const Process& process, int signal) {
  const std::string status = text_of(process, "status");
  for (const char* set : {"\nSigCgt:", "\nSigBlk:"}) {
    const size_t at = status.find(set);
    if (at == std::string::npos) continue;
    if (std::strtoull(status.c_str() + at + 8, nullptr, 16) >> (signal - 1) & 1) return true;
  }
  return false;
}

std::optional<int> rank_of(const Process& process) {
  const std::string environment = '\0' + text_of(process, "environ");
  for (const char* name : {"OMPI_COMM_WORLD_RANK", "PMI_RANK", "PMIX_RANK"}) {
    const std::string key = concat('\0', name, '=');
    if (const size_t at = environment.find(key); at != std::string::npos) return std::atoi(environment.c_str() + at + key.size());
  }
  return std::nullopt;
}

}  // namespace heddle
