// CUDA's built-ins for code that runs on the simulated machine: variables, warp functions, barriers, fences, atomics, device maths.
//
// Names, arguments and results are those of the CUDA C++ Programming Guide ("C++ Language Extensions") and the CUDA Math API; a hidden last argument
// is the caller's source line. Only what kernels here use. __activemask is absent on purpose: which lanes happen to run together is no programming
// model. Included by kernels/arch/platform.h in place of nvcc's own.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <type_traits>

#include "kernels/sim/core/machine.h"

// Code compiled with -fsanitize=thread reports every load and store (the check flavour).
#if defined(__SANITIZE_THREAD__)
#define HEDDLE_SIM_INSTRUMENTED 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define HEDDLE_SIM_INSTRUMENTED 1
#endif
#endif

namespace heddle::sim {

// ---- built-in variables ----
// Out of line for instrumented code, where reading them would be reported too. A frame of a kernel belongs to one thread for ever, so the compiler
// may remember the answer.
uint3 thread_index_out_of_line() __attribute__((const));
uint3 block_index_out_of_line() __attribute__((const));
dim3 block_dim_out_of_line() __attribute__((const));
dim3 grid_dim_out_of_line() __attribute__((const));
std::byte* dynamic_shared() __attribute__((const));

#ifdef HEDDLE_SIM_INSTRUMENTED
inline __attribute__((always_inline)) uint3 thread_index() {
  return thread_index_out_of_line();
}
inline __attribute__((always_inline)) uint3 block_index() {
  return block_index_out_of_line();
}
inline __attribute__((always_inline)) dim3 block_dim() {
  return block_dim_out_of_line();
}
inline __attribute__((always_inline)) dim3 grid_dim() {
  return grid_dim_out_of_line();
}
#else
inline __attribute__((always_inline)) uint3 thread_index() {
  const Index3& i = current_thread->index;
  return {i.x, i.y, i.z};
}
inline __attribute__((always_inline)) uint3 block_index() {
  const Index3& i = current_thread->block->index;
  return {i.x, i.y, i.z};
}
inline __attribute__((always_inline)) dim3 block_dim() {
  const Index3& i = current_geometry->block;
  return {i.x, i.y, i.z};
}
inline __attribute__((always_inline)) dim3 grid_dim() {
  const Index3& i = current_geometry->grid;
  return {i.x, i.y, i.z};
}
#endif

// ---- what the templates below stand on; values travel as bits, so that nothing is instantiated in instrumented code ----
enum class Shuffle : uint8_t { index, up, down, exclusive_or };
uint64_t shuffle(Shuffle kind, uint32_t mask, uint64_t bits, int lane_argument, int width, const Site& site);
uint32_t ballot(uint32_t mask, bool predicate, const Site& site);
enum class Reduction : uint8_t { add, min_signed, max_signed, min_unsigned, max_unsigned, bit_and, bit_or, bit_xor };
uint32_t reduce(Reduction kind, uint32_t mask, uint32_t value, const Site& site);
uint32_t match_any(uint32_t mask, uint64_t bits, const Site& site);

// *pointer = f(*pointer, operand), indivisible; returns the old value. bytes: 2, 4 or 8.
using AtomicFunction = uint64_t (*)(uint64_t old, uint64_t operand);
uint64_t atomic_update(void* pointer, size_t bytes, AtomicFunction f, uint64_t operand, Order order, Scope scope, const Site& site);
uint64_t atomic_compare_exchange(void* pointer, size_t bytes, uint64_t expected, uint64_t desired, Order order, Scope scope, const Site& site);
uint64_t atomic_load(const void* pointer, size_t bytes, Order order, Scope scope, const Site& site);
void atomic_store(void* pointer, size_t bytes, uint64_t value, Order order, Scope scope, const Site& site);

template <class T>
uint64_t to_bits(const T& value) {
  static_assert(std::is_trivially_copyable_v<T> && sizeof(T) <= 8);
  uint64_t bits = 0;
  std::memcpy(&bits, static_cast<const void*>(&value), sizeof(T));
  return bits;
}
template <class T>
T from_bits(uint64_t bits) {
  T value;
  std::memcpy(static_cast<void*>(&value), &bits, sizeof(T));
  return value;
}

template <class T, class F>
T atomic(T* pointer, T operand, F, const Site& site) {
  const AtomicFunction f = [](uint64_t old, uint64_t by) { return to_bits<T>(F{}(from_bits<T>(old), from_bits<T>(by))); };
  return from_bits<T>(atomic_update(pointer, sizeof(T), f, to_bits(operand), Order::relaxed, Scope::device, site));
}

// Types that CUDA's shuffles and votes take.
template <class T>
concept Shufflable = std::is_trivially_copyable_v<T> &&(sizeof(T) == 2 || sizeof(T) == 4 || sizeof(T) == 8);

}  // namespace heddle::sim

