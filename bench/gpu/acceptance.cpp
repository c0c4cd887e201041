// The program behind gpu_acceptance.sh: its stages as lists of cases, each a function that says what is wrong.
#include <unistd.h>

#include <chrono>
#include <fstream>
#include <iostream>
#include <string>
#include <vector>

#include "bench/gpu/conformance.h"
#include "bench/gpu/golden.h"
#include "bench/gpu/production.h"
#include "bench/gpu/results.h"
#include "kernels/api/check.h"
#include "tests/sim/proving_cases.h"
#include "tests/sim/proving_kernels.h"

namespace heddle::bench {
namespace {

constexpr const char* kUsage =
    "usage: acceptance conformance CASES [--golden FILE]... [--record FILE] [OPTIONS]\n"
    "       acceptance proving CASES [--short] [OPTIONS]\n"
    "       acceptance production CASES [--small] [--repeats N] [--untimed] [--record FILE] [OPTIONS]\n"
    "       acceptance list conformance|proving|production [--short] [--small]    the names of the cases; production: what torch has beside them\n"
    "       acceptance words NAME                            the words of one conformance case\n"
    "       acceptance serve [--small]                       reads names of production cases, answers with microseconds\n"
    "       acceptance profile NAME [--small]                runs one production case once\n"
    "       acceptance about [--small]                     the device and the libraries beside it\n"
    "options: --stage NAME        the first word of the lines in CASES (conformance, proving, production)\n"
    "         --match TEXT        only cases whose names hold it\n"
    "         --budget SECONDS    start no case after this time\n"
    "         --case-seconds N    a case that takes longer ends the program\n"
    "         --plant FAULT       fragment-map, hang, wrong-tile, unsteady or slow, in one case: it must be found\n"
    "exit code 0: every case is ok, 1: some are not, 2: usage, 3: stopped after a failure that spoils the device, run again, 4: out of time, run "
    "again\n";
enum Exit { kOk = 0, kFailed = 1, kUsageError = 2, kSpoilt = 3, kLate = 4 };

struct Options {
  std::string what, argument, stage, match, plant;
  std::vector<std::string> golden;
  std::string record;
  double budget = 1e9;
  unsigned case_seconds = 0;
  int repeats = 5;
  bool few = false, small = false, untimed = false;
  Sizes sizes() const { return small ? Sizes::small : Sizes::production; }
};

// A case that can be run, whatever it is.
struct Case {
  std::string name;
  int capability = 80;
  std::function<std::string(bool planted)> run;
};

// Where a planted fault goes: the first case of the stage whose name holds the text.
const struct {
  std::string_view fault, stage, text;
  Planted planted;
} kPlants[] = {{"fragment-map", "conformance", "fragment_maps", Planted::nothing},
               {"hang", "proving", "norm_forward", Planted::nothing},
               {"wrong-tile", "production", "matmul", Planted::wrong_tile},
               {"unsteady", "production", "norm_forward", Planted::unsteady},
               {"slow", "production", "dropout", Planted::slow}};

int run_cases(const Options& options, const std::vector<Case>& cases, const std::vector<std::string>& missing) {
  const auto start = std::chrono::steady_clock::now();
  const int capability = test::device_capability();
  Results results(options.argument, options.stage.empty() ? options.what : options.stage);
  for (const std::string& text : missing) results.note("missing", text);
  std::string planted_at;
  for (const auto& plant : kPlants) {
    if (plant.fault != options.plant || plant.stage != options.what) continue;
    for (const Case& c : cases)
      if (planted_at.empty() && c.name.find(plant.text) != std::string::npos) planted_at = c.name;
  }
  for (const Case& c : cases) {
    if (c.capability > capability || results.done(c.name) || c.name.find(options.match) == std::string::npos) continue;
    if (std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count() > options.budget) return kLate;
    results.begin(c.name);
    alarm(options.case_seconds);  // SIGALRM ends the process; the next run finds the case begun and not ended
    bool spoilt = false;
    std::string fault;
    try {
      const bool planted = c.name == planted_at;
      while (planted && options.plant == "hang") pause();
      fault = c.run(planted);
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
  std::vector<Case> cases = {{"fragment_maps", 80, check_fragment_maps}};
  for (const ConformanceCase& c : conformance_cases()) {
    cases.push_back({c.name, c.capability, [c, goldens, record = options.record](bool) {
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
  for (const test::ProvingCase& c : options.few ? test::short_proving_cases() : test::proving_cases())
    cases.push_back({c.name, c.capability, [run = c.run](bool) { return run(); }});
  return cases;
}
std::vector<Case> production(const Options& options, const ProductionList& list) {
  ProductionOptions production;
  production.sizes = options.sizes();
  production.repeats = options.repeats;
  production.timed = !options.untimed;
  production.record = options.record;
  std::vector<Case> cases = {{"every built tile is met", 80, [sizes = options.sizes()](bool) { return tiles_not_met(sizes); }}};
  for (const ProductionCase& c : list.cases) {
    cases.push_back({c.name, 80, [c, production, plant = options.plant](bool planted) {
                       ProductionOptions with = production;
                       for (const auto& each : kPlants)
                         if (planted && each.fault == plant) with.planted = each.planted;
                       return run_production(c, with);
                     }});
  }
  return cases;
}

const ProductionCase& find(const ProductionList& list, const std::string& name) {
  for (const ProductionCase& c : list.cases)
    if (c.name == name) return c;
  throw Error("[acceptance] no production case is called " + name);
}
int serve(const Options& options) {
  const ProductionList list = production_list(options.sizes());
  ProductionOptions production;
  production.sizes = options.sizes();
  for (std::string name; std::getline(std::cin, name);) std::cout << time_production(find(list, name), production) << std::endl;
  return kOk;
}

int print_names(const std::vector<Case>& cases) {
  for (const Case& c : cases) std::cout << c.name << '\n';
  return kOk;
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
  if (args.empty()) return false;
  options.what = args[0];
  size_t i = 1;
  if (i < args.size() && args[i].rfind("--", 0) != 0) options.argument = args[i++];
  for (; i < args.size(); ++i) {
    bool* const flag = args[i] == "--short"     ? &options.few
                       : args[i] == "--small"   ? &options.small
                       : args[i] == "--untimed" ? &options.untimed
                                                : nullptr;
    if (flag != nullptr) {
      *flag = true;
      continue;
    }
    if (i + 1 == args.size()) return false;
    const std::string& option = args[i];
    const std::string& value = args[++i];
    if (option == "--golden") {
      options.golden.push_back(value);
    } else if (option == "--record") {
      options.record = value;
    } else if (option == "--stage") {
      options.stage = value;
    } else if (option == "--match") {
      options.match = value;
    } else if (option == "--budget") {
      options.budget = std::stod(value);
    } else if (option == "--case-seconds") {
      options.case_seconds = static_cast<unsigned>(std::stoul(value));
    } else if (option == "--repeats") {
      options.repeats = std::stoi(value);
    } else if (option == "--plant") {
      options.plant = value;
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
  if (options.what == "about") {
    std::cout << device_name() << ", sm_" << test::device_capability() << ", " << multiprocessors() << " multiprocessors\n"
              << (options.small ? "" : cublaslt_state()) << '\n';
    return kOk;
  }
  if (options.what == "serve") return serve(options);
  const bool list = options.what == "list";
  const std::string& which = list ? options.argument : options.what;
  if (options.argument.empty() || (which != "conformance" && which != "proving" && which != "production" && which != "words" && which != "profile")) {
    std::cerr << kUsage;
    return kUsageError;
  }
  if (which == "words") return print_words(options.argument);
  if (which == "conformance") return list ? print_names(conformance(options)) : run_cases(options, conformance(options), {});
  if (which == "proving") return list ? print_names(proving(options)) : run_cases(options, proving(options), {});
  const ProductionList all = production_list(options.sizes());
  if (which == "profile") {
    profile_production(find(all, options.argument));
    return kOk;
  }
  if (!list) return run_cases(options, production(options, all), all.missing);
  for (const ProductionCase& c : all.cases) std::cout << c.name << '\t' << c.torch << '\n';
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
