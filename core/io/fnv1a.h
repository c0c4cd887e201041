// FNV-1a (Fowler, Noll, Vo), 64 bits: a stable number for a name.
#pragma once

#include <cstdint>
#include <string_view>

namespace heddle {

inline uint64_t fnv1a(std::string_view text) {
  uint64_t h = 0xcbf29ce484222325u;
  for (const char c : text) h = (h ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
  return h;
}

}  // namespace heddle
