// The nvcc half of ptx.h: one wrapper = one instruction. Contracts stand in ptx.h. A "memory" clobber keeps the compiler from moving memory accesses
// across an instruction that reads, writes or orders memory it does not see in the operands.
#pragma once

namespace heddle::ptx {

#define HEDDLE_PTX __device__ __forceinline__

// ---- places ----
HEDDLE_PTX uint32_t smem_u32(const void* pointer, Where) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}
HEDDLE_PTX uint32_t lane_id(Where) {
  uint32_t lane;
  asm("mov.u32 %0, %%laneid;" : "=r"(lane));
  return lane;
}

// ---- shuffles, votes, reductions ----
namespace detail {
template <class To, class From>
HEDDLE_PTX To bits(From value) {
  static_assert(sizeof(To) == 4 && sizeof(From) == 4, "shuffles move 32-bit values");
  return __builtin_bit_cast(To, value);
}
}  // namespace detail

// The last operand but one: bits 12-8 pick the segment, bits 4-0 clamp the source lane (0 for up).
#define HEDDLE_PTX_SHUFFLE(name, mode, clamp)                                                                        \
  template <int Width, class T>                                                                                      \
  HEDDLE_PTX T name(T value, int lanes, uint32_t members, Where) {                                                   \
    static_assert(Width > 0 && Width <= 32 && (Width & (Width - 1)) == 0, "the segment is a power of two up to 32"); \
    uint32_t out;                                                                                                    \
    asm volatile("shfl.sync." mode ".b32 %0, %1, %2, %3, %4;"                                                        \
                 : "=r"(out)                                                                                         \
                 : "r"(detail::bits<uint32_t>(value)), "r"(lanes), "n"((32 - Width) << 8 | (clamp)), "r"(members));  \
    return detail::bits<T>(out);                                                                                     \
  }
HEDDLE_PTX_SHUFFLE(shfl_idx, "idx", 31)
HEDDLE_PTX_SHUFFLE(shfl_up, "up", 0)
HEDDLE_PTX_SHUFFLE(shfl_down, "down", 31)
HEDDLE_PTX_SHUFFLE(shfl_bfly, "bfly", 31)
#undef HEDDLE_PTX_SHUFFLE

HEDDLE_PTX uint32_t vote_ballot(bool predicate, uint32_t members, Where) {
  uint32_t out;
  asm volatile("{\n.reg .pred p;\nsetp.ne.u32 p, %1, 0;\nvote.sync.ballot.b32 %0, p, %2;\n}" : "=r"(out) : "r"(uint32_t{predicate}), "r"(members));
  return out;
}
HEDDLE_PTX bool vote_any(bool predicate, uint32_t members, Where) {
  uint32_t out;
  asm volatile("{\n.reg .pred p, q;\nsetp.ne.u32 p, %1, 0;\nvote.sync.any.pred q, p, %2;\nselp.u32 %0, 1, 0, q;\n}"
               : "=r"(out)
               : "r"(uint32_t{predicate}), "r"(members));
  return out != 0;
}
HEDDLE_PTX bool vote_all(bool predicate, uint32_t members, Where) {
  uint32_t out;
  asm volatile("{\n.reg .pred p, q;\nsetp.ne.u32 p, %1, 0;\nvote.sync.all.pred q, p, %2;\nselp.u32 %0, 1, 0, q;\n}"
               : "=r"(out)
               : "r"(uint32_t{predicate}), "r"(members));
  return out != 0;
}
HEDDLE_PTX uint32_t match_any(uint32_t value, uint32_t members, Where) {
  uint32_t out;
  asm volatile("match.any.sync.b32 %0, %1, %2;" : "=r"(out) : "r"(value), "r"(members));
  return out;
}
HEDDLE_PTX uint32_t match_all(uint32_t value, uint32_t members, Where) {
  uint32_t out;
  asm volatile("match.all.sync.b32 %0, %1, %2;" : "=r"(out) : "r"(value), "r"(members));
  return out;
}

#define HEDDLE_PTX_REDUCE(name, op, T, constraint)                                        \
  HEDDLE_PTX T name(T value, uint32_t members, Where) {                                   \
    T out;                                                                                \
    asm volatile("redux.sync." op " %0, %1, %2;" : "=r"(out) : "r"(value), "r"(members)); \
    return out;                                                                           \
  }
