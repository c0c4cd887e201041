// Instructions of one thread: loads, stores, atomics, fences, cp.async, arithmetic.
#include <cmath>

#include "kernels/sim/ptx/ptx_internal.h"

namespace heddle::ptx {

using sim::Order;
using sim::Scope;
using sim::Site;

// ---- 16-byte accesses ----

namespace {

uint4 load_global(const void* global, const Site& site) {
  require_aligned(global, 16, "the address", site);
  sim::note_read(global, 16, site);
  return load<uint4>(global);
}
void store_global(void* global, const uint4& value, const Site& site) {
  require_aligned(global, 16, "the address", site);
  sim::note_write(global, 16, site);
  std::memcpy(global, &value, sizeof value);
}

}  // namespace

uint4 ld128(const void* global, Where at) {
  return load_global(global, at.op("ld.global.v4"));
}
uint4 ld128_read_once(const void* global, Where at) {
  return load_global(global, at.op("ld.global.nc.v4"));
}
uint4 ld128_hinted(const void* global, L2Policy, Where at) {
  return load_global(global, at.op("ld.global.L2::cache_hint.v4"));
}
void st128(void* global, uint4 value, Where at) {
  store_global(global, value, at.op("st.global.v4"));
}
void st128_streaming(void* global, uint4 value, Where at) {
  store_global(global, value, at.op("st.global.cs.v4"));
}
void st128_hinted(void* global, uint4 value, L2Policy, Where at) {
  store_global(global, value, at.op("st.global.L2::cache_hint.v4"));
}
uint2 ld64(const void* global, Where at) {
  const Site site = at.op("ld.global.v2");
  require_aligned(global, 8, "the address", site);
  sim::note_read(global, 8, site);
  return load<uint2>(global);
}
void st64(void* global, uint2 value, Where at) {
  const Site site = at.op("st.global.v2");
  require_aligned(global, 8, "the address", site);
  sim::note_write(global, 8, site);
  std::memcpy(global, &value, sizeof value);
}
uint4 ld128_shared(uint32_t smem, Where at) {
  const Site site = at.op("ld.shared.v4");
  const std::byte* from = own_shared(smem, 16, 16, site);
  sim::note_read(from, 16, site);
  return load<uint4>(from);
}
void st128_shared(uint32_t smem, uint4 value, Where at) {
  const Site site = at.op("st.shared.v4");
  std::byte* to = own_shared(smem, 16, 16, site);
  sim::note_write(to, 16, site);
  std::memcpy(to, &value, sizeof value);
}

void st64_shared(uint32_t smem, uint2 value, Where at) {
  const Site site = at.op("st.shared.v2");
  std::byte* to = own_shared(smem, 8, 8, site);
  sim::note_write(to, 8, site);
  std::memcpy(to, &value, sizeof value);
}

uint32_t ld_cluster(uint32_t cluster_smem, Where at) {
  const Site site = at.op("ld.shared::cluster");
  require_aligned(cluster_smem, 4, "the shared address", site);
  const std::byte* from = sim::shared_pointer(cluster_smem, 4, site);
  sim::note_read(from, 4, site);
  return load<uint32_t>(from);
}
void st_cluster(uint32_t cluster_smem, uint32_t value, Where at) {
  const Site site = at.op("st.shared::cluster");
  require_aligned(cluster_smem, 4, "the shared address", site);
  std::byte* to = sim::shared_pointer(cluster_smem, 4, site);
  sim::note_write(to, 4, site);
  std::memcpy(to, &value, sizeof value);
}

// Policies are opaque; these values only differ from each other.
L2Policy policy_evict_first(Where) {
  return L2Policy{1};
}
L2Policy policy_evict_last(Where) {
  return L2Policy{2};
}

// ---- atomics ----

namespace {

uint64_t add_u32(uint64_t old, uint64_t by) {
  return static_cast<uint32_t>(old + by);
}
uint64_t add_f32(uint64_t old, uint64_t by) {
  return std::bit_cast<uint32_t>(std::bit_cast<float>(static_cast<uint32_t>(old)) + std::bit_cast<float>(static_cast<uint32_t>(by)));
}
uint32_t update(void* word, sim::AtomicFunction f, uint32_t by, Order order, Scope scope, const Site& site) {
  require_aligned(word, 4, "the address", site);
  return static_cast<uint32_t>(sim::atomic_update(word, 4, f, by, order, scope, site));
}

}  // namespace

uint32_t ld_acquire_gpu(const uint32_t* global, Where at) {
  const Site site = at.op("ld.acquire.gpu");
  require_aligned(global, 4, "the address", site);
  return static_cast<uint32_t>(sim::atomic_load(global, 4, Order::acquire, Scope::device, site));
}
void st_release_gpu(uint32_t* global, uint32_t value, Where at) {
  const Site site = at.op("st.release.gpu");
  require_aligned(global, 4, "the address", site);
  sim::atomic_store(global, 4, value, Order::release, Scope::device, site);
}
void red_add_release_gpu(uint32_t* global, uint32_t value, Where at) {
  update(global, add_u32, value, Order::release, Scope::device, at.op("red.release.gpu.add"));
}
uint32_t atom_add_acq_rel_gpu(uint32_t* global, uint32_t value, Where at) {
  return update(global, add_u32, value, Order::acq_rel, Scope::device, at.op("atom.acq_rel.gpu.add"));
}
uint32_t atom_cas_acq_rel_gpu(uint32_t* global, uint32_t expected, uint32_t value, Where at) {
  const Site site = at.op("atom.acq_rel.gpu.cas");
  require_aligned(global, 4, "the address", site);
  return static_cast<uint32_t>(sim::atomic_compare_exchange(global, 4, expected, value, Order::acq_rel, Scope::device, site));
}
uint32_t atom_add(uint32_t* global, uint32_t value, Where at) {
  return update(global, add_u32, value, Order::relaxed, Scope::device, at.op("atom.add"));
}
float atom_add_f32(float* global, float value, Where at) {
  return std::bit_cast<float>(update(global, add_f32, std::bit_cast<uint32_t>(value), Order::relaxed, Scope::device, at.op("atom.add.f32")));
}
void red_add_f32(float* global, float value, Where at) {
  update(global, add_f32, std::bit_cast<uint32_t>(value), Order::relaxed, Scope::device, at.op("red.add.f32"));
}
void red_add_v4_f32(float* global, float4 value, Where at) {
  const Site site = at.op("red.add.v4.f32");
  require_aligned(global, 16, "the address", site);
  const float parts[4] = {value.x, value.y, value.z, value.w};
  for (int i = 0; i < 4; ++i) update(global + i, add_f32, std::bit_cast<uint32_t>(parts[i]), Order::relaxed, Scope::device, site);
}
void red_add_f32_shared(uint32_t smem, float value, Where at) {
  const Site site = at.op("red.shared.add.f32");
  update(own_shared(smem, 4, 4, site), add_f32, std::bit_cast<uint32_t>(value), Order::relaxed, Scope::block, site);
}
uint32_t atom_add_shared(uint32_t smem, uint32_t value, Where at) {
  const Site site = at.op("atom.shared.add");
  return update(own_shared(smem, 4, 4, site), add_u32, value, Order::relaxed, Scope::block, site);
}

void fence_cta(Where at) {
  sim::note_fence(Order::acq_rel, Scope::block, at.op("fence.acq_rel.cta"));
}
void fence_cluster(Where at) {
  sim::note_fence(Order::acq_rel, Scope::cluster, at.op("fence.acq_rel.cluster"));
}
void fence_gpu(Where at) {
  sim::note_fence(Order::acq_rel, Scope::device, at.op("fence.acq_rel.gpu"));
}

// ---- cp.async ----

void detail::cp_async(uint32_t smem, const void* global, uint32_t bytes, uint32_t source_bytes, Where at) {
  const Site site = at.op(bytes == 16 ? "cp.async.cg" : "cp.async.ca");
  std::byte* to = own_shared(smem, bytes, bytes, site);
  require_aligned(global, bytes, "the global address", site);
  if (source_bytes > bytes) {
    sim::fault("cp.async size", "it copies at most " + std::to_string(bytes) + " bytes, source_bytes is " + std::to_string(source_bytes), site);
  }
  sim::copy_async(to, global, bytes, source_bytes, site);
}
void cp_async_commit(Where at) {
  sim::copy_async_commit(at.op("cp.async.commit_group"));
}
void detail::cp_async_wait(uint32_t pending, Where at) {
  sim::copy_async_wait(pending, at.op("cp.async.wait_group"));
}
void cp_async_arrive_noinc(uint32_t mbarrier, Where at) {
  sim::copy_async_arrive(mbarrier, true, at.op("cp.async.mbarrier.arrive.noinc"));
}

// ---- arithmetic ----
// The approximations are computed exactly and rounded; only what .ftz does to subnormals is kept.

namespace {
float flushed(float x) {
  return std::fpclassify(x) == FP_SUBNORMAL ? std::copysign(0.0f, x) : x;
}
}  // namespace

float ex2(float x) {
  return flushed(std::exp2(flushed(x)));
}
float lg2(float x) {
  return flushed(std::log2(flushed(x)));
}
float rcp(float x) {
  return flushed(1.0f / flushed(x));
}
float rsqrt(float x) {
  return flushed(1.0f / std::sqrt(flushed(x)));
}
float tanh(float x) {
  return std::tanh(x);
}

uint32_t bf16_bits(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7FFFFFFFu) > 0x7F800000u) return 0x7FFF;
  return (bits + 0x7FFFu + (bits >> 16 & 1u)) >> 16;
}
uint32_t f16_bits(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value), sign = bits >> 16 & 0x8000u;
  const float magnitude = std::bit_cast<float>(bits & 0x7FFFFFFFu);
  if (std::isnan(value)) return 0x7FFF;
  if (magnitude >= 65520.0f) return sign | 0x7C00u;  // halfway beyond the largest half
  if (magnitude < 6.103515625e-05f) {                // 2^-14: subnormal halves are multiples of 2^-24
    return sign | static_cast<uint32_t>(std::nearbyint(std::ldexp(magnitude, 24)));
  }
  const uint32_t rounded = (bits & 0x7FFFFFFFu) + 0xFFFu + (bits >> 13 & 1u);
  return sign | ((rounded >> 13) - (112u << 10));  // exponent bias 127 to 15
}
float f16_value(uint32_t half) {
  const uint32_t exponent = half >> 10 & 31u, mantissa = half & 0x3FFu;
  float magnitude;
  if (exponent == 0) {
    magnitude = std::ldexp(static_cast<float>(mantissa), -24);
  } else {
    magnitude = std::bit_cast<float>((exponent == 31 ? 0xFFu : exponent + 112u) << 23 | mantissa << 13);
  }
  return (half & 0x8000u) != 0 ? -magnitude : magnitude;
}

uint32_t cvt_bf16x2(float low, float high) {
  return bf16_bits(low) | bf16_bits(high) << 16;
}
uint32_t cvt_f16x2(float low, float high) {
  return f16_bits(low) | f16_bits(high) << 16;
}
uint32_t cvt_tf32(float x) {
  const uint32_t bits = std::bit_cast<uint32_t>(x);
  if ((bits & 0x7FFFFFFFu) >= 0x7F800000u) return bits;
  return (bits + 0x1000u) & 0xFFFFE000u;
}

}  // namespace heddle::ptx
