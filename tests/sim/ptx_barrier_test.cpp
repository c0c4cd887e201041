// Barriers, mbarriers, clusters, and the maps of fragments.h against the tables of the other tests.
#include <numeric>
#include <set>

#include "tests/sim/ptx_kernels.h"
#include "tests/sim/ptx_support.h"

namespace heddle::test {
namespace {

TEST_CASE("ptx: named barriers hand a buffer back and forth") {
  in_every_mode([] {
    constexpr uint32_t kRounds = 7;
    std::vector<uint32_t> out(kRounds * 64);
    on_machine({.block = {160, 1, 1}, .shared_bytes = 256}, named_barriers, out.data(), kRounds);
    for (uint32_t r = 0; r < kRounds; ++r) {
      for (uint32_t i = 0; i < 64; ++i) REQUIRE(out[r * 64 + i] == r * 100 + 63 - i);
    }
  });
}

TEST_CASE("ptx: a named barrier takes ids 0 to 15 and whole warps") {
  const Shape shape = {.block = {64, 1, 1}};
  CHECK(fault_of([&] { on_machine(shape, one_barrier, 15u, 64u); }).empty());
  CHECK(mentions(fault_of([&] { on_machine(shape, one_barrier, 16u, 64u); }), "0 to 15"));
  CHECK(mentions(fault_of([&] { on_machine(shape, one_barrier, 1u, 48u); }), "multiple of 32"));
  CHECK(mentions(fault_of([&] { on_machine(shape, one_barrier, 1u, 96u); }), "up to the block's 64"));
}

TEST_CASE("ptx: mbarriers run a ring of stages for any number of tiles") {
  constexpr uint32_t kMaxTiles = 13;
  std::vector<uint4> aligned(kMaxTiles * 8);
  auto* in = reinterpret_cast<uint32_t*>(aligned.data());
  std::iota(in, in + kMaxTiles * 32, 1000u);
  in_every_mode([&] {
    for (uint32_t stages : {1u, 2u, 4u}) {
      for (uint32_t tiles : {1u, stages, stages + 1, 3 * stages + 1}) {
        for (uint32_t consumers : {1u, 2u}) {
          std::vector<uint32_t> out(tiles * consumers * 32);
          on_machine({.block = {32 * (1 + consumers), 1, 1}, .shared_bytes = stages * 144}, pipeline, in, tiles, stages, consumers, out.data());
          for (uint32_t i = 0; i < out.size(); ++i) {
            INFO("stages " << stages << " tiles " << tiles << " consumers " << consumers << " i " << i);
            REQUIRE(out[i] == in[i / (consumers * 32) * 32 + i % 32] + i / 32 % consumers + 1);
          }
        }
      }
    }
  });
}

TEST_CASE("ptx: mbarriers fault on misuse") {
  const Shape shape = {.block = {1, 1, 1}, .shared_bytes = 64};
  alignas(16) uint32_t memory[4] = {};
  const auto fault = [&](BarrierMisuse kind) { return fault_of([&] { on_machine(shape, misused(kind), memory); }); };
  const std::string uninitialised = fault(BarrierMisuse::uninitialised), zero = fault(BarrierMisuse::zero_count),
                    many = fault(BarrierMisuse::too_many_arrivals), misaligned = fault(BarrierMisuse::misaligned),
                    deadlock = fault(BarrierMisuse::deadlock), invalidated = fault(BarrierMisuse::invalidated),
                    unfenced = fault(BarrierMisuse::unfenced);
  CAPTURE(uninitialised, zero, many, misaligned, deadlock, invalidated, unfenced);
  CHECK(mentions(uninitialised, "mbarrier.arrive"));
  CHECK(mentions(zero, "not 0"));
  CHECK(mentions(many, "mbarrier.arrive"));
  CHECK(mentions(misaligned, "multiple of 8"));
  CHECK(mentions(deadlock, "mbarrier.try_wait.parity"));
  CHECK(mentions(invalidated, "holds no initialised mbarrier"));
  CHECK(mentions(unfenced, "not visible to the async proxy"));
}

TEST_CASE("ptx: blocks of a cluster reach each other's shared memory and mbarriers") {
  std::vector<uint4> in(8);
  for (uint32_t i = 0; i < 8; ++i) in[i].x = 1000 + i;
  in_every_mode([&] {
    for (uint32_t size : {1u, 2u, 4u, 8u}) {
      std::vector<uint32_t> out(4 * size);
      on_machine({.grid = {size, 1, 1}, .block = {64, 1, 1}, .shared_bytes = 128, .cluster = {size, 1, 1}}, ring, in.data(), out.data());
      for (uint32_t rank = 0; rank < size; ++rank) {
        REQUIRE(out[rank] == kGift + (rank + size - 1) % size);
        REQUIRE(out[size + rank] == 1);      // phase 0 is over
        REQUIRE(out[2 * size + rank] == 0);  // phase 1 is not
        REQUIRE(out[3 * size + rank] == 1000 + rank);
      }
    }
  });
}

TEST_CASE("ptx: a peer's address is refused where the instruction takes this block's, and so is a rank beyond the cluster") {
  std::vector<uint32_t> out(32);
  const Shape shape = {.grid = {2, 1, 1}, .block = {32, 1, 1}, .shared_bytes = 512, .cluster = {2, 1, 1}};
  for (BarrierMisuse kind : {BarrierMisuse::peer_address, BarrierMisuse::peer_mbarrier})
    CHECK(mentions(fault_of([&] { on_machine(shape, misused(kind), out.data()); }), "takes this block's own shared memory"));
  CHECK(mentions(fault_of([&] { on_machine(shape, misused(BarrierMisuse::rank_beyond), out.data()); }), "2 blocks, rank is 2"));
}

TEST_CASE("ptx: setmaxnreg is the whole warpgroup's") {
  std::vector<uint32_t> out(256);
  on_machine({.block = {256, 1, 1}}, fences_and_registers, out.data());
  CHECK(out[255] == 255);
  CHECK(mentions(fault_of([&] { on_machine({.block = {128, 1, 1}}, misused(BarrierMisuse::half_a_warpgroup), out.data()); }), "setmaxnreg.dec"));
}

// ---- fragments.h ----

TEST_CASE("fragments: every map is the inverse of the manual's table") {
  for (int lane = 0; lane < 32; ++lane) {
    const auto held_by = [&](int row, int column, int columns_per_lane) {
      return row % 8 * 4 + column % (4 * columns_per_lane) / columns_per_lane == lane;
    };
    for (int reg = 0; reg < 4; ++reg) {
      for (int half = 0; half < 2; ++half) {
        const Element a = mma_m16n8k16::a(lane, reg, half);
        CHECK((held_by(a.row, a.column, 2) && a.row / 8 + 2 * (a.column / 8) == reg && a.column % 2 == half));
      }
      const Element d = mma_m16n8k16::d(lane, reg), t = mma_m16n8k8_tf32::a(lane, reg);
      CHECK((held_by(d.row, d.column, 2) && d.row / 8 * 2 + d.column % 2 == reg));
      CHECK((held_by(t.row, t.column, 1) && t.row / 8 + 2 * (t.column / 4) == reg));
      CHECK(mma_m16n8k8_tf32::d(lane, reg) == d);
    }
    for (int reg = 0; reg < 2; ++reg) {
      for (int half = 0; half < 2; ++half) {
        const Element b = mma_m16n8k16::b(lane, reg, half);  // (k, n)
        CHECK((held_by(b.column, b.row, 2) && b.row / 8 == reg && b.row % 2 == half));
      }
      const Element b = mma_m16n8k8_tf32::b(lane, reg);
      CHECK((held_by(b.column, b.row, 1) && b.row / 4 == reg));
    }
    for (int half = 0; half < 2; ++half) {
      const Element plain = matrix_8x8::held(lane, half), turned = matrix_8x8::held_transposed(lane, half);
      CHECK((plain.row * 4 + plain.column / 2 == lane && plain.column % 2 == half));
      CHECK((turned.row == plain.column && turned.column == plain.row));
    }
    CHECK((matrix_8x8::source(lane).matrix == lane / 8 && matrix_8x8::source(lane).row == lane % 8));
  }
  std::set<std::pair<int, int>> d_elements;
  for (int lane = 0; lane < 128; ++lane) {
    for (int reg = 0; reg < 32; ++reg) {
      const Element d = wgmma_m64::d(lane, reg);
      d_elements.insert({d.row, d.column});
      CHECK((d.row / 16 * 32 + d.row % 8 * 4 + d.column % 8 / 2 == lane && d.column / 8 * 4 + d.row % 16 / 8 * 2 + d.column % 2 == reg));
    }
    for (int reg = 0; reg < 4; ++reg) {
      for (int half = 0; half < 2; ++half) {
        const Element a = wgmma_m64::a(lane, reg, half);
        CHECK((a.row / 16 * 32 + a.row % 8 * 4 + a.column % 8 / 2 == lane && a.row % 16 / 8 + a.column / 8 * 2 == reg && a.column % 2 == half));
      }
    }
  }
  CHECK(d_elements.size() == 64 * 64);
}

TEST_CASE("fragments: the ldmatrix addresses give mma its operands from either storage order") {
  std::vector<uint32_t> out(4 * 128);
  on_machine({.shared_bytes = 512}, operands_by_ldmatrix, out.data());
  // which: A plain, A transposed, a pair of B plain, transposed
  const auto stored = [&](size_t which, int lane, int reg, int half) {
    return static_cast<int>(out[which * 128 + static_cast<size_t>(lane * 4 + reg)] >> (16 * half) & 0xFFFFu);
  };
  for (int lane = 0; lane < 32; ++lane) {
    for (int half = 0; half < 2; ++half) {
      for (int reg = 0; reg < 4; ++reg) {
        const Element a = mma_m16n8k16::a(lane, reg, half);          // (m, k)
        CHECK(stored(0, lane, reg, half) == 16 * a.row + a.column);  // stored [m][k]
        CHECK(stored(1, lane, reg, half) == 16 * a.column + a.row);  // stored [k][m]
        const Element b = mma_m16n8k16::b(lane, reg % 2, half);      // (k, n) of n group reg / 2
        const int n = b.column + 8 * (reg / 2);
        CHECK(stored(2, lane, reg, half) == 16 * n + b.row);  // stored [n][k]
        CHECK(stored(3, lane, reg, half) == 16 * b.row + n);  // stored [k][n]
      }
    }
  }
}

TEST_CASE("fragments: swizzles permute chunks inside their pattern and nothing else") {
  for (Swizzle swizzle : {Swizzle::none, Swizzle::bytes32, Swizzle::bytes64, Swizzle::bytes128}) {
    std::set<uint32_t> places;
    for (uint32_t address = 0; address < 4096; ++address) {
      const uint32_t to = swizzled(address, swizzle);
      places.insert(to);
      CHECK(swizzled(to, swizzle) == address);
      CHECK(to / swizzle_bytes(swizzle) == address / swizzle_bytes(swizzle));
      CHECK(to % 16 == address % 16);
    }
    CHECK(places.size() == 4096);
  }
  for (int row = 0; row < 16; ++row) {
    for (int chunk = 0; chunk < 8; ++chunk) {
      const auto wide = static_cast<uint32_t>(row * 128 + chunk * 16), narrow = static_cast<uint32_t>(row * 64 + chunk % 4 * 16),
                 pair = static_cast<uint32_t>(row * 32 + chunk % 2 * 16);
      CHECK(swizzled(wide, Swizzle::bytes128) == static_cast<uint32_t>(row * 128 + swizzled_chunk_128(row, chunk) * 16));
      CHECK(swizzled(narrow, Swizzle::bytes64) == static_cast<uint32_t>(row * 64 + swizzled_chunk_64(row, chunk % 4) * 16));
      CHECK(swizzled(pair, Swizzle::bytes32) == static_cast<uint32_t>(row * 32 + (chunk % 2 ^ (row >> 2 & 1)) * 16));
    }
  }
}

TEST_CASE("fragments: the wgmma descriptor has the manual's fields") {
  const uint64_t d = wgmma_descriptor(0x2A540, 4096, 1024, Swizzle::bytes128, 5);
  CHECK((d & 0x3FFF) == 0x2A54);
  CHECK((d >> 14 & 3) == 0);
  CHECK((d >> 16 & 0x3FFF) == 256);
  CHECK((d >> 32 & 0x3FFF) == 64);
  CHECK((d >> 49 & 7) == 5);
  CHECK((d >> 52 & 0x3FF) == 0);
  CHECK(d >> 62 == 1);
  CHECK(wgmma_descriptor(0, 16, 512, Swizzle::bytes64) >> 62 == 2);
  CHECK(wgmma_descriptor(0, 16, 256, Swizzle::bytes32) >> 62 == 3);
  CHECK(advanced(d, 32) == d + 2);
}

}  // namespace
}  // namespace heddle::test
