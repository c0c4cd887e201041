// Errors, device properties, launches and tensor maps.
#include <cuda.h>
#include <cudaTypedefs.h>

#include "kernels/api/check.h"
#include "kernels/sim/cudart/tensor_map.h"
#include "tests/sim/cudart_kernels.h"
#include "tests/sim/cudart_support.h"

namespace heddle::test {
namespace {

bool has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

TEST_CASE("the last error is kept until it is taken; a refused call is not sticky") {
  const FreshRuntime fresh;
  CHECK(cudaGetLastError() == cudaSuccess);
  CHECK(cudaSetDevice(7) == cudaErrorInvalidDevice);
  int device = -1;
  CHECK(cudaGetDevice(&device) == cudaSuccess);  // success does not clear it
  CHECK(cudaPeekAtLastError() == cudaErrorInvalidDevice);
  CHECK(has(cudaGetErrorString(cudaErrorInvalidDevice), "device 7 of 1"));
  CHECK(cudaGetLastError() == cudaErrorInvalidDevice);
  CHECK(cudaGetLastError() == cudaSuccess);
  CHECK(std::string(cudaGetErrorName(cudaErrorIllegalAddress)) == "cudaErrorIllegalAddress");
  CHECK(std::string(cudaGetErrorString(cudaErrorNotReady)) == "device not ready");
}

TEST_CASE("a kernel's fault is found at the next synchronization and stays") {
  const FreshRuntime fresh;
  const cudaStream_t stream = new_stream();
  trap(stream);  // the launch itself succeeds
  refused(cudaStreamSynchronize(stream), cudaErrorLaunchFailure,
          {"kernel trap_kernel", "block (0,0,0)", "the kernel gave up", "launched on stream 1"});
  void* x = nullptr;
  refused(cudaMalloc(&x, 4), cudaErrorLaunchFailure, {"trap_kernel"});
  CHECK(cudaGetLastError() == cudaErrorLaunchFailure);
  CHECK(cudaGetLastError() == cudaErrorLaunchFailure);
  CHECK_THROWS_AS(trap(stream), Error);
  ok(cudaDeviceReset());
  ok(cudaMalloc(&x, 4));
}

TEST_CASE("a launch that CUDA refuses is an Error at once") {
  const FreshRuntime fresh;
  const auto message = [](auto act) -> std::string {
    try {
      act();
    } catch (const Error& e) {
      return e.what();
    }
    return "no error";
  };
  CHECK(has(message([] { launch_blocks(1, 1025, 0, false, nullptr); }), "empty_kernel"));
  CHECK(has(message([] { launch_blocks(1, 32, 300 * 1024, false, nullptr); }), "empty_kernel"));
  CHECK(has(message([] { launch_blocks(0, 32, 0, false, nullptr); }), "empty_kernel"));
  CHECK(has(message([] { launch_blocks(1, 32, 0, false, reinterpret_cast<cudaStream_t>(uintptr_t{0x1230})); }), "is no stream"));
  // 8 multiprocessors hold 2 blocks of 1024 threads each.
  CHECK(message([] { launch_blocks(16, 1024, 0, true, nullptr); }) == "no error");
  CHECK(has(message([] { launch_blocks(17, 1024, 0, true, nullptr); }), "17 blocks, but only 16 fit"));
  cudaGetLastError();
  ok(cudaDeviceSynchronize());
}

TEST_CASE("devices: count, properties, attributes, occupancy") {
  const FreshRuntime fresh(1, 3);
  int count = 0, value = 0, blocks = 0, access = -1;
  ok(cudaGetDeviceCount(&count));
  CHECK(count == 3);
  cudaDeviceProp properties;
  ok(cudaGetDeviceProperties(&properties, 2));
  CHECK((properties.major == 9 && properties.warpSize == 32 && properties.totalGlobalMem == size_t{64} << 20));
  ok(cudaDeviceGetAttribute(&value, cudaDevAttrMaxSharedMemoryPerBlockOptin, 0));
  CHECK(value == 227 * 1024);
  ok(cudaDeviceCanAccessPeer(&access, 0, 1));
  CHECK(access == 1);
  ok(cudaDeviceEnablePeerAccess(1, 0));
  refused(cudaDeviceEnablePeerAccess(1, 0), cudaErrorPeerAccessAlreadyEnabled);

  const void* kernel = some_kernel();
  ok(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, kernel, 256, 0));
  CHECK(blocks == 8);
  ok(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, kernel, 32, 0));
  CHECK(blocks == 32);
  ok(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, kernel, 128, 100 * 1024));
  CHECK(blocks == 0);  // more than 48 KiB needs the attribute
  ok(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, 100 * 1024));
  ok(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, kernel, 128, 100 * 1024));
  CHECK(blocks == 2);
  refused(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, 228 * 1024), cudaErrorInvalidValue);

  const FreshRuntime none(1, 0);
  refused(cudaGetDeviceCount(&count), cudaErrorNoDevice);
  void* x = nullptr;
  refused(cudaMalloc(&x, 1), cudaErrorNoDevice, {"HEDDLE_SIM_DEVICES=0"});
}

// ---- tensor maps ----

struct MapArguments {
  CUtensorMapDataType type = CU_TENSOR_MAP_DATA_TYPE_BFLOAT16;
  cuuint32_t rank = 2;
  uintptr_t address = 0x10000;
  cuuint64_t size[5] = {128, 1000, 3, 2, 2};
  cuuint64_t stride[4] = {256, 256000, 768000, 1536000};
  cuuint32_t box[5] = {64, 128, 2, 1, 1};
  cuuint32_t step[5] = {1, 1, 1, 1, 1};
  CUtensorMapInterleave interleave = CU_TENSOR_MAP_INTERLEAVE_NONE;
  CUtensorMapSwizzle swizzle = CU_TENSOR_MAP_SWIZZLE_128B;
  CUtensorMapL2promotion promotion = CU_TENSOR_MAP_L2_PROMOTION_L2_256B;
  CUtensorMapFloatOOBfill fill = CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE;
};

