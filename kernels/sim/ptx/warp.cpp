// Instructions of one warp: shuffles, votes, reductions, ldmatrix, stmatrix, mma.sync.
#include "kernels/sim/ptx/ptx_internal.h"

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
  const std::byte* rows[8 * Count];
  for (int r = 0; r < 8 * Count; ++r) rows[r] = access_of(args, r).row;
  for (int lane = 0; lane < 32; ++lane) {
    const int g = lane / 4, t = lane % 4;
    uint32_t* registers = access_of(args, lane).registers;
    for (int i = 0; i < Count; ++i) {
      if constexpr (Transposed) {
        registers[i] = load<uint16_t>(rows[8 * i + 2 * t] + 2 * g) | static_cast<uint32_t>(load<uint16_t>(rows[8 * i + 2 * t + 1] + 2 * g)) << 16;
      } else {
        registers[i] = load<uint32_t>(rows[8 * i + g] + 4 * t);
      }
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

// The elements of eight registers: element e of register i is [e][i].
struct Bf16 {
  static constexpr int kPerRegister = 2;
  static void unpack(const Words8& bits, Floats8* elements) {
    elements[0] = reinterpret_cast<Floats8>(bits << 16);
    elements[1] = reinterpret_cast<Floats8>(bits & 0xFFFF0000u);
  }
};
struct F16 {
  static constexpr int kPerRegister = 2;
  static void unpack(const Words8& bits, Floats8* elements) {
    for (int i = 0; i < 8; ++i) {
      elements[0][i] = f16_value(bits[i] & 0xFFFF);
      elements[1][i] = f16_value(bits[i] >> 16);
    }
  }
};
struct Tf32 {
  static constexpr int kPerRegister = 1;
  static void unpack(const Words8& bits, Floats8* elements) { elements[0] = reinterpret_cast<Floats8>(bits & 0xFFFFE000u); }  // not the low 13 bits
};

// Both shapes are the same in terms of registers: a row of A and a column of B are eight registers wide, lane (g, t) = (lane / 4, lane % 4) holds
// A's (row g + 8 (i % 2), register t + 4 (i / 2)) and B's (register t + 4 i, column g). A register holds neighbouring k.
template <class Type>
void mma_op(Warp&, void* const* args, uint32_t) {
  constexpr int kPer = Type::kPerRegister, kRows = 16, kTogether = 4;
  alignas(32) uint32_t a_words[kRows][8], b_words[8][8];
  alignas(32) float d[kRows][8];
  for (int lane = 0; lane < 32; ++lane) {
    const auto& x = *static_cast<const MmaOperands*>(args[lane]);
    const int g = lane / 4, t = lane % 4;
    for (int i = 0; i < 4; ++i) a_words[g + 8 * (i % 2)][t + 4 * (i / 2)] = x.a[i];
    for (int i = 0; i < 2; ++i) b_words[t + 4 * i][g] = x.b[i];
    std::memcpy(&d[g][2 * t], x.d, 8);
    std::memcpy(&d[g + 8][2 * t], x.d + 2, 8);
  }
  Floats8 a[kRows][kPer], b[8][kPer];
  for (int row = 0; row < kRows; ++row) Type::unpack(load<Words8>(a_words[row]), a[row]);
  for (int i = 0; i < 8; ++i) Type::unpack(load<Words8>(b_words[i]), b[i]);
  for (int top = 0; top < kRows; top += kTogether) {  // rows together hide the latency of each one's chain of sums
    Floats8 sum[kTogether];
    for (int r = 0; r < kTogether; ++r) sum[r] = load<Floats8>(d[top + r]);
    for (int i = 0; i < 8; ++i) {
      for (int e = 0; e < kPer; ++e) {  // k ascending
        for (int r = 0; r < kTogether; ++r) sum[r] += a[top + r][e][i] * b[i][e];
      }
    }
    for (int r = 0; r < kTogether; ++r) std::memcpy(d[top + r], &sum[r], sizeof sum[r]);
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
