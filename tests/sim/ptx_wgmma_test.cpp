// wgmma against a plain product. Operands are laid into shared memory by the manual's canonical layouts, stated as atoms and the chunks inside them;
// neither fragments.h nor the address arithmetic of the simulated instruction is used.
#include <algorithm>
#include <cstring>

#include "tests/sim/ptx_kernels.h"
#include "tests/sim/ptx_support.h"

namespace heddle::test {
namespace {

constexpr uint32_t kK = 16;

uint32_t period(Swizzle swizzle) {  // bytes after which the pattern repeats: eight rows
  switch (swizzle) {
    case Swizzle::bytes128: return 1024;
    case Swizzle::bytes64: return 512;
    case Swizzle::bytes32: return 256;
    default: return 128;
  }
}

// An operand of `rows` (m or n) by `depth` of k in shared memory, as a list of atoms. An atom is eight lines: of eight rows, each a swizzle width of
// k (K-major), or of eight k, each a swizzle width of rows (MN-major). Without swizzle an atom is the 8 x 8 core matrix, its lines 16 bytes.
//   line l of an atom holds chunk c at position c ^ l              (128 bytes: 8 chunks)
//                                               c ^ (l / 2)        (64 bytes: 4 chunks)
//                                               c ^ (l / 4)        (32 bytes: 2 chunks)
struct Layout {
  Swizzle swizzle;
  Major major;
  uint32_t rows, depth;
  uint32_t padding = 0;  // bytes between atoms, a multiple of the period

  uint32_t chunks_per_line() const { return period(swizzle) / 8 / 16; }
  uint32_t along_line() const { return chunks_per_line() * 8; }  // elements of the contiguous axis in an atom
  uint32_t atom_bytes() const { return period(swizzle) + padding; }
  uint32_t atoms_along_rows() const { return major == Major::k ? rows / 8 : (rows + along_line() - 1) / along_line(); }
  uint32_t atoms_along_k() const { return major == Major::k ? (depth + along_line() - 1) / along_line() : depth / 8; }
  uint32_t bytes() const { return atoms_along_rows() * atoms_along_k() * atom_bytes(); }
  // Atoms that are neighbours along the rows lie next to each other; those along k after all of these.
  uint32_t row_step() const { return atom_bytes(); }
  uint32_t k_step() const { return atoms_along_rows() * atom_bytes(); }

  uint32_t place(uint32_t row, uint32_t k) const {  // byte of element (row, k)
    const uint32_t line = major == Major::k ? row % 8 : k % 8, along = major == Major::k ? k : row;
    const uint32_t atom =
        major == Major::k ? row / 8 * row_step() + along / along_line() * k_step() : along / along_line() * row_step() + k / 8 * k_step();
    const uint32_t chunk = along % along_line() / 8, turn = chunks_per_line() == 1 ? 0 : line / (8 / chunks_per_line());
    return atom + line * chunks_per_line() * 16 + (chunk ^ turn) * 16 + along % 8 * 2;
  }

