// wgmma of every N, in every layout and swizzle of its operands. Integers of one digit everywhere in shared memory: sums are exact, and an operand
// read from a wrong place gives wrong ones.
#include "bench/gpu/conformance_support.h"

namespace heddle::bench {
namespace {

// 16 k of an operand with `rows` of m or n. Its atoms (eight lines of the swizzle's width) lie next to each other along the rows, those along k
// behind.
struct Slice {
  Swizzle swizzle;
  Major major;
  uint32_t rows;

  uint32_t atom_bytes() const { return 8 * swizzle_bytes(swizzle); }
  uint32_t along_line() const { return swizzle_bytes(swizzle) / 2; }  // elements
  uint32_t atoms_along_rows() const { return major == Major::k ? rows / 8 : (rows + along_line() - 1) / along_line(); }
  uint32_t bytes() const {
    const uint32_t atoms_along_k = major == Major::k && swizzle != Swizzle::none ? 1 : 2;
    return (atoms_along_rows() * atoms_along_k * atom_bytes() + 1023) / 1024 * 1024;
  }
  test::Operand at(uint32_t offset) const {
    const uint32_t row_step = atom_bytes(), k_step = atoms_along_rows() * atom_bytes();
    if (swizzle == Swizzle::none) return {.offset = offset, .leading = k_step, .stride = row_step, .swizzle = swizzle};
    if (major == Major::k) return {.offset = offset, .leading = 16, .stride = row_step, .swizzle = swizzle};
    return {.offset = offset, .leading = row_step, .stride = k_step, .swizzle = swizzle};
  }
};

Words multiplied(Slice a, Slice b, bool a_in_registers, bool accumulate) {
  const uint32_t words = (a.bytes() + b.bytes()) / 4, n = b.rows;
  const Array<uint32_t> image(bf16_pairs(words, 51)), registers(bf16_pairs(128 * 4, 52));
  const Array<float> d(small_integers(static_cast<size_t>(128) * n / 2, 53));
  launch(one_block(128, words * 4), test::wgmmas(static_cast<int>(n), a.major, b.major), image, words, a.at(0), b.at(a.bytes()),
         a_in_registers ? static_cast<uint32_t*>(registers) : nullptr, accumulate, d);
  return d.words();
}

Words groups() {
  const Array<float> out(3 * 128, 0);
  launch(one_block(128, 4096), test::two_groups, out);
  Words words = out.words();
  words.erase(words.begin() + 128, words.begin() + 256);  // the group that may be pending: done or not
  return words;
}

}  // namespace

std::vector<ConformanceCase> wgmma_cases() {
  std::vector<ConformanceCase> cases;
  const auto add = [&](const std::string& name, Slice a, Slice b, bool registers = false, bool accumulate = true) {
    cases.push_back({"wgmma_" + name, 90, [=] { return multiplied(a, b, registers, accumulate); }});
  };
  for (uint32_t n = 8; n <= 256; n += 8) {
    add(concat("n", n), {Swizzle::bytes128, Major::k, 64}, {Swizzle::bytes128, Major::k, n});
    add(concat("n", n, "_registers"), {Swizzle::none, Major::k, 64}, {Swizzle::none, Major::mn, n}, true, n % 16 == 0);
  }
  for (Swizzle swizzle : {Swizzle::none, Swizzle::bytes32, Swizzle::bytes64, Swizzle::bytes128}) {
    for (Major a : {Major::k, Major::mn}) {
      for (Major b : {Major::k, Major::mn}) {
        const auto name = [](Major major) { return major == Major::k ? "_k" : "_mn"; };
        add(concat("swizzle_", swizzle == Swizzle::none ? 0 : swizzle_bytes(swizzle), name(a), name(b)), {swizzle, a, 64}, {swizzle, b, 64}, false,
            a == b);
      }
    }
  }
  add("n128_mn_mn", {Swizzle::bytes128, Major::mn, 64}, {Swizzle::bytes128, Major::mn, 128});
  add("n256_k_mn", {Swizzle::bytes128, Major::k, 64}, {Swizzle::bytes128, Major::mn, 256});
  cases.push_back({"wgmma_groups", 90, groups});
  return cases;
}

}  // namespace heddle::bench