HEDDLE_PTX_REDUCE(reduce_add, "add.u32", uint32_t, "r")
HEDDLE_PTX_REDUCE(reduce_min, "min.u32", uint32_t, "r")
HEDDLE_PTX_REDUCE(reduce_max, "max.u32", uint32_t, "r")
HEDDLE_PTX_REDUCE(reduce_min_signed, "min.s32", int32_t, "r")
HEDDLE_PTX_REDUCE(reduce_max_signed, "max.s32", int32_t, "r")
HEDDLE_PTX_REDUCE(reduce_and, "and.b32", uint32_t, "r")
HEDDLE_PTX_REDUCE(reduce_or, "or.b32", uint32_t, "r")
HEDDLE_PTX_REDUCE(reduce_xor, "xor.b32", uint32_t, "r")
#undef HEDDLE_PTX_REDUCE

HEDDLE_PTX void warp_sync(uint32_t members, Where) {
  asm volatile("bar.warp.sync %0;" ::"r"(members) : "memory");
}

// ---- named barriers ----
HEDDLE_PTX void bar_sync(uint32_t id, uint32_t threads, Where) {
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}
HEDDLE_PTX void bar_arrive(uint32_t id, uint32_t threads, Where) {
  asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

// ---- memory ----
HEDDLE_PTX uint4 ld128(const void* global, Where) {
  uint4 v;
  asm volatile("ld.global.v4.u32 {%0, %1, %2, %3}, [%4];" : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "l"(global) : "memory");
  return v;
}
HEDDLE_PTX uint4 ld128_read_once(const void* global, Where) {
  uint4 v;
  asm("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];" : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "l"(global));
  return v;
}
HEDDLE_PTX uint4 ld128_hinted(const void* global, L2Policy policy, Where) {
  uint4 v;
  asm volatile("ld.global.L2::cache_hint.v4.u32 {%0, %1, %2, %3}, [%4], %5;"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(global), "l"(static_cast<uint64_t>(policy))
               : "memory");
  return v;
}
HEDDLE_PTX void st128(void* global, uint4 v, Where) {
  asm volatile("st.global.v4.u32 [%0], {%1, %2, %3, %4};" ::"l"(global), "r"(v.x), "r"(v.y), "r"(v.z), "r"(v.w) : "memory");
}
HEDDLE_PTX void st128_streaming(void* global, uint4 v, Where) {
  asm volatile("st.global.cs.v4.u32 [%0], {%1, %2, %3, %4};" ::"l"(global), "r"(v.x), "r"(v.y), "r"(v.z), "r"(v.w) : "memory");
}
HEDDLE_PTX void st128_hinted(void* global, uint4 v, L2Policy policy, Where) {
  asm volatile("st.global.L2::cache_hint.v4.u32 [%0], {%1, %2, %3, %4}, %5;" ::"l"(global), "r"(v.x), "r"(v.y), "r"(v.z), "r"(v.w),
               "l"(static_cast<uint64_t>(policy))
               : "memory");
}
HEDDLE_PTX uint2 ld64(const void* global, Where) {
  uint2 v;
  asm volatile("ld.global.v2.u32 {%0, %1}, [%2];" : "=r"(v.x), "=r"(v.y) : "l"(global) : "memory");
  return v;
}
HEDDLE_PTX void st64(void* global, uint2 v, Where) {
  asm volatile("st.global.v2.u32 [%0], {%1, %2};" ::"l"(global), "r"(v.x), "r"(v.y) : "memory");
}
HEDDLE_PTX uint4 ld128_shared(uint32_t smem, Where) {
  uint4 v;
  asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];" : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "r"(smem) : "memory");
  return v;
}
HEDDLE_PTX void st128_shared(uint32_t smem, uint4 v, Where) {
  asm volatile("st.shared.v4.u32 [%0], {%1, %2, %3, %4};" ::"r"(smem), "r"(v.x), "r"(v.y), "r"(v.z), "r"(v.w) : "memory");
}
HEDDLE_PTX void st64_shared(uint32_t smem, uint2 v, Where) {
  asm volatile("st.shared.v2.u32 [%0], {%1, %2};" ::"r"(smem), "r"(v.x), "r"(v.y) : "memory");
}
HEDDLE_PTX L2Policy policy_evict_first(Where) {
  uint64_t policy;
  asm("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
  return static_cast<L2Policy>(policy);
}
HEDDLE_PTX L2Policy policy_evict_last(Where) {
  uint64_t policy;
  asm("createpolicy.fractional.L2::evict_last.b64 %0, 1.0;" : "=l"(policy));
  return static_cast<L2Policy>(policy);
}

HEDDLE_PTX uint32_t ld_acquire_gpu(const uint32_t* global, Where) {
  uint32_t value;
  asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(value) : "l"(global) : "memory");
  return value;
}
HEDDLE_PTX void st_release_gpu(uint32_t* global, uint32_t value, Where) {
  asm volatile("st.release.gpu.global.u32 [%0], %1;" ::"l"(global), "r"(value) : "memory");
}
HEDDLE_PTX void red_add_release_gpu(uint32_t* global, uint32_t value, Where) {
  asm volatile("red.release.gpu.global.add.u32 [%0], %1;" ::"l"(global), "r"(value) : "memory");
}
HEDDLE_PTX uint32_t atom_add_acq_rel_gpu(uint32_t* global, uint32_t value, Where) {
  uint32_t old;
  asm volatile("atom.acq_rel.gpu.global.add.u32 %0, [%1], %2;" : "=r"(old) : "l"(global), "r"(value) : "memory");
  return old;
}
HEDDLE_PTX uint32_t atom_cas_acq_rel_gpu(uint32_t* global, uint32_t expected, uint32_t value, Where) {
  uint32_t old;
  asm volatile("atom.acq_rel.gpu.global.cas.b32 %0, [%1], %2, %3;" : "=r"(old) : "l"(global), "r"(expected), "r"(value) : "memory");
  return old;
}
HEDDLE_PTX uint32_t atom_add(uint32_t* global, uint32_t value, Where) {
  uint32_t old;
  asm volatile("atom.relaxed.gpu.global.add.u32 %0, [%1], %2;" : "=r"(old) : "l"(global), "r"(value) : "memory");
  return old;
}
HEDDLE_PTX float atom_add_f32(float* global, float value, Where) {
  float old;
  asm volatile("atom.relaxed.gpu.global.add.f32 %0, [%1], %2;" : "=f"(old) : "l"(global), "f"(value) : "memory");
  return old;
}
HEDDLE_PTX void red_add_f32(float* global, float value, Where) {
  asm volatile("red.relaxed.gpu.global.add.f32 [%0], %1;" ::"l"(global), "f"(value) : "memory");
}
HEDDLE_PTX void red_add_f32_shared(uint32_t smem, float value, Where) {
  asm volatile("red.relaxed.cta.shared.add.f32 [%0], %1;" ::"r"(smem), "f"(value) : "memory");
}
HEDDLE_PTX uint32_t atom_add_shared(uint32_t smem, uint32_t value, Where) {
  uint32_t old;
  asm volatile("atom.relaxed.cta.shared.add.u32 %0, [%1], %2;" : "=r"(old) : "r"(smem), "r"(value) : "memory");
  return old;
}
HEDDLE_PTX void fence_cta(Where) {
  asm volatile("fence.acq_rel.cta;" ::: "memory");
}
HEDDLE_PTX void fence_gpu(Where) {
  asm volatile("fence.acq_rel.gpu;" ::: "memory");
}

