// cuBLASLt's products by the host, as work of the stream.
#include "kernels/sim/vendor/cublaslt.h"

#include <cublasLt.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "kernels/api/types.h"
#include "kernels/sim/core/machine.h"
#include "kernels/sim/cudart/cudart.h"

namespace heddle::sim::cublaslt {
namespace {

struct Planned {
  uint64_t nth;
  cublasStatus_t status;
};
struct Control {
  std::mutex mutex;
  std::map<std::string, uint64_t, std::less<>> calls;
  std::map<std::string, Planned, std::less<>> failures;
  std::set<std::string, std::less<>> hidden;
  bool hides_all = false;
};
Control& control() {
  static Control control;
  return control;
}

// Counts the call; the status that a test has planned for it.
std::optional<cublasStatus_t> planned(const char* function) {
  Control& c = control();
  const std::lock_guard lock(c.mutex);
  ++c.calls[function];
  const auto it = c.failures.find(function);
  if (it == c.failures.end() || --it->second.nth > 0) return {};
  const cublasStatus_t status = it->second.status;
  c.failures.erase(it);
  return status;
}

struct Layout {
  cudaDataType type;
  int64_t rows, columns, ld;
};
struct Operation {
  int32_t trans_a = CUBLAS_OP_N, trans_b = CUBLAS_OP_N;
  uint32_t epilogue = CUBLASLT_EPILOGUE_DEFAULT;
  void* bias = nullptr;
  void* aux = nullptr;
  int64_t aux_ld = 0;

  bool has(uint32_t bit) const { return (epilogue & bit) != 0; }
  bool adds_bias() const { return has(CUBLASLT_EPILOGUE_BIAS); }
  bool sums() const { return epilogue == CUBLASLT_EPILOGUE_DGELU_BGRAD; }
  bool is_gelu() const { return has(CUBLASLT_EPILOGUE_GELU); }
  bool is_dgelu() const { return (epilogue & CUBLASLT_EPILOGUE_DGELU) == CUBLASLT_EPILOGUE_DGELU; }
  bool has_aux() const { return has(128); }
};
struct Preference {
  uint64_t workspace = 0;
  uint32_t reductions = CUBLASLT_REDUCTION_SCHEME_MASK;
  uint32_t alignment[4] = {256, 256, 256, 256};  // of A, B, C, D
};
struct Algorithm {
  uint64_t reduction = CUBLASLT_REDUCTION_SCHEME_NONE, workspace = 0;
  uint32_t alignment[4] = {};
};
static_assert(sizeof(Algorithm) <= sizeof(cublasLtMatmulAlgo_t));

int64_t size_of(cudaDataType type) {
  return type == CUDA_R_16BF ? 2 : 4;
}
float load(const void* from, cudaDataType type, int64_t i) {
  return type == CUDA_R_16BF ? static_cast<float>(static_cast<const bf16*>(from)[i]) : static_cast<const float*>(from)[i];
}
void store(void* to, cudaDataType type, int64_t i, float value) {
  if (type == CUDA_R_16BF) {
    static_cast<bf16*>(to)[i] = bf16(value);
  } else {
    static_cast<float*>(to)[i] = value;
  }
}

constexpr float kCubic = 0.044715f, kSlope = 0.7978845608f;
float gelu(float x) {
  return 0.5f * x * (1 + std::tanh(kSlope * (x + kCubic * x * x * x)));
}
float gelu_derivative(float x) {
  const float u = kSlope * (x + kCubic * x * x * x), sech = 1 / std::cosh(u);
  return 0.5f * (1 + std::tanh(u)) + 0.5f * x * sech * sech * kSlope * (1 + 3 * kCubic * x * x);
}

struct Product {
  Operation operation;
  Layout a, b, c;
  const void *a_data, *b_data;
  void* c_data;
  float alpha, beta;
  bool backwards;  // in K

