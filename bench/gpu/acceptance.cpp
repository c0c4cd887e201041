// The program behind gpu_acceptance.sh.
//
// CASES, the file of results, gets one line per case: "begun NAME", then "ok NAME" or "FAIL NAME: why". Cases that are done are skipped, so a run
// that was cut off goes on where it stopped; one that was begun and never ended (a hang, a crash) counts as failed.
#include <unistd.h>

#include <chrono>
#include <fstream>
#include <iostream>
#include <set>
#include <string>
#include <vector>

#include "bench/gpu/conformance.h"
#include "bench/gpu/golden.h"
#include "kernels/api/check.h"
#include "tests/sim/proving_cases.h"
#include "tests/sim/proving_kernels.h"

namespace heddle::bench {
namespace {

constexpr const char* kUsage =
    "usage: acceptance conformance CASES [--golden FILE]... [--record FILE] [--plant fragment-map] [OPTIONS]\n"
    "       acceptance proving CASES [--short] [OPTIONS]\n"
    "       acceptance list conformance|proving [--short]    the names of the cases\n"
    "       acceptance words NAME                            the words of one conformance case\n"
    "options: --case NAME         this one only\n"
    "         --budget SECONDS    start no case after this time\n"
    "         --case-seconds N    a case that takes longer ends the program\n"
    "exit code 0: every case is ok, 1: some are not, 2: usage, 3: stopped after a failure that spoils the device, run again, 4: out of time, run "
    "again\n";
enum Exit { kOk = 0, kFailed = 1, kUsageError = 2, kSpoilt = 3, kLate = 4 };

struct Options {
  std::string what, argument;
  std::vector<std::string> golden;
  std::string record, only;
  double budget = 1e9;
  unsigned case_seconds = 0;
  bool plant = false, few = false;
};

// A case that can be run, whatever it is.
struct Case {
  std::string name;
  int capability = 80;
  std::function<std::string()> run;
};

class Results {
 public:
  explicit Results(const std::string& path) {
    std::ifstream in(path);
    std::string begun;
    for (std::string line; std::getline(in, line);) {
      if (line.rfind("begun ", 0) == 0) begun = line.substr(6);
      if (remember(line)) begun.clear();
    }
    out_.open(path, std::ios::app);
    HEDDLE_CHECK(out_.is_open(), "acceptance", "cannot write ", path);
    if (!begun.empty()) add(begun, "did not end: it hung, crashed or was killed");
  }
  bool done(const std::string& name) const { return done_.count(name) > 0; }
  void begin(const std::string& name) { out_ << "begun " << name << std::endl; }  // on disk at once: the case may end the process
  void add(const std::string& name, std::string fault) {
    for (char& c : fault) c = c == '\n' ? ' ' : c;
    const std::string line = fault.empty() ? "ok " + name : "FAIL " + name + ": " + fault;
    out_ << line << std::endl;
    if (!fault.empty()) std::cout << line << std::endl;
    remember(line);
  }
  int failures() const { return failures_; }
  size_t count() const { return done_.size(); }

