// One row per name that kernels/sim/include declares: its type, value or size as this translation unit's CUDA headers have it. Compiled once against
// our headers and once against the toolkit's (cudart_abi_own.cpp, cudart_abi_toolkit.cpp); cudart_abi_test.cpp compares.
#pragma once

#include <cuda_bf16.h>
#include <nccl.h>

#include "tests/sim/abi_rows.h"
#include "tests/sim/cudart_abi.h"

namespace heddle::test::HEDDLE_ABI {

inline std::vector<AbiRow> nccl_rows() {
  return {F(ncclGetVersion),
          F(ncclGetUniqueId),
          F(ncclCommInitRank),
          F(ncclCommInitRankConfig),
          F(ncclCommSplit),
          F(ncclCommFinalize),
          F(ncclCommDestroy),
          F(ncclCommAbort),
          F(ncclCommGetAsyncError),
          F(ncclCommCount),
          F(ncclCommCuDevice),
          F(ncclCommUserRank),
          F(ncclGetErrorString),
          F(ncclGetLastError),
          F(ncclAllReduce),
          F(ncclReduceScatter),
          F(ncclAllGather),
          F(ncclBroadcast),
          F(ncclReduce),
          F(ncclSend),
          F(ncclRecv),
          F(ncclGroupStart),
          F(ncclGroupEnd),
          V(ncclSuccess),
          V(ncclUnhandledCudaError),
          V(ncclSystemError),
          V(ncclInternalError),
          V(ncclInvalidArgument),
          V(ncclInvalidUsage),
          V(ncclRemoteError),
          V(ncclInProgress),
          V(ncclNumResults),
          V(ncclSum),
          V(ncclProd),
          V(ncclMax),
          V(ncclMin),
          V(ncclAvg),
          V(ncclNumOps),
          V(ncclInt8),
          V(ncclChar),
          V(ncclUint8),
          V(ncclInt32),
          V(ncclInt),
          V(ncclUint32),
          V(ncclInt64),
          V(ncclUint64),
          V(ncclFloat16),
          V(ncclHalf),
          V(ncclFloat32),
          V(ncclFloat),
          V(ncclFloat64),
          V(ncclDouble),
          V(ncclBfloat16),
          S(ncclUniqueId),
          S(__nv_bfloat16),
          S(__nv_bfloat162),
          S(__nv_bfloat16_raw),
          V(NCCL_SPLIT_NOCOLOR),
          V(NCCL_UNIQUE_ID_BYTES),
          F(__float2bfloat16),
          F(__float2bfloat16_rn),
          F(__bfloat162float),
          F(__bfloat16_as_ushort),
          F(__ushort_as_bfloat16),
          F(make_bfloat162),
          F(__halves2bfloat162),
          F(__float2bfloat162_rn),
          F(__floats2bfloat162_rn),
          F(__float22bfloat162_rn),
          F(__bfloat1622float2),
          F(__low2bfloat16),
          F(__high2bfloat16)};
}

}  // namespace heddle::test::HEDDLE_ABI
