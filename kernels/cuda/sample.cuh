// The next token from a row of logits: see kernels/api/sample.h. A block for a row, and no sort: each of top-k, top-p and the draw itself asks for
// the token that a number of tokens, or of units of weight, ends in when the likely come first. That is a radix select over the logits' bits: how
// many tokens and how much weight has each value of the leading digit; which value holds what is asked for; then the same for the next digit below
// it. Counts and weights are whole numbers (kernels/api/sample_rules.h), so the atomic additions have no order.
//
// Bound by latency: 3 to 10 reads of a row, all but the first from L2, of 512 threads with 32 KB in flight: 2 to 4 us each of them for 50304 logits
// in f32; the first digit's additions, where many logits share a value, 10 to 20 us more. Beside a decoding step's reading of the weights, little.
#pragma once

#include "kernels/api/sample.h"
#include "kernels/api/sample_rules.h"
#include "kernels/cuda/rows.cuh"
#include "kernels/cuda/sample_config.h"

namespace heddle::kernels::cuda {

template <class T>
struct SampleParams {
  const T* logits;  // (rows, columns)
  int32_t* tokens;
  const int32_t *draw, *text;
  int64_t logits_row, draw_step, text_step;
  int columns, known;  // of the columns so many are tokens
  int top_k;           // 0: all
  bool wide;
  double top_p;
  SampleRules rules;
  RngKey key;
};

// Tokens, and what they weigh.
struct Mass {
  uint32_t count = 0;
  uint64_t weight = 0;

  __device__ __forceinline__ Mass& operator+=(const Mass& other) {
    count += other.count;
    weight += other.weight;
    return *this;
  }
  __device__ __forceinline__ uint64_t of(bool by_weight) const { return by_weight ? weight : count; }
};

// For each value of a digit the mass of its tokens; a weight in two words.
struct Histogram {
  uint32_t *counts, *lows, *highs;

  __device__ __forceinline__ explicit Histogram(uint32_t* words) : counts(words), lows(words + kDigits), highs(words + 2 * kDigits) {}
  static constexpr int kWords = 3 * kDigits;

  __device__ __forceinline__ void add(uint32_t digit, uint64_t weight) const {
    ptx::atom_add_shared(ptx::smem_u32(counts + digit), 1);
    const auto low = static_cast<uint32_t>(weight);
    const uint32_t carry = ptx::atom_add_shared(ptx::smem_u32(lows + digit), low) > ~low ? 1 : 0;
    if (const uint32_t high = static_cast<uint32_t>(weight >> 32) + carry; high != 0) ptx::atom_add_shared(ptx::smem_u32(highs + digit), high);
  }
  __device__ __forceinline__ Mass at(uint32_t digit) const { return {counts[digit], static_cast<uint64_t>(highs[digit]) << 32 | lows[digit]}; }
};

// What the block agrees on.
struct SampleShared {
  uint32_t first[Histogram::kWords], next[Histogram::kWords];  // histograms of the first digit, and of the one below
  uint32_t keys[kSampleWarps], ids[kSampleWarps], bad[kSampleWarps];
  uint32_t counts[kSampleWarps];
  uint64_t weights[kSampleWarps];
  uint32_t digit, passed_count;  // passed: what is more likely than `digit`
  uint64_t passed_weight;
};

static_assert(sizeof(SampleShared) == kSampleSharedBytes);

// A place among the tokens, the likely first: the rank of a logit there, the mass of those above it, the number among its equals.
struct SamplePlace {
  uint32_t rank;
  Mass above;
  uint64_t weight;  // of each of the equals
  uint64_t among;

