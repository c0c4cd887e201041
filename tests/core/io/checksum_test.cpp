#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "core/io/crc32c.h"
#include "core/io/sha256.h"
#include "tests/support/catch.h"

namespace heddle {

TEST_CASE("CRC-32C: the published vectors (RFC 3720, B.4)") {
  CHECK(crc32c("123456789", 9) == 0xE3069283u);
  const std::string zeros(32, '\0'), ones(32, '\xff');
  std::string up(32, '\0'), down(32, '\0');
  for (int i = 0; i < 32; ++i) {
    up[static_cast<size_t>(i)] = static_cast<char>(i);
    down[static_cast<size_t>(i)] = static_cast<char>(31 - i);
  }
  CHECK(crc32c(zeros.data(), 32) == 0x8A9136AAu);
  CHECK(crc32c(ones.data(), 32) == 0x62A8AB43u);
  CHECK(crc32c(up.data(), 32) == 0x46DD794Eu);
  CHECK(crc32c(down.data(), 32) == 0x113FDB5Cu);
  CHECK(crc32c("", 0) == 0u);
}

TEST_CASE("CRC-32C: the table, the instruction and any split agree") {
  std::mt19937_64 random(1);
  std::vector<unsigned char> data(40000);
  for (auto& b : data) b = static_cast<unsigned char>(random());
  for (const size_t size : {0, 1, 7, 8, 9, 6143, 6144, 6145, 12288, 12295, 40000}) {
    for (const size_t shift : {0, 1, 3}) {
      const size_t n = size > shift ? size - shift : 0;
      CHECK(crc32c(data.data() + shift, n) == detail::crc32c_table(data.data() + shift, n, 0));
    }
    const size_t cut = size == 0 ? 0 : random() % size;
    CHECK(crc32c(data.data() + cut, size - cut, crc32c(data.data(), cut)) == crc32c(data.data(), size));
  }
}

TEST_CASE("SHA-256: the published vectors (FIPS 180-4 examples), reset, hex") {
  CHECK(hex(sha256("")) == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  CHECK(hex(sha256("abc")) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  CHECK(hex(sha256("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq")) ==
        "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  Sha256 hash;
  hash.update("a");
  hash.update("bc");
  CHECK(hash.finish() == sha256("abc"));
  hash.reset();
  hash.update("abc");
  CHECK(hash.finish() == sha256("abc"));

  Sha256Digest digest{};
  CHECK(parse_hex(hex(sha256("abc")), digest));
  CHECK(digest == sha256("abc"));
  for (const std::string& bad : {std::string(63, '0'), std::string(65, '0'), std::string(63, '0') + "g", std::string(63, '0') + "A"})
    CHECK(!parse_hex(bad, digest));
}

}  // namespace heddle
