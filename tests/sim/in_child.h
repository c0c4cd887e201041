// What a program says when it dies.
#pragma once

#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <functional>
#include <string>

#include "tests/support/catch.h"

namespace heddle::test {

// Runs act in a child process; returns what it wrote to stderr, and how it ended.
inline std::string in_child(const std::function<void()>& act, int* signal) {
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
  std::string text;
  char part[512];
  for (ssize_t n; (n = read(ends[0], part, sizeof part)) > 0;) text.append(part, static_cast<size_t>(n));
  close(ends[0]);
  int status = 0;
  waitpid(child, &status, 0);
  *signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
  return text;
}

}  // namespace heddle::test
