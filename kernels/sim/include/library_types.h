// The element types that CUDA's libraries share. Source: CUDA Runtime API reference, "library_types.h".
#pragma once

typedef enum cudaDataType_t { CUDA_R_32F = 0, CUDA_R_16BF = 14 } cudaDataType;
typedef enum cudaDataType_t cudaDataType_t;
