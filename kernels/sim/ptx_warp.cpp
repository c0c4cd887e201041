// Instructions of one warp: shuffles, votes, reductions, ldmatrix, stmatrix, mma.sync.
#include "kernels/sim/ptx_internal.h"

namespace heddle::ptx {

using sim::Site;
using sim::Warp;

uint32_t smem_u32(const void* pointer, Where at) {
  return sim::shared_address(pointer, at.op("cvta.to.shared"));
}
uint32_t lane_id(Where) {
  return sim::this_thread().lane;
}

// ---- shuffles, votes, reductions ----

uint32_t detail::shuffle(sim::Shuffle kind, uint32_t bits, int lanes, uint32_t members, int width, Where at) {
  static constexpr const char* kNames[] = {"shfl.sync.idx", "shfl.sync.up", "shfl.sync.down", "shfl.sync.bfly"};
  return static_cast<uint32_t>(sim::shuffle(kind, members, bits, lanes, width, at.op(kNames[static_cast<int>(kind)])));
}

uint32_t vote_ballot(bool predicate, uint32_t members, Where at) {
  return sim::ballot(members, predicate, at.op("vote.sync.ballot"));
}
bool vote_any(bool predicate, uint32_t members, Where at) {
  return sim::ballot(members, predicate, at.op("vote.sync.any")) != 0;
}
bool vote_all(bool predicate, uint32_t members, Where at) {
  return sim::ballot(members, !predicate, at.op("vote.sync.all")) == 0;
}
uint32_t match_any(uint32_t value, uint32_t members, Where at) {
  return sim::match_any(members, value, at.op("match.any.sync"));
}

namespace {
struct MatchAll {
  uint32_t value;
  uint32_t result;
};
void match_all_op(Warp&, void* const* args, uint32_t mask) {
  const auto of = [&](int lane) { return static_cast<MatchAll*>(args[lane]); };
  const uint32_t first = of(std::countr_zero(mask))->value;
  bool same = true;
  for (uint32_t rest = mask; rest != 0; rest &= rest - 1) same = same && of(std::countr_zero(rest))->value == first;
  for (uint32_t rest = mask; rest != 0; rest &= rest - 1) of(std::countr_zero(rest))->result = same ? mask : 0;
}
}  // namespace

uint32_t match_all(uint32_t value, uint32_t members, Where at) {
  MatchAll arg{value, 0};
  sim::collect(members, match_all_op, &arg, at.op("match.all.sync"));
  return arg.result;
}

uint32_t reduce_add(uint32_t value, uint32_t members, Where at) {
  return sim::reduce(sim::Reduction::add, members, value, at.op("redux.sync.add"));
}
uint32_t reduce_min(uint32_t value, uint32_t members, Where at) {
  return sim::reduce(sim::Reduction::min_unsigned, members, value, at.op("redux.sync.min.u32"));
}
uint32_t reduce_max(uint32_t value, uint32_t members, Where at) {
  return sim::reduce(sim::Reduction::max_unsigned, members, value, at.op("redux.sync.max.u32"));
}
int32_t reduce_min_signed(int32_t value, uint32_t members, Where at) {
  return static_cast<int32_t>(sim::reduce(sim::Reduction::min_signed, members, static_cast<uint32_t>(value), at.op("redux.sync.min.s32")));
}
int32_t reduce_max_signed(int32_t value, uint32_t members, Where at) {
  return static_cast<int32_t>(sim::reduce(sim::Reduction::max_signed, members, static_cast<uint32_t>(value), at.op("redux.sync.max.s32")));
}
uint32_t reduce_and(uint32_t value, uint32_t members, Where at) {
  return sim::reduce(sim::Reduction::bit_and, members, value, at.op("redux.sync.and"));
}
uint32_t reduce_or(uint32_t value, uint32_t members, Where at) {
  return sim::reduce(sim::Reduction::bit_or, members, value, at.op("redux.sync.or"));
}
uint32_t reduce_xor(uint32_t value, uint32_t members, Where at) {
  return sim::reduce(sim::Reduction::bit_xor, members, value, at.op("redux.sync.xor"));
}

void warp_sync(uint32_t members, Where at) {
  sim::collect(members, nullptr, nullptr, at.op("bar.warp.sync"), sim::Ordering::memory);
}
bool elect_one(Where at) {
  sim::collect(kFullWarp, nullptr, nullptr, at.op("elect.sync"));
  return sim::this_thread().lane == 0;  // the manual leaves the choice open but fixed
}

// ---- 8x8 matrices ----

namespace {

struct MatrixAccess {
  uint32_t* registers;  // of this lane, one for each matrix; ldmatrix writes, stmatrix reads
  std::byte* row;       // what this lane's address points to, null for lanes whose address is not used
};
MatrixAccess& access_of(void* const* args, int lane) {
  return *static_cast<MatrixAccess*>(args[lane]);
}

// Lane l holds words (row l / 4, columns 2 (l % 4) and + 1); with .trans it holds two rows of one column.
template <int Count, bool Transposed>
void ldmatrix_op(Warp&, void* const* args, uint32_t) {
  for (int i = 0; i < Count; ++i) {
    uint16_t matrix[8][8];
    for (int r = 0; r < 8; ++r) std::memcpy(matrix[r], access_of(args, 8 * i + r).row, sizeof matrix[r]);
    for (int lane = 0; lane < 32; ++lane) {
      const int g = lane / 4, t = lane % 4;
      uint16_t pair[2];
      for (int half = 0; half < 2; ++half) pair[half] = Transposed ? matrix[2 * t + half][g] : matrix[g][2 * t + half];
      access_of(args, lane).registers[i] = pair[0] | static_cast<uint32_t>(pair[1]) << 16;
    }
  }
}
template <int Count, bool Transposed>
void stmatrix_op(Warp&, void* const* args, uint32_t) {
  for (int i = 0; i < Count; ++i) {
    uint16_t matrix[8][8];
    for (int lane = 0; lane < 32; ++lane) {
      const int g = lane / 4, t = lane % 4;
      const uint32_t pair = access_of(args, lane).registers[i];
      for (int half = 0; half < 2; ++half)
        (Transposed ? matrix[2 * t + half][g] : matrix[g][2 * t + half]) = static_cast<uint16_t>(pair >> 16 * half);
    }
    for (int r = 0; r < 8; ++r) std::memcpy(access_of(args, 8 * i + r).row, matrix[r], sizeof matrix[r]);
  }
}

template <int Count, bool Transposed>
void ldmatrix(uint32_t* registers, uint32_t smem, const Site& site) {
  MatrixAccess arg{registers, nullptr};
  if (sim::this_thread().lane < 8 * Count) {
    arg.row = own_shared(smem, 16, 16, site);
    sim::note_read(arg.row, 16, site);
  }
  sim::collect(kFullWarp, ldmatrix_op<Count, Transposed>, &arg, site);
}
template <int Count, bool Transposed>
void stmatrix(uint32_t smem, const uint32_t* registers, const Site& site) {
  MatrixAccess arg{const_cast<uint32_t*>(registers), nullptr};  // stmatrix_op only reads them
  if (sim::this_thread().lane < 8 * Count) {
    arg.row = own_shared(smem, 16, 16, site);
    sim::note_write(arg.row, 16, site);
  }
  sim::collect(kFullWarp, stmatrix_op<Count, Transposed>, &arg, site);
}

}  // namespace

void ldmatrix_x1(uint32_t& r, uint32_t smem, Where at) {
  ldmatrix<1, false>(&r, smem, at.op("ldmatrix.x1"));
}
void ldmatrix_x2(uint32_t (&r)[2], uint32_t smem, Where at) {
  ldmatrix<2, false>(r, smem, at.op("ldmatrix.x2"));
}
void ldmatrix_x4(uint32_t (&r)[4], uint32_t smem, Where at) {
  ldmatrix<4, false>(r, smem, at.op("ldmatrix.x4"));
}
void ldmatrix_x1_trans(uint32_t& r, uint32_t smem, Where at) {
  ldmatrix<1, true>(&r, smem, at.op("ldmatrix.x1.trans"));
}
void ldmatrix_x2_trans(uint32_t (&r)[2], uint32_t smem, Where at) {
  ldmatrix<2, true>(r, smem, at.op("ldmatrix.x2.trans"));
}
void ldmatrix_x4_trans(uint32_t (&r)[4], uint32_t smem, Where at) {
  ldmatrix<4, true>(r, smem, at.op("ldmatrix.x4.trans"));
}
void stmatrix_x1(uint32_t smem, uint32_t r, Where at) {
  stmatrix<1, false>(smem, &r, at.op("stmatrix.x1"));
}
void stmatrix_x2(uint32_t smem, const uint32_t (&r)[2], Where at) {
  stmatrix<2, false>(smem, r, at.op("stmatrix.x2"));
}
void stmatrix_x4(uint32_t smem, const uint32_t (&r)[4], Where at) {
  stmatrix<4, false>(smem, r, at.op("stmatrix.x4"));
}
void stmatrix_x1_trans(uint32_t smem, uint32_t r, Where at) {
  stmatrix<1, true>(smem, &r, at.op("stmatrix.x1.trans"));
}
void stmatrix_x2_trans(uint32_t smem, const uint32_t (&r)[2], Where at) {
  stmatrix<2, true>(smem, r, at.op("stmatrix.x2.trans"));
}
void stmatrix_x4_trans(uint32_t smem, const uint32_t (&r)[4], Where at) {
  stmatrix<4, true>(smem, r, at.op("stmatrix.x4.trans"));
}

// ---- mma.sync ----

namespace {

struct MmaOperands {
  float* d;
  const uint32_t* a;
  uint32_t b[2];
};

struct Bf16 {
  static constexpr int kDepth = 16;
  static void unpack(uint32_t bits, float* pair) {
    pair[0] = std::bit_cast<float>(bits << 16);
    pair[1] = std::bit_cast<float>(bits & 0xFFFF0000u);
  }
};
struct F16 {
  static constexpr int kDepth = 16;
  static void unpack(uint32_t bits, float* pair) {
    pair[0] = f16_value(bits & 0xFFFF);
    pair[1] = f16_value(bits >> 16);
  }
};
struct Tf32 {
  static constexpr int kDepth = 8;
  static void unpack(uint32_t bits, float* value) { value[0] = std::bit_cast<float>(bits & 0xFFFFE000u); }  // the low 13 bits are not looked at
};

// Both shapes hold A as four blocks (8 rows by half the depth) and B as two: register i of A is the block of rows 8 (i % 2), of k half i / 2; a
// register has kPer elements, those of k = kPer (lane % 4) on in its half.
template <class Type>
void mma_op(Warp&, void* const* args, uint32_t) {
  constexpr int K = Type::kDepth, kHalf = K / 2, kPer = kHalf / 4;
  alignas(32) float a[16][K], b[K][8], d[16][8];
  for (int lane = 0; lane < 32; ++lane) {
    const auto& x = *static_cast<const MmaOperands*>(args[lane]);
    const int g = lane / 4, t = lane % 4;
    for (int i = 0; i < 4; ++i) Type::unpack(x.a[i], &a[g + 8 * (i % 2)][kHalf * (i / 2) + kPer * t]);
    for (int i = 0; i < 2; ++i) {
      float of_column[kPer];
      Type::unpack(x.b[i], of_column);
      for (int e = 0; e < kPer; ++e) b[kHalf * i + kPer * t + e][g] = of_column[e];
    }
    std::memcpy(&d[g][2 * t], x.d, 8);
    std::memcpy(&d[g + 8][2 * t], x.d + 2, 8);
  }
  for (int m = 0; m < 16; ++m) {
    float sum[8];
    for (int n = 0; n < 8; ++n) sum[n] = d[m][n];
    for (int k = 0; k < K; ++k) {
      for (int n = 0; n < 8; ++n) sum[n] = multiply_add(a[m][k], b[k][n], sum[n]);
    }
    for (int n = 0; n < 8; ++n) d[m][n] = sum[n];
  }
  for (int lane = 0; lane < 32; ++lane) {
    float* to = static_cast<const MmaOperands*>(args[lane])->d;
    const int g = lane / 4, t = lane % 4;
    std::memcpy(to, &d[g][2 * t], 8);
    std::memcpy(to + 2, &d[g + 8][2 * t], 8);
  }
}

template <class Type>
void mma(float* d, const uint32_t* a, uint32_t b0, uint32_t b1, const Site& site) {
  MmaOperands arg{d, a, {b0, b1}};
  sim::collect(kFullWarp, mma_op<Type>, &arg, site);
}

}  // namespace

void mma_m16n8k16_bf16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1, Where at) {
  mma<Bf16>(d, a, b0, b1, at.op("mma.sync.m16n8k16.bf16"));
}
void mma_m16n8k16_f16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1, Where at) {
  mma<F16>(d, a, b0, b1, at.op("mma.sync.m16n8k16.f16"));
}
void mma_m16n8k8_tf32(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1, Where at) {
  mma<Tf32>(d, a, b0, b1, at.op("mma.sync.m16n8k8.tf32"));
}

}  // namespace heddle::ptx
