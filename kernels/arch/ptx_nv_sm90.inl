// The nvcc half of ptx.h, Hopper's part but wgmma. Included by ptx_nv.inl.
#pragma once

namespace heddle::ptx {

HEDDLE_PTX bool elect_one(Where) {
  uint32_t elected;
  asm volatile("{\n.reg .pred p;\nelect.sync _|p, 0xFFFFFFFF;\nselp.u32 %0, 1, 0, p;\n}" : "=r"(elected)::"memory");
  return elected != 0;
}

// ---- memory ----
HEDDLE_PTX uint32_t ld_cluster(uint32_t cluster_smem, Where) {
  uint32_t value;
  asm volatile("ld.shared::cluster.u32 %0, [%1];" : "=r"(value) : "r"(cluster_smem) : "memory");
  return value;
}
HEDDLE_PTX void st_cluster(uint32_t cluster_smem, uint32_t value, Where) {
  asm volatile("st.shared::cluster.u32 [%0], %1;" ::"r"(cluster_smem), "r"(value) : "memory");
}
HEDDLE_PTX void red_add_v4_f32(float* global, float4 v, Where) {
  asm volatile("red.relaxed.gpu.global.add.v4.f32 [%0], {%1, %2, %3, %4};" ::"l"(global), "f"(v.x), "f"(v.y), "f"(v.z), "f"(v.w) : "memory");
}
HEDDLE_PTX void fence_cluster(Where) {
  asm volatile("fence.acq_rel.cluster;" ::: "memory");
}

// ---- stmatrix ----
#define HEDDLE_PTX_STMATRIX(suffix, qualifier)                                                                                                 \
  HEDDLE_PTX void stmatrix_x1##suffix(uint32_t smem, uint32_t r, Where) {                                                                      \
    asm volatile("stmatrix.sync.aligned.m8n8.x1" qualifier ".shared.b16 [%0], {%1};" ::"r"(smem), "r"(r) : "memory");                          \
  }                                                                                                                                            \
  HEDDLE_PTX void stmatrix_x2##suffix(uint32_t smem, const uint32_t(&r)[2], Where) {                                                           \
    asm volatile("stmatrix.sync.aligned.m8n8.x2" qualifier ".shared.b16 [%0], {%1, %2};" ::"r"(smem), "r"(r[0]), "r"(r[1]) : "memory");        \
  }                                                                                                                                            \
  HEDDLE_PTX void stmatrix_x4##suffix(uint32_t smem, const uint32_t(&r)[4], Where) {                                                           \
    asm volatile("stmatrix.sync.aligned.m8n8.x4" qualifier ".shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(smem), "r"(r[0]), "r"(r[1]), "r"(r[2]), \
                 "r"(r[3])                                                                                                                     \
                 : "memory");                                                                                                                  \
  }
HEDDLE_PTX_STMATRIX(, "")
HEDDLE_PTX_STMATRIX(_trans, ".trans")
#undef HEDDLE_PTX_STMATRIX

// ---- mbarrier ----
HEDDLE_PTX void mbarrier_expect_tx(uint32_t mbarrier, uint32_t bytes, Where) {
  asm volatile("mbarrier.expect_tx.relaxed.cta.shared::cta.b64 [%0], %1;" ::"r"(mbarrier), "r"(bytes) : "memory");
}
HEDDLE_PTX void mbarrier_arrive_expect_tx(uint32_t mbarrier, uint32_t bytes, Where) {
  asm volatile("mbarrier.arrive.expect_tx.release.cta.shared::cta.b64 _, [%0], %1;" ::"r"(mbarrier), "r"(bytes) : "memory");
}
HEDDLE_PTX void mbarrier_arrive_cluster(uint32_t cluster_mbarrier, Where) {
  asm volatile("mbarrier.arrive.release.cluster.shared::cluster.b64 _, [%0];" ::"r"(cluster_mbarrier) : "memory");
}
HEDDLE_PTX void mbarrier_arrive_async_reads(uint32_t cluster_mbarrier, Where) {
  asm volatile("mbarrier.arrive.shared::cluster.b64 _, [%0];" ::"r"(cluster_mbarrier) : "memory");
}
HEDDLE_PTX void mbarrier_arrive_expect_tx_cluster(uint32_t cluster_mbarrier, uint32_t bytes, Where) {
  asm volatile("mbarrier.arrive.expect_tx.release.cluster.shared::cluster.b64 _, [%0], %1;" ::"r"(cluster_mbarrier), "r"(bytes) : "memory");
}
#ifdef HEDDLE_BOUNDED_WAITS
#define HEDDLE_PTX_MBARRIER_WAIT(name, scope)                                                                                             \
  HEDDLE_PTX void name(uint32_t mbarrier, uint32_t parity, Where where) {                                                                 \
    for (BoundedWait wait;; wait.check(mbarrier, parity, where.file, where.line)) {                                                       \
      uint32_t over;                                                                                                                      \
      asm volatile("{\n.reg .pred p;\nmbarrier.try_wait.parity.acquire." scope ".shared::cta.b64 p, [%1], %2;\nselp.u32 %0, 1, 0, p;\n}" \
                   : "=r"(over)                                                                                                           \
                   : "r"(mbarrier), "r"(parity)                                                                                           \
                   : "memory");                                                                                                           \
      if (over != 0) return;                                                                                                              \
    }                                                                                                                                     \
  }
HEDDLE_PTX_MBARRIER_WAIT(mbarrier_wait, "cta")
HEDDLE_PTX_MBARRIER_WAIT(mbarrier_wait_cluster, "cluster")
#undef HEDDLE_PTX_MBARRIER_WAIT
#else
// try_wait may sleep for a while in hardware before it answers no; %= makes the labels unique where the compiler copies the code.
HEDDLE_PTX void mbarrier_wait(uint32_t mbarrier, uint32_t parity, Where) {
  asm volatile(
      "{\n.reg .pred p;\nagain_%=:\nmbarrier.try_wait.parity.acquire.cta.shared::cta.b64 p, [%0], %1;\n@p bra over_%=;\nbra again_%=;\nover_%=:\n}" ::
          "r"(mbarrier),
      "r"(parity)
      : "memory");
}
HEDDLE_PTX void mbarrier_wait_cluster(uint32_t mbarrier, uint32_t parity, Where) {
  asm volatile(
      "{\n.reg .pred p;\nagain_%=:\nmbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 p, [%0], %1;\n@p bra over_%=;\nbra "
      "again_%=;\nover_%=:\n}" ::"r"(mbarrier),
      "r"(parity)
      : "memory");
}
#endif
HEDDLE_PTX void fence_mbarrier_init(Where) {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

// ---- proxies ----
HEDDLE_PTX void fence_proxy_async_shared(Where) {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}
HEDDLE_PTX void fence_proxy_async_global(Where) {
  asm volatile("fence.proxy.async.global;" ::: "memory");
}
HEDDLE_PTX void fence_proxy_async(Where) {
  asm volatile("fence.proxy.async;" ::: "memory");
}

// ---- TMA ----
HEDDLE_PTX void tma_prefetch_descriptor(const CUtensorMap* map, Where) {
  asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory");
}

// One instruction for each rank. Operands %0-%4 are the coordinates (those beyond the rank are unused and cost nothing), the others start at %5.
#define HEDDLE_PTX_TMA_RANK(rank, coordinates, opcode, before, after, ...)                                                                     \
  asm volatile(opcode "." #rank "d" before coordinates after ::"r"(at[0]), "r"(rank > 1 ? at[1 % Rank] : 0), "r"(rank > 2 ? at[2 % Rank] : 0), \
               "r"(rank > 3 ? at[3 % Rank] : 0), "r"(rank > 4 ? at[4 % Rank] : 0), __VA_ARGS__                                                 \
               : "memory")
#define HEDDLE_PTX_TMA(...)                                                         \
  static_assert(Rank >= 1 && Rank <= 5, "a tensor map has 1 to 5 dimensions");      \
  if constexpr (Rank == 1) HEDDLE_PTX_TMA_RANK(1, "{%0}", __VA_ARGS__);             \
  if constexpr (Rank == 2) HEDDLE_PTX_TMA_RANK(2, "{%0, %1}", __VA_ARGS__);         \
  if constexpr (Rank == 3) HEDDLE_PTX_TMA_RANK(3, "{%0, %1, %2}", __VA_ARGS__);     \
  if constexpr (Rank == 4) HEDDLE_PTX_TMA_RANK(4, "{%0, %1, %2, %3}", __VA_ARGS__); \
  if constexpr (Rank == 5) HEDDLE_PTX_TMA_RANK(5, "{%0, %1, %2, %3, %4}", __VA_ARGS__)

template <int Rank>
HEDDLE_PTX void tma_load(uint32_t smem, const CUtensorMap* map, uint32_t mbarrier, const int32_t (&at)[Rank], Where) {
  HEDDLE_PTX_TMA("cp.async.bulk.tensor", ".shared::cluster.global.mbarrier::complete_tx::bytes [%5], [%6, ", "], [%7];", "r"(smem), "l"(map),
                 "r"(mbarrier));
}
template <int Rank>
HEDDLE_PTX void tma_load_hinted(uint32_t smem, const CUtensorMap* map, uint32_t mbarrier, const int32_t (&at)[Rank], L2Policy policy, Where) {
  HEDDLE_PTX_TMA("cp.async.bulk.tensor", ".shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%5], [%6, ", "], [%7], %8;", "r"(smem),
                 "l"(map), "r"(mbarrier), "l"(static_cast<uint64_t>(policy)));
}
template <int Rank>
HEDDLE_PTX void tma_load_multicast(uint32_t smem, const CUtensorMap* map, uint32_t mbarrier, const int32_t (&at)[Rank], uint16_t blocks, Where) {
  HEDDLE_PTX_TMA("cp.async.bulk.tensor", ".shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster [%5], [%6, ", "], [%7], %8;",
                 "r"(smem), "l"(map), "r"(mbarrier), "h"(blocks));
}
template <int Rank>
HEDDLE_PTX void tma_load_multicast_hinted(uint32_t smem, const CUtensorMap* map, uint32_t mbarrier, const int32_t (&at)[Rank], uint16_t blocks,
                                          L2Policy policy, Where) {
  HEDDLE_PTX_TMA("cp.async.bulk.tensor", ".shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster.L2::cache_hint [%5], [%6, ",
                 "], [%7], %8, %9;", "r"(smem), "l"(map), "r"(mbarrier), "h"(blocks), "l"(static_cast<uint64_t>(policy)));
}
template <int Rank>
HEDDLE_PTX void tma_prefetch(const CUtensorMap* map, const int32_t (&at)[Rank], Where) {
  HEDDLE_PTX_TMA("cp.async.bulk.prefetch.tensor", ".L2.global [%5, ", "];", "l"(map));
}
template <int Rank>
HEDDLE_PTX void tma_store(const CUtensorMap* map, uint32_t smem, const int32_t (&at)[Rank], Where) {
  HEDDLE_PTX_TMA("cp.async.bulk.tensor", ".global.shared::cta.bulk_group [%5, ", "], [%6];", "l"(map), "r"(smem));
}
template <int Rank>
HEDDLE_PTX void tma_store_hinted(const CUtensorMap* map, uint32_t smem, const int32_t (&at)[Rank], L2Policy policy, Where) {
  HEDDLE_PTX_TMA("cp.async.bulk.tensor", ".global.shared::cta.bulk_group.L2::cache_hint [%5, ", "], [%6], %7;", "l"(map), "r"(smem),
                 "l"(static_cast<uint64_t>(policy)));
}
template <int Rank>
HEDDLE_PTX void tma_reduce_add(const CUtensorMap* map, uint32_t smem, const int32_t (&at)[Rank], Where) {
  HEDDLE_PTX_TMA("cp.reduce.async.bulk.tensor", ".global.shared::cta.add.bulk_group [%5, ", "], [%6];", "l"(map), "r"(smem));
}
#undef HEDDLE_PTX_TMA
#undef HEDDLE_PTX_TMA_RANK

// ---- bulk copies ----
HEDDLE_PTX void bulk_load(uint32_t smem, const void* global, uint32_t bytes, uint32_t mbarrier, Where) {
  asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(smem), "l"(global), "r"(bytes),
               "r"(mbarrier)
               : "memory");
}
HEDDLE_PTX void bulk_store(void* global, uint32_t smem, uint32_t bytes, Where) {
  asm volatile("cp.async.bulk.global.shared::cta.bulk_group [%0], [%1], %2;" ::"l"(global), "r"(smem), "r"(bytes) : "memory");
}
HEDDLE_PTX void bulk_reduce_add_f32(float* global, uint32_t smem, uint32_t bytes, Where) {
  asm volatile("cp.reduce.async.bulk.global.shared::cta.bulk_group.add.f32 [%0], [%1], %2;" ::"l"(global), "r"(smem), "r"(bytes) : "memory");
}
HEDDLE_PTX void bulk_commit(Where) {
  asm volatile("cp.async.bulk.commit_group;" ::: "memory");
}
template <int Pending>
HEDDLE_PTX void bulk_wait(Where) {
  asm volatile("cp.async.bulk.wait_group %0;" ::"n"(Pending) : "memory");
}
template <int Pending>
HEDDLE_PTX void bulk_wait_read(Where) {
  asm volatile("cp.async.bulk.wait_group.read %0;" ::"n"(Pending) : "memory");
}

// ---- clusters ----
HEDDLE_PTX void cluster_arrive(Where) {
  asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
}
HEDDLE_PTX void cluster_arrive_relaxed(Where) {
  asm volatile("barrier.cluster.arrive.relaxed.aligned;" ::: "memory");
}
HEDDLE_PTX void cluster_wait(Where) {
  asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
}
HEDDLE_PTX uint32_t cluster_rank(Where) {
  uint32_t rank;
  asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return rank;
}
HEDDLE_PTX uint32_t cluster_size(Where) {
  uint32_t blocks;
  asm("mov.u32 %0, %%cluster_nctarank;" : "=r"(blocks));
  return blocks;
}
HEDDLE_PTX uint32_t mapa(uint32_t smem, uint32_t rank, Where) {
  uint32_t address;
  asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(address) : "r"(smem), "r"(rank));
  return address;
}

// ---- dependent launches ----
HEDDLE_PTX void griddepcontrol_wait(Where) {
  asm volatile("griddepcontrol.wait;" ::: "memory");
}
HEDDLE_PTX void griddepcontrol_launch_dependents(Where) {
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
}

}  // namespace heddle::ptx