  // The weight of all up to this place, it included.
  __device__ __forceinline__ uint64_t sum() const { return above.weight + (among + 1) * weight; }
};

namespace thread {

// Ranks are ordered as logits are; both zeros are one.
__device__ __forceinline__ uint32_t rank_of(float logit) {
  const uint32_t bits = __float_as_uint(logit + 0.0f);
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}
__device__ __forceinline__ float logit_of(uint32_t rank) {
  return __uint_as_float(rank & 0x80000000u ? rank & 0x7FFFFFFFu : ~rank);
}

}  // namespace thread

namespace warp {

__device__ __forceinline__ uint64_t shfl_up(uint64_t value, int delta) {
  const uint64_t low = ptx::shfl_up(static_cast<uint32_t>(value), delta), high = ptx::shfl_up(static_cast<uint32_t>(value >> 32), delta);
  return high << 32 | low;
}

// warp, converged. What the lanes before this one hold, and this one.
__device__ __forceinline__ Mass inclusive_sum(Mass mass) {
#pragma unroll
  for (int delta = 1; delta < 32; delta *= 2) {
    const Mass before{ptx::shfl_up(mass.count, delta), shfl_up(mass.weight, delta)};
    if (static_cast<int>(threadIdx.x) % 32 >= delta) mass += before;
  }
  return mass;
}

}  // namespace warp

template <class T>
class RowSampler {
 public:
  __device__ __forceinline__ RowSampler(const SampleParams<T>& p, const T* row, SampleShared& shared) : p_(p), row_(row), shared_(shared) {}

  // block. The row's token.
  __device__ __forceinline__ int32_t token() {
    const int32_t most_likely = find_best();
    if (most_likely < 0 || p_.rules.temperature == 0) return most_likely;
    uint64_t sum = count_first_digit();
    if (p_.top_k > 0) sum = find(static_cast<uint64_t>(p_.top_k) - 1, false).sum();
    if (p_.top_p < 1) sum = find(SampleRules::kept(sum, p_.top_p) - 1, true).sum();
    RngKey key = p_.key;
    key.seed += static_cast<uint64_t>(p_.text[blockIdx.x * p_.text_step]);
    key.stream = static_cast<uint64_t>(p_.draw[blockIdx.x * p_.draw_step]);
    return id_at(find(SampleRules::drawn(sum, Philox::draw(key, 0)[0]), true));
  }

 private:
  // f(id, logit) for the first `columns` of the row, whoever's turn it is.
  template <class F>
  __device__ __forceinline__ void for_each(int columns, const F& f) {
    constexpr int kInFlight = 4, kElements = kWidth<T>;
    using At = Piece<T, kSampleThreads>;
    const int pieces = pieces_of<T, kSampleThreads>(columns);
    for (int first = 0; first < pieces; first += kInFlight) {
      uint4 packed[kInFlight];
#pragma unroll
      for (int i = 0; i < kInFlight; ++i) packed[i] = thread::load(row_, At(p_.wide, first + i, thread_, columns));
#pragma unroll
      for (int i = 0; i < kInFlight; ++i) {
        const At at(p_.wide, first + i, thread_, columns);
        float values[kElements];
        thread::unpack(packed[i], values);
#pragma unroll
        for (int e = 0; e < kElements; ++e) {
          if (e < at.valid) f(at.first + e, values[e]);
        }
      }
    }
  }

  __device__ __forceinline__ uint64_t weight(float logit) const {
    return p_.rules.weight(static_cast<double>(logit), best_);
  }

  // block. The most likely token, the first of equals; -1 - the first id whose logit is not finite.
  __device__ __forceinline__ int32_t find_best() {
    uint32_t rank = 0, id = ~0u, bad = ~0u;
    for_each(p_.columns, [&](int at, float logit) {
      if (!(fabsf(logit) < INFINITY)) bad = min(bad, static_cast<uint32_t>(at));
      if (at < p_.known && thread::rank_of(logit) > rank) rank = thread::rank_of(logit), id = static_cast<uint32_t>(at);
    });
    const auto of_warp = [&] {
      const uint32_t highest = ptx::reduce_max(rank);
      id = ptx::reduce_min(rank == highest ? id : ~0u);
      rank = highest;
      bad = ptx::reduce_min(bad);
    };
    of_warp();
    if (lane_ == 0) shared_.keys[warp_] = rank, shared_.ids[warp_] = id, shared_.bad[warp_] = bad;
    __syncthreads();
    rank = shared_.keys[lane_ % kSampleWarps], id = shared_.ids[lane_ % kSampleWarps], bad = shared_.bad[lane_ % kSampleWarps];
    of_warp();
    if (bad != ~0u) return -1 - static_cast<int32_t>(bad);
    best_ = static_cast<double>(thread::logit_of(rank));
    return static_cast<int32_t>(id);
  }

