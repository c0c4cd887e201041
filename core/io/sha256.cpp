#include "core/io/sha256.h"

// The EVP interface frees and allocates its state at every reset (OpenSSL 3.0), which the save path must not; these functions are the same code.
#define OPENSSL_SUPPRESS_DEPRECATED
#include <openssl/sha.h>

#include "kernels/api/check.h"

namespace heddle {
namespace {

SHA256_CTX* context(std::byte* state) {
  static_assert(sizeof(SHA256_CTX) == 112 && alignof(SHA256_CTX) <= 8);
  return reinterpret_cast<SHA256_CTX*>(state);
}

}  // namespace

void Sha256::reset() {
  if (SHA256_Init(context(state_)) != 1) fail("sha256", "OpenSSL cannot start the hash");
}

void Sha256::update(const void* data, size_t bytes) {
  if (SHA256_Update(context(state_), data, bytes) != 1) fail("sha256", "OpenSSL cannot continue the hash");
}

Sha256Digest Sha256::finish() {
  Sha256Digest digest;
  if (SHA256_Final(digest.data(), context(state_)) != 1) fail("sha256", "OpenSSL cannot finish the hash");
  return digest;
}

Sha256Digest sha256(std::string_view data) {
  Sha256 hash;
  hash.update(data);
  return hash.finish();
}

void write_hex(const Sha256Digest& digest, char* out) {
  constexpr char kDigits[] = "0123456789abcdef";
  for (size_t i = 0; i < digest.size(); ++i) {
    out[2 * i] = kDigits[digest[i] >> 4];
    out[2 * i + 1] = kDigits[digest[i] & 15];
  }
}

std::string hex(const Sha256Digest& digest) {
  std::string text(64, '0');
  write_hex(digest, text.data());
  return text;
}

bool parse_hex(std::string_view text, Sha256Digest& out) {
  if (text.size() != 64) return false;
  for (size_t i = 0; i < 64; ++i) {
    const char c = text[i];
    const int value = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
    if (value < 0) return false;
    out[i / 2] = static_cast<uint8_t>(i % 2 == 0 ? value << 4 : out[i / 2] | value);
  }
  return true;
}

}  // namespace heddle
