// The driver's part: cuTensorMapEncodeTiled and how the runtime finds it. Rules: CUDA Driver API, "cuTensorMapEncodeTiled".
#include <cuda.h>

#include <cstring>
#include <optional>

#include "kernels/sim/cudart/memory.h"
#include "kernels/sim/cudart/runtime.h"
#include "kernels/sim/cudart/tensor_map.h"

namespace heddle::sim {
namespace {

// The 128 bytes as the simulated machine writes them. Sizes are stored less one, so that 2^32 fits.
struct Packed {
  uint64_t address;
  uint64_t stride[4];  // of dimensions 1 to 4
  uint32_t size_less_one[5];
  uint16_t box[5];
  uint8_t element_stride[5];
  uint8_t type, rank, interleave, swizzle, promotion, fill;
  uint64_t seal;  // over everything before
};
static_assert(sizeof(Packed) <= sizeof(CUtensorMap));

uint64_t seal_of(const Packed& packed) {
  uint64_t h = 0x6865646c65746d61ull;
  const auto* bytes = reinterpret_cast<const unsigned char*>(&packed);
  for (size_t i = 0; i < offsetof(Packed, seal); ++i) h = (h ^ bytes[i]) * 0x100000001b3ull;
  return h;
}

uint32_t bytes_of(CUtensorMapDataType type) {
  switch (type) {
    case CU_TENSOR_MAP_DATA_TYPE_UINT8: return 1;
    case CU_TENSOR_MAP_DATA_TYPE_UINT16:
    case CU_TENSOR_MAP_DATA_TYPE_FLOAT16:
    case CU_TENSOR_MAP_DATA_TYPE_BFLOAT16: return 2;
    case CU_TENSOR_MAP_DATA_TYPE_UINT32:
    case CU_TENSOR_MAP_DATA_TYPE_INT32:
    case CU_TENSOR_MAP_DATA_TYPE_FLOAT32:
    case CU_TENSOR_MAP_DATA_TYPE_FLOAT32_FTZ:
    case CU_TENSOR_MAP_DATA_TYPE_TFLOAT32:
    case CU_TENSOR_MAP_DATA_TYPE_TFLOAT32_FTZ: return 4;
    case CU_TENSOR_MAP_DATA_TYPE_UINT64:
    case CU_TENSOR_MAP_DATA_TYPE_INT64:
    case CU_TENSOR_MAP_DATA_TYPE_FLOAT64: return 8;
    default: return 0;
  }
}

bool is_floating(CUtensorMapDataType type) {
  switch (type) {
    case CU_TENSOR_MAP_DATA_TYPE_FLOAT16:
    case CU_TENSOR_MAP_DATA_TYPE_BFLOAT16:
    case CU_TENSOR_MAP_DATA_TYPE_FLOAT32:
    case CU_TENSOR_MAP_DATA_TYPE_FLOAT32_FTZ:
    case CU_TENSOR_MAP_DATA_TYPE_TFLOAT32:
    case CU_TENSOR_MAP_DATA_TYPE_TFLOAT32_FTZ:
    case CU_TENSOR_MAP_DATA_TYPE_FLOAT64: return true;
    default: return false;
  }
}

uint32_t swizzle_bytes(CUtensorMapSwizzle swizzle) {
  switch (swizzle) {
    case CU_TENSOR_MAP_SWIZZLE_32B: return 32;
    case CU_TENSOR_MAP_SWIZZLE_64B: return 64;
    case CU_TENSOR_MAP_SWIZZLE_128B: return 128;
    default: return 0;
  }
}

using Problem = std::optional<std::string>;

Problem problem_with_enums(const TensorMap& map) {
  if (map.element_bytes == 0) return concat("data type ", static_cast<int>(map.type), " is not one of the plain types");
  if (map.interleave < CU_TENSOR_MAP_INTERLEAVE_NONE || map.interleave > CU_TENSOR_MAP_INTERLEAVE_32B) return "no such interleave";
  if (map.swizzle < CU_TENSOR_MAP_SWIZZLE_NONE || map.swizzle > CU_TENSOR_MAP_SWIZZLE_128B)
    return concat("swizzle ", static_cast<int>(map.swizzle), " is none of NONE, 32B, 64B, 128B");
  if (map.l2_promotion < CU_TENSOR_MAP_L2_PROMOTION_NONE || map.l2_promotion > CU_TENSOR_MAP_L2_PROMOTION_L2_256B) return "no such L2 promotion";
  if (map.fill < CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE || map.fill > CU_TENSOR_MAP_FLOAT_OOB_FILL_NAN_REQUEST_ZERO_FMA) return "no such fill";
  if (map.fill == CU_TENSOR_MAP_FLOAT_OOB_FILL_NAN_REQUEST_ZERO_FMA && !is_floating(map.type)) return "a NaN fill needs a floating-point type";
  if (map.interleave == CU_TENSOR_MAP_INTERLEAVE_32B && map.swizzle != CU_TENSOR_MAP_SWIZZLE_32B) return "interleave 32B needs swizzle 32B";
  return {};
}

Problem problem_with_layout(const TensorMap& map) {
  const uint32_t unit = map.interleave == CU_TENSOR_MAP_INTERLEAVE_32B ? 32 : 16;
  if (reinterpret_cast<uintptr_t>(map.address) % unit != 0)
    return concat("the global address ", static_cast<void*>(map.address), " is not aligned to ", unit, " bytes");
  for (uint32_t d = 0; d < map.rank; ++d) {
    if (map.size[d] == 0 || map.size[d] > uint64_t{1} << 32) return concat("dimension ", d, " has ", map.size[d], " elements, not 1 to 2^32");
    if (map.box[d] == 0 || map.box[d] > 256) return concat("the box is ", map.box[d], " long in dimension ", d, ", not 1 to 256");
    if (map.element_stride[d] == 0 || map.element_stride[d] > 8)
      return concat("element stride ", map.element_stride[d], " in dimension ", d, ", not 1 to 8");
    if (d == 0) continue;
    if (map.stride[d] % unit != 0) return concat("the stride of dimension ", d, ", ", map.stride[d], " bytes, is no multiple of ", unit);
    if (map.stride[d] >= uint64_t{1} << 40) return concat("the stride of dimension ", d, ", ", map.stride[d], " bytes, is not below 2^40");
  }
  const uint32_t row = map.box[0] * map.element_bytes, span = swizzle_bytes(map.swizzle);
  if (map.interleave == CU_TENSOR_MAP_INTERLEAVE_NONE) {
    if (row % 16 != 0) return concat("a row of the box has ", row, " bytes, no multiple of 16");
    if (span != 0 && row > span) return concat("a row of the box has ", row, " bytes, more than the swizzle's ", span);
  }
  return {};
}

// Rules that need the arguments themselves.
Problem problem_with_arguments(const CUtensorMap* map, uint32_t rank, const void* dims, const void* strides, const void* box, const void* steps,
                               CUtensorMapInterleave interleave) {
  if (!map || reinterpret_cast<uintptr_t>(map) % 64 != 0)
    return concat("the tensor map at ", static_cast<const void*>(map), " is not aligned to 64 bytes");
  if (rank == 0 || rank > kMaxTensorRank) return concat("rank ", rank, ", not 1 to 5");
  if (interleave != CU_TENSOR_MAP_INTERLEAVE_NONE && rank < 3) return concat("rank ", rank, ", but an interleaved layout needs 3");
  if (!dims || !box || !steps || (rank > 1 && !strides)) return "sizes, strides, box or element strides are null";
  return {};
}

}  // namespace

uint32_t TensorMap::tile_bytes() const {
  uint32_t bytes = element_bytes * (interleave == CU_TENSOR_MAP_INTERLEAVE_NONE ? box[0] : extent(0));
  for (uint32_t d = 1; d < rank; ++d) bytes *= extent(d);
  return bytes;
}

uint32_t TensorMap::shared_alignment() const {
  const uint32_t span = swizzle_bytes(swizzle);
  return span == 0 ? 128 : 8 * span;
}

bool decode(const CUtensorMap& map, TensorMap& out) {
  Packed packed;
  std::memcpy(&packed, &map, sizeof packed);
  if (packed.seal != seal_of(packed)) return false;
  out = {};
  out.type = static_cast<CUtensorMapDataType>(packed.type);
  out.rank = packed.rank;
  out.element_bytes = bytes_of(out.type);
  out.address = reinterpret_cast<std::byte*>(packed.address);
  for (uint32_t d = 0; d < kMaxTensorRank; ++d) {
    out.size[d] = uint64_t{packed.size_less_one[d]} + 1;
    out.stride[d] = d == 0 ? out.element_bytes : packed.stride[d - 1];
    out.box[d] = packed.box[d];
    out.element_stride[d] = packed.element_stride[d];
  }
  out.interleave = static_cast<CUtensorMapInterleave>(packed.interleave);
  out.swizzle = static_cast<CUtensorMapSwizzle>(packed.swizzle);
  out.l2_promotion = static_cast<CUtensorMapL2promotion>(packed.promotion);
  out.fill = static_cast<CUtensorMapFloatOOBfill>(packed.fill);
  return true;
}

TensorMap decode(const CUtensorMap& map, const Site& site) {
  TensorMap decoded;
  if (!decode(map, decoded))
    fault("tensor map",
          "these 128 bytes were not written by cuTensorMapEncodeTiled, or were changed since; pass the map as const __grid_constant__ parameter",
          site);
  return decoded;
}

}  // namespace heddle::sim