  // block; a barrier must follow.
  __device__ __forceinline__ void clear(uint32_t* words) {
    for (int i = thread_; i < Histogram::kWords; i += kSampleThreads) words[i] = 0;
  }

  // block. Makes the first digit's histogram; the weight of all tokens.
  __device__ __forceinline__ uint64_t count_first_digit() {
    clear(shared_.first);
    __syncthreads();
    const Histogram digits(shared_.first);
    for_each(p_.known, [&](int, float logit) { digits.add(thread::rank_of(logit) >> (32 - kDigitBits), weight(logit)); });
    __syncthreads();
    Mass own;
    for (int digit = thread_; digit < kDigits; digit += kSampleThreads) own += digits.at(static_cast<uint32_t>(digit));
    own = warp::inclusive_sum(own);
    if (lane_ == 31) shared_.weights[warp_] = own.weight;
    __syncthreads();
    uint64_t sum = 0;
    for (int w = 0; w < kSampleWarps; ++w) sum += shared_.weights[w];
    return sum;
  }

  // block. Among a histogram's values, the highest first: the one in which token or unit `x` lies, and the mass before it added to `above`.
  __device__ __forceinline__ uint32_t select(const Histogram& digits, uint64_t x, bool by_weight, Mass& above) {
    constexpr int kEach = kDigits / kSampleThreads;
    Mass mine[kEach], own;
#pragma unroll
    for (int i = 0; i < kEach; ++i) own += mine[i] = digits.at(static_cast<uint32_t>(kDigits - 1 - (thread_ * kEach + i)));
    const Mass with_own = warp::inclusive_sum(own);
    __syncthreads();  // what was agreed on before has been read
    if (lane_ == 31) shared_.counts[warp_] = with_own.count, shared_.weights[warp_] = with_own.weight;
    __syncthreads();
    Mass before = above;
    for (int w = 0; w < warp_; ++w) before += Mass{shared_.counts[w], shared_.weights[w]};
    before += Mass{with_own.count - own.count, with_own.weight - own.weight};
#pragma unroll
    for (int i = 0; i < kEach; ++i) {
      Mass after = before;
      after += mine[i];
      if (before.of(by_weight) <= x && x < after.of(by_weight)) {
        shared_.digit = static_cast<uint32_t>(kDigits - 1 - (thread_ * kEach + i));
        shared_.passed_count = before.count;
        shared_.passed_weight = before.weight;
      }
      before = after;
    }
    __syncthreads();
    above = {shared_.passed_count, shared_.passed_weight};
    return shared_.digit;
  }

  // block. Where token or unit `x` lies. The last digit of a bf16's rank follows from its sign.
  __device__ __forceinline__ SamplePlace find(uint64_t x, bool by_weight) {
    SamplePlace place{};
    uint32_t prefix = select(Histogram(shared_.first), x, by_weight, place.above);
    const Histogram digits(shared_.next);
#pragma unroll 1
    for (int below = 32 - kDigitBits; below > (sizeof(T) == 2 ? 10 : 0);) {  // bits below the prefix
      const int bits = below > kDigitBits ? kDigitBits : below, rest = below - bits;
      clear(shared_.next);
      __syncthreads();
      for_each(p_.known, [&](int, float logit) {
        const uint32_t rank = thread::rank_of(logit);
        if (rank >> below == prefix) digits.add(rank >> rest & ((1u << bits) - 1), weight(logit));
      });
      __syncthreads();
      prefix = prefix << bits | select(digits, x, by_weight, place.above);
      below = rest;
    }
    if (sizeof(T) == 2) prefix = prefix << 10 | (prefix >> 21 != 0 ? 0 : 0x3FFu);
    place.rank = prefix;
    place.weight = weight(thread::logit_of(prefix));
    place.among = x - place.above.of(by_weight);
    if (by_weight) place.among /= place.weight;
    return place;
  }

