#pragma once

#include <string>
#include <vector>

#include "kernels/api/check.h"
#include "tests/support/catch.h"

namespace heddle {

// `action` throws Error with this exit code and a message that holds every part.
template <class Action>
void expect_error(Action action, ExitCode code, const std::vector<std::string>& parts) {
  try {
    action();
  } catch (const Error& e) {
    INFO(e.what());
    CHECK(static_cast<int>(e.code()) == static_cast<int>(code));
    for (const std::string& part : parts) {
      INFO("expected: " << part);
      CHECK(std::string(e.what()).find(part) != std::string::npos);
    }
    return;
  }
  FAIL_CHECK("no error, expected one that names " << (parts.empty() ? "its cause" : parts.front()));
}

}  // namespace heddle