CUresult encode(CUtensorMap* map, const MapArguments& a) {
  void* entry = nullptr;
  cudaDriverEntryPointQueryResult found = cudaDriverEntryPointSymbolNotFound;
  ok(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &entry, 12000, cudaEnableDefault, &found));
  REQUIRE(found == cudaDriverEntryPointSuccess);
  return reinterpret_cast<PFN_cuTensorMapEncodeTiled_v12000>(entry)(map, a.type, a.rank, reinterpret_cast<void*>(a.address), a.size, a.stride, a.box,
                                                                    a.step, a.interleave, a.swizzle, a.promotion, a.fill);
}

TEST_CASE("a tensor map keeps what was put into it, and notices tampering") {
  const FreshRuntime fresh;
  for (cuuint32_t rank = 1; rank <= 5; ++rank) {
    MapArguments a;
    a.rank = rank;
    a.size[0] = uint64_t{1} << 32;
    a.step[1] = 3;
    CUtensorMap map;
    REQUIRE(encode(&map, a) == CUDA_SUCCESS);
    sim::TensorMap decoded;
    REQUIRE(sim::decode(map, decoded));
    CHECK((decoded.rank == rank && decoded.element_bytes == 2 && decoded.swizzle == CU_TENSOR_MAP_SWIZZLE_128B));
    CHECK(reinterpret_cast<uintptr_t>(decoded.address) == a.address);
    CHECK(decoded.size[0] == uint64_t{1} << 32);
    CHECK(decoded.stride[0] == 2);
    for (cuuint32_t d = 0; d < 5; ++d) {
      CHECK(decoded.box[d] == (d < rank ? a.box[d] : 1));
      if (d > 0) CHECK(decoded.stride[d] == (d < rank ? a.stride[d - 1] : 0));
    }
    CHECK(decoded.tile_bytes() == 64u * 2 * (rank > 1 ? 43 : 1) * (rank > 2 ? 2 : 1));  // ceil(128 / 3) = 43
    CHECK(decoded.shared_alignment() == 1024);
    map.opaque[2] ^= 1;
    CHECK(!sim::decode(map, decoded));
  }
}

TEST_CASE("the encoder refuses what the driver documents as wrong") {
  const FreshRuntime fresh;
  CUtensorMap map;
  const auto wrong = [&](const char* why, auto change) {
    MapArguments a;
    change(a);
    INFO(why);
    CHECK(encode(&map, a) == CUDA_ERROR_INVALID_VALUE);
    CHECK(has(sim::runtime_report(), why));
    cudaGetLastError();
  };
  wrong("rank 0", [](auto& a) { a.rank = 0; });
  wrong("rank 6", [](auto& a) { a.rank = 6; });
  wrong("not aligned to 16", [](auto& a) { a.address += 8; });
  wrong("dimension 1 has 0 elements", [](auto& a) { a.size[1] = 0; });
  wrong("dimension 0 has 4294967297", [](auto& a) { a.size[0] = (uint64_t{1} << 32) + 1; });
  wrong("stride of dimension 1, 264 bytes", [](auto& a) { a.stride[0] = 264; });
  wrong("not below 2^40", [](auto& a) { a.stride[0] = uint64_t{1} << 40; });
  wrong("box is 0 long", [](auto& a) { a.box[1] = 0; });
  wrong("box is 257 long", [](auto& a) { a.box[1] = 257; });
  wrong("40 bytes, no multiple of 16", [](auto& a) { a.box[0] = 20; });
  wrong("more than the swizzle's 64", [](auto& a) { a.swizzle = CU_TENSOR_MAP_SWIZZLE_64B; });
  wrong("element stride 9", [](auto& a) { a.step[1] = 9; });
  wrong("interleaved layout needs 3", [](auto& a) { a.interleave = CU_TENSOR_MAP_INTERLEAVE_16B; });
  wrong("interleave 32B needs swizzle 32B", [](auto& a) { a.rank = 3, a.interleave = CU_TENSOR_MAP_INTERLEAVE_32B; });
  wrong("NaN fill", [](auto& a) {
    a.type = CU_TENSOR_MAP_DATA_TYPE_UINT16;
    a.fill = CU_TENSOR_MAP_FLOAT_OOB_FILL_NAN_REQUEST_ZERO_FMA;
  });
  wrong("data type 99", [](auto& a) { a.type = static_cast<CUtensorMapDataType>(99); });
  wrong("swizzle 9", [](auto& a) { a.swizzle = static_cast<CUtensorMapSwizzle>(9); });
  MapArguments plain;
  CHECK(encode(reinterpret_cast<CUtensorMap*>(reinterpret_cast<char*>(&map) + 8), plain) == CUDA_ERROR_INVALID_VALUE);
  CHECK(has(sim::runtime_report(), "not aligned to 64"));
  cudaGetLastError();

  void* entry = nullptr;
  cudaDriverEntryPointQueryResult found = cudaDriverEntryPointSuccess;
  ok(cudaGetDriverEntryPointByVersion("cuNoSuchFunction", &entry, 12000, cudaEnableDefault, &found));
  CHECK((found == cudaDriverEntryPointSymbolNotFound && entry == nullptr));
  ok(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &entry, 11080, cudaEnableDefault, &found));
  CHECK((found == cudaDriverEntryPointVersionNotSufficent && entry == nullptr));
}

}  // namespace
}  // namespace heddle::test
