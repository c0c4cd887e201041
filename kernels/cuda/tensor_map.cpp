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
  const int64_t element = size_of(dtype);
  HEDDLE_CHECK(dtype == DType::bf16 || dtype == DType::f32, "tensor_map", "bf16 or f32, not ", name_of(dtype));
  HEDDLE_CHECK(reinterpret_cast<uintptr_t>(data) % 16 == 0 && ld * element % 16 == 0, "tensor_map",
               "rows must start at multiples of 16 bytes: address ", data, ", ", ld * element, " bytes between rows");
  HEDDLE_CHECK(rows > 0 && columns > 0 && box_rows > 0 && box_rows <= 256 && box_columns * element == 128, "tensor_map", "no box of (", box_rows,
               ", ", box_columns, ") in a matrix of (", rows, ", ", columns, ")");
  const cuuint64_t size[2] = {static_cast<cuuint64_t>(columns), static_cast<cuuint64_t>(rows)};
  const cuuint64_t pitch[1] = {static_cast<cuuint64_t>(ld * element)};
  const cuuint32_t box[2] = {static_cast<cuuint32_t>(box_columns), static_cast<cuuint32_t>(box_rows)};
  return tensor_map(const_cast<void*>(data), dtype == DType::bf16 ? CU_TENSOR_MAP_DATA_TYPE_BFLOAT16 : CU_TENSOR_MAP_DATA_TYPE_FLOAT32, 2, size,
                    pitch, box, CU_TENSOR_MAP_SWIZZLE_128B);
}

}  // namespace heddle::kernels::cuda
