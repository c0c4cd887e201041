// The simulated half of ptx.h: what must be a template, passed on to functions in kernels/sim/ptx/*.cpp. Those stand in sources that are never
// instrumented, because an instruction's own accesses are not the kernel's: they say themselves what they touch and who touches it.
#pragma once

#include <bit>
#include <cstdint>

#include "kernels/arch/fragments.h"
#include "kernels/arch/ptx_types.h"
#include "kernels/sim/core/machine.h"

namespace heddle::ptx {
namespace detail {

uint32_t shuffle(sim::Shuffle kind, uint32_t bits, int lanes, uint32_t members, int width, Where at);
void cp_async(uint32_t smem, const void* global, uint32_t bytes, uint32_t source_bytes, Where at);
void cp_async_wait(uint32_t pending, Where at);
void bulk_wait(uint32_t pending, bool sources_only, Where at);

struct Coordinates {
  int rank;
  int32_t at[5];
};
template <int Rank>
Coordinates coordinates(const int32_t (&at)[Rank]) {
  static_assert(Rank >= 1 && Rank <= 5, "a tensor map has 1 to 5 dimensions");
  Coordinates c{Rank, {}};
  for (int i = 0; i < Rank; ++i) c.at[i] = at[i];
  return c;
}
inline constexpr uint32_t kThisBlock = 0;  // no multicast
void tma_load(uint32_t smem, const CUtensorMap* map, uint32_t mbarrier, const Coordinates& from, uint32_t blocks, Where at);
void tma_prefetch(const CUtensorMap* map, const Coordinates& from, Where at);
enum class TileWrite : uint8_t { store, reduce_add };
void tma_store(const CUtensorMap* map, uint32_t smem, const Coordinates& to, TileWrite kind, Where at);

struct Wgmma {
  int n;
  Major major_a, major_b;
  bool accumulate;
  uint64_t a, b;              // descriptors; a unused with registers
  const uint32_t* registers;  // A's four, or null
  float* d;                   // n / 2 accumulators, alive until the wait
};
void wgmma(const Wgmma& operands, Where at);
void wgmma_wait(uint32_t pending, Where at);
void setmaxnreg(uint32_t count, bool raise, Where at);

template <int Width, class T>
T shuffle_as(sim::Shuffle kind, T value, int lanes, uint32_t members, Where at) {
  static_assert(Width > 0 && Width <= 32 && (Width & (Width - 1)) == 0, "the segment is a power of two up to 32");
  static_assert(sizeof(T) == 4, "shuffles move 32-bit values");
  return std::bit_cast<T>(shuffle(kind, std::bit_cast<uint32_t>(value), lanes, members, Width, at));
}

}  // namespace detail

template <int Width, class T>
T shfl_idx(T value, int source, uint32_t members, Where at) {
  return detail::shuffle_as<Width>(sim::Shuffle::index, value, source, members, at);
}
template <int Width, class T>
T shfl_up(T value, int delta, uint32_t members, Where at) {
  return detail::shuffle_as<Width>(sim::Shuffle::up, value, delta, members, at);
}
template <int Width, class T>
T shfl_down(T value, int delta, uint32_t members, Where at) {
  return detail::shuffle_as<Width>(sim::Shuffle::down, value, delta, members, at);
}
template <int Width, class T>
T shfl_bfly(T value, int lane_xor, uint32_t members, Where at) {
  return detail::shuffle_as<Width>(sim::Shuffle::exclusive_or, value, lane_xor, members, at);
}

template <int Bytes>
void cp_async(uint32_t smem, const void* global, Where at) {
  static_assert(Bytes == 4 || Bytes == 8 || Bytes == 16, "cp.async copies 4, 8 or 16 bytes");
  detail::cp_async(smem, global, Bytes, Bytes, at);
}
template <int Bytes>
void cp_async_zfill(uint32_t smem, const void* global, uint32_t source_bytes, Where at) {
  static_assert(Bytes == 4 || Bytes == 8 || Bytes == 16, "cp.async copies 4, 8 or 16 bytes");
  detail::cp_async(smem, global, Bytes, source_bytes, at);
}
template <int Pending>
void cp_async_wait(Where at) {
  static_assert(Pending >= 0);
  detail::cp_async_wait(Pending, at);
}

// Cache hints change no result.
template <int Rank>
void tma_load(uint32_t smem, const CUtensorMap* map, uint32_t mbarrier, const int32_t (&from)[Rank], Where at) {
  detail::tma_load(smem, map, mbarrier, detail::coordinates(from), detail::kThisBlock, at);
}
template <int Rank>
void tma_load_hinted(uint32_t smem, const CUtensorMap* map, uint32_t mbarrier, const int32_t (&from)[Rank], L2Policy, Where at) {
  detail::tma_load(smem, map, mbarrier, detail::coordinates(from), detail::kThisBlock, at);
}
template <int Rank>
void tma_load_multicast(uint32_t smem, const CUtensorMap* map, uint32_t mbarrier, const int32_t (&from)[Rank], uint16_t blocks, Where at) {
  detail::tma_load(smem, map, mbarrier, detail::coordinates(from), blocks, at);
}
template <int Rank>
void tma_load_multicast_hinted(uint32_t smem, const CUtensorMap* map, uint32_t mbarrier, const int32_t (&from)[Rank], uint16_t blocks, L2Policy,
                               Where at) {
  detail::tma_load(smem, map, mbarrier, detail::coordinates(from), blocks, at);
}
template <int Rank>
void tma_prefetch(const CUtensorMap* map, const int32_t (&from)[Rank], Where at) {
  detail::tma_prefetch(map, detail::coordinates(from), at);
}
template <int Rank>
void tma_store(const CUtensorMap* map, uint32_t smem, const int32_t (&to)[Rank], Where at) {
  detail::tma_store(map, smem, detail::coordinates(to), detail::TileWrite::store, at);
}
template <int Rank>
void tma_store_hinted(const CUtensorMap* map, uint32_t smem, const int32_t (&to)[Rank], L2Policy, Where at) {
  detail::tma_store(map, smem, detail::coordinates(to), detail::TileWrite::store, at);
}
template <int Rank>
void tma_reduce_add(const CUtensorMap* map, uint32_t smem, const int32_t (&to)[Rank], Where at) {
  detail::tma_store(map, smem, detail::coordinates(to), detail::TileWrite::reduce_add, at);
}
template <int Pending>
void bulk_wait(Where at) {
  static_assert(Pending >= 0);
  detail::bulk_wait(Pending, false, at);
}
template <int Pending>
void bulk_wait_read(Where at) {
  static_assert(Pending >= 0);
  detail::bulk_wait(Pending, true, at);
}

template <int Pending>
void wgmma_wait(Where at) {
  static_assert(Pending >= 0 && Pending <= 7, "wgmma.wait_group takes 0 to 7");
  detail::wgmma_wait(Pending, at);
}
template <int N, Major MajorA, Major MajorB>
void wgmma_ss(float (&d)[N / 2], uint64_t a, uint64_t b, bool accumulate, Where at) {
  static_assert(N % 8 == 0 && N >= 8 && N <= 256, "wgmma takes N as a multiple of 8 up to 256");
  detail::wgmma({.n = N, .major_a = MajorA, .major_b = MajorB, .accumulate = accumulate, .a = a, .b = b, .registers = nullptr, .d = d}, at);
}
template <int N, Major MajorB>
void wgmma_rs(float (&d)[N / 2], const uint32_t (&a)[4], uint64_t b, bool accumulate, Where at) {
  static_assert(N % 8 == 0 && N >= 8 && N <= 256, "wgmma takes N as a multiple of 8 up to 256");
  detail::wgmma({.n = N, .major_a = Major::k, .major_b = MajorB, .accumulate = accumulate, .a = 0, .b = b, .registers = a, .d = d}, at);
}
template <int Count>
void keep_in_place(float (&)[Count]) {}
template <int Count>
void setmaxnreg_inc(Where at) {
  static_assert(Count % 8 == 0 && Count >= 24 && Count <= 256, "setmaxnreg takes a multiple of 8 from 24 to 256");
  detail::setmaxnreg(Count, true, at);
}
template <int Count>
void setmaxnreg_dec(Where at) {
  static_assert(Count % 8 == 0 && Count >= 24 && Count <= 256, "setmaxnreg takes a multiple of 8 from 24 to 256");
  detail::setmaxnreg(Count, false, at);
}

}  // namespace heddle::ptx
