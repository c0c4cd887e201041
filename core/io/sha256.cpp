#include "core/io/sha256.h"

#include <openssl/evp.h>

#include "kernels/api/check.h"

namespace heddle {

struct Sha256::Context {
  EVP_MD* algorithm = nullptr;
  EVP_MD_CTX* state = nullptr;
  ~Context() {
    EVP_MD_CTX_free(state);
    EVP_MD_free(algorithm);
  }
};

Sha256::Sha256() : context_(std::make_unique<Context>()) {
  // Fetched once: EVP_sha256() would look the algorithm up, and allocate, at every reset.
  context_->algorithm = EVP_MD_fetch(nullptr, "SHA256", nullptr);
  context_->state = EVP_MD_CTX_new();
  if (context_->algorithm == nullptr || context_->state == nullptr || EVP_DigestInit_ex(context_->state, context_->algorithm, nullptr) != 1) {
    fail("sha256", "OpenSSL gives no SHA-256 context (out of memory, or a provider without it)");
  }
}

Sha256::~Sha256() = default;
Sha256::Sha256(Sha256&&) noexcept = default;
Sha256& Sha256::operator=(Sha256&&) noexcept = default;

void Sha256::reset() {
  if (EVP_DigestInit_ex(context_->state, nullptr, nullptr) != 1) fail("sha256", "OpenSSL cannot reset the hash");
}

void Sha256::update(const void* data, size_t bytes) {
  if (EVP_DigestUpdate(context_->state, data, bytes) != 1) fail("sha256", "OpenSSL cannot continue the hash");
}

Sha256Digest Sha256::finish() {
  Sha256Digest digest;
  unsigned length = 0;
  if (EVP_DigestFinal_ex(context_->state, digest.data(), &length) != 1 || length != digest.size()) fail("sha256", "OpenSSL cannot finish the hash");
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
