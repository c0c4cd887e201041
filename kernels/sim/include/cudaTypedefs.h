// Types of driver functions found through cudaGetDriverEntryPoint. Source: CUDA Driver API reference, "Driver Entry Point Access".
#pragma once

#include "kernels/sim/include/cuda.h"

typedef CUresult (*PFN_cuTensorMapEncodeTiled_v12000)(CUtensorMap* tensorMap, CUtensorMapDataType tensorDataType, cuuint32_t tensorRank,
                                                      void* globalAddress, const cuuint64_t* globalDim, const cuuint64_t* globalStrides,
                                                      const cuuint32_t* boxDim, const cuuint32_t* elementStrides, CUtensorMapInterleave interleave,
                                                      CUtensorMapSwizzle swizzle, CUtensorMapL2promotion l2Promotion,
                                                      CUtensorMapFloatOOBfill oobFill);
#define PFN_cuTensorMapEncodeTiled PFN_cuTensorMapEncodeTiled_v12000
