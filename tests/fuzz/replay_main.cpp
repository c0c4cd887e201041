// Runs a fuzz target on its corpus, as an ordinary test:  fuzz_<target> CORPUS EXPECTED
//
// Each line of EXPECTED is `name: ok` or `name: part of the message of the refusal`. Every file of the folder CORPUS must be listed, every line must
// have its file, and each input must be judged as written.
#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>
#include <map>

#include "tests/fuzz/target.h"

namespace {

using heddle::concat;
using heddle::fuzz::Outcome;

std::string read(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) throw std::runtime_error(concat("cannot open ", path.string()));
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

// What is wrong with how `content` was judged; empty: nothing.
std::string judge(const std::string& content, const std::string& expected) {
  heddle::fuzz::outcome() = {};
  heddle::fuzz::run_input(content);
  const Outcome& got = heddle::fuzz::outcome();
  if (expected == "ok") return got.accepted ? "" : concat("should be accepted, but: ", got.refused ? got.message : "no parser saw it");
  if (!got.refused) return got.accepted ? concat("was accepted, expected a refusal with: ", expected) : "no parser saw it";
  if (got.message.find(expected) == std::string::npos) return concat("refused with:\n    ", got.message, "\n  expected:\n    ", expected);
  return "";
}

int replay(const std::filesystem::path& corpus, const std::filesystem::path& expectations) {
  std::map<std::string, std::string> expected;
  std::ifstream lines(expectations);
  if (!lines) throw std::runtime_error(concat("cannot open ", expectations.string()));
  for (std::string line; std::getline(lines, line);) {
    if (line.empty() || line[0] == '#') continue;
    const size_t colon = line.find(": ");
    if (colon == std::string::npos) throw std::runtime_error(concat(expectations.string(), ": no `name: text`: ", line));
    if (!expected.emplace(line.substr(0, colon), line.substr(colon + 2)).second) throw std::runtime_error(concat("listed twice: ", line));
  }
  int wrong = 0;
  for (const auto& entry : std::filesystem::directory_iterator(corpus)) {
    if (expected.count(entry.path().filename().string()) == 0) {
      std::cout << entry.path().string() << ": not listed in " << expectations.string() << "\n";
      ++wrong;
    }
  }
  int accepted = 0, refused = 0;
  for (const auto& [name, verdict] : expected) {
    std::cout << name << std::endl;  // the last name printed is the input that ended the process
    const std::string complaint = judge(read(corpus / name), verdict);
    (verdict == "ok" ? accepted : refused) += 1;
    if (!complaint.empty()) {
      std::cout << "  " << complaint << "\n";
      ++wrong;
    }
  }
  std::cout << accepted << " inputs to accept, " << refused << " to refuse, " << wrong << " wrong\n";
  return wrong == 0 && accepted > 0 ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) {
    std::cerr << "usage: fuzz_<target> CORPUS EXPECTED\n";
    return 2;
  }
  try {
    return replay(argv[1], argv[2]);
  } catch (const std::exception& e) {
    std::cerr << e.what() << "\n";
    return 1;
  }
}
