// One row per name that kernels/sim/include/cublasLt.h declares, as nccl_abi_table.h has NCCL's.
#pragma once

#include <cublasLt.h>

#include <cstddef>

#include "tests/sim/abi_rows.h"
#include "tests/sim/cudart_abi.h"

namespace heddle::test::HEDDLE_ABI {

#define O(field) \
  { #field, std::to_string(offsetof(cublasLtMatmulHeuristicResult_t, field)) }

inline std::vector<AbiRow> cublaslt_rows() {
  return {F(cublasLtCreate),
          F(cublasLtDestroy),
          F(cublasLtGetStatusName),
          F(cublasLtMatrixLayoutCreate),
          F(cublasLtMatrixLayoutDestroy),
          F(cublasLtMatmulDescCreate),
          F(cublasLtMatmulDescDestroy),
          F(cublasLtMatmulDescSetAttribute),
          F(cublasLtMatmulPreferenceCreate),
          F(cublasLtMatmulPreferenceDestroy),
          F(cublasLtMatmulPreferenceSetAttribute),
          F(cublasLtMatmulAlgoGetHeuristic),
          F(cublasLtMatmul),
          V(CUBLAS_STATUS_SUCCESS),
          V(CUBLAS_STATUS_NOT_INITIALIZED),
          V(CUBLAS_STATUS_ALLOC_FAILED),
          V(CUBLAS_STATUS_INVALID_VALUE),
          V(CUBLAS_STATUS_ARCH_MISMATCH),
          V(CUBLAS_STATUS_MAPPING_ERROR),
          V(CUBLAS_STATUS_EXECUTION_FAILED),
          V(CUBLAS_STATUS_INTERNAL_ERROR),
          V(CUBLAS_STATUS_NOT_SUPPORTED),
          V(CUBLAS_STATUS_LICENSE_ERROR),
          V(CUBLAS_OP_N),
          V(CUBLAS_OP_T),
          V(CUBLAS_COMPUTE_32F),
          V(CUBLASLT_MATMUL_DESC_TRANSA),
          V(CUBLASLT_MATMUL_DESC_TRANSB),
          V(CUBLASLT_MATMUL_DESC_EPILOGUE),
          V(CUBLASLT_MATMUL_DESC_BIAS_POINTER),
          V(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER),
          V(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD),
          V(CUBLASLT_EPILOGUE_DEFAULT),
          V(CUBLASLT_EPILOGUE_BIAS),
          V(CUBLASLT_EPILOGUE_GELU),
          V(CUBLASLT_EPILOGUE_GELU_AUX),
          V(CUBLASLT_EPILOGUE_GELU_BIAS),
          V(CUBLASLT_EPILOGUE_GELU_AUX_BIAS),
          V(CUBLASLT_EPILOGUE_DGELU),
          V(CUBLASLT_EPILOGUE_DGELU_BGRAD),
          V(CUBLASLT_REDUCTION_SCHEME_NONE),
          V(CUBLASLT_REDUCTION_SCHEME_INPLACE),
          V(CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE),
          V(CUBLASLT_REDUCTION_SCHEME_OUTPUT_TYPE),
          V(CUBLASLT_REDUCTION_SCHEME_MASK),
          V(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES),
          V(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK),
          V(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES),
          V(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES),
          V(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES),
          V(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES),
          V(CUDA_R_32F),
          V(CUDA_R_16BF),
          S(cublasLtMatrixLayoutOpaque_t),
          S(cublasLtMatmulAlgo_t),
          S(cublasLtMatmulDescOpaque_t),
          S(cublasLtMatmulPreferenceOpaque_t),
          S(cublasLtMatmulHeuristicResult_t),
          O(workspaceSize),
          O(state),
          O(wavesCount)};
}
#undef O

}  // namespace heddle::test::HEDDLE_ABI