 private:
  bool remember(const std::string& line) {
    const bool ok = line.rfind("ok ", 0) == 0;
    if (!ok && line.rfind("FAIL ", 0) != 0) return false;
    done_.insert(ok ? line.substr(3) : line.substr(5, line.find(": ") - 5));
    failures_ += !ok;
    return true;
  }
  std::ofstream out_;
  std::set<std::string> done_;
  int failures_ = 0;
};

int run_cases(const Options& options, const std::vector<Case>& cases) {
  const auto start = std::chrono::steady_clock::now();
  const int capability = test::device_capability();
  Results results(options.argument);
  for (const Case& c : cases) {
    if (c.capability > capability || results.done(c.name) || (!options.only.empty() && options.only != c.name)) continue;
    if (std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count() > options.budget) return kLate;
    results.begin(c.name);
    alarm(options.case_seconds);  // SIGALRM ends the process; the next run finds the case begun and not ended
    bool spoilt = false;
    std::string fault;
    try {
      fault = c.run();
    } catch (const std::exception& error) {
      fault = error.what();
      spoilt = true;  // after a fault in a kernel CUDA refuses every further call of the process
    }
    alarm(0);
    results.add(c.name, fault);
    if (spoilt) return kSpoilt;
  }
  std::cout << results.count() << " cases, " << results.failures() << " failed\n";
  return results.failures() == 0 ? kOk : kFailed;
}

std::vector<Case> conformance(const Options& options) {
  std::vector<Golden> goldens;
  for (const std::string& path : options.golden) goldens.push_back(read_golden(path));
  std::vector<Case> cases = {{"fragment_maps", 80, [plant = options.plant] { return check_fragment_maps(plant); }}};
  for (const ConformanceCase& c : conformance_cases()) {
    cases.push_back({c.name, c.capability, [c, goldens, record = options.record] {
                       const Words words = c.dump();
                       if (!record.empty()) {
                         std::ofstream out(record, std::ios::app);
                         out << golden_line(c, words) << std::endl;
                         HEDDLE_CHECK(out.good(), "acceptance", "cannot write ", record);
                       }
                       std::string faults;
                       for (const Golden& golden : goldens) {
                         const std::string fault = compare_with_golden(c, words, golden);
                         if (!fault.empty()) faults += (faults.empty() ? "" : "; ") + fault;
                       }
                       return faults;
                     }});
  }
  return cases;
}
std::vector<Case> proving(const Options& options) {
  std::vector<Case> cases;
  for (const test::ProvingCase& c : options.few ? test::short_proving_cases() : test::proving_cases()) cases.push_back({c.name, c.capability, c.run});
  return cases;
}

int print_words(const std::string& name) {
  for (const ConformanceCase& c : conformance_cases()) {
    if (c.name != name) continue;
    const Words words = c.dump();
    for (size_t i = 0; i < words.size(); ++i) std::cout << std::hex << words[i] << (i % 8 == 7 || i + 1 == words.size() ? '\n' : ' ');
    return kOk;
  }
  throw Error("[acceptance] no conformance case is called " + name);
}

// False: not understood.
bool parse(const std::vector<std::string>& args, Options& options) {
  if (args.size() < 2) return false;
  options.what = args[0];
  options.argument = args[1];
  for (size_t i = 2; i < args.size(); ++i) {
    if (args[i] == "--short") {
      options.few = true;
      continue;
    }
    if (i + 1 == args.size()) return false;
    const std::string& option = args[i];
    const std::string& value = args[++i];
    if (option == "--golden") {
      options.golden.push_back(value);
    } else if (option == "--record") {
      options.record = value;
    } else if (option == "--case") {
      options.only = value;
    } else if (option == "--budget") {
      options.budget = std::stod(value);
    } else if (option == "--case-seconds") {
      options.case_seconds = static_cast<unsigned>(std::stoul(value));
    } else if (option == "--plant" && value == "fragment-map") {
      options.plant = true;
    } else {
      return false;
    }
  }
  return true;
}

int run(const std::vector<std::string>& args) {
  Options options;
  if (!parse(args, options)) {
    std::cerr << kUsage;
    return kUsageError;
  }
  if (options.what == "words") return print_words(options.argument);
  const bool list = options.what == "list";
  const std::string& which = list ? options.argument : options.what;
  if (which != "conformance" && which != "proving") {
    std::cerr << kUsage;
    return kUsageError;
  }
  const std::vector<Case> cases = which == "conformance" ? conformance(options) : proving(options);
  if (!list) return run_cases(options, cases);
  for (const Case& c : cases) std::cout << c.name << '\n';
  return kOk;
}

}  // namespace
}  // namespace heddle::bench

int main(int argc, char** argv) {
  try {
    return heddle::bench::run({argv + 1, argv + argc});
  } catch (const std::exception& error) {
    std::cerr << error.what() << '\n';
    return 1;
  }
}
