// cuBLASLt's functions, found in the library when they are first needed, and its objects, which free themselves.
#pragma once

#include <cublasLt.h>

#include <memory>
#include <string>

namespace heddle::kernels::vendor {

template <class F>
struct Function {
  const char* name;
  F* call = nullptr;
};

// clang-format off
// Every function that is called, listed once.
#define HEDDLE_CUBLASLT_FUNCTIONS(function) \
  function(Create)                          \
  function(Destroy)                         \
  function(GetStatusName)                   \
  function(MatrixLayoutCreate)              \
  function(MatrixLayoutDestroy)             \
  function(MatmulDescCreate)                \
  function(MatmulDescDestroy)               \
  function(MatmulDescSetAttribute)          \
  function(MatmulPreferenceCreate)          \
  function(MatmulPreferenceDestroy)         \
  function(MatmulPreferenceSetAttribute)    \
  function(MatmulAlgoGetHeuristic)          \
  function(Matmul)
// clang-format on

struct CublasLt {
#define HEDDLE_FUNCTION(name) Function<decltype(cublasLt##name)> name{"cublasLt" #name};
  HEDDLE_CUBLASLT_FUNCTIONS(HEDDLE_FUNCTION)
#undef HEDDLE_FUNCTION
};

// "": all of them were found, else why not.
std::string load(CublasLt& library);

// Calls one after another, up to the first that fails.
struct Attempt {
  const char* failed = nullptr;  // the function
  cublasStatus_t status = CUBLAS_STATUS_SUCCESS;

  bool ok() const { return !failed; }
  template <class F, class... Arguments>
  bool operator()(const Function<F>& function, Arguments... arguments) {
    if (failed) return false;
    status = function.call(arguments...);
    if (status != CUBLAS_STATUS_SUCCESS) failed = function.name;
    return ok();
  }
};

template <class T>
struct Free {
  cublasStatus_t (*free)(T*) = nullptr;
  void operator()(T* object) const { free(object); }
};
template <class T>
using Owned = std::unique_ptr<T, Free<T>>;

// Owns what `create` makes; empty where it fails.
template <class T, class F, class... Arguments>
void make(Attempt& attempt, Owned<T>& object, const Function<cublasStatus_t(T*)>& destroy, const Function<F>& create, Arguments... arguments) {
  T* made = nullptr;
  if (attempt(create, &made, arguments...)) object = Owned<T>(made, {destroy.call});
}

}  // namespace heddle::kernels::vendor
