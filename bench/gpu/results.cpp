#include "bench/gpu/results.h"

#include <iostream>

#include "kernels/api/check.h"

namespace heddle::bench {

Results::Results(const std::string& path, const std::string& stage) : stage_(stage + " ") {
  std::ifstream in(path);
  std::string begun;
  for (std::string line; std::getline(in, line);) {
    if (line.rfind(stage_, 0) != 0) continue;
    line = line.substr(stage_.size());
    if (line.rfind("begun ", 0) == 0) begun = line.substr(6);
    if (remember(line) || line == "stopped") begun.clear();
  }
  out_.open(path, std::ios::app);
  HEDDLE_CHECK(out_.is_open(), "acceptance", "cannot write ", path);
  if (!begun.empty()) add(begun, "did not end: it hung, crashed or was killed");
}
void Results::begin(const std::string& name) {
  out_ << stage_ << "begun " << name << std::endl;  // on disk at once: the case may end the process
}
void Results::add(const std::string& name, std::string fault) {
  for (char& c : fault) c = c == '\n' ? ' ' : c;
  const std::string line = fault.empty() ? "ok " + name : "FAIL " + name + ": " + fault;
  out_ << stage_ << line << std::endl;
  if (!fault.empty()) std::cout << line << std::endl;
  remember(line);
}
void Results::note(const std::string& word, const std::string& text) {
  out_ << stage_ << word << ' ' << text << std::endl;
}
bool Results::remember(const std::string& line) {
  const bool ok = line.rfind("ok ", 0) == 0;
  if (!ok && line.rfind("FAIL ", 0) != 0) return false;
  done_.insert(ok ? line.substr(3) : line.substr(5, line.find(": ") - 5));
  failures_ += !ok;
  return true;
}

}  // namespace heddle::bench