  // The descriptor of the 16-deep slice that starts at k0.
  Operand operand(uint32_t base, uint32_t k0) const {
    Operand o{.offset = base, .swizzle = swizzle};
    if (major == Major::k && swizzle == Swizzle::none) {
      o.leading = k_step();
      o.stride = row_step();
      o.offset += k0 / 8 * k_step();
    } else if (major == Major::k) {
      o.stride = row_step();
      o.offset += k0 / along_line() * k_step() + k0 % along_line() * 2;  // inside a line: only the address moves
    } else if (swizzle == Swizzle::none) {
      o.leading = k_step();
      o.stride = row_step();
      o.offset += k0 / 8 * k_step();
    } else {
      o.leading = row_step();
      o.stride = k_step();
      o.offset += k0 / 8 * k_step();
    }
    return o;
  }
};

struct Case {
  Layout a, b;
  uint32_t k0 = 0;
  bool a_in_registers = false, accumulate = true;
  uint32_t base_shift = 0;  // lines of 128 bytes by which B's first atom lies behind a multiple of its period
};

void check_wgmma(const Case& c, unsigned seed) {
  const uint32_t n_size = c.b.rows;
  const auto a = small_integers(64 * c.a.depth, seed), b = small_integers(n_size * c.b.depth, seed + 1), d0 = small_integers(64 * n_size, seed + 2);
  const uint32_t a_base = 0, b_base = (c.a.bytes() + 1023) / 1024 * 1024 + c.base_shift * 128;
  std::vector<uint32_t> image((b_base + c.b.bytes() + 1023) / 1024 * 256, 0x7FC07FC0u);  // NaN wherever no operand lies
  const auto put = [&](const Layout& layout, uint32_t base, const std::vector<float>& values) {
    for (uint32_t row = 0; row < layout.rows; ++row) {
      for (uint32_t k = 0; k < layout.depth; ++k) {
        const uint16_t bits = exact_bf16(values[row * layout.depth + k]);
        std::memcpy(reinterpret_cast<char*>(image.data()) + base + layout.place(row, k), &bits, 2);
      }
    }
  };
  put(c.a, a_base, a);
  put(c.b, b_base, b);

  // PTX ISA, "Register Fragments": D and register A, from element to thread and register.
  const auto d_index = [n_size](uint32_t m, uint32_t n) {
    return (m / 16 * 32 + m % 8 * 4 + n % 8 / 2) * (n_size / 2) + n / 8 * 4 + m % 16 / 8 * 2 + n % 2;
  };
  std::vector<uint32_t> ra(128 * 4);
  for (uint32_t m = 0; m < 64; ++m) {
    for (uint32_t k = 0; k < kK; ++k) {
      ra[(m / 16 * 32 + m % 8 * 4 + k % 8 / 2) * 4 + m % 16 / 8 + k / 8 * 2] |= static_cast<uint32_t>(exact_bf16(a[m * c.a.depth + c.k0 + k]))
                                                                                << (k % 2 * 16);
    }
  }
  std::vector<float> d(128 * n_size / 2);
  for (uint32_t m = 0; m < 64; ++m) {
    for (uint32_t n = 0; n < n_size; ++n) d[d_index(m, n)] = d0[m * n_size + n];
  }

  Operand ob = c.b.operand(b_base, c.k0);
  ob.base_offset = c.base_shift;
  const Shape shape = {.block = {128, 1, 1}, .shared_bytes = image.size() * 4};
  on_machine(shape, wgmmas(static_cast<int>(n_size), c.a.major, c.b.major), image.data(), static_cast<uint32_t>(image.size()),
             c.a.operand(a_base, c.k0), ob, c.a_in_registers ? ra.data() : nullptr, c.accumulate, d.data());
  for (uint32_t m = 0; m < 64; ++m) {
    for (uint32_t n = 0; n < n_size; ++n) {
      double want = c.accumulate ? d0[m * n_size + n] : 0;
      for (uint32_t k = c.k0; k < c.k0 + kK; ++k) want += static_cast<double>(a[m * c.a.depth + k]) * b[n * c.b.depth + k];
      if (d[d_index(m, n)] == want) continue;
      INFO("N " << n_size << " majors " << int(c.a.major) << int(c.b.major) << " swizzles " << int(c.a.swizzle) << int(c.b.swizzle) << " k0 " << c.k0
                << " (" << m << ", " << n << ")");
      REQUIRE(d[d_index(m, n)] == want);
    }
  }
}

constexpr Swizzle kSwizzles[] = {Swizzle::none, Swizzle::bytes32, Swizzle::bytes64, Swizzle::bytes128};

// Every pair of swizzles, each 16-deep slice of a 64-deep tile, A shared and in registers.
void check_layouts(uint32_t n, Major major_a, Major major_b, bool thorough) {
  unsigned seed = n;
  for (Swizzle sa : kSwizzles) {
    for (Swizzle sb : kSwizzles) {
      if (!thorough && sa != sb) continue;
      for (uint32_t k0 = 0; k0 < 64; k0 += thorough ? 16 : 48) {
        Case c{.a = {sa, major_a, 64, 64}, .b = {sb, major_b, n, 64}, .k0 = k0, .accumulate = k0 != 16};
        c.a.padding = period(sa) * (k0 / 16 % 2);
        check_wgmma(c, seed += 3);
        if (major_a == Major::k && sa == Swizzle::none) {
          c.a_in_registers = true;
          check_wgmma(c, seed += 3);
        }
      }
    }
  }
}

TEST_CASE("ptx: wgmma in every layout of its operands") {
  for (Major a : {Major::k, Major::mn}) {
    for (Major b : {Major::k, Major::mn}) check_layouts(64, a, b, true);
  }
  check_layouts(128, Major::mn, Major::mn, false);
  check_layouts(256, Major::k, Major::mn, false);
}

TEST_CASE("ptx: wgmma of every N") {
  for (uint32_t n = 8; n <= 256; n += 8) {
    check_wgmma({.a = {Swizzle::bytes128, Major::k, 64, 64}, .b = {Swizzle::bytes128, Major::k, n, 64}, .k0 = 32}, n);
    check_wgmma({.a = {Swizzle::bytes64, Major::k, 64, 32}, .b = {Swizzle::none, Major::mn, n, 32}, .k0 = 16, .a_in_registers = true}, n);
  }
}

TEST_CASE("ptx: a swizzle pattern that starts off its period is named by the base offset") {
  for (uint32_t shift = 0; shift < 8; ++shift) {
    check_wgmma({.a = {Swizzle::bytes128, Major::k, 64, 64}, .b = {Swizzle::bytes128, Major::k, 64, 64}, .k0 = 16, .base_shift = shift}, shift);
  }
}

TEST_CASE("ptx: wgmma groups complete in order and only where they are waited for") {
  in_every_mode([] {
    std::vector<float> out(3 * 128);
    on_machine({.block = {128, 1, 1}, .shared_bytes = 4096}, two_groups, out.data());
    for (size_t i = 0; i < 128; ++i) {
      REQUIRE(out[i] == 32.0f);
      REQUIRE(out[256 + i] == 16.0f);
      REQUIRE((out[128 + i] == 0.0f || out[128 + i] == 16.0f));
      if (sim::options().mode == sim::AsyncMode::lazy) REQUIRE(out[128 + i] == 0.0f);
    }
  });
}

TEST_CASE("ptx: wgmma faults where hardware would be undefined") {
  std::vector<uint32_t> out(128);
  const Shape shape = {.block = {128, 1, 1}, .shared_bytes = 4096};
  const auto fault = [&](WgmmaMisuse kind) { return fault_of([&] { on_machine(shape, misused(kind), out.data()); }); };
  const std::string no_fence = fault(WgmmaMisuse::no_fence), written = fault(WgmmaMisuse::accumulators_written), a = fault(WgmmaMisuse::different_a),
                    b = fault(WgmmaMisuse::different_b), accumulate = fault(WgmmaMisuse::different_accumulate), outside = fault(WgmmaMisuse::outside),
                    end = fault(WgmmaMisuse::end_outside), missing = fault(WgmmaMisuse::one_warp_missing);
  CAPTURE(no_fence, written, a, b, accumulate, outside, end, missing);
  CHECK(mentions(no_fence, "must follow wgmma_fence"));
  CHECK(mentions(written, "accumulators were written") == sim::checking);
  CHECK(mentions(a, "the descriptor of A"));
  CHECK(mentions(b, "the descriptor of B"));
  CHECK(mentions(accumulate, "accumulate must be the same"));
  for (const std::string& text : {outside, end}) CHECK((mentions(text, "wgmma.mma_async") && mentions(text, "out of bounds")));
  CHECK(mentions(missing, "divergent warpgroup"));
}

}  // namespace
}  // namespace heddle::test
