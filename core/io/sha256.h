// SHA-256 (FIPS 180-4), computed by OpenSSL.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace heddle {

using Sha256Digest = std::array<uint8_t, 32>;

// A running hash. Never allocates, so it serves code that must not.
class Sha256 {
 public:
  Sha256() { reset(); }

  void reset();
  void update(const void* data, size_t bytes);
  void update(std::string_view text) { update(text.data(), text.size()); }
  Sha256Digest finish();  // reset() before the next use

 private:
  alignas(8) std::byte state_[112];  // OpenSSL's SHA256_CTX, whose header stays out of this one
};

Sha256Digest sha256(std::string_view data);

// 64 lower-case digits, no terminator.
void write_hex(const Sha256Digest& digest, char* out);
std::string hex(const Sha256Digest& digest);

// False unless `text` is 64 lower-case hexadecimal digits.
bool parse_hex(std::string_view text, Sha256Digest& out);

}  // namespace heddle