using namespace heddle::sim;
using namespace heddle::sim::cudart;

extern "C" {

CUresult cuTensorMapEncodeTiled(CUtensorMap* tensorMap, CUtensorMapDataType tensorDataType, cuuint32_t tensorRank, void* globalAddress,
                                const cuuint64_t* globalDim, const cuuint64_t* globalStrides, const cuuint32_t* boxDim,
                                const cuuint32_t* elementStrides, CUtensorMapInterleave interleave, CUtensorMapSwizzle swizzle,
                                CUtensorMapL2promotion l2Promotion, CUtensorMapFloatOOBfill oobFill) {
  const auto refused = [](const std::string& why) {
    set_last_error({cudaErrorInvalidValue, "cuTensorMapEncodeTiled: " + why});
    return CUDA_ERROR_INVALID_VALUE;
  };
  if (const Problem p = problem_with_arguments(tensorMap, tensorRank, globalDim, globalStrides, boxDim, elementStrides, interleave))
    return refused(*p);
  TensorMap map = {};
  map.type = tensorDataType;
  map.rank = tensorRank;
  map.element_bytes = bytes_of(tensorDataType);
  map.address = static_cast<std::byte*>(globalAddress);
  map.interleave = interleave;
  map.swizzle = swizzle;
  map.l2_promotion = l2Promotion;
  map.fill = oobFill;
  for (uint32_t d = 0; d < kMaxTensorRank; ++d) {
    const bool used = d < tensorRank;
    map.size[d] = used ? globalDim[d] : 1;
    map.box[d] = used ? boxDim[d] : 1;
    map.element_stride[d] = used ? elementStrides[d] : 1;
    map.stride[d] = d == 0 ? map.element_bytes : used ? globalStrides[d - 1] : 0;
  }
  if (const Problem p = problem_with_enums(map)) return refused(*p);
  if (const Problem p = problem_with_layout(map)) return refused(*p);

  Packed packed;
  std::memset(&packed, 0, sizeof packed);
  packed.address = reinterpret_cast<uint64_t>(globalAddress);
  for (uint32_t d = 0; d < kMaxTensorRank; ++d) {
    packed.size_less_one[d] = static_cast<uint32_t>(map.size[d] - 1);
    if (d > 0) packed.stride[d - 1] = map.stride[d];
    packed.box[d] = static_cast<uint16_t>(map.box[d]);
    packed.element_stride[d] = static_cast<uint8_t>(map.element_stride[d]);
  }
  packed.type = static_cast<uint8_t>(tensorDataType);
  packed.rank = static_cast<uint8_t>(tensorRank);
  packed.interleave = static_cast<uint8_t>(interleave);
  packed.swizzle = static_cast<uint8_t>(swizzle);
  packed.promotion = static_cast<uint8_t>(l2Promotion);
  packed.fill = static_cast<uint8_t>(oobFill);
  packed.seal = seal_of(packed);
  std::memset(tensorMap, 0, sizeof *tensorMap);
  std::memcpy(tensorMap, &packed, sizeof packed);
  return CUDA_SUCCESS;
}

cudaError_t cudaGetDriverEntryPointByVersion(const char* symbol, void** funcPtr, unsigned int cudaVersion, unsigned long long,
                                             enum cudaDriverEntryPointQueryResult* driverStatus) {
  return api_call("cudaGetDriverEntryPointByVersion", [&](Call&) {
    constexpr unsigned kSince = 12000;  // cuTensorMapEncodeTiled came with CUDA 12.0
    if (!symbol || !funcPtr) refuse(cudaErrorInvalidValue, "cudaGetDriverEntryPointByVersion with a null pointer");
    *funcPtr = nullptr;
    if (std::strcmp(symbol, "cuTensorMapEncodeTiled") != 0) {
      if (driverStatus) *driverStatus = cudaDriverEntryPointSymbolNotFound;
      return;
    }
    if (driverStatus) *driverStatus = cudaVersion < kSince ? cudaDriverEntryPointVersionNotSufficent : cudaDriverEntryPointSuccess;
    if (cudaVersion >= kSince) *funcPtr = reinterpret_cast<void*>(&cuTensorMapEncodeTiled);
  });
}

cudaError_t cudaGetDriverEntryPoint(const char* symbol, void** funcPtr, unsigned long long flags,
                                    enum cudaDriverEntryPointQueryResult* driverStatus) {
  return cudaGetDriverEntryPointByVersion(symbol, funcPtr, CUDA_VERSION, flags, driverStatus);
}

}  // extern "C"
