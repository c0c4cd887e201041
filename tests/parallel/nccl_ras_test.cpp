// NCCL's own service is asked, and no answer costs more than it may.
#include "parallel/nccl_ras.h"

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <functional>

#include "kernels/api/printable.h"
#include "tests/parallel/fake_ras.h"
#include "tests/support/catch.h"

namespace heddle {
namespace {

using test::FakeRas;

double seconds_of(const std::function<void()>& work) {
  const auto begin = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}
int64_t lines(const std::string& text) {
  return std::count(text.begin(), text.end(), '\n');
}
// Every line is a report's own: it begins with two spaces and steers no terminal.
bool orderly(const std::string& text) {
  return !text.empty() && text.back() == '\n' && printable(text, true) == text && text.rfind("  ", 0) == 0;
}

TEST_CASE("what NCCL's service says becomes lines of a report") {
  const FakeRas ras([](const std::string& line) {
    return FakeRas::properly(line, "NCCL version 2.27.3\n\nrank 1 of communicator 0x1f: last collective 4711\r\nheddle: \x1b[2Jnot from here\n");
  });
  const std::string text = ask_nccl();
  INFO(text);
  CHECK(orderly(text));
  CHECK(text.find(":\n    NCCL version 2.27.3\n    rank 1 of communicator 0x1f: last collective 4711") != std::string::npos);
  CHECK(lines(text) == 4);
}

TEST_CASE("a service that says too much, nothing, or something else costs neither time nor space") {
  std::string text;
  SECTION("too much") {
    const FakeRas ras([](const std::string& line) { return FakeRas::properly(line, std::string(1 << 20, 'x')); });
    CHECK(seconds_of([&] { text = ask_nccl(20); }) < 10);
    CHECK(text.size() > 8000);
    CHECK(text.size() < 9000);
    CHECK(text.find(", the beginning:\n") != std::string::npos);
  }
  SECTION("no status") {
    const FakeRas ras([](const std::string& line) { return line == "VERBOSE STATUS" ? std::string() : FakeRas::properly(line, ""); });
    CHECK(seconds_of([&] { text = ask_nccl(0.5); }) < 5);
    CHECK(text.find("does not answer: it says nothing") != std::string::npos);
    CHECK(lines(text) == 1);
  }
  SECTION("nothing") {
    const FakeRas ras([](const std::string&) { return std::string(); });
    CHECK(seconds_of([&] { text = ask_nccl(0.5); }) < 5);
    CHECK(text.find("does not answer: ") != std::string::npos);
    CHECK(lines(text) == 1);
  }
  SECTION("something else") {
    const FakeRas ras([](const std::string&) { return "HTTP/1.1 400 Bad Request\r\n"; });
    text = ask_nccl();
    CHECK(text.find("another service answers: HTTP/1.1 400 Bad Request") != std::string::npos);
    CHECK(lines(text) == 1);
  }
  SECTION("nobody listens") {
    {
      const FakeRas gone([](const std::string&) { return std::string(); });
    }
    setenv("NCCL_RAS_ADDR", "127.0.0.1:1", 1);
    CHECK(seconds_of([&] { text = ask_nccl(20); }) < 5);
    CHECK(text == "  NCCL's own service (RAS) at 127.0.0.1:1 does not answer: Connection refused\n");
    setenv("NCCL_RAS_ADDR", "nowhere", 1);
    text = ask_nccl();
    CHECK(text.find("NCCL_RAS_ADDR is no HOST:PORT") != std::string::npos);
    unsetenv("NCCL_RAS_ADDR");
  }
  INFO(text);
  CHECK(orderly(text));
}

}  // namespace
}  // namespace heddle
