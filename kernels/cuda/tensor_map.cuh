// Tensor maps: how TMA finds a tile of a matrix in global memory and lays it out in shared memory.
#pragma once

#include "kernels/api/types.h"
#include "kernels/arch/ptx_types.h"

namespace heddle::kernels::cuda {

// A row-major matrix (rows, columns) of bf16 or f32, `ld` elements between rows, in boxes of (box_rows, box_columns) under the 128-byte swizzle.
// Error unless data is 16-byte aligned, ld * element size a multiple of 16, box_columns * element size 128 and box_rows at most 256: TMA's own rules
// (CUDA Driver API, cuTensorMapEncodeTiled). Boxes may reach beyond the matrix: zeros are read there, nothing is written.
CUtensorMap tensor_map(const void* data, DType dtype, int64_t rows, int64_t columns, int64_t ld, int box_rows, int box_columns);

// The same of a stack of matrices, `layer_ld` elements apart, as three dimensions: boxes of (box_layers, box_rows, box_columns).
CUtensorMap tensor_map(const void* data, DType dtype, int64_t layers, int64_t rows, int64_t columns, int64_t layer_ld, int64_t ld, int box_rows,
                       int box_columns, int box_layers = 1);

// The general form: `rank` dimensions (1 to 5), innermost first, sizes in elements, pitches in bytes (rank - 1 of them). Error when the driver
// refuses.
CUtensorMap tensor_map(void* data, CUtensorMapDataType type, uint32_t rank, const uint64_t* size, const uint64_t* pitch, const uint32_t* box,
                       CUtensorMapSwizzle swizzle);

}  // namespace heddle::kernels::cuda
