// Host code: the driver's encoder is looked up through the runtime, so heddle links no driver library.
#include "kernels/cuda/tensor_map.cuh"

#include <cudaTypedefs.h>
#include <cuda_runtime_api.h>

#include "kernels/api/check.h"

namespace heddle::kernels::cuda {
namespace {

PFN_cuTensorMapEncodeTiled_v12000 encoder() {
  static const auto found = [] {
    void* entry = nullptr;
    cudaDriverEntryPointQueryResult result = cudaDriverEntryPointSymbolNotFound;
#if CUDART_VERSION >= 12050
    const cudaError_t status = cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &entry, 12000, cudaEnableDefault, &result);
#else
    const cudaError_t status = cudaGetDriverEntryPoint("cuTensorMapEncodeTiled", &entry, cudaEnableDefault, &result);
#endif
    HEDDLE_CHECK(status == cudaSuccess && result == cudaDriverEntryPointSuccess, "cuda",
                 "the driver has no cuTensorMapEncodeTiled (Hopper kernels need a driver of CUDA 12 or newer): ", cudaGetErrorString(status));
    return reinterpret_cast<PFN_cuTensorMapEncodeTiled_v12000>(entry);
  }();
  return found;
}

struct Extent {
  int64_t layers, rows, columns;
};

CUtensorMap matrices(uint32_t rank, const void* data, DType dtype, const Extent& of, int64_t layer_ld, int64_t ld, const Extent& box) {
  const int64_t element = size_of(dtype);
  HEDDLE_CHECK(dtype == DType::bf16 || dtype == DType::f32, "tensor_map", "bf16 or f32, not ", name_of(dtype));
  HEDDLE_CHECK(reinterpret_cast<uintptr_t>(data) % 16 == 0 && ld * element % 16 == 0 && layer_ld * element % 16 == 0, "tensor_map",
               "rows must start at multiples of 16 bytes: address ", data, ", ", ld * element, " bytes between rows, ", layer_ld * element,
               " between matrices");
  HEDDLE_CHECK(of.layers > 0 && of.rows > 0 && of.columns > 0 && box.layers > 0 && box.layers <= 256 && box.rows > 0 && box.rows <= 256 &&
                   box.columns * element == 128,
               "tensor_map", "no box of (", box.layers, ", ", box.rows, ", ", box.columns, ") in ", of.layers, " matrices of (", of.rows, ", ",
               of.columns, ")");
  const cuuint64_t size[3] = {static_cast<cuuint64_t>(of.columns), static_cast<cuuint64_t>(of.rows), static_cast<cuuint64_t>(of.layers)};
  const cuuint64_t pitch[2] = {static_cast<cuuint64_t>(ld * element), static_cast<cuuint64_t>(layer_ld * element)};
  const cuuint32_t sides[3] = {static_cast<cuuint32_t>(box.columns), static_cast<cuuint32_t>(box.rows), static_cast<cuuint32_t>(box.layers)};
  return tensor_map(const_cast<void*>(data), dtype == DType::bf16 ? CU_TENSOR_MAP_DATA_TYPE_BFLOAT16 : CU_TENSOR_MAP_DATA_TYPE_FLOAT32, rank, size,
                    pitch, sides, CU_TENSOR_MAP_SWIZZLE_128B);
}

}  // namespace

CUtensorMap tensor_map(void* data, CUtensorMapDataType type, uint32_t rank, const uint64_t* size, const uint64_t* pitch, const uint32_t* box,
                       CUtensorMapSwizzle swizzle) {
  const cuuint32_t step[5] = {1, 1, 1, 1, 1};
  const cuuint64_t none[1] = {0};  // of rank 1: read by nobody, but what the driver makes of a null pointer is not documented
  CUtensorMap map;
  const CUresult status = encoder()(&map, type, rank, data, size, rank > 1 ? pitch : none, box, step, CU_TENSOR_MAP_INTERLEAVE_NONE, swizzle,
                                    CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  HEDDLE_CHECK(status == CUDA_SUCCESS, "tensor_map", "cuTensorMapEncodeTiled refused a tensor of ", rank, " dimensions, the innermost of ", size[0],
               ": error ", static_cast<int>(status));
  return map;
}

CUtensorMap tensor_map(const void* data, DType dtype, int64_t rows, int64_t columns, int64_t ld, int box_rows, int box_columns) {
  return matrices(2, data, dtype, {1, rows, columns}, 0, ld, {1, box_rows, box_columns});
}

CUtensorMap tensor_map(const void* data, DType dtype, int64_t layers, int64_t rows, int64_t columns, int64_t layer_ld, int64_t ld, int box_rows,
                       int box_columns, int box_layers) {
  return matrices(3, data, dtype, {layers, rows, columns}, layer_ld, ld, {box_layers, box_rows, box_columns});
}

}  // namespace heddle::kernels::cuda
