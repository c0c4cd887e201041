// What of two environments differs, line by line.
#include "train/environment.h"

#include "tests/support/catch.h"

namespace heddle {
namespace {

std::string told(std::string_view saved, std::string_view now) {
  std::string text;
  for (const EnvironmentChange& c : compare_environments(saved, now)) text += c.name + "[" + c.saved + "|" + c.now + "]";
  return text;
}

TEST_CASE("environments are compared by line, and what differs is told as it was written") {
  CHECK(told("", "") == "");
  CHECK(told("program: heddle 1\nlayout: dp 1, batch 2\n", "layout: dp 1, batch 2\nprogram: heddle 1\n") == "");  // order is no difference
  CHECK(told("program: heddle 1\nlayout: dp 1\n", "program: heddle 2\nlayout: dp 1\n") == "program[heddle 1|heddle 2]");
  CHECK(told("compiler: g++: 12\n", "compiler: g++: 13") ==
        "compiler[g++: 12|g++: 13]");  // the value may hold what ends a name; the last line its end
  CHECK(told("device: cpu\n", "device: cpu\nkernels: matmul=eigen\n") == "kernels[|matmul=eigen]");
  CHECK(told("kernels: matmul=eigen\ndevice: cpu\n", "device: cpu\n") == "kernels[matmul=eigen|]");
  CHECK(told("no colon here\n\ndevice: cpu\n", "device: gpu\n") == "device[cpu|gpu]");
}

TEST_CASE("of the libraries only those that differ are told") {
  CHECK(told("libraries: a 1, b 2, c 3\n", "libraries: a 1, b 4, c 3\n") == "libraries[b 2|b 4]");
  CHECK(told("libraries: a 1, b 2\n", "libraries: a 1, b 2, c 3\n") == "libraries[fewer|c 3]");
  CHECK(told("libraries: aa 1, b 2\n", "libraries: a 1, b 2\n") == "libraries[aa 1|a 1]");
  CHECK(told("libraries: c 3, a 1\n", "libraries: b 2\n") == "libraries[c 3, a 1|b 2]");
}

TEST_CASE("this program's environment has every line, in printable ASCII, and tells a forced kernel and another batch") {
  RunConfig c;
  const std::string text = environment_text(c, Device{}, 1);
  for (const char* name : {"program: ", "compiler: ", "processor: ", "device: cpu\n", "libraries: ", "layout: "}) {
    INFO(name << " in\n" << text);
    CHECK(text.find(name) != std::string::npos);
  }
  CHECK(text.find("kernels: ") == std::string::npos);
  for (const char letter : text) CHECK((letter == '\n' || (letter >= 0x20 && letter < 0x7f)));
  CHECK(told(text, environment_text(c, Device{}, 1)) == "");
  RunConfig other = c;
  other.kernel = {"matmul=eigen"};
  CHECK(told(text, environment_text(other, Device{}, 1)) == "kernels[|matmul=eigen]");
}

}  // namespace
}  // namespace heddle
