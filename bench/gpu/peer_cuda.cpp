// cuBLASLt beside our products, where the machine has it: loaded when asked for, nothing is linked. Built without its header there is none.
#include <dlfcn.h>

#include <cstdlib>
#include <optional>

#include "bench/gpu/production.h"
#include "kernels/api/check.h"
#include "tests/sim/proving_kernels.h"

#if __has_include(<cublasLt.h>)
#include <cublasLt.h>

namespace heddle::bench {
namespace {

using kernels::MatmulArgs;

constexpr size_t kWorkspace = size_t{64} << 20;

#define HEDDLE_CUBLASLT(call)                                                                                                                        \
  call(cublasLtCreate) call(cublasLtGetVersion) call(cublasLtMatmulDescCreate) call(cublasLtMatmulDescSetAttribute) call(cublasLtMatrixLayoutCreate) \
      call(cublasLtMatmulPreferenceCreate) call(cublasLtMatmulPreferenceSetAttribute) call(cublasLtMatmulAlgoGetHeuristic) call(cublasLtMatmul)

struct Library {
#define HEDDLE_FUNCTION(name) decltype(&::name) name = nullptr;
  HEDDLE_CUBLASLT(HEDDLE_FUNCTION)
#undef HEDDLE_FUNCTION
  cublasLtHandle_t handle = nullptr;
  void* workspace = nullptr;
  std::string state;
};

Library load() {
  Library library;
  const char* named = std::getenv("HEDDLE_CUBLASLT");
  void* loaded = nullptr;
  for (const char* path : {named, "libcublasLt.so.13", "libcublasLt.so.12", "libcublasLt.so", "/usr/local/cuda/lib64/libcublasLt.so"}) {
    if (path == nullptr || *path == '\0' || loaded != nullptr) continue;
    loaded = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (loaded != nullptr) library.state = path;
  }
  if (loaded == nullptr) {
    library.state = concat("no cuBLASLt (HEDDLE_CUBLASLT names one): ", dlerror());
    return library;
  }
#define HEDDLE_FIND(name)                                                        \
  library.name = reinterpret_cast<decltype(library.name)>(dlsym(loaded, #name)); \
  if (library.name == nullptr) {                                                 \
    library.state += " has no " #name;                                           \
    return library;                                                              \
  }
  HEDDLE_CUBLASLT(HEDDLE_FIND)
#undef HEDDLE_FIND
  const cublasStatus_t status = library.cublasLtCreate(&library.handle);
  if (status != CUBLAS_STATUS_SUCCESS) {
    library.handle = nullptr;
    library.state = concat(library.state, ": cublasLtCreate gave ", static_cast<int>(status));
    return library;
  }
  library.workspace = test::device_allocate(kWorkspace);
  library.state = concat("cuBLASLt ", library.cublasLtGetVersion(), " from ", library.state);
  return library;
}
const Library& library() {
  static const Library loaded = load();
  return loaded;
}

std::optional<cudaDataType_t> type_of(DType dtype) {
  if (dtype == DType::bf16) return CUDA_R_16BF;
  if (dtype == DType::f32) return CUDA_R_32F;
  return {};
}

// What one product needs, for the life of the process.
struct Call {
  cublasLtMatmulDesc_t product = nullptr;
  cublasLtMatrixLayout_t a = nullptr, b = nullptr, c = nullptr;
  cublasLtMatmulHeuristicResult_t found = {};
};

}  // namespace

std::function<void()> cublaslt_matmul(const MatmulArgs& args) {
  const bool fused = args.bias || args.preact || args.epilogue != kernels::Epilogue::none || args.column_sum;
  const auto in = type_of(args.a.dtype), out = type_of(args.c.to.dtype);
  const auto [m, n, k] = kernels::shape_of(args);
  const Library& lt = library();
  if (fused || !in || !out || lt.handle == nullptr || m == 0 || n == 0 || k == 0) return {};
  // Its matrices are stored by columns: what it is asked for is the transpose, C^T = op(B)^T op(A)^T, and each stored matrix is its own transpose.
  const auto call = std::make_shared<Call>();
  const cublasOperation_t ops[] = {args.trans_b ? CUBLAS_OP_T : CUBLAS_OP_N, args.trans_a ? CUBLAS_OP_T : CUBLAS_OP_N};
  const auto layout = [&](cublasLtMatrixLayout_t* to, const View& stored, cudaDataType_t type) {
    return lt.cublasLtMatrixLayoutCreate(to, type, static_cast<uint64_t>(stored.size(1)), static_cast<uint64_t>(stored.size(0)), stored.step(0)) ==
           CUBLAS_STATUS_SUCCESS;
  };
  cublasLtMatmulPreference_t preference = nullptr;
  int count = 0;
  const bool made = lt.cublasLtMatmulDescCreate(&call->product, CUBLAS_COMPUTE_32F, CUDA_R_32F) == CUBLAS_STATUS_SUCCESS &&
                    lt.cublasLtMatmulDescSetAttribute(call->product, CUBLASLT_MATMUL_DESC_TRANSA, &ops[0], sizeof ops[0]) == CUBLAS_STATUS_SUCCESS &&
                    lt.cublasLtMatmulDescSetAttribute(call->product, CUBLASLT_MATMUL_DESC_TRANSB, &ops[1], sizeof ops[1]) == CUBLAS_STATUS_SUCCESS &&
                    layout(&call->a, args.b, *in) && layout(&call->b, args.a, *in) && layout(&call->c, args.c.to, *out) &&
                    lt.cublasLtMatmulPreferenceCreate(&preference) == CUBLAS_STATUS_SUCCESS &&
                    lt.cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &kWorkspace, sizeof kWorkspace) ==
                        CUBLAS_STATUS_SUCCESS &&
                    lt.cublasLtMatmulAlgoGetHeuristic(lt.handle, call->product, call->a, call->b, call->c, call->c, preference, 1, &call->found,
                                                      &count) == CUBLAS_STATUS_SUCCESS;
  if (!made || count == 0) return {};
  return [call, a = args.a.data, b = args.b.data, c = args.c, &lt] {
    const float one = 1, beta = c.accumulate ? 1.0f : 0.0f;
    const cublasStatus_t status = lt.cublasLtMatmul(lt.handle, call->product, &one, b, call->a, a, call->b, &beta, c.to.data, call->c, c.to.data,
                                                    call->c, &call->found.algo, lt.workspace, kWorkspace, nullptr);
    HEDDLE_CHECK(status == CUBLAS_STATUS_SUCCESS, "acceptance", "cublasLtMatmul gave ", static_cast<int>(status));
  };
}
std::string cublaslt_state() {
  return library().state;
}

}  // namespace heddle::bench

#else

namespace heddle::bench {

std::function<void()> cublaslt_matmul(const kernels::MatmulArgs&) {
  return {};
}
std::string cublaslt_state() {
  return "built without cublasLt.h";
}

}  // namespace heddle::bench

#endif