  // block. The id of a place: equals follow each other as they lie. Each warp counts those in a stretch of the row.
  __device__ __forceinline__ int32_t id_at(const SamplePlace& place) {
    const int stretch = (p_.known + kSampleThreads - 1) / kSampleThreads * 32;
    const int begin = warp_ * stretch, end = min(begin + stretch, p_.known);
    const auto is_equal = [&](int id) { return id < end && thread::rank_of(to_float(row_[id])) == place.rank; };
    uint32_t own = 0;
#pragma unroll 4
    for (int id = begin + lane_; id < end; id += 32) own += is_equal(id) ? 1 : 0;
    own = ptx::reduce_add(own);
    __syncthreads();  // what was agreed on before has been read
    if (lane_ == 0) shared_.counts[warp_] = own;
    __syncthreads();
    auto left = static_cast<uint32_t>(place.among);
    int of = 0;
    while (of < kSampleWarps - 1 && left >= shared_.counts[of]) left -= shared_.counts[of++];
    if (of == warp_) {
      for (int first = begin; first < end; first += 32) {
        const uint32_t equals = ptx::vote_ballot(is_equal(first + lane_));
        const auto here = static_cast<uint32_t>(__popc(equals));
        if (left < here && (equals >> lane_ & 1) != 0 && static_cast<uint32_t>(__popc(equals & ((1u << lane_) - 1))) == left)
          shared_.ids[0] = static_cast<uint32_t>(first + lane_);
        if (left < here) break;
        left -= here;
      }
    }
    __syncthreads();
    return static_cast<int32_t>(shared_.ids[0]);
  }

  const SampleParams<T>& p_;
  const T* row_;
  SampleShared& shared_;
  double best_ = 0;
  int thread_ = static_cast<int>(threadIdx.x), warp_ = thread_ / 32, lane_ = thread_ % 32;
};

template <class T>
__global__ void __launch_bounds__(kSampleThreads) sample_kernel(const SampleParams<T> p) {
  SampleShared& shared = *dyn_smem<SampleShared>();
  const int32_t token = RowSampler<T>(p, p.logits + blockIdx.x * p.logits_row, shared).token();
  if (threadIdx.x == 0) p.tokens[blockIdx.x] = token;
}

template <class T>
void launch_sample(const SampleArgs& args, Stream stream) {
  SampleParams<T> p{};
  p.logits = args.logits.as<const T>();
  p.tokens = args.tokens.as<int32_t>();
  p.draw = args.draw.as<const int32_t>();
  p.text = args.text.as<const int32_t>();
  p.logits_row = args.logits.step(0);
  p.draw_step = args.draw.step(0);
  p.text_step = args.text.step(0);
  p.columns = static_cast<int>(args.logits.size(1));
  p.known = args.vocab > 0 && args.vocab < p.columns ? static_cast<int>(args.vocab) : p.columns;
  p.top_k = args.top_k > 0 && args.top_k < p.known ? static_cast<int>(args.top_k) : 0;
  p.wide = all_wide({&args.logits});
  p.top_p = args.top_p;
  p.rules = SampleRules::of(args.temperature, p.known);
  p.key = args.key;
  HEDDLE_LAUNCH((sample_kernel<T>), static_cast<unsigned>(args.logits.size(0)), kSampleThreads, sizeof(SampleShared), stream, p);
}

}  // namespace heddle::kernels::cuda
