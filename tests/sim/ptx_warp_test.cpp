// Warp instructions against plain loops over the manual's tables. The tables are written from element to (lane, register), the opposite direction of
// fragments.h, and share no code with it.
#include <algorithm>
#include <bit>
#include <cmath>
#include <numeric>

#include "tests/sim/ptx_kernels.h"
#include "tests/sim/ptx_support.h"

namespace heddle::test {
namespace {

// ---- shuffles ----

// PTX ISA, shfl.sync: the source lane of each mode, with segments of `width` lanes; the own lane where it is out of range.
int source_lane(int mode, int lane, int argument, int width) {
  const int first = lane / width * width, last = first + width - 1;
  int source = lane;
  switch (mode) {
    case 0: source = first + ((argument % width) + width) % width; break;
    case 1: source = lane - argument; break;
    case 2: source = lane + argument; break;
    default: source = lane ^ argument; break;
  }
  if (mode == 1 && source < first) return lane;
  if (mode >= 2 && source > last) return lane;
  return source;
}

void check_shuffles(int width, uint32_t members, bool uniform) {
  const auto value = random_words(32, static_cast<unsigned>(11 + width));
  std::mt19937 generator(static_cast<unsigned>(width));
  std::vector<int32_t> argument(128);
  for (int mode = 0; mode < 4; ++mode) {
    const int common = static_cast<int>(generator() % 32);
    for (int lane = 0; lane < 32; ++lane) {
      int32_t& a = argument[static_cast<size_t>(mode * 32 + lane)];
      const auto given = [&] { return (members >> source_lane(mode, lane, a, width) & 1) != 0; };  // by a member: the only lanes one may read
      a = uniform ? common : static_cast<int32_t>(generator() % 32);
      for (int tries = 0; tries < 32 && !given(); ++tries) a = (a + 1) % 32;
    }
  }
  std::vector<uint32_t> out(128, 0xABABABABu);
  on_machine({}, shuffles(width), value.data(), argument.data(), members, out.data());
  for (int mode = 0; mode < 4; ++mode) {
    for (int lane = 0; lane < 32; ++lane) {
      INFO("width " << width << " mode " << mode << " lane " << lane << " members " << members);
      const size_t i = static_cast<size_t>(mode * 32 + lane);
      const uint32_t want = (members >> lane & 1) == 0 ? 0xABABABABu : value[static_cast<size_t>(source_lane(mode, lane, argument[i], width))];
      REQUIRE(out[i] == want);
    }
  }
}

TEST_CASE("ptx: shuffles move what the manual's source-lane rules say") {
  for (uint32_t members : {0xFFFFFFFFu, 0x0F0FFF01u}) {
    for (bool uniform : {false, true}) {
      for (int width : {32, 16, 8, 4, 2, 1}) check_shuffles(width, members, uniform);
    }
  }
}

TEST_CASE("ptx: a shuffle from a lane outside the members is a fault") {
  const auto value = random_words(32, 1);
  std::vector<int32_t> argument(128, 5);
  std::vector<uint32_t> out(128);
  const std::string fault = fault_of([&] { on_machine({}, shuffles(32), value.data(), argument.data(), 0xFFFFFFDFu, out.data()); });
  INFO(fault);
  CHECK(mentions(fault, "shfl.sync.idx"));
  CHECK(mentions(fault, "ptx_warp_kernels.cu"));
}

TEST_CASE("ptx: votes, matches and reductions over any set of lanes") {
  std::mt19937 generator(3);
  for (int round = 0; round < 24; ++round) {
    const uint32_t members = round == 0 ? 0xFFFFFFFFu : round == 1 ? 0x80000000u : generator() | 1u;
    std::vector<uint32_t> value(32);
    const uint32_t range = round % 3 == 0 ? 1 : round % 3 == 1 ? 5 : 0;  // all alike, few, any
    for (uint32_t& v : value) v = range == 0 ? generator() : 0x80000003u + generator() % range;
    std::vector<uint32_t> out(32 * kVotes, 0xABABABABu);
    on_machine({}, votes, value.data(), members, out.data());

    std::vector<uint32_t> in;  // the members' values
    uint32_t ballot = 0;
    for (uint32_t lane = 0; lane < 32; ++lane) {
      if ((members >> lane & 1) == 0) continue;
      in.push_back(value[lane]);
      ballot |= (value[lane] & 1) << lane;
    }
    const auto fold = [&](auto f) { return std::accumulate(in.begin() + 1, in.end(), in[0], f); };
    for (uint32_t lane = 0; lane < 32; ++lane) {
      INFO("round " << round << " lane " << lane);
      const uint32_t* got = &out[lane * kVotes];
      if ((members >> lane & 1) == 0) {
        REQUIRE(got[0] == 0xABABABABu);
        continue;
      }
      uint32_t alike = 0;
      for (uint32_t other = 0; other < 32; ++other) alike |= uint32_t{(members >> other & 1) != 0 && value[other] == value[lane]} << other;
      const auto by_sign = [](uint32_t a, uint32_t b) { return static_cast<int32_t>(a) < static_cast<int32_t>(b); };
      CHECK(got[0] == ballot);
      CHECK(got[1] == uint32_t{std::any_of(in.begin(), in.end(), [](uint32_t v) { return (v & 2) != 0; })});
      CHECK(got[2] == uint32_t{std::all_of(in.begin(), in.end(), [](uint32_t v) { return (v & 4) != 0; })});
      CHECK(got[3] == alike);
      CHECK(got[4] == (std::all_of(in.begin(), in.end(), [&](uint32_t v) { return v == in[0]; }) ? members : 0));
      CHECK(got[5] == fold([](uint32_t a, uint32_t b) { return a + b; }));
      CHECK(got[6] == *std::min_element(in.begin(), in.end()));
      CHECK(got[7] == *std::max_element(in.begin(), in.end()));
      CHECK(got[8] == *std::min_element(in.begin(), in.end(), by_sign));
      CHECK(got[9] == *std::max_element(in.begin(), in.end(), by_sign));
      CHECK(got[10] == fold([](uint32_t a, uint32_t b) { return a & b; }));
      CHECK(got[11] == fold([](uint32_t a, uint32_t b) { return a | b; }));
      CHECK(got[12] == fold([](uint32_t a, uint32_t b) { return a ^ b; }));
    }
  }
}

TEST_CASE("ptx: elect.sync elects one lane") {
  std::vector<uint32_t> out(32);
  on_machine({}, elections, out.data());
  CHECK(std::accumulate(out.begin(), out.end(), 0u) == 1);
}

// ---- ldmatrix, stmatrix ----

struct Half {  // where element (row, column) of an 8x8 matrix is held: PTX ISA, "ldmatrix": thread 4 * row + column / 2, low half first
  size_t lane;
  int shift;
};
Half holder(int row, int column, bool transposed) {
  if (transposed) std::swap(row, column);
  return {static_cast<size_t>(4 * row + column / 2), column % 2 * 16};
}

void check_matrices(int count, bool transposed, unsigned seed) {
  constexpr uint32_t kRows = 40, kWords = kRows * 4;
  const auto image = random_words(kWords, seed);
  std::vector<uint32_t> order(kRows), row_of_lane(32);
  std::iota(order.begin(), order.end(), 0u);
  std::shuffle(order.begin(), order.end(), std::mt19937(seed));
  // Lanes whose address is not used point far outside: nobody may look there.
  for (size_t lane = 0; lane < 32; ++lane) row_of_lane[lane] = lane < 8 * static_cast<size_t>(count) ? order[lane] : 1u << 20;
  const auto element = [&](const std::vector<uint32_t>& words, int matrix, int row, int column) {
    const uint32_t word = words[row_of_lane[static_cast<size_t>(8 * matrix + row)] * 4 + static_cast<uint32_t>(column / 2)];
    return word >> (column % 2 * 16) & 0xFFFFu;
  };

  std::vector<uint32_t> registers(32 * static_cast<size_t>(count));
  on_machine({.shared_bytes = kWords * 4}, ldmatrices(count, transposed), image.data(), kWords, row_of_lane.data(), registers.data());
  std::vector<uint32_t> stored(kWords);
  const auto given = random_words(registers.size(), seed + 1);
  on_machine({.shared_bytes = kWords * 4}, stmatrices(count, transposed), image.data(), kWords, row_of_lane.data(), given.data(), stored.data());
  std::vector<bool> written(kRows);
  for (int matrix = 0; matrix < count; ++matrix) {
    for (int row = 0; row < 8; ++row) {
      written[row_of_lane[static_cast<size_t>(8 * matrix + row)]] = true;
      for (int column = 0; column < 8; ++column) {
        INFO("x" << count << (transposed ? ".trans" : "") << " matrix " << matrix << " (" << row << ", " << column << ")");
        const Half held = holder(row, column, transposed);
        const size_t index = held.lane * static_cast<size_t>(count) + static_cast<size_t>(matrix);
        REQUIRE((registers[index] >> held.shift & 0xFFFFu) == element(image, matrix, row, column));
        REQUIRE((given[index] >> held.shift & 0xFFFFu) == element(stored, matrix, row, column));
      }
    }
  }
  for (uint32_t word = 0; word < kWords; ++word) {
    if (!written[word / 4]) REQUIRE(stored[word] == image[word]);
  }
}

TEST_CASE("ptx: ldmatrix and stmatrix, x1 x2 x4, plain and transposed") {
  unsigned seed = 0;
  for (bool transposed : {false, true}) {
    for (int count : {1, 2, 4}) check_matrices(count, transposed, ++seed);
  }
}

TEST_CASE("ptx: ldmatrix faults on a misaligned row, on divergence and outside shared memory") {
  std::vector<uint32_t> out(32);
  const std::string misaligned = fault_of([&] { on_machine({.shared_bytes = 4096}, misused(WarpMisuse::misaligned_ldmatrix), out.data()); });
  INFO(misaligned);
  CHECK(mentions(misaligned, "multiple of 16"));
  CHECK(mentions(misaligned, "ldmatrix.x4"));
  CHECK(mentions(misaligned, "(7,0,0)"));
  const std::string divergent = fault_of([&] { on_machine({.shared_bytes = 4096}, misused(WarpMisuse::divergent_ldmatrix), out.data()); });
  INFO(divergent);
  CHECK(mentions(divergent, "ldmatrix.x4"));
  const std::string outside = fault_of([&] { on_machine({.shared_bytes = 4096}, misused(WarpMisuse::ldmatrix_outside), out.data()); });
  INFO(outside);
  CHECK(mentions(outside, "ldmatrix.x4"));
}

// ---- mma ----

uint32_t as_bf16(float value) {
  return exact_bf16(value);
}
uint32_t as_f16(float value) {  // small integers: sign, exponent and mantissa by hand
  if (value == 0) return 0;
  int exponent = 0;
  const float fraction = std::frexp(std::fabs(value), &exponent);  // in [0.5, 1)
  const auto mantissa = static_cast<uint32_t>((fraction * 2 - 1) * 1024);
  return (value < 0 ? 0x8000u : 0u) | static_cast<uint32_t>(exponent - 1 + 15) << 10 | mantissa;
}

// PTX ISA, "Matrix Fragments for mma.m16n8k16" and "mma.m16n8k8 (.tf32)", read from element to lane, register and half.
template <Mma Type>
void check_mma(unsigned seed) {
  constexpr bool kWide = Type == Mma::tf32;  // one element a register
  constexpr size_t K = kWide ? 8 : 16;
  const auto a = small_integers(16 * K, seed), b = small_integers(K * 8, seed + 1), c = small_integers(16 * 8, seed + 2);  // [m][k], [k][n], [m][n]
  const auto encode = [](float value) { return Type == Mma::bf16 ? as_bf16(value) : as_f16(value); };
  std::vector<uint32_t> ra(32 * 4), rb(32 * 2);
  std::vector<float> rd(32 * 4);
  for (size_t m = 0; m < 16; ++m) {
    for (size_t k = 0; k < K; ++k) {
      if constexpr (kWide) {
        ra[(m % 8 * 4 + k % 4) * 4 + m / 8 + 2 * (k / 4)] = std::bit_cast<uint32_t>(a[m * K + k]);
      } else {
        ra[(m % 8 * 4 + k % 8 / 2) * 4 + m / 8 + 2 * (k / 8)] |= encode(a[m * K + k]) << (k % 2 * 16);
      }
    }
  }
  for (size_t k = 0; k < K; ++k) {
    for (size_t n = 0; n < 8; ++n) {
      if constexpr (kWide) {
        rb[(n * 4 + k % 4) * 2 + k / 4] = std::bit_cast<uint32_t>(b[k * 8 + n]);
      } else {
        rb[(n * 4 + k % 8 / 2) * 2 + k / 8] |= encode(b[k * 8 + n]) << (k % 2 * 16);
      }
    }
  }
  const auto d_index = [](size_t m, size_t n) { return (m % 8 * 4 + n / 2) * 4 + m / 8 * 2 + n % 2; };
  for (size_t m = 0; m < 16; ++m) {
    for (size_t n = 0; n < 8; ++n) rd[d_index(m, n)] = c[m * 8 + n];
  }
  on_machine({}, mmas(Type), ra.data(), rb.data(), rd.data());
  for (size_t m = 0; m < 16; ++m) {
    for (size_t n = 0; n < 8; ++n) {
      double want = c[m * 8 + n];
      for (size_t k = 0; k < K; ++k) want += static_cast<double>(a[m * K + k]) * b[k * 8 + n];
      INFO("(" << m << ", " << n << ")");
      REQUIRE(rd[d_index(m, n)] == want);
    }
  }
}

TEST_CASE("ptx: mma.sync of bf16, f16 and tf32 multiplies by the manual's fragments") {
  for (unsigned seed = 0; seed < 30; seed += 3) {
    check_mma<Mma::bf16>(seed);
    check_mma<Mma::f16>(seed);
    check_mma<Mma::tf32>(seed);
  }
}

TEST_CASE("ptx: mma.sync of f16 takes subnormals, infinities and NaN") {
  const uint32_t halves[16] = {0x0001, 0x0200, 0x03FF, 0x0400, 0x8001, 0x83FF, 0x8400, 0x3555,
                               0xBC01, 0x7BFF, 0xFBFF, 0,      0x8000, 0x7C00, 0xFC00, 0x7E00};
  std::vector<uint32_t> a(32 * 4), b(32 * 2);
  std::vector<float> d(32 * 4, 0.0f);
  for (size_t m = 0; m < 16; ++m) a[m % 8 * 16 + m / 8] = halves[m];  // column 0 of A times a row of ones
  for (size_t n = 0; n < 8; ++n) b[n * 8] = 0x3C00;
  on_machine({}, mmas(Mma::f16), a.data(), b.data(), d.data());
  for (size_t m = 0; m < 16; ++m) {
    const int exponent = static_cast<int>(halves[m] >> 10 & 31), mantissa = static_cast<int>(halves[m] & 1023);
    const float magnitude =
        exponent == 0 ? std::ldexp(static_cast<float>(mantissa), -24) : std::ldexp(static_cast<float>(1024 + mantissa), exponent - 25);
    for (size_t n = 0; n < 8; ++n) {
      const float got = d[(m % 8 * 4 + n / 2) * 4 + m / 8 * 2 + n % 2];
      INFO("half " << halves[m] << " gives " << got);
      if (exponent != 31) {
        REQUIRE(got == ((halves[m] & 0x8000) != 0 ? -magnitude : magnitude));
      } else if (mantissa != 0) {
        REQUIRE(std::isnan(got));
      } else {
        REQUIRE((std::isinf(got) && std::signbit(got) == ((halves[m] & 0x8000) != 0)));
      }
    }
  }
}

TEST_CASE("ptx: mma.sync of tf32 does not look at the low 13 bits") {
  std::vector<uint32_t> a(128, std::bit_cast<uint32_t>(1.0f) | 0x1FFF), b(64, std::bit_cast<uint32_t>(2.0f) | 0x1FFF);
  std::vector<float> d(128, 0.0f);
  on_machine({}, mmas(Mma::tf32), a.data(), b.data(), d.data());
  for (float value : d) CHECK(value == 16.0f);
}

TEST_CASE("ptx: mma.sync reached from two places is divergence") {
  std::vector<uint32_t> out(32);
  const std::string fault = fault_of([&] { on_machine({.shared_bytes = 4096}, misused(WarpMisuse::divergent_mma), out.data()); });
  INFO(fault);
  CHECK(mentions(fault, "mma.sync.m16n8k16.bf16"));
  CHECK(mentions(fault, "ptx_warp_kernels.cu"));
}

}  // namespace
}  // namespace heddle::test
