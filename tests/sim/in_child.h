// What a program says when it dies.
#pragma once

#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <functional>
#include <string>

#include "tests/support/catch.h"

namespace heddle::test {

struct ChildEnd {
  std::string text;  // what it wrote to stderr
  int status = 0;    // as waitpid gives it: 0 if it ended well
  int signal() const { return WIFSIGNALED(status) ? WTERMSIG(status) : 0; }
};

// Runs act in a child process.
inline ChildEnd in_child(const std::function<void()>& act) {
  int ends[2];
  REQUIRE(pipe(ends) == 0);
  const pid_t child = fork();
  if (child == 0) {
    dup2(ends[1], 2);
    for (int s : {SIGSEGV, SIGBUS, SIGABRT}) std::signal(s, SIG_DFL);  // not the test program's own
    act();
    _exit(0);
  }
  close(ends[1]);
  ChildEnd end;
  char part[512];
  for (ssize_t n; (n = read(ends[0], part, sizeof part)) > 0;) end.text.append(part, static_cast<size_t>(n));
  close(ends[0]);
  waitpid(child, &end.status, 0);
  return end;
}

}  // namespace heddle::test
