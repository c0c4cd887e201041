// SHA-256 (FIPS 180-4), computed by OpenSSL.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

namespace heddle {

using Sha256Digest = std::array<uint8_t, 32>;

// A running hash. Constructing allocates; reset, update and finish do not, so one made early serves code that must not allocate.
class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(Sha256&&) noexcept;
  Sha256& operator=(Sha256&&) noexcept;

  void reset();
  void update(const void* data, size_t bytes);
  void update(std::string_view text) { update(text.data(), text.size()); }
  Sha256Digest finish();  // reset() before the next use

 private:
  struct Context;
  std::unique_ptr<Context> context_;
};

Sha256Digest sha256(std::string_view data);

// 64 lower-case digits, no terminator.
void write_hex(const Sha256Digest& digest, char* out);
std::string hex(const Sha256Digest& digest);

// False unless `text` is 64 lower-case hexadecimal digits.
bool parse_hex(std::string_view text, Sha256Digest& out);

}  // namespace heddle
