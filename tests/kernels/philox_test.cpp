// Philox4x32-10 against the known answers that accompany the paper (Random123, kat_vectors), and heddle's use of its counter.
#include "kernels/api/philox.h"

#include <set>

#include "tests/support/catch.h"

namespace heddle {
namespace {

using Block = Philox::Block;

TEST_CASE("philox: known answers", "[philox]") {
  CHECK(Philox::block({0, 0, 0, 0}, 0, 0) == Block{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
  constexpr uint32_t ones = 0xffffffff;
  CHECK(Philox::block({ones, ones, ones, ones}, ones, ones) == Block{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
  CHECK(Philox::block({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, 0xa4093822, 0x299f31d0) ==
        Block{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1});
}

TEST_CASE("philox: every field of the key and the index reaches the counter", "[philox]") {
  const RngKey base{0x0123456789abcdefULL, RngPurpose::dropout, 3, 5};
  std::set<Block> seen{Philox::draw(base, 7)};
  const auto fresh = [&](const RngKey& key, uint64_t index) { return seen.insert(Philox::draw(key, index)).second; };
  const auto changed = [&](auto change) {
    RngKey key = base;
    change(key);
    return key;
  };
  CHECK(fresh(base, 8));
  CHECK(fresh(base, 7 + (1ULL << 32)));
  CHECK(fresh(base, 7 + (1ULL << 39)));
  CHECK(fresh(changed([](RngKey& k) { k.seed ^= 1; }), 7));
  CHECK(fresh(changed([](RngKey& k) { k.seed ^= 1ULL << 63; }), 7));
  CHECK(fresh(changed([](RngKey& k) { k.purpose = RngPurpose::init; }), 7));
  CHECK(fresh(changed([](RngKey& k) { k.name = 4; }), 7));
  CHECK(fresh(changed([](RngKey& k) { k.name = 3 + (1ULL << 32); }), 7));
  CHECK(fresh(changed([](RngKey& k) { k.name = 3 + (1ULL << 47); }), 7));
  CHECK(fresh(changed([](RngKey& k) { k.stream = 6; }), 7));
  CHECK(fresh(changed([](RngKey& k) { k.stream = 5 + (1ULL << 32); }), 7));
  CHECK(fresh(changed([](RngKey& k) { k.stream = 5 + (1ULL << 47); }), 7));
  // the layout itself: a resumed run depends on it
  CHECK(Philox::draw(base, 7 + (9ULL << 32)) == Philox::block({7, 9 | 2u << 8, 5, 3}, 0x89abcdef, 0x01234567));
}

TEST_CASE("philox: uniform numbers lie in [0, 1) on a grid of 2^-24", "[philox]") {
  CHECK(Philox::uniform(0) == 0.0f);
  CHECK(Philox::uniform(0xffffffff) == 1.0f - 0x1p-24f);
  CHECK(Philox::uniform(0x80000000) == 0.5f);
  CHECK(Philox::uniform(0xff) == 0.0f);
}

}  // namespace
}  // namespace heddle
