// Configurations as a command line gives them, and another value for every option.
#pragma once

#include <string>
#include <vector>

#include "train/config/run_config.h"

namespace heddle::test {

inline RunConfig from_flags(const std::vector<FlagValue>& flags) {
  return make_run_config("", {}, flags);
}

// Another acceptable value for any option, as a user would write it.
inline std::string other_value(const Option<RunConfig>& o, const RunConfig& c) {
  if (o.is_switch()) return o.toml_text(c) == "true" ? "false" : "true";
  if (const auto* choice = o.as<ChoiceOf<RunConfig>>()) return std::string(choice->words[(choice->get(c) + 1) % choice->words.size()]);
  if (o.name == "kernel") return "matmul=eigen";
  if (const auto* count = o.as<int64_t RunConfig::*>()) return std::to_string(o.max < 2 ? 1 - c.**count : c.**count == 2 ? 3 : 2);
  if (const auto* real = o.as<double RunConfig::*>()) return o.max == 1 ? (c.**real == 0.5 ? "0.25" : "0.5") : "7.5";
  if (o.as<DurationOf<RunConfig>>()) return "90m";
  return "some \"name\"\\with\ttabs # and = signs";
}

}  // namespace heddle::test
