// The console on a terminal: the bar, lines above it, and how both fit the width.
#include "train/report/console.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <string>
#include <thread>

#include "kernels/api/check.h"
#include "tests/support/catch.h"

namespace heddle {
namespace {

constexpr const char* kClear = "\r\x1b[2K";

// A terminal of a width, and all that was written to it since the last look.
class Terminal {
 public:
  explicit Terminal(unsigned short columns) : near_(::posix_openpt(O_RDWR | O_NOCTTY)) {
    REQUIRE(near_ >= 0);
    REQUIRE(::grantpt(near_) == 0);
    REQUIRE(::unlockpt(near_) == 0);
    handle = ::open(::ptsname(near_), O_RDWR | O_NOCTTY);
    REQUIRE(handle >= 0);
    termios raw{};
    REQUIRE(::tcgetattr(handle, &raw) == 0);
    ::cfmakeraw(&raw);  // bytes as they are written
    REQUIRE(::tcsetattr(handle, TCSANOW, &raw) == 0);
    const winsize size{.ws_row = 24, .ws_col = columns, .ws_xpixel = 0, .ws_ypixel = 0};
    REQUIRE(::ioctl(handle, TIOCSWINSZ, &size) == 0);
    ::setenv("TERM", "xterm", 1);
    ::setenv("NO_COLOR", "1", 1);
  }
  ~Terminal() {
    ::close(handle);
    ::close(near_);
  }
  Terminal(const Terminal&) = delete;
  Terminal& operator=(const Terminal&) = delete;

  std::string shown() const {
    std::string text;
    pollfd ready{near_, POLLIN, 0};
    while (::poll(&ready, 1, 0) == 1 && (ready.revents & POLLIN)) {
      char buffer[1024];
      text.append(buffer, static_cast<size_t>(std::max<ssize_t>(::read(near_, buffer, sizeof buffer), 0)));
    }
    return text;
  }

  int handle = -1;

 private:
  int near_;
};

// A bar of 60 places, the first `filled` of them done.
std::string bar(size_t filled) {
  return concat("[", std::string(filled, '='), filled < 60 ? ">" : "", std::string(filled < 60 ? 59 - filled : 0, ' '), "]");
}

TEST_CASE("the bar shows how much is done and when the rest will be") {
  const Terminal terminal(120);
  Console console({.handle = terminal.handle});
  REQUIRE(console.has_bar());
  console.progress("step", 3, 10, 60);
  const std::string drawn = "step " + bar(18) + " 3/10  30.0% ETA 7:00";
  CHECK(terminal.shown() == kClear + drawn);
  console.progress("step", 4, 10, 60);
  CHECK(terminal.shown() == "");  // not ten times a second
  console.line("hello");
  CHECK(terminal.shown() == kClear + ("hello\n" + drawn));
  console.warn("careful");
  CHECK(terminal.shown() == kClear + ("warning: careful\n" + drawn));
  std::this_thread::sleep_for(std::chrono::milliseconds(110));
  console.progress("step", 0, 10, 0);
  CHECK(terminal.shown() == kClear + ("step " + bar(0) + " 0/10   0.0%"));  // no estimate yet
  console.progress("step", 10, 10, 60);                                     // the end is always shown
  CHECK(terminal.shown() == kClear + ("step " + bar(60) + " 10/10 100.0% ETA 0:00"));
  console.progress("step", 12, 10, 60);  // more than all is all
  CHECK(terminal.shown() == kClear + ("step " + bar(60) + " 12/10 100.0% ETA 0:00"));
  console.end_progress();
  CHECK(terminal.shown() == kClear);
  console.end_progress();
  console.line("after");
  CHECK(terminal.shown() == "after\n");
  console.progress("eval", 1, 2, 1);
  CHECK(terminal.shown() == kClear + ("eval " + bar(30) + " 1/2  50.0% ETA 0:01"));
}

TEST_CASE("the bar never reaches the last column, in which a terminal would wrap") {
  for (const unsigned short columns : {200, 90, 60, 40, 37, 30, 21, 20}) {
    CAPTURE(columns);
    const Terminal terminal(columns);
    {
      Console console({.handle = terminal.handle});
      console.progress("step", 123456, 999999, 3600);
      const std::string shown = terminal.shown();
      REQUIRE(shown.rfind(kClear, 0) == 0);
      const size_t width = shown.size() - std::string(kClear).size();
      CHECK(width < columns);
      CHECK(width >= std::min<size_t>(columns - 1, 32));  // "step", the numbers and the time, as much of them as fits
      CHECK(shown.find("step ") != std::string::npos);
    }
    CHECK(terminal.shown() == kClear);  // it takes its bar away with it
  }
  const Terminal unknown(0);  // a width nobody told: 80
  Console console({.handle = unknown.handle});
  console.progress("step", 123456, 246912, 0);
  CHECK(unknown.shown() == kClear + ("step [" + std::string(25, '=') + ">" + std::string(25, ' ') + "] 123456/246912  50.0%"));
}

TEST_CASE("no bar and no colour where they are not wanted") {
  const Terminal terminal(80);
  const auto told = [&](const Console::Options& options) {
    Console console(options);
    console.progress("step", 1, 2, 1);
    console.warn("w");
    return terminal.shown();
  };
  CHECK(told({.progress = false, .handle = terminal.handle}) == "warning: w\n");
  CHECK(told({.terminal = false, .handle = terminal.handle}) == "warning: w\n");
  CHECK(told({.enabled = false, .handle = terminal.handle}) == "");
  ::unsetenv("NO_COLOR");
  CHECK(told({.progress = false, .handle = terminal.handle}) == "\x1b[33mwarning:\x1b[0m w\n");
  ::setenv("NO_COLOR", "", 1);  // empty is not set
  CHECK(told({.progress = false, .handle = terminal.handle}) == "\x1b[33mwarning:\x1b[0m w\n");
  CHECK(told({.terminal = false, .handle = terminal.handle}) == "warning: w\n");
  ::setenv("TERM", "dumb", 1);
  CHECK(told({.handle = terminal.handle}) == "warning: w\n");
  ::unsetenv("TERM");
  CHECK(told({.handle = terminal.handle}) == "warning: w\n");
}

}  // namespace
}  // namespace heddle
