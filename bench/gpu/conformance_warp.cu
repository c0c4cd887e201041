// Shuffles, votes, matrix loads and stores, mma.sync, and the maps of fragments.h.
#include <algorithm>

#include "bench/gpu/conformance_support.h"
#include "tests/sim/proving_kernels.h"

namespace heddle::bench {
namespace {

Words shuffled(int width) {
  const Array<uint32_t> value(random_words(32, 1)), out(128, 0xAB);
  std::vector<int32_t> lanes(128);
  for (size_t i = 0; i < lanes.size(); ++i) lanes[i] = static_cast<int32_t>(i * 7 % 32);
  const Array<int32_t> argument(lanes);
  launch(one_block(32), test::shuffles(width), value, argument, 0xFFFFFFFFu, out);
  return out.words();
}
Words voted(uint32_t members) {
  Words values(32);
  for (uint32_t i = 0; i < 32; ++i) values[i] = i % 5 * 3 - i % 3;
  const Array<uint32_t> value(values), out(32 * test::kVotes, 0);
  launch(one_block(32), test::votes, value, members, out);
  return out.words();
}
// Which lane is elected is the hardware's business; that it is one is not.
Words elected() {
  const Array<uint32_t> out(32, 0);
  launch(one_block(32), test::elections, out);
  const Words words = out.words();
  return {static_cast<uint32_t>(std::count(words.begin(), words.end(), 1u)), static_cast<uint32_t>(std::count(words.begin(), words.end(), 0u))};
}

constexpr uint32_t kImage = 1024;  // words of shared memory
Words rows_in_disorder() {
  Words rows(32);
  for (uint32_t i = 0; i < 32; ++i) rows[i] = i * 37 % 256;  // of 16 bytes
  return rows;
}
Words loaded_matrices(int count, bool transposed) {
  const Array<uint32_t> image(random_words(kImage, 2)), rows(rows_in_disorder()), out(static_cast<size_t>(32 * count), 0);
  launch(one_block(32, kImage * 4), test::ldmatrices(count, transposed), image, kImage, rows, out);
  return out.words();
}
Words stored_matrices(int count, bool transposed) {
  const Array<uint32_t> image(random_words(kImage, 3)), rows(rows_in_disorder()), registers(random_words(static_cast<size_t>(32 * count), 4)),
      out(kImage, 0);
  launch(one_block(32, kImage * 4), test::stmatrices(count, transposed), image, kImage, rows, registers, out);
  return out.words();
}
Words operands() {
  const Array<uint32_t> out(512, 0);
  launch(one_block(32, 512), test::operands_by_ldmatrix, out);
  return out.words();
}

Words multiplied(test::Mma type, const Words& a, const Words& b, const std::vector<float>& d) {
  const Array<uint32_t> device_a(a), device_b(b);
  const Array<float> device_d(d);
  launch(one_block(32), test::mmas(type), device_a, device_b, device_d);
  return device_d.words();
}

// ---- maps ----

struct Maps {
  const char* name;
  int k, per_register;  // elements of k; of a register of A or B
  Element (*a)(int lane, int reg, int half);
  Element (*b)(int lane, int reg, int half);
  test::Mma type;
};
Element tf32_a(int lane, int reg, int) {
  return mma_m16n8k8_tf32::a(lane, reg);
}
Element tf32_b(int lane, int reg, int) {
  return mma_m16n8k8_tf32::b(lane, reg);
}

Element accumulator(Element at, bool plant) {
  return plant ? Element{at.row ^ 8, at.column} : at;
}
std::string disagreement(const char* what, int lane, int reg, float holds, Element at, float wanted) {
  return concat(what, " thread ", lane, " register ", reg, " holds ", holds, ", the map says element (", at.row, ", ", at.column, ") = ", wanted);
}

// D = A B with operands spread over lanes as the maps say, against the product worked out element by element.
std::string check_mma(const Maps& maps, bool plant) {
  const auto k = static_cast<size_t>(maps.k);
  const std::vector<float> a = small_integers(16 * k, 21), b = small_integers(k * 8, 22);
  Words ra(128), rb(64);
  const auto put = [&](uint32_t& reg, float value, int half) {
    reg |= maps.per_register == 1 ? bits_of(value) : (maps.type == test::Mma::f16 ? f16_bits(value) : bf16_bits(value)) << (16 * half);
  };
  for (int lane = 0; lane < 32; ++lane) {
    for (int half = 0; half < maps.per_register; ++half) {
      for (int reg = 0; reg < 4; ++reg) {
        const Element at = maps.a(lane, reg, half);
        put(ra[static_cast<size_t>(lane * 4 + reg)], a[static_cast<size_t>(at.row * maps.k + at.column)], half);
      }
      for (int reg = 0; reg < 2; ++reg) {
        const Element at = maps.b(lane, reg, half);
        put(rb[static_cast<size_t>(lane * 2 + reg)], b[static_cast<size_t>(at.row * 8 + at.column)], half);
      }
    }
  }
  const Words got = multiplied(maps.type, ra, rb, std::vector<float>(128));
  for (int lane = 0; lane < 32; ++lane) {
    for (int reg = 0; reg < 4; ++reg) {
      const Element at = accumulator(mma_m16n8k16::d(lane, reg), plant);
      float want = 0;
      for (int i = 0; i < maps.k; ++i) want += a[static_cast<size_t>(at.row * maps.k + i)] * b[static_cast<size_t>(i * 8 + at.column)];
      const float value = __builtin_bit_cast(float, got[static_cast<size_t>(lane * 4 + reg)]);
      if (value != want) return disagreement(maps.name, lane, reg, value, at, want);
    }
  }
  return "";
}

// A in registers; B (16, 8) K-major without swizzle: two matrices of 8 x 8 along k, each 128 bytes.
std::string check_wgmma(bool plant) {
  constexpr int kN = 8, kK = 16;
  const std::vector<float> a = small_integers(64 * kK, 23), b = small_integers(kK * kN, 24);
  Words image(1024), ra(128 * 4);
  for (int n = 0; n < kN; ++n) {
    for (int k = 0; k < kK; ++k) {
      const int byte = k / 8 * 128 + n * 16 + k % 8 * 2;
      image[static_cast<size_t>(byte / 4)] |= bf16_bits(b[static_cast<size_t>(k * kN + n)]) << (byte % 4 * 8);
    }
  }
  for (int thread = 0; thread < 128; ++thread) {
    for (int reg = 0; reg < 4; ++reg) {
      for (int half = 0; half < 2; ++half) {
        const Element at = wgmma_m64::a(thread, reg, half);
        ra[static_cast<size_t>(thread * 4 + reg)] |= bf16_bits(a[static_cast<size_t>(at.row * kK + at.column)]) << (16 * half);
      }
    }
  }
  const Array<uint32_t> device_image(image), registers(ra);
  const Array<float> d(128 * kN / 2, 0);
  const test::Operand unused{}, operand_b{.offset = 0, .leading = 128, .stride = 256, .swizzle = Swizzle::none};
  launch(one_block(128, 4096), test::wgmmas(kN, Major::k, Major::k), device_image, 1024u, unused, operand_b, registers, false, d);
  const Words got = d.words();
  for (int thread = 0; thread < 128; ++thread) {
    for (int reg = 0; reg < kN / 2; ++reg) {
      const Element at = accumulator(wgmma_m64::d(thread, reg), plant);
      float want = 0;
      for (int k = 0; k < kK; ++k) want += a[static_cast<size_t>(at.row * kK + k)] * b[static_cast<size_t>(k * kN + at.column)];
      const float value = __builtin_bit_cast(float, got[static_cast<size_t>(thread * (kN / 2) + reg)]);
      if (value != want) return disagreement("wgmma_m64", thread, reg, value, at, want);
    }
  }
  return "";
}

}  // namespace

std::vector<ConformanceCase> warp_cases() {
  std::vector<ConformanceCase> cases;
  for (int width : {1, 2, 4, 8, 16, 32}) cases.push_back({concat("shuffles_width_", width), 80, [=] { return shuffled(width); }});
  cases.push_back({"votes", 80, [] { return voted(0xFFFFFFFFu); }});
  cases.push_back({"votes_of_some", 80, [] { return voted(0x0F3C5A01u); }});
  cases.push_back({"elections", 90, elected});
  for (bool transposed : {false, true}) {
    for (int count : {1, 2, 4}) {
      const std::string variant = concat("_x", count, transposed ? "_trans" : "");
      cases.push_back({"ldmatrix" + variant, 80, [=] { return loaded_matrices(count, transposed); }});
      cases.push_back({"stmatrix" + variant, 90, [=] { return stored_matrices(count, transposed); }});
    }
  }
  cases.push_back({"operands_by_ldmatrix", 80, operands});
  cases.push_back(
      {"mma_m16n8k16_bf16", 80, [] { return multiplied(test::Mma::bf16, bf16_pairs(128, 5), bf16_pairs(64, 6), small_integers(128, 7)); }});
  cases.push_back({"mma_m16n8k16_f16", 80,
                   [] { return multiplied(test::Mma::f16, pairs_of(128, 8, f16_bits), pairs_of(64, 9, f16_bits), small_integers(128, 10)); }});
  cases.push_back({"mma_m16n8k8_tf32", 80, [] {
                     return multiplied(test::Mma::tf32, words_of(small_integers(128, 11)), words_of(small_integers(64, 12)), small_integers(128, 13));
                   }});
  return cases;
}

std::string check_fragment_maps(bool plant) {
  std::string fault = check_mma({"mma_m16n8k16", 16, 2, mma_m16n8k16::a, mma_m16n8k16::b, test::Mma::bf16}, plant);
  if (fault.empty()) fault = check_mma({"mma_m16n8k8_tf32", 8, 1, tf32_a, tf32_b, test::Mma::tf32}, plant);
  if (fault.empty() && test::device_capability() >= 90) fault = check_wgmma(plant);
  return fault;
}

}  // namespace heddle::bench