// ---- cp.async ----
template <int Bytes>
HEDDLE_PTX void cp_async(uint32_t smem, const void* global, Where) {
  static_assert(Bytes == 4 || Bytes == 8 || Bytes == 16, "cp.async copies 4, 8 or 16 bytes");
  if constexpr (Bytes == 16) {
    asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16;" ::"r"(smem), "l"(global) : "memory");
  } else {
    asm volatile("cp.async.ca.shared.global.L2::128B [%0], [%1], %2;" ::"r"(smem), "l"(global), "n"(Bytes) : "memory");
  }
}
template <int Bytes>
HEDDLE_PTX void cp_async_zfill(uint32_t smem, const void* global, uint32_t source_bytes, Where) {
  static_assert(Bytes == 4 || Bytes == 8 || Bytes == 16, "cp.async copies 4, 8 or 16 bytes");
  if constexpr (Bytes == 16) {
    asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(smem), "l"(global), "r"(source_bytes) : "memory");
  } else {
    asm volatile("cp.async.ca.shared.global.L2::128B [%0], [%1], %2, %3;" ::"r"(smem), "l"(global), "n"(Bytes), "r"(source_bytes) : "memory");
  }
}
HEDDLE_PTX void cp_async_commit(Where) {
  asm volatile("cp.async.commit_group;" ::: "memory");
}
template <int Pending>
HEDDLE_PTX void cp_async_wait(Where) {
  asm volatile("cp.async.wait_group %0;" ::"n"(Pending) : "memory");
}
HEDDLE_PTX void cp_async_arrive_noinc(uint32_t mbarrier, Where) {
  asm volatile("cp.async.mbarrier.arrive.noinc.shared.b64 [%0];" ::"r"(mbarrier) : "memory");
}

