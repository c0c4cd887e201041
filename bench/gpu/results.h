// The file of cases: one line a case and stage, on disk before and after each, so that a run that was cut off goes on where it stopped.
//   STAGE begun NAME, then STAGE ok NAME or STAGE FAIL NAME: why; a case that was begun and never ended (a hang, a crash) counts as failed,
//   unless STAGE stopped follows: the time was up, and it is nobody's fault.
#pragma once

#include <fstream>
#include <set>
#include <string>

namespace heddle::bench {

class Results {
 public:
  Results(const std::string& path, const std::string& stage);
  bool done(const std::string& name) const { return done_.count(name) > 0; }
  void begin(const std::string& name);
  void add(const std::string& name, std::string fault);  // "": it is ok
  void note(const std::string& word, const std::string& text);
  int failures() const { return failures_; }
  size_t count() const { return done_.size(); }

 private:
  bool remember(const std::string& line);  // a line without its stage
  std::string stage_;
  std::ofstream out_;
  std::set<std::string> done_;
  int failures_ = 0;
};

}  // namespace heddle::bench