// ---- warps ----

inline void __syncwarp(unsigned mask = 0xffffffffu, heddle::sim::Where where = heddle::sim::Where::here()) {
  heddle::sim::collect(mask, nullptr, nullptr, where.op("__syncwarp"), heddle::sim::Ordering::memory);
}
template <heddle::sim::Shufflable T>
T __shfl_sync(unsigned mask, T value, int lane, int width = 32, heddle::sim::Where where = heddle::sim::Where::here()) {
  using namespace heddle::sim;
  return from_bits<T>(shuffle(Shuffle::index, mask, to_bits(value), lane, width, where.op("__shfl_sync")));
}
template <heddle::sim::Shufflable T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, heddle::sim::Where where = heddle::sim::Where::here()) {
  using namespace heddle::sim;
  return from_bits<T>(shuffle(Shuffle::up, mask, to_bits(value), static_cast<int>(delta), width, where.op("__shfl_up_sync")));
}
template <heddle::sim::Shufflable T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, heddle::sim::Where where = heddle::sim::Where::here()) {
  using namespace heddle::sim;
  return from_bits<T>(shuffle(Shuffle::down, mask, to_bits(value), static_cast<int>(delta), width, where.op("__shfl_down_sync")));
}
template <heddle::sim::Shufflable T>
T __shfl_xor_sync(unsigned mask, T value, int lane_mask, int width = 32, heddle::sim::Where where = heddle::sim::Where::here()) {
  using namespace heddle::sim;
  return from_bits<T>(shuffle(Shuffle::exclusive_or, mask, to_bits(value), lane_mask, width, where.op("__shfl_xor_sync")));
}
inline unsigned __ballot_sync(unsigned mask, int predicate, heddle::sim::Where where = heddle::sim::Where::here()) {
  return heddle::sim::ballot(mask, predicate != 0, where.op("__ballot_sync"));
}
inline int __any_sync(unsigned mask, int predicate, heddle::sim::Where where = heddle::sim::Where::here()) {
  return heddle::sim::ballot(mask, predicate != 0, where.op("__any_sync")) != 0;
}
inline int __all_sync(unsigned mask, int predicate, heddle::sim::Where where = heddle::sim::Where::here()) {
  return heddle::sim::ballot(mask, predicate == 0, where.op("__all_sync")) == 0;
}
template <heddle::sim::Shufflable T>
unsigned __match_any_sync(unsigned mask, T value, heddle::sim::Where where = heddle::sim::Where::here()) {
  return heddle::sim::match_any(mask, heddle::sim::to_bits(value), where.op("__match_any_sync"));
}
inline unsigned __reduce_add_sync(unsigned mask, unsigned value, heddle::sim::Where where = heddle::sim::Where::here()) {
  return heddle::sim::reduce(heddle::sim::Reduction::add, mask, value, where.op("__reduce_add_sync"));
}
inline int __reduce_add_sync(unsigned mask, int value, heddle::sim::Where where = heddle::sim::Where::here()) {
  return static_cast<int>(heddle::sim::reduce(heddle::sim::Reduction::add, mask, static_cast<unsigned>(value), where.op("__reduce_add_sync")));
}
inline unsigned __reduce_min_sync(unsigned mask, unsigned value, heddle::sim::Where where = heddle::sim::Where::here()) {
  return heddle::sim::reduce(heddle::sim::Reduction::min_unsigned, mask, value, where.op("__reduce_min_sync"));
}
inline int __reduce_min_sync(unsigned mask, int value, heddle::sim::Where where = heddle::sim::Where::here()) {
  return static_cast<int>(heddle::sim::reduce(heddle::sim::Reduction::min_signed, mask, static_cast<unsigned>(value), where.op("__reduce_min_sync")));
}
inline unsigned __reduce_max_sync(unsigned mask, unsigned value, heddle::sim::Where where = heddle::sim::Where::here()) {
  return heddle::sim::reduce(heddle::sim::Reduction::max_unsigned, mask, value, where.op("__reduce_max_sync"));
}
inline int __reduce_max_sync(unsigned mask, int value, heddle::sim::Where where = heddle::sim::Where::here()) {
  return static_cast<int>(heddle::sim::reduce(heddle::sim::Reduction::max_signed, mask, static_cast<unsigned>(value), where.op("__reduce_max_sync")));
}
inline unsigned __reduce_and_sync(unsigned mask, unsigned value, heddle::sim::Where where = heddle::sim::Where::here()) {
  return heddle::sim::reduce(heddle::sim::Reduction::bit_and, mask, value, where.op("__reduce_and_sync"));
}
inline unsigned __reduce_or_sync(unsigned mask, unsigned value, heddle::sim::Where where = heddle::sim::Where::here()) {
  return heddle::sim::reduce(heddle::sim::Reduction::bit_or, mask, value, where.op("__reduce_or_sync"));
}
inline unsigned __reduce_xor_sync(unsigned mask, unsigned value, heddle::sim::Where where = heddle::sim::Where::here()) {
  return heddle::sim::reduce(heddle::sim::Reduction::bit_xor, mask, value, where.op("__reduce_xor_sync"));
}