  void run() const {
    const int64_t m = c.rows, n = c.columns, k = operation.trans_a == CUBLAS_OP_T ? a.rows : a.columns;
    std::vector<float> sums(static_cast<size_t>(m));
    for (int64_t j = 0; j < n; ++j) {
      for (int64_t i = 0; i < m; ++i) {
        float z = 0;
        for (int64_t step = 0; step < k; ++step) {
          const int64_t p = backwards ? k - 1 - step : step;
          z += load(a_data, a.type, operation.trans_a == CUBLAS_OP_T ? i * a.ld + p : p * a.ld + i) *
               load(b_data, b.type, operation.trans_b == CUBLAS_OP_T ? p * b.ld + j : j * b.ld + p);
        }
        z *= alpha;
        if (beta != 0) z += beta * load(c_data, c.type, j * c.ld + i);
        if (operation.adds_bias()) z += load(operation.bias, c.type, i);
        const int64_t at = j * operation.aux_ld + i;
        if (operation.is_dgelu()) {
          z *= gelu_derivative(load(operation.aux, c.type, at));
        } else if (operation.is_gelu()) {
          if (operation.has_aux()) store(operation.aux, c.type, at, z);
          z = gelu(z);
        }
        sums[static_cast<size_t>(i)] += z;
        store(c_data, c.type, j * c.ld + i, z);
      }
      note_host_write(static_cast<std::byte*>(c_data) + j * c.ld * size_of(c.type), static_cast<size_t>(m * size_of(c.type)));
      if (operation.is_gelu() && operation.has_aux())
        note_host_write(static_cast<std::byte*>(operation.aux) + j * operation.aux_ld * size_of(c.type), static_cast<size_t>(m * size_of(c.type)));
    }
    if (!operation.sums()) return;
    for (int64_t i = 0; i < m; ++i) store(operation.bias, c.type, i, sums[static_cast<size_t>(i)]);
    note_host_write(operation.bias, static_cast<size_t>(m * size_of(c.type)));
  }
};

// Rows, columns and types that fit together.
bool fits(const Operation& o, const Layout& a, const Layout& b, const Layout& c) {
  const bool ta = o.trans_a == CUBLAS_OP_T, tb = o.trans_b == CUBLAS_OP_T;
  const bool types = a.type == b.type && (c.type == a.type || c.type == CUDA_R_32F);
  const bool rows = a.ld >= a.rows && b.ld >= b.rows && c.ld >= c.rows;
  const bool sizes =
      (ta ? a.columns : a.rows) == c.rows && (tb ? b.rows : b.columns) == c.columns && (ta ? a.rows : a.columns) == (tb ? b.columns : b.rows);
  const bool aux = !o.has_aux() || (o.aux_ld % 8 == 0 && o.aux_ld >= c.rows);
  return types && rows && sizes && aux;
}

bool is_aligned(const void* data, const Layout& layout, uint32_t to) {
  return reinterpret_cast<uintptr_t>(data) % to == 0 && static_cast<uint64_t>(layout.ld * size_of(layout.type)) % to == 0;
}

template <class T>
cublasStatus_t set(T& field, const void* value, size_t bytes) {
  if (bytes != sizeof(T)) return CUBLAS_STATUS_INVALID_VALUE;
  std::memcpy(&field, value, bytes);
  return CUBLAS_STATUS_SUCCESS;
}

Operation& of(cublasLtMatmulDesc_t x) {
  return *reinterpret_cast<Operation*>(x);
}
Layout& of(cublasLtMatrixLayout_t x) {
  return *reinterpret_cast<Layout*>(x);
}
Preference& of(cublasLtMatmulPreference_t x) {
  return *reinterpret_cast<Preference*>(x);
}

std::mutex launches_mutex;
uint64_t launches = 0;

}  // namespace

void fail_call(std::string_view function, uint64_t nth, int status) {
  const std::lock_guard lock(control().mutex);
  control().failures[std::string(function)] = {nth, static_cast<cublasStatus_t>(status)};
}
void hide_library() {
  control().hides_all = true;
}
bool is_hidden() {
  return control().hides_all;
}
void hide_function(std::string_view function) {
  control().hidden.emplace(function);
}
uint64_t calls(std::string_view function) {
  const std::lock_guard lock(control().mutex);
  const auto it = control().calls.find(function);
  return it == control().calls.end() ? 0 : it->second;
}
void reset() {
  const std::lock_guard lock(control().mutex);
  control().calls.clear();
  control().failures.clear();
  control().hidden.clear();
  control().hides_all = false;
}

}  // namespace heddle::sim::cublaslt

struct cublasLtContext {};

namespace cublaslt = heddle::sim::cublaslt;

#define HEDDLE_CALLED(name) \
  if (const auto status = cublaslt::planned(name)) return *status

