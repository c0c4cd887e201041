// JSON as heddle reads it: every file is input from outside. Internal to .cpp files (nlohmann stays out of public headers).
#pragma once

#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/api/check.h"

namespace heddle {

// Parses one JSON document: at most `max_bytes` long and 32 levels deep, no duplicate keys, no comments, nothing after it.
// `place` is how messages call it ("run/ckpt/s10-i1/MANIFEST"). Throws Error(bad_data).
inline nlohmann::json parse_strict_json(std::string_view text, const std::string& place, size_t max_bytes = size_t{16} << 20) {
  constexpr int kMaxDepth = 32;
  if (text.size() > max_bytes) {
    fail("json", concat(place, ": ", text.size(), " bytes of JSON, at most ", max_bytes, " are accepted"), ExitCode::bad_data);
  }
  std::vector<std::set<std::string>> keys;  // one set for each object that is open
  const auto check = [&](int depth, nlohmann::json::parse_event_t event, nlohmann::json& parsed) {
    using E = nlohmann::json::parse_event_t;
    if ((event == E::object_start || event == E::array_start) && depth >= kMaxDepth) {
      fail("json", concat(place, ": nested deeper than ", kMaxDepth, " levels"), ExitCode::bad_data);
    }
    if (event == E::object_start) keys.emplace_back();
    if (event == E::object_end) keys.pop_back();
    if (event == E::key && !keys.back().insert(parsed.get<std::string>()).second) {
      fail("json", concat(place, ": key \"", parsed.get<std::string>(), "\" appears twice in one object"), ExitCode::bad_data);
    }
    return true;
  };
  try {
    return nlohmann::json::parse(text, check);
  } catch (const nlohmann::json::exception& e) {
    fail("json", concat(place, ": ", e.what()), ExitCode::bad_data);
  }
}

}  // namespace heddle