// ---- ldmatrix, mma ----
HEDDLE_PTX void ldmatrix_x1(uint32_t& r, uint32_t smem, Where) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%0}, [%1];" : "=r"(r) : "r"(smem) : "memory");
}
HEDDLE_PTX void ldmatrix_x2(uint32_t (&r)[2], uint32_t smem, Where) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];" : "=r"(r[0]), "=r"(r[1]) : "r"(smem) : "memory");
}
HEDDLE_PTX void ldmatrix_x4(uint32_t (&r)[4], uint32_t smem, Where) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(smem)
               : "memory");
}
HEDDLE_PTX void ldmatrix_x1_trans(uint32_t& r, uint32_t smem, Where) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x1.trans.shared.b16 {%0}, [%1];" : "=r"(r) : "r"(smem) : "memory");
}
HEDDLE_PTX void ldmatrix_x2_trans(uint32_t (&r)[2], uint32_t smem, Where) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];" : "=r"(r[0]), "=r"(r[1]) : "r"(smem) : "memory");
}
HEDDLE_PTX void ldmatrix_x4_trans(uint32_t (&r)[4], uint32_t smem, Where) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(smem)
               : "memory");
}
#define HEDDLE_PTX_MMA(name, shape_and_types)                                                                           \
  HEDDLE_PTX void name(float(&d)[4], const uint32_t(&a)[4], uint32_t b0, uint32_t b1, Where) {                          \
    asm volatile("mma.sync.aligned." shape_and_types " {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};" \
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])                                                       \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));                                       \
  }
HEDDLE_PTX_MMA(mma_m16n8k16_bf16, "m16n8k16.row.col.f32.bf16.bf16.f32")
HEDDLE_PTX_MMA(mma_m16n8k16_f16, "m16n8k16.row.col.f32.f16.f16.f32")
HEDDLE_PTX_MMA(mma_m16n8k8_tf32, "m16n8k8.row.col.f32.tf32.tf32.f32")
#undef HEDDLE_PTX_MMA

// ---- mbarrier, the part Ampere has ----
HEDDLE_PTX void mbarrier_init(uint32_t mbarrier, uint32_t arrivals, Where) {
  asm volatile("mbarrier.init.shared.b64 [%0], %1;" ::"r"(mbarrier), "r"(arrivals) : "memory");
}
HEDDLE_PTX void mbarrier_inval(uint32_t mbarrier, Where) {
  asm volatile("mbarrier.inval.shared.b64 [%0];" ::"r"(mbarrier) : "memory");
}
HEDDLE_PTX void mbarrier_arrive(uint32_t mbarrier, Where) {
  asm volatile("{\n.reg .b64 state;\nmbarrier.arrive.shared.b64 state, [%0];\n}" ::"r"(mbarrier) : "memory");
}
HEDDLE_PTX bool mbarrier_test(uint32_t mbarrier, uint32_t parity, Where) {
  uint32_t over;
  asm volatile("{\n.reg .pred p;\nmbarrier.test_wait.parity.shared.b64 p, [%1], %2;\nselp.u32 %0, 1, 0, p;\n}"
               : "=r"(over)
               : "r"(mbarrier), "r"(parity)
               : "memory");
  return over != 0;
}

// ---- arithmetic ----
#define HEDDLE_PTX_UNARY(name, instruction)         \
  HEDDLE_PTX float name(float x) {                  \
    float y;                                        \
    asm(instruction " %0, %1;" : "=f"(y) : "f"(x)); \
    return y;                                       \
  }
HEDDLE_PTX_UNARY(ex2, "ex2.approx.ftz.f32")
HEDDLE_PTX_UNARY(lg2, "lg2.approx.ftz.f32")
HEDDLE_PTX_UNARY(rcp, "rcp.approx.ftz.f32")
HEDDLE_PTX_UNARY(rsqrt, "rsqrt.approx.ftz.f32")
HEDDLE_PTX_UNARY(tanh, "tanh.approx.f32")
#undef HEDDLE_PTX_UNARY

// cvt puts its second source in the low half.
HEDDLE_PTX uint32_t cvt_bf16x2(float low, float high) {
  uint32_t out;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(out) : "f"(high), "f"(low));
  return out;
}
HEDDLE_PTX uint32_t cvt_f16x2(float low, float high) {
  uint32_t out;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(out) : "f"(high), "f"(low));
  return out;
}
HEDDLE_PTX uint32_t cvt_tf32(float x) {
  uint32_t out;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(out) : "f"(x));
  return out;
}
template <int Count>
HEDDLE_PTX void keep_in_place(float (&registers)[Count]) {
#pragma unroll
  for (int i = 0; i < Count; ++i) asm volatile("" : "+f"(registers[i])::"memory");
}

}  // namespace heddle::ptx

// The host pass sees everything; the device pass for Ampere does not have what follows.
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
#include "kernels/arch/ptx_nv_sm90.inl"
#include "kernels/arch/ptx_nv_wgmma.inl"
#endif

#undef HEDDLE_PTX