// ---- blocks, fences ----

inline void __syncthreads(heddle::sim::Where where = heddle::sim::Where::here()) {
  heddle::sim::barrier_sync(0, 0, where.op("__syncthreads"));
}
inline int __syncthreads_count(int predicate, heddle::sim::Where where = heddle::sim::Where::here()) {
  return static_cast<int>(heddle::sim::barrier_count(predicate != 0, where.op("__syncthreads_count")));
}
inline int __syncthreads_or(int predicate, heddle::sim::Where where = heddle::sim::Where::here()) {
  return heddle::sim::barrier_count(predicate != 0, where.op("__syncthreads_or")) != 0;
}
inline int __syncthreads_and(int predicate, heddle::sim::Where where = heddle::sim::Where::here()) {
  return heddle::sim::barrier_count(predicate == 0, where.op("__syncthreads_and")) == 0;
}
inline void __threadfence_block(heddle::sim::Where where = heddle::sim::Where::here()) {
  heddle::sim::note_fence(heddle::sim::Order::acq_rel, heddle::sim::Scope::block, where.op("__threadfence_block"));
}
inline void __threadfence(heddle::sim::Where where = heddle::sim::Where::here()) {
  heddle::sim::note_fence(heddle::sim::Order::acq_rel, heddle::sim::Scope::device, where.op("__threadfence"));
}
inline void __threadfence_system(heddle::sim::Where where = heddle::sim::Where::here()) {
  heddle::sim::note_fence(heddle::sim::Order::acq_rel, heddle::sim::Scope::system, where.op("__threadfence_system"));
}
[[noreturn]] inline void __trap(heddle::sim::Where where = heddle::sim::Where::here()) {
  heddle::sim::fault("trap", "the kernel gave up", where.op("__trap"));
}

// ---- atomics: relaxed, device scope, as CUDA's are ----

