// What the tests of single instructions share: running a kernel on the simulated machine in every mode, operands, what a faulty kernel is told.
#pragma once

#include <cstdint>
#include <random>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "kernels/api/check.h"
#include "kernels/sim/core/machine.h"
#include "tests/support/catch.h"

namespace heddle::test {

struct Shape {
  sim::Index3 grid = {1, 1, 1};
  sim::Index3 block = {32, 1, 1};
  size_t shared_bytes = 0;
  sim::Index3 cluster = {1, 1, 1};
};

template <class... Params>
void on_machine(const Shape& shape, void (*kernel)(Params...), std::type_identity_t<Params>... args) {
  sim::Launch launch;
  launch.kernel = "kernel of a test";
  launch.geometry = {shape.grid, shape.block, shape.cluster};
  launch.dynamic_shared = shape.shared_bytes;
  launch.body = [=] { kernel(args...); };
  sim::run(launch);
}

// Runs f under eager, lazy and seeded random asynchronous operations.
template <class F>
void in_every_mode(F f) {
  const sim::Options before = sim::options();
  for (const auto& [mode, seed, name] :
       {std::tuple{sim::AsyncMode::eager, uint64_t{1}, "eager"}, std::tuple{sim::AsyncMode::lazy, uint64_t{1}, "lazy"},
        std::tuple{sim::AsyncMode::random, uint64_t{1}, "random:1"}, std::tuple{sim::AsyncMode::random, uint64_t{2}, "random:2"}}) {
    sim::Options options = before;
    options.mode = mode;
    options.seed = seed;
    sim::set_options(options);
    INFO("mode " << name);
    f();
  }
  sim::set_options(before);
}

// What the machine says of a kernel that breaks a rule; empty if it says nothing.
template <class F>
std::string fault_of(F f) {
  try {
    f();
  } catch (const Error& error) {
    return error.what();
  }
  return {};
}
inline bool mentions(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

inline std::vector<uint32_t> random_words(size_t count, unsigned seed) {
  std::mt19937 generator(seed);
  std::vector<uint32_t> words(count);
  for (uint32_t& word : words) word = generator();
  return words;
}

// Integers of one digit: their products and sums are exact in fp32, so results can be compared bit by bit whatever the order of summation.
inline std::vector<float> small_integers(size_t count, unsigned seed) {
  std::mt19937 generator(seed);
  std::vector<float> values(count);
  for (float& value : values) value = static_cast<float>(static_cast<int>(generator() % 19) - 9);
  return values;
}

// The upper 16 bits of a float that bf16 holds exactly.
inline uint16_t exact_bf16(float value) {
  const uint32_t bits = __builtin_bit_cast(uint32_t, value);
  REQUIRE((bits & 0xFFFF) == 0);
  return static_cast<uint16_t>(bits >> 16);
}

}  // namespace heddle::test
