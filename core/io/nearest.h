// The nearest word to a typo, for error messages.
#pragma once

#include <span>
#include <string>
#include <string_view>

namespace heddle {

// The candidate within a third of its length in edits (insert, delete, replace, swap of neighbours; '_' and '-' are equal), or "".
std::string nearest_match(std::string_view word, std::span<const std::string> candidates);

// " (did you mean X?)" or "".
std::string suggestion(std::string_view word, std::span<const std::string> candidates, std::string_view prefix = "");

}  // namespace heddle
