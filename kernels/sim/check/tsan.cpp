// The functions that -fsanitize=thread,alignment makes kernel code call, in place of libtsan and libubsan (compiler-rt, tsan_interface.h and
// ubsan_handlers.h; g++ and clang share the names).
// Host code that happens to be compiled with the flag passes through at the cost of a test.
#include <atomic>
#include <cstring>

#include "kernels/sim/check/check_internal.h"

namespace heddle::sim {

namespace {

// The checker's own containers may have been instantiated in instrumented code too.
__thread bool inside __attribute__((tls_model("initial-exec")));

inline void report(const void* pointer, size_t bytes, bool is_write, bool aligned, const void* pc) {
  if (current_thread == nullptr || inside) return;
  const Stack& stack = *self().stack;
  if (static_cast<size_t>(static_cast<const std::byte*>(pointer) - stack.base) < stack.size) return;  // its own locals
  inside = true;
  race_checker().instrumented(self(), pointer, bytes, is_write, aligned, pc);
  inside = false;
}

// What the compiler says of an access that is not aligned as its type demands.
struct TypeDescription {
  uint16_t kind, info;
  char name[1];  // "'float4'"
};
struct Misalignment {
  const char* file;
  uint32_t line, column;
  const TypeDescription* type;
  unsigned char log_alignment;
  unsigned char kind;  // 0 load, 1 store, others: binding a reference, naming a member
};

}  // namespace

// abandon() leaves report() without returning.
void left_callback() {
  inside = false;
}

}  // namespace heddle::sim

using heddle::sim::report;

#define PC __builtin_return_address(0)

extern "C" {

#define HEDDLE_ACCESS(bytes)                             \
  void __tsan_read##bytes(void* p) {                     \
    report(p, bytes, false, true, PC);                   \
  }                                                      \
  void __tsan_write##bytes(void* p) {                    \
    report(p, bytes, true, true, PC);                    \
  }                                                      \
  void __tsan_unaligned_read##bytes(void* p) {           \
    report(p, bytes, false, false, PC);                  \
  }                                                      \
  void __tsan_unaligned_write##bytes(void* p) {          \
    report(p, bytes, true, false, PC);                   \
  }                                                      \
  void __tsan_volatile_read##bytes(void* p) {            \
    report(p, bytes, false, true, PC);                   \
  }                                                      \
  void __tsan_volatile_write##bytes(void* p) {           \
    report(p, bytes, true, true, PC);                    \
  }                                                      \
  void __tsan_unaligned_volatile_read##bytes(void* p) {  \
    report(p, bytes, false, false, PC);                  \
  }                                                      \
  void __tsan_unaligned_volatile_write##bytes(void* p) { \
    report(p, bytes, true, false, PC);                   \
  }                                                      \
  void __tsan_read_write##bytes(void* p) {               \
    report(p, bytes, false, true, PC);                   \
    report(p, bytes, true, true, PC);                    \
  }                                                      \
  void __tsan_unaligned_read_write##bytes(void* p) {     \
    report(p, bytes, false, false, PC);                  \
    report(p, bytes, true, false, PC);                   \
  }
HEDDLE_ACCESS(1)
HEDDLE_ACCESS(2)
HEDDLE_ACCESS(4)
HEDDLE_ACCESS(8)
HEDDLE_ACCESS(16)

void __tsan_read_range(void* p, unsigned long n) {
  report(p, n, false, false, PC);
}
void __tsan_write_range(void* p, unsigned long n) {
  report(p, n, true, false, PC);
}
void* __tsan_memcpy(void* to, const void* from, size_t n) {
  report(from, n, false, false, PC);
  report(to, n, true, false, PC);
  return std::memcpy(to, from, n);
}
void* __tsan_memmove(void* to, const void* from, size_t n) {
  report(from, n, false, false, PC);
  report(to, n, true, false, PC);
  return std::memmove(to, from, n);
}
void* __tsan_memset(void* to, int value, size_t n) {
  report(to, n, true, false, PC);
  return std::memset(to, value, n);
}

