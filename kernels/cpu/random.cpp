// Random numbers as pure functions of (key, element index): see kernels/api/random.h.
#include "kernels/api/random.h"

#include "kernels/api/elementwise_rules.h"
#include "kernels/cpu/rows_internal.h"

namespace heddle::kernels::cpu {
namespace {

// Groups of four words that are drawn side by side, and room for the words of kChunk + 2 elements that start anywhere in a group.
constexpr int64_t kGroups = 16;
constexpr int64_t kWords = kChunk + 4 * (kGroups + 1);

// Philox::draw for kGroups groups from `group` on, one a SIMD lane.
void draw_groups(const RngKey& key, uint64_t group, uint32_t* words) {
  alignas(64) uint32_t c0[kGroups], c1[kGroups], c2[kGroups], c3[kGroups];
  for (int64_t l = 0; l < kGroups; ++l) {
    const Philox::Block c = Philox::counter(key, group + static_cast<uint64_t>(l));
    c0[l] = c[0];
    c1[l] = c[1];
    c2[l] = c[2];
    c3[l] = c[3];
  }
  uint32_t key0 = Philox::key0(key), key1 = Philox::key1(key);
  for (int round = 0; round < Philox::kRounds; ++round) {
#pragma omp simd
    for (int64_t l = 0; l < kGroups; ++l) {
      const uint64_t p0 = uint64_t{Philox::kMultiplier0} * c0[l], p1 = uint64_t{Philox::kMultiplier1} * c2[l];
      c0[l] = static_cast<uint32_t>(p1 >> 32) ^ c1[l] ^ key0;
      c1[l] = static_cast<uint32_t>(p1);
      c2[l] = static_cast<uint32_t>(p0 >> 32) ^ c3[l] ^ key1;
      c3[l] = static_cast<uint32_t>(p0);
    }
    key0 += Philox::kWeyl0;
    key1 += Philox::kWeyl1;
  }
  for (int64_t l = 0; l < kGroups; ++l) {
    words[4 * l] = c0[l];
    words[4 * l + 1] = c1[l];
    words[4 * l + 2] = c2[l];
    words[4 * l + 3] = c3[l];
  }
}

// The words of elements [first, first + n), n <= kChunk + 2; the answer points into `words`.
const uint32_t* draw(const RngKey& key, uint64_t first, int64_t n, uint32_t* words) {
  const uint64_t skip = first % 4;
  const int64_t groups = ceil_div(static_cast<int64_t>(skip) + n, 4);
  for (int64_t g = 0; g < groups; g += kGroups) draw_groups(key, first / 4 + static_cast<uint64_t>(g), words + 4 * g);
  return words + skip;
}

// body(begin, n) over [0, total) in pieces of at most kChunk elements.
template <class Body>
void for_dense(int64_t total, int64_t work, const Body& body) {
  for_tiles(total, kTileElements, work, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i += kChunk) body(i, std::min(kChunk, end - i));
  });
}

template <class T>
void normal_as(const NormalArgs& args) {
  const T mean = static_cast<T>(args.mean), std = static_cast<T>(args.std);
  for_dense(args.out.numel(), 64 * args.out.numel(), [&](int64_t begin, int64_t n) {
    Output<T> out(args.out);
    T* const to = out.at(begin, n);
    uint32_t words[kWords];
    float z[kWords];
    // Elements come in pairs (Box-Muller): start at the pair the first one belongs to.
    const int64_t odd = static_cast<int64_t>((args.first + static_cast<uint64_t>(begin)) % 2);
    const uint32_t* const word = draw(args.key, args.first + static_cast<uint64_t>(begin - odd), std::min(n + odd + 1, kChunk + 2), words);
    for (int64_t i = 0; i < n + odd; i += 2) {
      const std::array<float, 2> pair = Philox::normal(word[i], word[i + 1]);
      z[i] = pair[0];
      z[i + 1] = pair[1];
    }
    for (int64_t i = 0; i < n; ++i) to[i] = mean + std * static_cast<T>(z[odd + i]);
    out.commit();
  });
}

template <class T>
void dropout_as(const DropoutArgs& args) {
  RngKey key = args.key;
  if (args.step) key.stream = args.step->rng_stream;
  const float p = args.p;
  const T factor = static_cast<T>(1.0 / (1.0 - static_cast<double>(p)));
  for_dense(args.x.numel(), 8 * args.x.numel(), [&](int64_t begin, int64_t n) {
    Input<T> in(args.x);
    Output<T> out(args.out);
    uint32_t words[kWords];
    const uint32_t* const word = draw(key, args.first + static_cast<uint64_t>(begin), n, words);
    const T* const x = in.at(begin, n);
    T* const y = out.at(begin, n);
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) {
      const T scaled = x[i] * factor;
      y[i] = Philox::uniform(word[i]) >= p ? scaled : T{0};
    }
    out.commit();
  });
}

}  // namespace

Refusal refuses(const NormalArgs& args) {
  return contradiction(args);
}
void run(const NormalArgs& args, Stream) {
  with_compute_type(args.out.dtype == DType::f64, [&](auto zero) { normal_as<decltype(zero)>(args); });
}

Refusal refuses(const DropoutArgs& args) {
  return contradiction(args);
}
void run(const DropoutArgs& args, Stream) {
  with_compute_type(args.x.dtype == DType::f64, [&](auto zero) { dropout_as<decltype(zero)>(args); });
}

}  // namespace heddle::kernels::cpu
