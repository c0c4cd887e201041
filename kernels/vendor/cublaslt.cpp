// cuBLASLt's products: the candidate `cublaslt` of matmul.
//
// The library's matrices are column-major, heddle's row-major: each is the other transposed. So c^T = op(b)^T op(a)^T is asked for, the library's A
// is b and its B is a, and what it adds to rows (a bias) is added to c's columns.
#include <array>
#include <cstdio>
#include <mutex>
#include <optional>
#include <unordered_map>
#include <utility>

#include "kernels/api/cost.h"
#include "kernels/api/matmul.h"
#include "kernels/api/vendor_choice.h"
#include "kernels/api/vendor_library.h"
#include "kernels/vendor/cublaslt_library_internal.h"
#include "kernels/vendor/register.h"

namespace heddle::kernels::vendor {
namespace {

constexpr std::string_view kName = "cublaslt";
constexpr uint64_t kMostWorkspace = uint64_t{32} << 20;  // what the cuBLAS documentation recommends for Hopper
constexpr uint32_t kAlignment = 16;  // of rows, in bytes: refused below it, and not told above it, so that addresses choose nothing

// ---- what the library is not asked for ----

bool is_aligned(const View& v) {
  return reinterpret_cast<uintptr_t>(v.data) % kAlignment == 0;
}
// Elements from row to row; of a single row whatever suits.
int64_t leading(const View& v) {
  return v.size(0) > 1 ? v.step(0) : (v.size(1) + 7) / 8 * 8;
}

Refusal refuses_by_contract(const MatmulArgs& args) {
  const View& c = args.c.to;
  if (args.a.dtype != DType::bf16 && args.a.dtype != DType::f32) return refused("bf16 or f32 operands only, not ", args.a);
  if (c.dtype != DType::bf16 && c.dtype != DType::f32) return refused("bf16 or f32 results only, not ", c);
  const MatmulShape shape = shape_of(args);
  if (shape.m == 0 || shape.n == 0 || shape.k == 0) return refused("nothing to multiply");
  for (const View* v : {&args.a, &args.b, &c}) {
    if (!is_aligned(*v) || leading(*v) * size_of(v->dtype) % kAlignment != 0) {
      return refused("rows must start at multiples of 16 bytes: ", *v, ", row stride ", v->step(0));
    }
  }
  if (args.epilogue == Epilogue::relu2 || args.epilogue == Epilogue::relu2_backward) return refused("cuBLASLt squares no ReLU");
  if (args.epilogue != Epilogue::none && args.c.accumulate) return refused("cuBLASLt adds to c before the activation, not after it");
  if (is_backward(args.epilogue) && args.bias) return refused("cuBLASLt adds no bias before a derivative");
  if (args.column_sum && args.epilogue != Epilogue::gelu_backward) return refused("cuBLASLt sums columns behind gelu_backward alone");
  if (args.column_sum.accumulate) return refused("cuBLASLt stores the sums of columns, and adds to none");
  for (const View* v : {&args.bias, &args.preact, &args.column_sum.to}) {
    if (!*v) continue;
    if (v->dtype != c.dtype) return refused("cuBLASLt has one dtype for c, bias, preact and column_sum: ", c, " and ", *v);
    if (!is_aligned(*v)) return refused("not at a multiple of 16 bytes: ", *v);
  }
  if (args.preact && leading(args.preact) % 8 != 0) return refused("the row stride of preact must be a multiple of 8: ", args.preact.step(0));
  return {};
}

cublasLtEpilogue_t epilogue_of(const MatmulArgs& args) {
  if (args.epilogue == Epilogue::gelu_backward) return args.column_sum ? CUBLASLT_EPILOGUE_DGELU_BGRAD : CUBLASLT_EPILOGUE_DGELU;
  if (args.epilogue == Epilogue::none) return args.bias ? CUBLASLT_EPILOGUE_BIAS : CUBLASLT_EPILOGUE_DEFAULT;
  if (args.preact) return args.bias ? CUBLASLT_EPILOGUE_GELU_AUX_BIAS : CUBLASLT_EPILOGUE_GELU_AUX;
  return args.bias ? CUBLASLT_EPILOGUE_GELU_BIAS : CUBLASLT_EPILOGUE_GELU;
}

// ---- what is remembered of a shape ----

using Key = std::array<int64_t, 9>;

Key key_of(const MatmulArgs& args) {
  const MatmulShape shape = shape_of(args);
  const int64_t flags = (args.trans_a ? 1 : 0) | (args.trans_b ? 2 : 0) | (args.a.dtype == DType::bf16 ? 4 : 0) |
                        (args.c.to.dtype == DType::bf16 ? 8 : 0) | int64_t{epilogue_of(args)} << 4 | int64_t{args.c.accumulate} << 40;
  return {cuda_device_of_thread,
          shape.m,
          shape.n,
          shape.k,
          leading(args.a),
          leading(args.b),
          leading(args.c.to),
          args.preact ? leading(args.preact) : 0,
          flags};
}

struct Hash {
  size_t operator()(const Key& key) const {
    size_t hash = 0;
    for (const int64_t part : key) hash = (hash ^ static_cast<size_t>(part)) * 0x9e3779b97f4a7c15ull;
    return hash ^ hash >> 32;
  }
};

struct Plan {
  Owned<cublasLtMatmulDescOpaque_t> operation;
  Owned<cublasLtMatrixLayoutOpaque_t> a, b, c;  // heddle's names
  cublasLtMatmulAlgo_t algorithm{};
  size_t workspace = 0;
  const char* failed = nullptr;  // the call, after which the shape is heddle's own for good
  uint64_t judged = UINT64_MAX;  // by which of vendor_choices()
  bool taken = false;
};

struct State {
  std::mutex mutex;
  std::optional<CublasLt> loaded;                     // none: not asked for yet
  std::string broken;                                 // why there is none at all
  std::unordered_map<int, cublasLtHandle_t> handles;  // by device
  std::unordered_map<Key, Plan, Hash> plans;
};
State& state() {
  static State* const state = new State;  // the library may be gone when the process ends
  return *state;
}

// ---- where it fails ----

const Candidate<MatmulArgs>& own_kernel(const MatmulArgs& args) {
  const Candidate<MatmulArgs>* const own = matmul.first_but(kName, DeviceType::cuda, args);
  return own ? *own : matmul.choose(DeviceType::cuda, args);  // which says why there is none
}

void tell(const MatmulArgs& args, const std::string& what, std::string_view instead) {
  std::fprintf(stderr, "heddle: %s, for matmul %s: %.*s %s\n", what.c_str(), shape_of_call(args).c_str(),
               static_cast<int>(own_kernel(args).name.size()), own_kernel(args).name.data(), std::string(instead).c_str());
}
void tell(const MatmulArgs& args, const CublasLt& library, const Attempt& attempt, std::string_view instead) {
  tell(args, concat(attempt.failed, " gave ", library.GetStatusName.call(attempt.status), " (", static_cast<int>(attempt.status), ")"), instead);
}

// The library with a handle for this device; nullptr: there is none, and `broken` says why.
cublasLtHandle_t handle(State& s, const MatmulArgs& args) {
  if (!s.broken.empty()) return nullptr;
  constexpr std::string_view kInstead = "is used instead, as heddle's own kernels are for every other product";
  if (!s.loaded) {
    s.broken = load(s.loaded.emplace());
    if (!s.broken.empty()) {
      tell(args, s.broken, kInstead);
      return nullptr;
    }
  }
  cublasLtHandle_t& handle = s.handles[cuda_device_of_thread];
  if (handle) return handle;
  Attempt attempt;
  if (attempt(s.loaded->Create, &handle)) return handle;
  s.broken = concat(attempt.failed, " failed");
  tell(args, *s.loaded, attempt, kInstead);
  return nullptr;
}

// ---- planning and launching ----

template <class T, class Attribute, class Value>
void set(Attempt& attempt, const Function<cublasStatus_t(T*, Attribute, const void*, size_t)>& function, const Owned<T>& object, Attribute attribute,
         Value value) {
  attempt(function, object.get(), attribute, static_cast<const void*>(&value), sizeof value);
}

Attempt plan(Plan& p, const CublasLt& lt, cublasLtHandle_t handle, const MatmulArgs& args) {
  const auto type = [](const View& v) { return v.dtype == DType::bf16 ? CUDA_R_16BF : CUDA_R_32F; };
  const auto transposed = [](bool yes) { return static_cast<int32_t>(yes ? CUBLAS_OP_T : CUBLAS_OP_N); };
  Attempt attempt;
  make(attempt, p.operation, lt.MatmulDescDestroy, lt.MatmulDescCreate, CUBLAS_COMPUTE_32F, CUDA_R_32F);
  set(attempt, lt.MatmulDescSetAttribute, p.operation, CUBLASLT_MATMUL_DESC_TRANSA, transposed(args.trans_b));
  set(attempt, lt.MatmulDescSetAttribute, p.operation, CUBLASLT_MATMUL_DESC_TRANSB, transposed(args.trans_a));
  set(attempt, lt.MatmulDescSetAttribute, p.operation, CUBLASLT_MATMUL_DESC_EPILOGUE, static_cast<uint32_t>(epilogue_of(args)));
  if (args.preact) set(attempt, lt.MatmulDescSetAttribute, p.operation, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, leading(args.preact));
  for (const auto& [layout, view] : {std::pair{&p.a, &args.a}, {&p.b, &args.b}, {&p.c, &args.c.to}}) {
    make(attempt, *layout, lt.MatrixLayoutDestroy, lt.MatrixLayoutCreate, type(*view), static_cast<uint64_t>(view->size(1)),
         static_cast<uint64_t>(view->size(0)), leading(*view));
  }
  Owned<cublasLtMatmulPreferenceOpaque_t> preference;
  make(attempt, preference, lt.MatmulPreferenceDestroy, lt.MatmulPreferenceCreate);
  set(attempt, lt.MatmulPreferenceSetAttribute, preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, kMostWorkspace);
  // Parts of K are added in their order, from memory of their own.
  set(attempt, lt.MatmulPreferenceSetAttribute, preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
      static_cast<uint32_t>(CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE));
  for (const auto which : {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
                           CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES}) {
    set(attempt, lt.MatmulPreferenceSetAttribute, preference, which, kAlignment);
  }
  cublasLtMatmulHeuristicResult_t best{};
  int found = 0;
  attempt(lt.MatmulAlgoGetHeuristic, handle, p.operation.get(), p.b.get(), p.a.get(), p.c.get(), p.c.get(), preference.get(), 1, &best, &found);
  if (attempt.ok() && (found < 1 || best.state != CUBLAS_STATUS_SUCCESS)) {
    attempt.failed = lt.MatmulAlgoGetHeuristic.name;
    attempt.status = found < 1 ? CUBLAS_STATUS_NOT_SUPPORTED : best.state;
  }
  p.algorithm = best.algo;
  p.workspace = attempt.ok() ? best.workspaceSize : 0;
  return attempt;
}

// The plan of this call; nullptr where the library cannot do it.
Plan* plan_of(State& s, const MatmulArgs& args) {
  const Key key = key_of(args);
  const auto known = s.plans.find(key);
  if (known != s.plans.end()) return known->second.failed ? nullptr : &known->second;
  const cublasLtHandle_t lt = handle(s, args);
  if (!lt) return nullptr;
  Plan& made = s.plans[key];
  const Attempt attempt = plan(made, *s.loaded, lt, args);
  made.failed = attempt.failed;
  if (attempt.ok()) return &made;
  tell(args, *s.loaded, attempt, "does it from here on");
  return nullptr;
}

Attempt launch(const Plan& p, const CublasLt& lt, cublasLtHandle_t handle, const MatmulArgs& args, Stream stream) {
  static constexpr float kOne = 1, kZero = 0;
  Attempt attempt;
  const View& vector = args.column_sum ? args.column_sum.to : args.bias;
  if (vector) set(attempt, lt.MatmulDescSetAttribute, p.operation, CUBLASLT_MATMUL_DESC_BIAS_POINTER, static_cast<void*>(vector.data));
  if (args.preact)
    set(attempt, lt.MatmulDescSetAttribute, p.operation, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, static_cast<void*>(args.preact.data));
  std::byte* const c = args.c.to.data;
  attempt(lt.Matmul, handle, p.operation.get(), &kOne, args.b.data, p.b.get(), args.a.data, p.a.get(), args.c.accumulate ? &kOne : &kZero, c,
          p.c.get(), c, p.c.get(), &p.algorithm, args.scratch.data(), p.workspace, static_cast<cudaStream_t>(stream.native));
  return attempt;
}

// ---- the candidate ----

// Plans what it is asked about for the first time: whether the library can do it is not known before.
Refusal refuses(const MatmulArgs& args) {
  if (Refusal refusal = refuses_by_contract(args)) return refusal;
  State& s = state();
  const std::lock_guard lock(s.mutex);
  if (Plan* const p = plan_of(s, args)) {
    if (std::exchange(p->judged, vendor_choices()) != vendor_choices()) p->taken = vendor_takes(args);
    if (!p->taken) return refused("heddle's own kernel was measured to be faster, or this product was not measured");
    return {};
  }
  if (!s.broken.empty()) return refused(s.broken);
  return refused(s.plans[key_of(args)].failed, " failed for this shape");
}

size_t scratch(const MatmulArgs& args) {
  const Candidate<MatmulArgs>& own = own_kernel(args);
  State& s = state();
  const std::lock_guard lock(s.mutex);
  const Plan* const p = plan_of(s, args);
  return std::max(p ? p->workspace : 0, own.scratch ? own.scratch(args) : 0);  // in case that the launch fails
}

void run(const MatmulArgs& args, Stream stream) {
  {
    State& s = state();
    const std::lock_guard lock(s.mutex);
    if (Plan* const p = plan_of(s, args)) {
      HEDDLE_CHECK(args.scratch.size() >= p->workspace, "matmul", "scratch too small: ", args.scratch.size(), " of ", p->workspace, " bytes");
      const Attempt attempt = launch(*p, *s.loaded, handle(s, args), args, stream);
      if (attempt.ok()) return;
      p->failed = attempt.failed;
      tell(args, *s.loaded, attempt, "does it from here on");
    }
  }
  own_kernel(args).run(args, stream);
}

}  // namespace

std::string load(CublasLt& library) {
  std::string why;
  void* const opened = open_vendor_library({"libcublasLt.so.13", "libcublasLt.so.12"}, why);
  if (!opened) return concat("cuBLASLt is not there: ", why);
  const char* absent = nullptr;
  const auto find = [&]<class F>(Function<F>& function) {
    function.call = reinterpret_cast<F*>(vendor_function(opened, function.name));
    if (!function.call) absent = function.name;
  };
#define HEDDLE_FIND(name) find(library.name);
  HEDDLE_CUBLASLT_FUNCTIONS(HEDDLE_FIND)
#undef HEDDLE_FIND
  return absent ? concat("this cuBLASLt has no ", absent) : "";
}

void register_cublaslt() {
  for (const auto& candidate : matmul.candidates(DeviceType::cuda)) {
    if (candidate.name == kName) return;
  }
  matmul.add(DeviceType::cuda, {kName, refuses, scratch, run});
}

void forget_cublaslt() {
  State& s = state();
  const std::lock_guard lock(s.mutex);
  s.plans.clear();
  for (const auto& [device, handle] : s.handles) {
    if (handle) s.loaded->Destroy.call(handle);
  }
  s.handles.clear();
  s.loaded.reset();
  s.broken.clear();
}

}  // namespace heddle::kernels::vendor