// Asked for by the front end, before vectors are taken apart into their elements, of which each is aligned.
void __ubsan_handle_type_mismatch_v1(const heddle::sim::Misalignment* found, void* pointer) {
  using namespace heddle::sim;  // NOLINT: one function
  if (current_thread == nullptr || inside) return;
  inside = true;
  race_checker().misaligned(self(), pointer, size_t{1} << found->log_alignment, found->kind == 1, found->type->name,
                            {found->file, static_cast<int>(found->line), ""});
  inside = false;
}

void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_ignore_thread_begin() {}
void __tsan_ignore_thread_end() {}
void __tsan_vptr_update(void**, void*) {}
void __tsan_vptr_read(void**) {}

// Atomics of the C++ library (shared_ptr counts, statics' guards); kernels use CUDA's, which are not instrumented.
#define HEDDLE_ATOMIC(bits, T)                                                              \
  T __tsan_atomic##bits##_load(const volatile T* p, int) {                                  \
    return __atomic_load_n(p, __ATOMIC_SEQ_CST);                                            \
  }                                                                                         \
  void __tsan_atomic##bits##_store(volatile T* p, T v, int) {                               \
    __atomic_store_n(p, v, __ATOMIC_SEQ_CST);                                               \
  }                                                                                         \
  T __tsan_atomic##bits##_exchange(volatile T* p, T v, int) {                               \
    return __atomic_exchange_n(p, v, __ATOMIC_SEQ_CST);                                     \
  }                                                                                         \
  T __tsan_atomic##bits##_fetch_add(volatile T* p, T v, int) {                              \
    return __atomic_fetch_add(p, v, __ATOMIC_SEQ_CST);                                      \
  }                                                                                         \
  T __tsan_atomic##bits##_fetch_sub(volatile T* p, T v, int) {                              \
    return __atomic_fetch_sub(p, v, __ATOMIC_SEQ_CST);                                      \
  }                                                                                         \
  T __tsan_atomic##bits##_fetch_and(volatile T* p, T v, int) {                              \
    return __atomic_fetch_and(p, v, __ATOMIC_SEQ_CST);                                      \
  }                                                                                         \
  T __tsan_atomic##bits##_fetch_or(volatile T* p, T v, int) {                               \
    return __atomic_fetch_or(p, v, __ATOMIC_SEQ_CST);                                       \
  }                                                                                         \
  T __tsan_atomic##bits##_fetch_xor(volatile T* p, T v, int) {                              \
    return __atomic_fetch_xor(p, v, __ATOMIC_SEQ_CST);                                      \
  }                                                                                         \
  T __tsan_atomic##bits##_fetch_nand(volatile T* p, T v, int) {                             \
    return __atomic_fetch_nand(p, v, __ATOMIC_SEQ_CST);                                     \
  }                                                                                         \
  int __tsan_atomic##bits##_compare_exchange_strong(volatile T* p, T* e, T d, int, int) {   \
    return __atomic_compare_exchange_n(p, e, d, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST); \
  }                                                                                         \
  int __tsan_atomic##bits##_compare_exchange_weak(volatile T* p, T* e, T d, int, int) {     \
    return __atomic_compare_exchange_n(p, e, d, true, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);  \
  }                                                                                         \
  T __tsan_atomic##bits##_compare_exchange_val(volatile T* p, T e, T d, int, int) {         \
    __atomic_compare_exchange_n(p, &e, d, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);       \
    return e;                                                                               \
  }
HEDDLE_ATOMIC(8, uint8_t)
HEDDLE_ATOMIC(16, uint16_t)
HEDDLE_ATOMIC(32, uint32_t)
HEDDLE_ATOMIC(64, uint64_t)

void __tsan_atomic_thread_fence(int) {
  __atomic_thread_fence(__ATOMIC_SEQ_CST);
}
void __tsan_atomic_signal_fence(int) {
  __atomic_signal_fence(__ATOMIC_SEQ_CST);
}

}  // extern "C"
