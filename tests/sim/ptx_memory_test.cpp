// Instructions of one thread: wide accesses, atomics, cp.async, conversions, approximations.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>

#include "kernels/arch/ptx.h"
#include "tests/sim/ptx_kernels.h"
#include "tests/sim/ptx_support.h"

namespace heddle::test {
namespace {

TEST_CASE("ptx: 16-byte loads and stores in every form") {
  constexpr int n = 20;
  std::vector<uint4> in(n), out(6 * n);
  const auto words = random_words(4 * n, 5);
  std::memcpy(in.data(), words.data(), 16 * n);
  on_machine({.shared_bytes = 512}, wide_accesses, in.data(), n, out.data());
  for (size_t form = 0; form < 4; ++form) CHECK(std::memcmp(&out[form * n], in.data(), 16 * n) == 0);
  for (size_t i = 0; i < 2 * n; ++i) {  // in halves of 8 bytes, exchanged
    const uint4 &halves = out[4 * n + i], &v = in[i % n];
    CHECK((halves.x == v.z && halves.y == v.w && halves.z == v.x && halves.w == v.y));
  }
  const std::string fault = fault_of(
      [&] { on_machine({.shared_bytes = 512}, wide_accesses, reinterpret_cast<uint4*>(reinterpret_cast<char*>(in.data()) + 8), 1, out.data()); });
  INFO(fault);
  CHECK(mentions(fault, "multiple of 16"));
  CHECK(mentions(fault, "ld.global.v4"));
  const std::tuple<Wide, uint32_t, const char*> misaligned[] = {
      {Wide::store, 8, "st.global.v4 must be a multiple of 16"},       {Wide::store_shared, 8, "st.shared.v4 must be a multiple of 16"},
      {Wide::load_shared, 8, "ld.shared.v4 must be a multiple of 16"}, {Wide::store_half_shared, 4, "st.shared.v2 must be a multiple of 8"},
      {Wide::load_half, 4, "ld.global.v2 must be a multiple of 8"},    {Wide::store_half, 4, "st.global.v2 must be a multiple of 8"},
      {Wide::add, 8, "red.add.v4.f32 must be a multiple of 16"}};
  for (const auto& [kind, shift, part] : misaligned) {
    const std::string report = fault_of([&, kind = kind, shift = shift] {
      on_machine({.block = {1, 1, 1}, .shared_bytes = 64}, shifted_access, kind, reinterpret_cast<std::byte*>(out.data()), shift);
    });
    INFO(report);
    CHECK(mentions(report, part));
  }
}

TEST_CASE("ptx: atomics of many threads lose nothing") {
  constexpr uint32_t kThreads = 96;
  std::vector<uint32_t> words(8), old(3 * kThreads);
  alignas(16) float reals[8] = {};
  std::vector<float> old_real(kThreads);
  on_machine({.block = {kThreads, 1, 1}, .shared_bytes = 64}, atomics, words.data(), reals, old.data(), old_real.data());
  CHECK(words[0] == kThreads * (kThreads - 1) / 2);
  CHECK(words[1] == kThreads);
  CHECK(words[2] == 2 * kThreads);
  CHECK(words[6] == 2 * kThreads);
  CHECK(words[3] == words[4]);  // the one thread whose exchange found 0 stored its number, and no other did
  CHECK((words[3] >= 1 && words[3] <= kThreads));
  CHECK(words[5] == 3 * kThreads);
  CHECK(reals[0] == kThreads);
  CHECK(reals[1] == kThreads * (kThreads - 1) / 2);
  CHECK(reals[2] == 0.5f * kThreads);
  for (auto first = old.begin(); first != old.end(); first += kThreads)
    std::sort(first, first + kThreads);  // every value of each counter was returned once
  std::sort(old_real.begin(), old_real.end());
  for (uint32_t i = 0; i < kThreads; ++i) {
    REQUIRE(old[i] == i);
    REQUIRE(old[kThreads + i] == 2 * i);
    REQUIRE(old[2 * kThreads + i] == 3 * i);
    REQUIRE(old_real[i] == static_cast<float>(i));
  }

  alignas(16) float four[4] = {1, 2, 3, 4};
  on_machine({.grid = {3, 1, 1}, .block = {32, 1, 1}}, vector_atomics, four);
  CHECK(four[0] == 1 + 96);
  CHECK(four[1] == 2 + 3 * 496);
  CHECK(four[2] == 3 - 3 * 496);
  CHECK(four[3] == 4 + 24);
}

// ---- cp.async ----

void check_cp_async(uint32_t bytes) {
  constexpr uint32_t kThreads = 64;
  std::vector<uint4> in(kThreads);
  const auto words = random_words(4 * kThreads, bytes);
  std::memcpy(in.data(), words.data(), 16 * kThreads);
  std::vector<uint32_t> size(kThreads);
  for (uint32_t i = 0; i < kThreads; ++i) size[i] = i % (bytes + 1);
  std::vector<uint32_t> out(2 * bytes * kThreads / 4);
  const auto* from = reinterpret_cast<const std::byte*>(in.data());
  on_machine({.block = {kThreads, 1, 1}, .shared_bytes = 2 * bytes * kThreads}, cp_asyncs(static_cast<int>(bytes)), from, size.data(), out.data());
  const auto* got = reinterpret_cast<const std::byte*>(out.data());
  for (uint32_t i = 0; i < kThreads * bytes; ++i) {
    INFO("size " << bytes << " byte " << i);
    REQUIRE(got[i] == from[i]);
    REQUIRE(got[kThreads * bytes + i] == (i % bytes < size[i / bytes] ? from[i] : std::byte{0}));
  }
}

TEST_CASE("ptx: cp.async of 4, 8 and 16 bytes, whole and zero-filled") {
  in_every_mode([] {
    check_cp_async(4);
    check_cp_async(8);
    check_cp_async(16);
  });
}

TEST_CASE("ptx: cp.async.wait_group N leaves the newest N groups pending") {
  const uint4 in[2] = {{1, 2, 3, 4}, {5, 6, 7, 8}};
  in_every_mode([&] {
    uint4 out[3];
    const std::string fault = fault_of([&] { on_machine({.block = {1, 1, 1}, .shared_bytes = 64}, one_group_pending, in, out); });
    INFO(fault);
    CHECK(mentions(fault, "race on shared memory") == sim::checking);  // the kernel looks at a pending copy on purpose
    if (sim::checking) return;
    CHECK(out[0].x == 1);
    CHECK((out[1].x == 7 || out[1].x == 5));
    if (sim::options().mode == sim::AsyncMode::lazy) CHECK(out[1].x == 7);
    if (sim::options().mode == sim::AsyncMode::eager) CHECK(out[1].x == 5);
    CHECK(out[2].w == 8);
  });
}

TEST_CASE("ptx: cp.async.mbarrier.arrive.noinc announces the copies of its thread") {
  const auto in = random_words(64, 9);
  in_every_mode([&] {
    std::vector<uint32_t> out(64);
    on_machine({.block = {64, 1, 1}, .shared_bytes = 512}, announced_copies, in.data(), out.data());
    for (size_t i = 0; i < 64; ++i) REQUIRE(out[i] == in[(i + 1) % 64]);
  });
}

TEST_CASE("ptx: cp.async faults on misaligned addresses and on too many bytes") {
  alignas(16) std::byte in[64] = {};
  const Shape shape = {.block = {1, 1, 1}, .shared_bytes = 64};
  CHECK(fault_of([&] { on_machine(shape, shifted_cp_async, in, 0u, 16u); }).empty());
  CHECK(mentions(fault_of([&] { on_machine(shape, shifted_cp_async, in, 8u, 16u); }), "multiple of 16"));
  CHECK(mentions(fault_of([&] { on_machine(shape, shifted_cp_async, in + 4, 0u, 16u); }), "multiple of 16"));
  CHECK(mentions(fault_of([&] { on_machine(shape, shifted_cp_async, in, 0u, 17u); }), "source_bytes is 17"));
}

// ---- conversions, approximations ----

// A half as an exact value, from the IEEE definition.
double half_value(uint32_t bits) {
  const int exponent = static_cast<int>(bits >> 10 & 31), mantissa = static_cast<int>(bits & 1023);
  const double magnitude = exponent == 0 ? std::ldexp(mantissa, -24) : std::ldexp(1024 + mantissa, exponent - 25);
  return (bits >> 15) != 0 ? -magnitude : magnitude;
}
double bf16_as_double(uint32_t bits) {
  return std::bit_cast<float>(bits << 16);
}

// The nearest of a format's finite values (given by its bits below `infinity`), ties to even bits: by search, not by arithmetic on the float.
template <class Value>
uint32_t nearest(double x, uint32_t infinity, double largest_next, Value value) {
  const uint32_t sign = std::signbit(x) ? 0x8000u : 0;
  const double magnitude = std::fabs(x);
  uint32_t low = 0, high = infinity;  // value(low) <= magnitude < value(high), reading infinity as the next value there would be
  const auto at = [&](uint32_t bits) { return bits == infinity ? largest_next : value(bits); };
  if (magnitude >= largest_next) return sign | infinity;
  while (high - low > 1) {
    const uint32_t middle = (low + high) / 2;
    (at(middle) <= magnitude ? low : high) = middle;
  }
  const double below = magnitude - at(low), above = at(high) - magnitude;
  return sign | (below < above || (below == above && low % 2 == 0) ? low : high);
}

TEST_CASE("ptx: conversions round to the nearest value, ties to even") {
  std::vector<float> x;
  for (uint32_t half = 0; half < 0x7C00; half += 3) {  // halves, and the ties between them
    const double v = half_value(half), next = half == 0x7BFF ? 65536 : half_value(half + 1);
    for (double candidate : {v, (v + next) / 2, std::nextafter((v + next) / 2, next)}) {
      x.push_back(static_cast<float>(candidate));
      x.push_back(static_cast<float>(-candidate));
    }
  }
  std::mt19937 generator(4);
  for (int i = 0; i < 20000; ++i) {
    const float any = std::bit_cast<float>(static_cast<uint32_t>(generator()));
    if (std::isfinite(any)) x.push_back(any);
    const uint32_t tie = (static_cast<uint32_t>(generator()) & 0x7FFF0000u) | 0x8000u;  // halfway between two bf16
    if (std::isfinite(std::bit_cast<float>(tie))) x.push_back(std::bit_cast<float>(tie));
  }
  std::vector<float> y(x.rbegin(), x.rend());
  const int n = static_cast<int>(x.size());
  std::vector<uint32_t> out(3 * x.size());
  on_machine({.block = {256, 1, 1}}, conversions, x.data(), y.data(), n, out.data());
  const double past_bf16 = std::ldexp(1.0, 128);
  for (size_t i = 0; i < x.size(); ++i) {
    INFO("x " << x[i] << " y " << y[i]);
    REQUIRE((out[3 * i] & 0xFFFF) == nearest(x[i], 0x7F80, past_bf16, bf16_as_double));
    REQUIRE(out[3 * i] >> 16 == nearest(y[i], 0x7F80, past_bf16, bf16_as_double));
    REQUIRE((out[3 * i + 1] & 0xFFFF) == nearest(x[i], 0x7C00, 65536, half_value));
    REQUIRE(out[3 * i + 1] >> 16 == nearest(y[i], 0x7C00, 65536, half_value));
    // tf32: 10 bits of mantissa, ties away from zero
    const float tf32 = std::bit_cast<float>(out[3 * i + 2]);
    int exponent = 0;
    std::frexp(x[i], &exponent);
    const double step = std::ldexp(1.0, std::max(exponent, -125) - 11);
    const double want = std::copysign(std::floor(std::fabs(static_cast<double>(x[i])) / step + 0.5) * step, x[i]);
    if (std::fabs(want) < past_bf16) {
      REQUIRE(tf32 == want);
    } else {
      REQUIRE(std::isinf(tf32));
    }
  }
  const float nan = std::numeric_limits<float>::quiet_NaN(), inf = std::numeric_limits<float>::infinity();
  const float special[2] = {nan, inf}, other[2] = {-inf, nan};
  uint32_t got[6];
  on_machine({}, conversions, special, other, 2, got);
  CHECK(got[0] == 0xFF807FFFu);
  CHECK(got[1] == 0xFC007FFFu);
  CHECK(std::isnan(std::bit_cast<float>(got[2])));
  CHECK(got[3] == 0x7FFF7F80u);
  CHECK(got[4] == 0x7FFF7C00u);
  CHECK(got[5] == std::bit_cast<uint32_t>(inf));
}

TEST_CASE("ptx: approximations keep within their stated error and flush subnormals") {
  std::mt19937 generator(6);
  std::uniform_real_distribution<float> uniform(-20.0f, 20.0f);
  std::vector<float> x(4000);
  for (float& v : x) v = uniform(generator);
  const float tiny = std::numeric_limits<float>::denorm_min() * 100;
  x[0] = tiny;
  x[1] = -130.0f;
  x[2] = 0x1p-127f;  // subnormal; its inverse is not
  x[3] = -0x1p-127f;
  x[4] = -0x1p127f;
  std::vector<float> out(x.size() * kUnary);
  on_machine({.block = {128, 1, 1}}, approximations, x.data(), static_cast<int>(x.size()), out.data());
  for (size_t i = 5; i < x.size(); ++i) {
    const double v = x[i];
    const float* got = &out[i * kUnary];
    INFO("x " << v);
    const auto near = [](double a, double b, double relative) { return std::fabs(a - b) <= relative * std::fabs(b); };
    REQUIRE(near(got[0], std::exp2(v), 0x1p-22));
    REQUIRE(near(got[2], 1 / v, 0x1p-22));
    REQUIRE(std::fabs(got[4] - std::tanh(v)) <= 0x1p-11);
    if (v > 0) {
      REQUIRE((std::fabs(got[1] - std::log2(v)) <= 0x1p-22 || near(got[1], std::log2(v), 0x1p-22)));
      REQUIRE(near(got[3], 1 / std::sqrt(v), 0x1p-22));
    }
  }
  CHECK(out[0] == 1.0f);       // ex2 of a flushed subnormal
  CHECK(std::isinf(out[1]));   // lg2 of 0
  CHECK(std::isinf(out[2]));   // 1 / 0
  CHECK(out[kUnary] == 0.0f);  // 2^-130 is subnormal
  const float infinity = std::numeric_limits<float>::infinity();
  CHECK(out[2 * kUnary + 2] == infinity);  // a flushed subnormal keeps its sign
  CHECK(out[2 * kUnary + 3] == infinity);
  CHECK(out[3 * kUnary + 2] == -infinity);
  CHECK(std::bit_cast<uint32_t>(out[4 * kUnary + 2]) == 0x80000000u);
}

TEST_CASE("ptx: bf16 helpers") {
  CHECK(pack2(1.0f, -2.0f) == 0xC0003F80u);
  CHECK(unpack2(0xC0003F80u).x == 1.0f);
  CHECK(unpack2(0xC0003F80u).y == -2.0f);
  CHECK(to_float(from_float<bf16>(3.140625f)) == 3.140625f);
  CHECK(to_float(from_float<__nv_bfloat16>(3.140625f)) == 3.140625f);
  CHECK(from_float<float>(0.1f) == 0.1f);
}

}  // namespace
}  // namespace heddle::test
