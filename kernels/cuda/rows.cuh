// What row-wise kernels are made of: the team of threads that shares a row, and the pieces of 16 bytes in which they move it.
//
// A piece stays packed, four registers, until it is computed on. Which thread has which elements follows from the shape alone, and so do the bits of
// a result: where rows do not begin at multiples of 16 bytes, the same pieces are moved an element at a time. The host says which (`wide`).
#pragma once

#include <initializer_list>
#include <iterator>
#include <type_traits>

#include "kernels/api/multiprocessors.h"
#include "kernels/api/rules.h"
#include "kernels/cuda/configured.h"
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/reduce.cuh"
#include "kernels/cuda/rows_config.h"
#include "kernels/cuda/vec.cuh"

namespace heddle::kernels::cuda {

template <class T>
inline constexpr int kWidth = 16 / static_cast<int>(sizeof(T));  // elements of a piece

// The elements that a member of a team moves as its i-th piece of a row.
template <class T, int kTeam>
struct Piece {
  int first;   // of kWidth neighbours
  int valid;   // so many of them lie in front of the row's end
  bool whole;  // one access of 16 bytes

  __device__ __forceinline__ Piece(bool wide, int i, int member, int columns) : first((i * kTeam + member) * kWidth<T>) {
    const int rest = columns - first;
    valid = rest <= 0 ? 0 : rest < kWidth<T> ? rest : kWidth<T>;
    whole = wide && rest >= kWidth<T>;
  }
};

// How many pieces each member of a team has of a row.
template <class T, int kTeam>
__host__ __device__ constexpr int pieces_of(int columns) {
  return (columns + kTeam * kWidth<T> - 1) / (kTeam * kWidth<T>);
}

namespace thread {

// Element e of a packed piece, and the piece with another there.
__device__ __forceinline__ void put(uint32_t (&words)[4], int e, float value) {
  words[e] = __float_as_uint(value);
}
__device__ __forceinline__ void put(uint32_t (&words)[4], int e, bf16 value) {
  const uint32_t bits = value.bits;
  words[e / 2] = e % 2 == 0 ? (words[e / 2] & 0xFFFF0000u) | bits : (words[e / 2] & 0xFFFFu) | bits << 16;
}
template <class T>
__device__ __forceinline__ T element(const uint4& packed, int e) {
  const uint32_t words[4] = {packed.x, packed.y, packed.z, packed.w};
  if constexpr (std::is_same_v<T, float>) {
    return __uint_as_float(words[e]);
  } else {
    T value;
    value.bits = static_cast<uint16_t>(e % 2 == 0 ? words[e / 2] : words[e / 2] >> 16);
    return value;
  }
}

template <class T, int kTeam>
__device__ __forceinline__ uint4 load_single(const T* row, const Piece<T, kTeam>& at) {
  uint32_t words[4] = {};
#pragma unroll
  for (int e = 0; e < kWidth<T>; ++e) {
    if (e < at.valid) put(words, e, row[at.first + e]);
  }
  return make_uint4(words[0], words[1], words[2], words[3]);
}
// What lies behind the row's end is zero.
template <class T, int kTeam>
__device__ __forceinline__ uint4 load(const T* row, const Piece<T, kTeam>& at) {
  return at.whole ? ptx::ld128(row + at.first) : load_single(row, at);
}
template <class T, int kTeam>
__device__ __forceinline__ uint4 load_read_once(const T* row, const Piece<T, kTeam>& at) {
  return at.whole ? ptx::ld128_read_once(row + at.first) : load_single(row, at);
}

template <class T, int kTeam>
__device__ __forceinline__ void store(T* row, const Piece<T, kTeam>& at, const uint4& packed) {
  if (at.whole) {
    ptx::st128(row + at.first, packed);
    return;
  }
#pragma unroll
  for (int e = 0; e < kWidth<T>; ++e) {
    if (e < at.valid) row[at.first + e] = element<T>(packed, e);
  }
}

// The same as wider elements: f32 beside bf16 takes two accesses.
template <class To, class T, int kTeam>
__device__ __forceinline__ void add_or_store(To* row, const Piece<T, kTeam>& at, const float (&values)[kWidth<T>], bool accumulate) {
  static_assert(sizeof(To) >= sizeof(T));
  constexpr int kPart = kWidth<To>;
  if (at.whole) {
#pragma unroll
    for (int part = 0; part < kWidth<T>; part += kPart) {
      To* to = row + at.first + part;
      float sum[kPart] = {};
      if (accumulate) unpack(ptx::ld128(to), sum);
#pragma unroll
      for (int e = 0; e < kPart; ++e) sum[e] += values[part + e];
      ptx::st128(to, pack(sum));
    }
    return;
  }
#pragma unroll
  for (int e = 0; e < kWidth<T>; ++e) {
    if (e >= at.valid) continue;
    To& to = row[at.first + e];
    to = from_float<To>(accumulate ? to_float(to) + values[e] : values[e]);
  }
}

}  // namespace thread

// Where a gradient goes: rows of the kernel's own type or of f32.
struct RowSink {
  std::byte* data;
  bool f32, accumulate;

