// What of two environments differs, line by line.
#include "train/environment.h"

#include "kernels/api/check.h"
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

TEST_CASE("of the libraries that compute only those that differ are told") {
  const std::string c = "libc.so.6 1", m = "libm.so.6 2", omp = "libgomp.so.1 3";
  const auto libraries = [](const std::vector<std::string>& names) {
    std::string text = "libraries: ";
    for (const std::string& name : names) text += concat(&name == names.data() ? "" : ", ", name);
    return text + "\n";
  };
  CHECK(told(libraries({c, m, omp}), libraries({c, "libm.so.6 4", omp})) == "libraries[libm.so.6 2|libm.so.6 4]");
  CHECK(told(libraries({c, m}), libraries({c, m, omp})) == "libraries[fewer|libgomp.so.1 3]");
  CHECK(told(libraries({"libm.so.66 2", m}), libraries({"libm.so.6 22", m})) == "libraries[libm.so.66 2|libm.so.6 22]");
  CHECK(told(libraries({omp, c}), libraries({m})) == "libraries[libgomp.so.1 3, libc.so.6 1|libm.so.6 2]");
  // What a launcher brings, and what has no part in the numbers, is no difference.
  std::vector<std::string> launched = {c, m, omp};
  for (const char* name :
       {"mca_btl_tcp.so", "mca_coll_tuned.so", "libpmix.so.2", "libevent_core-2.1.so.7", "libudev.so.1", "libz.so.1", "libnss_files.so.2"}) {
    launched.push_back(std::string(name) + " 9");
  }
  CHECK(told(libraries({c, m, omp}), libraries(launched)) == "");
  CHECK(told(libraries(launched), libraries({c, m, omp})) == "");
  for (const char* name :
       {"libmpi.so.40", "libdnnl.so.2", "libopenblas.so.0", "libmkl_core.so.2", "libcublas.so.12", "libnccl.so.2", "libomp.so.5"}) {
    launched.push_back(std::string(name) + " 9");
    CHECK(told(libraries({c, m, omp}), libraries(launched)) == concat("libraries[fewer|", name, " 9]"));
    launched.pop_back();
  }
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
