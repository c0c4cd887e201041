#include <cuda_bf16.h>

#include <algorithm>
#include <cstring>
#include <type_traits>

#include "kernels/sim/nccl/nccl_internal.h"

namespace heddle::sim::nccl {
namespace {

constexpr size_t kBlock = 64;  // elements that share an order

struct Random {  // splitmix64
  uint64_t state;
  uint64_t operator()() {
    uint64_t z = state += 0x9e3779b97f4a7c15ull;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
  }
};

// bf16 sums are rounded at every step, as a ring rounds what it passes on.
template <class T>
T combine(T a, T b, ncclRedOp_t op) {
  if constexpr (std::is_same_v<T, __nv_bfloat16>) {
    return __float2bfloat16_rn(combine(__bfloat162float(a), __bfloat162float(b), op));
  } else {
    switch (op) {
      case ncclProd: return static_cast<T>(a * b);
      case ncclMax: return std::max(a, b);
      case ncclMin: return std::min(a, b);
      default: return static_cast<T>(a + b);
    }
  }
}

// ncclAvg: floating-point values are scaled before the sum, integers divided after it.
template <class T>
T scaled(T value, size_t ranks) {
  if constexpr (std::is_same_v<T, __nv_bfloat16>) {
    return __float2bfloat16_rn(__bfloat162float(value) * (1.0f / static_cast<float>(ranks)));
  } else if constexpr (std::is_floating_point_v<T>) {
    return value * (T{1} / static_cast<T>(ranks));
  } else {
    return value;
  }
}

template <class T>
void reduce_typed(std::byte* out, const std::vector<const std::byte*>& parts, size_t count, ncclRedOp_t op, uint64_t seed) {
  const size_t ranks = parts.size();
  Random random{seed};
  std::vector<std::vector<T>> operands(ranks, std::vector<T>(kBlock));
  std::vector<size_t> left(ranks);
  for (size_t at = 0; at < count; at += kBlock) {
    const size_t n = std::min(kBlock, count - at);
    for (size_t r = 0; r < ranks; ++r) {
      left[r] = r;
      std::memcpy(operands[r].data(), parts[r] + at * sizeof(T), n * sizeof(T));
      for (size_t i = 0; op == ncclAvg && i < n; ++i) operands[r][i] = scaled(operands[r][i], ranks);
    }
    // Two random operands become one, until one is left.
    for (size_t alive = ranks; alive > 1; --alive) {
      std::swap(left[random() % alive], left[alive - 1]);
      std::vector<T>& into = operands[left[random() % (alive - 1)]];
      const std::vector<T>& by = operands[left[alive - 1]];
      for (size_t i = 0; i < n; ++i) into[i] = combine(into[i], by[i], op);
    }
    std::vector<T>& result = operands[left[0]];
    if constexpr (std::is_integral_v<T>) {
      for (size_t i = 0; op == ncclAvg && i < n; ++i) result[i] = static_cast<T>(result[i] / static_cast<T>(ranks));
    }
    std::memcpy(out + at * sizeof(T), result.data(), n * sizeof(T));
  }
}

}  // namespace

void reduce(std::byte* out, const std::vector<const std::byte*>& parts, size_t count, ncclDataType_t type, ncclRedOp_t op, uint64_t seed) {
  switch (type) {
    case ncclInt8: return reduce_typed<int8_t>(out, parts, count, op, seed);
    case ncclUint8: return reduce_typed<uint8_t>(out, parts, count, op, seed);
    case ncclInt32: return reduce_typed<int32_t>(out, parts, count, op, seed);
    case ncclUint32: return reduce_typed<uint32_t>(out, parts, count, op, seed);
    case ncclInt64: return reduce_typed<int64_t>(out, parts, count, op, seed);
    case ncclUint64: return reduce_typed<uint64_t>(out, parts, count, op, seed);
    case ncclFloat32: return reduce_typed<float>(out, parts, count, op, seed);
    case ncclFloat64: return reduce_typed<double>(out, parts, count, op, seed);
    case ncclBfloat16: return reduce_typed<__nv_bfloat16>(out, parts, count, op, seed);
    default: refuse(ncclInvalidArgument, "no reductions of ", name_of(type));
  }
}

size_t bytes_of(ncclDataType_t type) {
  switch (type) {
    case ncclInt8:
    case ncclUint8: return 1;
    case ncclFloat16:
    case ncclBfloat16: return 2;
    case ncclInt32:
    case ncclUint32:
    case ncclFloat32: return 4;
    case ncclInt64:
    case ncclUint64:
    case ncclFloat64: return 8;
    default: return 0;
  }
}

const char* name_of(ncclDataType_t type) {
  switch (type) {
    case ncclInt8: return "int8";
    case ncclUint8: return "uint8";
    case ncclInt32: return "int32";
    case ncclUint32: return "uint32";
    case ncclInt64: return "int64";
    case ncclUint64: return "uint64";
    case ncclFloat16: return "float16";
    case ncclFloat32: return "float32";
    case ncclFloat64: return "float64";
    case ncclBfloat16: return "bfloat16";
    default: return "an unknown type";
  }
}

const char* name_of(ncclRedOp_t op) {
  switch (op) {
    case ncclSum: return "sum";
    case ncclProd: return "prod";
    case ncclMax: return "max";
    case ncclMin: return "min";
    case ncclAvg: return "avg";
    default: return "an unknown operation";
  }
}

const char* name_of(Kind kind) {
  switch (kind) {
    case Kind::all_reduce: return "ncclAllReduce";
    case Kind::reduce_scatter: return "ncclReduceScatter";
    case Kind::all_gather: return "ncclAllGather";
    case Kind::broadcast: return "ncclBroadcast";
    case Kind::reduce: return "ncclReduce";
    case Kind::send: return "ncclSend";
    case Kind::recv: return "ncclRecv";
  }
  return "?";
}

std::string CollectiveCall::text() const {
  std::string t = concat(name_of(kind), "(count ", count, ", ", name_of(type));
  if (kind == Kind::all_reduce || kind == Kind::reduce_scatter || kind == Kind::reduce) t += concat(", ", name_of(op));
  if (kind == Kind::broadcast || kind == Kind::reduce) t += concat(", root ", peer);
  if (kind == Kind::send) t += concat(", to rank ", peer);
  if (kind == Kind::recv) t += concat(", from rank ", peer);
  return t + ")";
}

}  // namespace heddle::sim::nccl