extern "C" {

cublasStatus_t cublasLtCreate(cublasLtHandle_t* handle) {
  HEDDLE_CALLED("cublasLtCreate");
  *handle = new cublasLtContext;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle) {
  HEDDLE_CALLED("cublasLtDestroy");
  delete handle;
  return CUBLAS_STATUS_SUCCESS;
}

const char* cublasLtGetStatusName(cublasStatus_t status) {
  switch (status) {
    case CUBLAS_STATUS_SUCCESS: return "CUBLAS_STATUS_SUCCESS";
    case CUBLAS_STATUS_NOT_INITIALIZED: return "CUBLAS_STATUS_NOT_INITIALIZED";
    case CUBLAS_STATUS_ALLOC_FAILED: return "CUBLAS_STATUS_ALLOC_FAILED";
    case CUBLAS_STATUS_INVALID_VALUE: return "CUBLAS_STATUS_INVALID_VALUE";
    case CUBLAS_STATUS_EXECUTION_FAILED: return "CUBLAS_STATUS_EXECUTION_FAILED";
    case CUBLAS_STATUS_NOT_SUPPORTED: return "CUBLAS_STATUS_NOT_SUPPORTED";
    default: return "CUBLAS_STATUS_INTERNAL_ERROR";
  }
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t* layout, cudaDataType type, uint64_t rows, uint64_t columns, int64_t ld) {
  HEDDLE_CALLED("cublasLtMatrixLayoutCreate");
  *layout = reinterpret_cast<cublasLtMatrixLayout_t>(new cublaslt::Layout{type, static_cast<int64_t>(rows), static_cast<int64_t>(columns), ld});
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout) {
  HEDDLE_CALLED("cublasLtMatrixLayoutDestroy");
  delete &cublaslt::of(layout);
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t* operation, cublasComputeType_t compute, cudaDataType_t scale) {
  HEDDLE_CALLED("cublasLtMatmulDescCreate");
  if (compute != CUBLAS_COMPUTE_32F || scale != CUDA_R_32F) return CUBLAS_STATUS_INVALID_VALUE;
  *operation = reinterpret_cast<cublasLtMatmulDesc_t>(new cublaslt::Operation);
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t operation) {
  HEDDLE_CALLED("cublasLtMatmulDescDestroy");
  delete &cublaslt::of(operation);
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t operation, cublasLtMatmulDescAttributes_t attribute, const void* value,
                                              size_t bytes) {
  HEDDLE_CALLED("cublasLtMatmulDescSetAttribute");
  cublaslt::Operation& o = cublaslt::of(operation);
  switch (attribute) {
    case CUBLASLT_MATMUL_DESC_TRANSA: return cublaslt::set(o.trans_a, value, bytes);
    case CUBLASLT_MATMUL_DESC_TRANSB: return cublaslt::set(o.trans_b, value, bytes);
    case CUBLASLT_MATMUL_DESC_EPILOGUE: return cublaslt::set(o.epilogue, value, bytes);
    case CUBLASLT_MATMUL_DESC_BIAS_POINTER: return cublaslt::set(o.bias, value, bytes);
    case CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER: return cublaslt::set(o.aux, value, bytes);
    case CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD: return cublaslt::set(o.aux_ld, value, bytes);
    default: return CUBLAS_STATUS_INVALID_VALUE;
  }
}

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t* preference) {
  HEDDLE_CALLED("cublasLtMatmulPreferenceCreate");
  *preference = reinterpret_cast<cublasLtMatmulPreference_t>(new cublaslt::Preference);
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference) {
  HEDDLE_CALLED("cublasLtMatmulPreferenceDestroy");
  delete &cublaslt::of(preference);
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t preference, cublasLtMatmulPreferenceAttributes_t attribute,
                                                    const void* value, size_t bytes) {
  HEDDLE_CALLED("cublasLtMatmulPreferenceSetAttribute");
  cublaslt::Preference& p = cublaslt::of(preference);
  switch (attribute) {
    case CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES: return cublaslt::set(p.workspace, value, bytes);
    case CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK: return cublaslt::set(p.reductions, value, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES: return cublaslt::set(p.alignment[0], value, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES: return cublaslt::set(p.alignment[1], value, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES: return cublaslt::set(p.alignment[2], value, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES: return cublaslt::set(p.alignment[3], value, bytes);
    default: return CUBLAS_STATUS_INVALID_VALUE;
  }
}

// Long products are split: in place where that may be, which needs no memory, else through a workspace.
cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t handle, cublasLtMatmulDesc_t operation, cublasLtMatrixLayout_t a,
                                              cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t preference, int wanted, cublasLtMatmulHeuristicResult_t results[],
                                              int* found) {
  HEDDLE_CALLED("cublasLtMatmulAlgoGetHeuristic");
  *found = 0;
  if (!handle || wanted < 1 || c != d) return CUBLAS_STATUS_INVALID_VALUE;
  if (!cublaslt::fits(cublaslt::of(operation), cublaslt::of(a), cublaslt::of(b), cublaslt::of(c))) return CUBLAS_STATUS_INVALID_VALUE;
  const cublaslt::Preference& p = cublaslt::of(preference);
  cublaslt::Algorithm algorithm;
  constexpr uint64_t kWorkspace = 4096;
  if ((p.reductions & CUBLASLT_REDUCTION_SCHEME_INPLACE) != 0) {
    algorithm.reduction = CUBLASLT_REDUCTION_SCHEME_INPLACE;
  } else if ((p.reductions & CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE) != 0 && p.workspace >= kWorkspace) {
    algorithm.reduction = CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
    algorithm.workspace = kWorkspace;
  }
  std::copy_n(p.alignment, 4, algorithm.alignment);
  results[0] = {};
  std::memcpy(&results[0].algo, &algorithm, sizeof algorithm);
  results[0].workspaceSize = algorithm.workspace;
  results[0].state = CUBLAS_STATUS_SUCCESS;
  *found = 1;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t handle, cublasLtMatmulDesc_t operation, const void* alpha, const void* a,
                              cublasLtMatrixLayout_t a_layout, const void* b, cublasLtMatrixLayout_t b_layout, const void* beta, const void* c,
                              cublasLtMatrixLayout_t c_layout, void* d, cublasLtMatrixLayout_t d_layout, const cublasLtMatmulAlgo_t* algo,
                              void* workspace, size_t workspace_bytes, cudaStream_t stream) {
  HEDDLE_CALLED("cublasLtMatmul");
  const cublaslt::Operation& o = cublaslt::of(operation);
  cublaslt::Algorithm algorithm;
  std::memcpy(static_cast<void*>(&algorithm), algo, sizeof algorithm);
  if (!handle || !alpha || !beta || c != d || c_layout != d_layout) return CUBLAS_STATUS_INVALID_VALUE;
  if (!cublaslt::fits(o, cublaslt::of(a_layout), cublaslt::of(b_layout), cublaslt::of(c_layout))) return CUBLAS_STATUS_INVALID_VALUE;
  if ((o.adds_bias() || o.sums()) && !o.bias) return CUBLAS_STATUS_INVALID_VALUE;
  if (o.has_aux() && (!o.aux || reinterpret_cast<uintptr_t>(o.aux) % 16 != 0)) return CUBLAS_STATUS_INVALID_VALUE;
  if (!cublaslt::is_aligned(a, cublaslt::of(a_layout), algorithm.alignment[0]) ||
      !cublaslt::is_aligned(b, cublaslt::of(b_layout), algorithm.alignment[1]) ||
      !cublaslt::is_aligned(d, cublaslt::of(d_layout), std::max(algorithm.alignment[2], algorithm.alignment[3])))
    return CUBLAS_STATUS_INVALID_VALUE;
  if (algorithm.workspace > 0 && (!workspace || workspace_bytes < algorithm.workspace)) return CUBLAS_STATUS_INVALID_VALUE;
  bool backwards = false;
  if (algorithm.reduction == CUBLASLT_REDUCTION_SCHEME_INPLACE) {
    const std::lock_guard lock(cublaslt::launches_mutex);
    backwards = cublaslt::launches++ % 2 == 1;
  }
  const cublaslt::Product product{o,
                                  cublaslt::of(a_layout),
                                  cublaslt::of(b_layout),
                                  cublaslt::of(c_layout),
                                  a,
                                  b,
                                  d,
                                  *static_cast<const float*>(alpha),
                                  *static_cast<const float*>(beta),
                                  backwards};
  heddle::sim::launch_on_host(
      "cublasLtMatmul",
      [product, workspace, bytes = algorithm.workspace] {
        if (bytes > 0) std::memset(workspace, 0xa5, bytes);
        product.run();
      },
      stream);
  return CUBLAS_STATUS_SUCCESS;
}

}  // extern "C"

void* heddle::sim::cublaslt::find(std::string_view function) {
  if (is_hidden() || control().hidden.contains(function)) return nullptr;
#define HEDDLE_FOUND(name) \
  if (function == #name) return reinterpret_cast<void*>(&name);
  HEDDLE_FOUND(cublasLtCreate)
  HEDDLE_FOUND(cublasLtDestroy)
  HEDDLE_FOUND(cublasLtGetStatusName)
  HEDDLE_FOUND(cublasLtMatrixLayoutCreate)
  HEDDLE_FOUND(cublasLtMatrixLayoutDestroy)
  HEDDLE_FOUND(cublasLtMatmulDescCreate)
  HEDDLE_FOUND(cublasLtMatmulDescDestroy)
  HEDDLE_FOUND(cublasLtMatmulDescSetAttribute)
  HEDDLE_FOUND(cublasLtMatmulPreferenceCreate)
  HEDDLE_FOUND(cublasLtMatmulPreferenceDestroy)
  HEDDLE_FOUND(cublasLtMatmulPreferenceSetAttribute)
  HEDDLE_FOUND(cublasLtMatmulAlgoGetHeuristic)
  HEDDLE_FOUND(cublasLtMatmul)
#undef HEDDLE_FOUND
  return nullptr;
}