  template <class T, int kTeam>
  __device__ __forceinline__ void give(int64_t offset, const Piece<T, kTeam>& at, const float (&values)[kWidth<T>]) const {
    if (std::is_same_v<T, float> || f32) {
      thread::add_or_store(reinterpret_cast<float*>(data) + offset, at, values, accumulate);
    } else {
      thread::add_or_store(reinterpret_cast<T*>(data) + offset, at, values, accumulate);
    }
  }
};

inline RowSink row_sink(const Sink& sink) {
  return {sink.to.data, sink.to.dtype == DType::f32, sink.accumulate};
}

// The threads of this block that share one row. Sums and maxima are over the team; every member calls them and gets the result.
template <class Config>
class Team {
 public:
  static constexpr int kSize = Config::value.team, kThreads = Config::value.threads;
  // Two buffers that take turns, so that a reduction needs one barrier: a buffer is written again only after the barrier of the reduction in between.
  using Partial = float[2][kThreads / 32];

  explicit __device__ Team(Partial& partial) : partial_(partial) {}
  __device__ __forceinline__ int index() const { return static_cast<int>(threadIdx.x) / kSize; }  // of the team in its block
  __device__ __forceinline__ int member() const { return static_cast<int>(threadIdx.x) % kSize; }

  __device__ __forceinline__ float sum(float value) {
    if constexpr (kSize <= 32) {
      return warp::sum<kSize>(value);
    } else {
      return block::sum<kThreads>(value, partial_[turn_ ^= 1]);
    }
  }
  __device__ __forceinline__ float max(float value) {
    if constexpr (kSize <= 32) {
      return warp::max<kSize>(value);
    } else {
      return block::max<kThreads>(value, partial_[turn_ ^= 1]);
    }
  }

 private:
  static_assert(kSize <= 32 || kSize == kThreads);
  Partial& partial_;
  int turn_ = 0;
};

// body(i) for each piece of a row that this thread has; i is a constant where the row is held in registers.
template <class T, class Config, class Body>
__device__ __forceinline__ void for_pieces(int columns, const Body& body) {
  constexpr RowsConfig kConfig = Config::value;
  if constexpr (kConfig.vectors > 0) {
#pragma unroll
    for (int i = 0; i < kConfig.vectors; ++i) body(i);
  } else {
    const int pieces = pieces_of<T, kConfig.team>(columns);
    for (int i = 0; i < pieces; ++i) body(i);
  }
}

// launch(Configured<...>) of the one that is wanted, from the list of what is built.
template <const auto& kBuilt, int kIndex = 0, class Launch>
void with_rows_config(const RowsConfig& wanted, const Launch& launch) {
  if constexpr (kIndex < static_cast<int>(std::size(kBuilt))) {
    if (wanted == kBuilt[kIndex]) return launch(Configured<kBuilt[kIndex]>{});
    with_rows_config<kBuilt, kIndex + 1>(wanted, launch);
  } else {
    fail("rows", concat("a team of ", wanted.team, " with ", wanted.vectors, " vectors is not built"));
  }
}

// What these kernels ask of the operand whose rows they walk.
inline Refusal row_limits(std::string_view name, const View& v) {
  if (v.dtype == DType::f64) return refused("f32 and bf16 only, not ", name, " ", v);
  if (v.rank > 0 && (v.size(-1) > kMostColumns || row_count(v) > kMostRows)) return refused("at most 2^30 rows and columns, not ", name, " ", v);
  return {};
}

// Can every row of these be moved in pieces of 16 bytes? Absent ones can.
inline bool all_wide(std::initializer_list<const View*> views) {
  for (const View* view : views) {
    if (*view && !rows_aligned_16(*view)) return false;
  }
  return true;
}

// Blocks that walk over the rows in steps of the grid: as many as run at once.
inline unsigned walking_blocks(const RowsConfig& config, int64_t rows) {
  const int64_t wanted = (rows + config.rows_per_block() - 1) / config.rows_per_block();
  const int64_t most = int64_t{2048 / config.threads} * multiprocessors_beside_communication(multiprocessors());
  return static_cast<unsigned>(wanted < most ? wanted : most);
}

}  // namespace heddle::kernels::cuda
