// What the first bytes of a text file say of its content. Internal to text_source.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace heddle {

inline constexpr size_t kTextKindBytes = 4096;  // as many first bytes tell all

struct TextKind {
  size_t skip = 0;        // bytes of a UTF-8 byte order mark at the beginning, which is no text
  std::string not_text;   // what the file is instead, with a cure: "an ELF program; ..."; "" for text
  std::string suspicion;  // why this may be no text; "" when nothing speaks against it
};

// `begin`: the first bytes of the content, kTextKindBytes of them or the whole of it.
TextKind kind_of_text(std::string_view begin);

}  // namespace heddle
