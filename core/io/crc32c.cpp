#include "core/io/crc32c.h"

#include <array>
#include <bit>
#include <cstring>

#if defined(__x86_64__)
#include <nmmintrin.h>
#elif defined(__ARM_FEATURE_CRC32)
#include <arm_acle.h>
#endif

namespace heddle {
namespace {

constexpr uint32_t kPolynomial = 0x82F63B78u;

// Slicing by 8: table[k][b] is the CRC of byte b followed by k zero bytes.
constexpr auto kTable = [] {
  std::array<std::array<uint32_t, 256>, 8> t{};
  for (uint32_t b = 0; b < 256; ++b) {
    uint32_t c = b;
    for (int i = 0; i < 8; ++i) c = (c >> 1) ^ ((c & 1) ? kPolynomial : 0);
    t[0][b] = c;
  }
  for (size_t k = 1; k < 8; ++k) {
    for (uint32_t b = 0; b < 256; ++b) t[k][b] = (t[k - 1][b] >> 8) ^ t[0][t[k - 1][b] & 0xff];
  }
  return t;
}();

#if defined(__x86_64__)
// The instruction has a latency of 3 and a throughput of 1, so three independent streams run at once. Their CRCs are joined by multiplying with
// x^(8*kLane) mod P, which is linear: four table look-ups a join.
constexpr size_t kLane = 2048;

// a * b modulo P over GF(2); in reflected order bit 31 is x^0.
constexpr uint32_t multiply(uint32_t a, uint32_t b) {
  uint32_t product = 0;
  for (uint32_t bit = 1u << 31; bit != 0; bit >>= 1) {
    product ^= (a & bit) ? b : 0;
    b = (b >> 1) ^ ((b & 1) ? kPolynomial : 0);
  }
  return product;
}

constexpr auto kShift = [] {
  uint32_t power = 1u << 30;                                                 // x
  for (size_t n = 1; n < 8 * kLane; n *= 2) power = multiply(power, power);  // x^(8 * kLane): kLane zero bytes
  std::array<uint32_t, 32> column{};
  for (size_t i = 0; i < 32; ++i) column[i] = multiply(power, 1u << i);
  std::array<std::array<uint32_t, 256>, 4> t{};
  for (size_t k = 0; k < 4; ++k) {
    for (size_t b = 0; b < 256; ++b) {
      for (size_t i = 0; i < 8; ++i) t[k][b] ^= (b >> i & 1) ? column[8 * k + i] : 0;
    }
  }
  return t;
}();

uint32_t shift_lane(uint32_t c) {
  return kShift[0][c & 0xff] ^ kShift[1][c >> 8 & 0xff] ^ kShift[2][c >> 16 & 0xff] ^ kShift[3][c >> 24];
}

uint64_t load(const unsigned char* p) {
  uint64_t v;
  std::memcpy(&v, p, 8);
  return v;
}

__attribute__((target("sse4.2"))) uint32_t crc32c_sse42(const unsigned char* p, size_t n, uint32_t crc) {
  uint64_t c = ~crc;
  while (n >= 3 * kLane) {
    uint64_t c1 = 0, c2 = 0;
    for (size_t i = 0; i < kLane; i += 8) {
      c = _mm_crc32_u64(c, load(p + i));
      c1 = _mm_crc32_u64(c1, load(p + kLane + i));
      c2 = _mm_crc32_u64(c2, load(p + 2 * kLane + i));
    }
    c = shift_lane(shift_lane(static_cast<uint32_t>(c)) ^ static_cast<uint32_t>(c1)) ^ static_cast<uint32_t>(c2);
    p += 3 * kLane;
    n -= 3 * kLane;
  }
  for (; n >= 8; p += 8, n -= 8) c = _mm_crc32_u64(c, load(p));
  for (; n > 0; ++p, --n) c = _mm_crc32_u8(static_cast<uint32_t>(c), *p);
  return ~static_cast<uint32_t>(c);
}
#endif

}  // namespace

namespace detail {

uint32_t crc32c_table(const void* data, size_t n, uint32_t crc) {
  const auto* p = static_cast<const unsigned char*>(data);
  uint32_t c = ~crc;
  if constexpr (std::endian::native == std::endian::little) {
    for (; n >= 8; p += 8, n -= 8) {
      uint32_t low, high;
      std::memcpy(&low, p, 4);
      std::memcpy(&high, p + 4, 4);
      low ^= c;
      c = kTable[7][low & 0xff] ^ kTable[6][low >> 8 & 0xff] ^ kTable[5][low >> 16 & 0xff] ^ kTable[4][low >> 24] ^ kTable[3][high & 0xff] ^
          kTable[2][high >> 8 & 0xff] ^ kTable[1][high >> 16 & 0xff] ^ kTable[0][high >> 24];
    }
  }
  for (; n > 0; ++p, --n) c = (c >> 8) ^ kTable[0][(c ^ *p) & 0xff];
  return ~c;
}

}  // namespace detail

uint32_t crc32c(const void* data, size_t bytes, uint32_t crc) {
#if defined(__x86_64__)
  static const bool has_instruction = __builtin_cpu_supports("sse4.2");
  if (has_instruction) return crc32c_sse42(static_cast<const unsigned char*>(data), bytes, crc);
#elif defined(__ARM_FEATURE_CRC32)
  const auto* p = static_cast<const unsigned char*>(data);
  uint32_t c = ~crc;
  for (; bytes >= 8; p += 8, bytes -= 8) {
    uint64_t v;
    std::memcpy(&v, p, 8);
    c = __crc32cd(c, v);
  }
  for (; bytes > 0; ++p, --bytes) c = __crc32cb(c, *p);
  return ~c;
#endif
  return detail::crc32c_table(data, bytes, crc);
}

}  // namespace heddle
