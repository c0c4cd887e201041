#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdlib>
#include <utility>

#include "tests/support/catch.h"
#include "tests/train/expect_error.h"
#include "train/report/console.h"
#include "train/report/utilisation.h"

namespace heddle {
namespace {

TEST_CASE("a step's line fits into 80 columns") {
  StepLine line{.step = 12, .steps = 500, .loss = 5.123456, .grad_norm = 1.2345, .lr = 3e-4, .tokens_per_second = 67953.4};
  CHECK(step_text(line) == "step  12/500 | loss 5.1235 | norm 1.23 | lr 3.0e-04 | 67.95 k tok/s");
  line.utilisation = 0.4149;
  CHECK(step_text(line) == "step  12/500 | loss 5.1235 | norm 1.23 | lr 3.0e-04 | 67.95 k tok/s | MFU 41 %");
  CHECK(step_text(line).size() <= 80);
  line.note = "withheld";
  CHECK(step_text(line) == "step  12/500 | loss 5.1235 | norm 1.23 | lr 3.0e-04 | withheld");
  line = {.step = 1234567, .steps = 2000000, .loss = 11.98765, .grad_norm = 1234567, .lr = 1.5e-10, .tokens_per_second = 12.3e6};
  CHECK(step_text(line).size() <= 80);
  line.note = "withheld";
  CHECK(step_text(line).size() <= 80);
  line.loss = std::nan("");
  CHECK(step_text(line).find("loss nan") != std::string::npos);
  line.loss = 1e300;  // hundreds of digits: shortened, never overrun
  CHECK(step_text(line).size() < 2000);
}

TEST_CASE("the peak of a GPU is known by its driver's name for it, and no other's is taken for it") {
  const std::pair<const char*, double> cards[] = {{"NVIDIA A100-SXM4-80GB", 312},
                                                  {"NVIDIA A100 80GB PCIe", 312},
                                                  {"NVIDIA H100 80GB HBM3", 989},
                                                  {"NVIDIA H100 PCIe", 756},
                                                  {"NVIDIA H100 NVL", 835},
                                                  {"NVIDIA H200", 989},
                                                  {"NVIDIA H200 NVL", 835},
                                                  {"NVIDIA GH200 480GB", 989},
                                                  {"NVIDIA B200", 2250},
                                                  {"NVIDIA GB200", 2500},
                                                  {"NVIDIA H20", 148},
                                                  {"NVIDIA L4", 121},
                                                  {"NVIDIA L40S", 362},
                                                  {"NVIDIA A10", 125},
                                                  {"NVIDIA GeForce RTX 4090", 165},
                                                  {"NVIDIA RTX A4000", 0},
                                                  {"NVIDIA A10G", 0},
                                                  {"Tesla V100-SXM2-16GB", 0},
                                                  {"heddle simulated GPU", 0},
                                                  {"", 0}};
  for (const auto& [name, teraflops] : cards) {
    INFO(name);
    CHECK(peak_flops(name) == teraflops * 1e12);
  }
}

TEST_CASE("lines: as often as asked, else about fifty a run, the first of a start, and one after a minute of silence") {
  const auto start = std::chrono::steady_clock::now();
  const auto printed = [&](int64_t every, uint64_t first, uint64_t steps, std::chrono::milliseconds step_time) {
    LineTimer timer(every, steps);
    std::vector<uint64_t> all;
    for (uint64_t step = first; step <= steps; ++step) {
      if (timer.due(step, start + step_time * step)) all.push_back(step);
    }
    return all;
  };
  using Steps = std::vector<uint64_t>;
  using std::chrono::milliseconds;
  CHECK(printed(4, 1, 10, milliseconds(0)) == Steps{4, 8, 10});
  CHECK(printed(4, 1, 10, milliseconds(90000)) == Steps{4, 8, 10});
  CHECK(printed(0, 1, 3, milliseconds(0)) == Steps{1, 2, 3});
  CHECK(printed(0, 1, 1, milliseconds(0)) == Steps{1});
  CHECK(printed(0, 1, 100000, milliseconds(1)).size() == 51);
  CHECK(printed(0, 51234, 100000, milliseconds(1)).front() == 51234);
  CHECK(printed(0, 1, 100000, milliseconds(61000)).size() == 100000);
  CHECK(printed(0, 1, 100000, milliseconds(1000)) == [] {
    Steps minutes = {1};
    for (uint64_t last = 1; last < 100000; minutes.push_back(last)) last = std::min<uint64_t>({last + 60, (last / 2000 + 1) * 2000, 100000});
    return minutes;
  }());
}

TEST_CASE("the loss of a line is that of the last steps, without bias towards the start") {
  LossMeter meter;
  meter.add(4);
  CHECK_THAT(meter.value(), Catch::Matchers::WithinRel(4.0, 1e-12));
  meter.add(2);
  CHECK_THAT(meter.value(), Catch::Matchers::WithinRel((0.95 * 4 + 2) / 1.95, 1e-12));
  for (int i = 0; i < 1000; ++i) meter.add(3);
  CHECK_THAT(meter.value(), Catch::Matchers::WithinRel(3.0, 1e-9));
}

TEST_CASE("amounts and times for people") {
  CHECK(duration_text(59.6) == "1:00");
  CHECK(duration_text(3723) == "1:02:03");
  CHECK(duration_text(90000) == "1d 1:00:00");
  CHECK(duration_text(std::nan("")) == "?");
  CHECK(duration_text(-1) == "?");
  CHECK(bytes_text(12) == "12 B");
  CHECK(bytes_text(1.5 * 1024 * 1024 * 1024) == "1.50 GiB");
  CHECK(amount_text(124439808) == "124.44 M");
  CHECK(amount_text(512) == "512");
}

TEST_CASE("the token rate leaves the first step out and has no bias at its start") {
  RateMeter meter;
  CHECK(meter.tokens_per_second() == 0);
  meter.add(1000, 100);  // page faults and warm-up
  CHECK(meter.tokens_per_second() == 0);
  meter.add(1000, 0.5);
  CHECK_THAT(meter.tokens_per_second(), Catch::Matchers::WithinRel(2000.0, 1e-12));
  CHECK_THAT(meter.seconds_per_step(), Catch::Matchers::WithinRel(0.5, 1e-12));
  for (int i = 0; i < 500; ++i) meter.add(1000, 0.25);
  CHECK_THAT(meter.tokens_per_second(), Catch::Matchers::WithinRel(4000.0, 1e-6));
}

TEST_CASE("a console that is no terminal gets plain lines, and no rank but the first prints") {
  int ends[2];
  REQUIRE(::pipe(ends) == 0);
  {
    Console console({.handle = ends[1]});
    CHECK(!console.has_bar());
    console.progress("step", 1, 10, 0.5);
    console.line("hello");
    console.warn("careful");
    Console silent({.enabled = false, .handle = ends[1]});
    silent.line("never");
  }
  ::close(ends[1]);
  char buffer[256];
  const ssize_t n = ::read(ends[0], buffer, sizeof buffer);
  ::close(ends[0]);
  CHECK(std::string(buffer, static_cast<size_t>(std::max<ssize_t>(n, 0))) == "hello\nwarning: careful\n");
}

TEST_CASE("the start table shows values and where they come from") {
  RunConfig config;
  config.set("lr", "1e-3", Source::flag, "--lr");
  config.dim = 768;
  config.mark_derived("dim", "model gpt2");
  const std::string table = table_text("configuration", config_rows(config));
  CHECK(table.find("  lr ") != std::string::npos);
  CHECK(table.find("--lr\n") != std::string::npos);
  CHECK(table.find("from model gpt2\n") != std::string::npos);
  CHECK(table.find("kv-heads") == std::string::npos);  // nobody set it
  CHECK(table.find("beta1") == std::string::npos);     // it is at its default
}

// Both ends of a pseudo-terminal; hang_up() closes the one a person sits at.
struct Terminal {
  int person = ::posix_openpt(O_RDWR | O_NOCTTY), program = -1;
  Terminal() {
    REQUIRE(person >= 0);
    REQUIRE(::grantpt(person) == 0);
    REQUIRE(::unlockpt(person) == 0);
    program = ::open(::ptsname(person), O_RDWR | O_NOCTTY);
    REQUIRE(program >= 0);
  }
  void hang_up() { ::close(std::exchange(person, -1)); }
  ~Terminal() {
    if (person >= 0) ::close(person);
    ::close(program);
  }
};

TEST_CASE("a terminal that is gone is no failure of the run; output that finds no room is one") {
  Terminal terminal;
  {
    Console console({.progress = false, .handle = terminal.program});
    console.line("hello");
    terminal.hang_up();
    char nothing = 0;
    REQUIRE(::write(terminal.program, &nothing, 1) == -1);
    REQUIRE(errno == EIO);
    console.line("is anybody there?");
    CHECK_NOTHROW(console.require_written());
  }
  const int full = ::open("/dev/full", O_WRONLY);
  if (full < 0) return;
  {
    Console console({.handle = full});
    console.line("hello");
    expect_error([&] { console.require_written(); }, ExitCode::io, {"standard output"});
  }
  ::close(full);
}

}  // namespace
}  // namespace heddle