template <class T>
requires std::is_arithmetic_v<T> T atomicAdd(T* p, std::type_identity_t<T> value, heddle::sim::Where where = heddle::sim::Where::here()) {
  return heddle::sim::atomic(
      p, value, [](T a, T b) { return static_cast<T>(a + b); }, where.op("atomicAdd"));
}
inline __nv_bfloat16 atomicAdd(__nv_bfloat16* p, __nv_bfloat16 value, heddle::sim::Where where = heddle::sim::Where::here()) {
  const auto add = [](__nv_bfloat16 a, __nv_bfloat16 b) { return __float2bfloat16_rn(__bfloat162float(a) + __bfloat162float(b)); };
  return heddle::sim::atomic(p, value, add, where.op("atomicAdd"));
}
template <class T>
requires std::is_integral_v<T> T atomicSub(T* p, std::type_identity_t<T> value, heddle::sim::Where where = heddle::sim::Where::here()) {
  return heddle::sim::atomic(
      p, value, [](T a, T b) { return static_cast<T>(a - b); }, where.op("atomicSub"));
}
template <class T>
requires std::is_arithmetic_v<T> T atomicExch(T* p, std::type_identity_t<T> value, heddle::sim::Where where = heddle::sim::Where::here()) {
  return heddle::sim::atomic(
      p, value, [](T, T b) { return b; }, where.op("atomicExch"));
}
template <class T>
requires std::is_integral_v<T> T atomicMin(T* p, std::type_identity_t<T> value, heddle::sim::Where where = heddle::sim::Where::here()) {
  return heddle::sim::atomic(
      p, value, [](T a, T b) { return b < a ? b : a; }, where.op("atomicMin"));
}
template <class T>
requires std::is_integral_v<T> T atomicMax(T* p, std::type_identity_t<T> value, heddle::sim::Where where = heddle::sim::Where::here()) {
  return heddle::sim::atomic(
      p, value, [](T a, T b) { return b > a ? b : a; }, where.op("atomicMax"));
}
template <class T>
requires std::is_integral_v<T> T atomicAnd(T* p, std::type_identity_t<T> value, heddle::sim::Where where = heddle::sim::Where::here()) {
  return heddle::sim::atomic(
      p, value, [](T a, T b) { return static_cast<T>(a & b); }, where.op("atomicAnd"));
}
template <class T>
requires std::is_integral_v<T> T atomicOr(T* p, std::type_identity_t<T> value, heddle::sim::Where where = heddle::sim::Where::here()) {
  return heddle::sim::atomic(
      p, value, [](T a, T b) { return static_cast<T>(a | b); }, where.op("atomicOr"));
}
template <class T>
requires std::is_integral_v<T> T atomicXor(T* p, std::type_identity_t<T> value, heddle::sim::Where where = heddle::sim::Where::here()) {
  return heddle::sim::atomic(
      p, value, [](T a, T b) { return static_cast<T>(a ^ b); }, where.op("atomicXor"));
}
inline unsigned atomicInc(unsigned* p, unsigned limit, heddle::sim::Where where = heddle::sim::Where::here()) {
  return heddle::sim::atomic(
      p, limit, [](unsigned old, unsigned last) { return old >= last ? 0u : old + 1; }, where.op("atomicInc"));
}
template <class T>
requires std::is_integral_v<T> T atomicCAS(T* p, std::type_identity_t<T> expected, std::type_identity_t<T> desired,
                                           heddle::sim::Where where = heddle::sim::Where::here()) {
  using namespace heddle::sim;
  return from_bits<T>(
      atomic_compare_exchange(p, sizeof(T), to_bits(expected), to_bits(desired), Order::relaxed, Scope::device, where.op("atomicCAS")));
}

// ---- device maths that hosts lack; approximations are computed exactly, so tests must not expect their errors ----

inline float rsqrtf(float x) {
  return 1.0f / std::sqrt(x);
}
inline float __frsqrt_rn(float x) {
  return 1.0f / std::sqrt(x);
}
inline float __frcp_rn(float x) {
  return 1.0f / x;
}
inline float __fdividef(float a, float b) {
  return a / b;
}
inline float __expf(float x) {
  return std::exp(x);
}
inline float __logf(float x) {
  return std::log(x);
}
inline float __log2f(float x) {
  return std::log2(x);
}
inline float __sinf(float x) {
  return std::sin(x);
}
inline float __cosf(float x) {
  return std::cos(x);
}
inline float __fmaf_rn(float a, float b, float c) {
  return std::fma(a, b, c);
}
inline float __fadd_rn(float a, float b) {
  return a + b;
}
inline float __fmul_rn(float a, float b) {
  return a * b;
}
inline float __saturatef(float x) {
  return x > 0.0f ? (x < 1.0f ? x : 1.0f) : 0.0f;  // NaN gives 0
}
inline int __float2int_rn(float x) {
  return static_cast<int>(std::nearbyint(x));
}
inline unsigned __float_as_uint(float x) {
  return std::bit_cast<unsigned>(x);
}
inline int __float_as_int(float x) {
  return std::bit_cast<int>(x);
}
inline float __uint_as_float(unsigned x) {
  return std::bit_cast<float>(x);
}
inline float __int_as_float(int x) {
  return std::bit_cast<float>(x);
}
inline int __popc(unsigned x) {
  return std::popcount(x);
}
inline int __popcll(unsigned long long x) {
  return std::popcount(x);
}
inline int __clz(int x) {
  return std::countl_zero(static_cast<unsigned>(x));
}
inline int __clzll(long long x) {
  return std::countl_zero(static_cast<unsigned long long>(x));
}
inline int __ffs(int x) {
  return x == 0 ? 0 : std::countr_zero(static_cast<unsigned>(x)) + 1;
}
inline unsigned __umulhi(unsigned a, unsigned b) {
  return static_cast<unsigned>((static_cast<unsigned long long>(a) * b) >> 32);
}
template <class T>
T __ldg(const T* p) {
  return *p;
}
template <class T>
T __ldcs(const T* p) {
  return *p;
}
template <class T>
void __stcs(T* p, T value) {
  *p = value;
}
template <class T>
requires std::is_arithmetic_v<T> T min(T a, T b) {
  return b < a ? b : a;
}
template <class T>
requires std::is_arithmetic_v<T> T max(T a, T b) {
  return a < b ? b : a;
}
