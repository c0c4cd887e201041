// A temporary directory, and the heddle program run in it as from a shell.
#pragma once

#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "tests/support/catch.h"

namespace heddle::test {

struct Result {
  int code;
  std::string out, err;
};

struct Workplace {
  std::filesystem::path path;
  Workplace() {
    std::string name = (std::filesystem::temp_directory_path() / "heddle-app-XXXXXX").string();
    REQUIRE(::mkdtemp(name.data()) != nullptr);
    path = name;
  }
  ~Workplace() {
    std::error_code ignored;
    std::filesystem::remove_all(path, ignored);
  }
  Workplace(const Workplace&) = delete;
  Workplace& operator=(const Workplace&) = delete;

  std::string operator/(const std::string& name) const { return (path / name).string(); }
  std::string read(const std::string& name) const {
    std::ifstream in(path / name, std::ios::binary);
    std::stringstream text;
    text << in.rdbuf();
    return text.str();
  }
  void write(const std::string& name, const std::string& content) const { std::ofstream(path / name, std::ios::binary | std::ios::trunc) << content; }
  // `arguments` as a shell reads them; `before`: variables, or commands that end in a semicolon.
  Result heddle(const std::string& arguments, const std::string& before = "") const {
    const std::string command = "cd '" + path.string() + "' && " + before + " '" HEDDLE_PROGRAM "' " + arguments + " >out.txt 2>err.txt </dev/null";
    const int status = std::system(command.c_str());
    return {WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status), read("out.txt"), read("err.txt")};
  }
};

inline bool has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

// The program ended with this code and one message on standard error, which has every part.
inline void expect_refusal(const std::string& arguments, const Result& r, int code, const std::vector<std::string>& parts) {
  INFO("heddle " << arguments << "\nexit code " << r.code << "\n" << r.err);
  CHECK(r.code == code);
  for (const std::string& part : parts) {
    INFO("expected: " << part);
    CHECK(has(r.err, part));
  }
  CHECK(has(r.err, "heddle: ["));
  CHECK(r.err.find("heddle: [") == r.err.rfind("heddle: ["));
}

}  // namespace heddle::test
