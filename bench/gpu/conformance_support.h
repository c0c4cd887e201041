// What the cases share: device memory, operands, launching.
#pragma once

#include <random>
#include <type_traits>
#include <vector>

#include "bench/gpu/conformance.h"
#include "kernels/arch/platform.h"
#include "tests/sim/ptx_kernels.h"

namespace heddle::bench {

// An array in device memory.
template <class T>
class Array {
 public:
  explicit Array(const std::vector<T>& values) : Array(values.size()) {
    check_cuda(cudaMemcpy(data_, values.data(), values.size() * sizeof(T), cudaMemcpyHostToDevice), "cudaMemcpy");
  }
  Array(size_t n, int byte) : Array(n) { check_cuda(cudaMemset(data_, byte, n * sizeof(T)), "cudaMemset"); }
  Array(const Array&) = delete;
  Array& operator=(const Array&) = delete;
  ~Array() { cudaFree(data_); }

  operator T*() const { return data_; }  // NOLINT: what a kernel takes
  Words words() const {
    check_cuda(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
    Words words(size_ * sizeof(T) / 4);
    check_cuda(cudaMemcpy(words.data(), data_, words.size() * 4, cudaMemcpyDeviceToHost), "cudaMemcpy");
    return words;
  }

 private:
  explicit Array(size_t n) : size_(n) {
    void* data = nullptr;
    check_cuda(cudaMalloc(&data, n * sizeof(T)), "cudaMalloc");
    data_ = static_cast<T*>(data);
  }
  T* data_ = nullptr;
  size_t size_;
};

inline LaunchShape one_block(unsigned threads, size_t shared_bytes = 0) {
  LaunchShape shape;
  shape.block = dim3(threads);
  shape.shared_bytes = shared_bytes;
  return shape;
}
inline LaunchShape one_cluster(unsigned blocks, unsigned threads, size_t shared_bytes) {
  LaunchShape shape = one_block(threads, shared_bytes);
  shape.grid = shape.cluster = dim3(blocks);
  return shape;
}
template <class... Params>
void launch(const LaunchShape& shape, void (*kernel)(Params...), std::type_identity_t<Params>... args) {
  launch_kernel(kernel, "a conformance kernel", shape, Stream{}, args...);
}

// ---- operands: mt19937 is the same everywhere, the standard distributions are not ----

inline Words random_words(size_t n, unsigned seed) {
  std::mt19937 generator(seed);
  Words words(n);
  for (uint32_t& word : words) word = static_cast<uint32_t>(generator());
  return words;
}
// Integers of one digit: sums of their products are exact in fp32, whatever their order.
inline std::vector<float> small_integers(size_t n, unsigned seed) {
  std::mt19937 generator(seed);
  std::vector<float> values(n);
  for (float& value : values) value = static_cast<float>(static_cast<int>(generator() % 19) - 9);
  return values;
}
// Positive reals between 0.01 and 8.
inline std::vector<float> positive_reals(size_t n, unsigned seed) {
  std::mt19937 generator(seed);
  std::vector<float> values(n);
  for (float& value : values) value = 0.01f + static_cast<float>(generator() >> 8) * 0x1p-21f;
  return values;
}
inline uint32_t bits_of(float value) {
  return __builtin_bit_cast(uint32_t, value);
}
inline uint32_t bf16_bits(float exact) {
  return bits_of(exact) >> 16;
}
inline uint32_t f16_bits(float exact) {  // of normal values that f16 holds
  const uint32_t bits = bits_of(exact), exponent = bits >> 23 & 0xFF;
  return exponent == 0 ? 0 : (bits >> 16 & 0x8000) | (exponent - 127 + 15) << 10 | (bits >> 13 & 0x3FF);
}
template <class Encode>
Words pairs_of(size_t n, unsigned seed, Encode encode) {
  const std::vector<float> values = small_integers(2 * n, seed);
  Words words(n);
  for (size_t i = 0; i < n; ++i) words[i] = encode(values[2 * i]) | encode(values[2 * i + 1]) << 16;
  return words;
}
inline Words bf16_pairs(size_t n, unsigned seed) {
  return pairs_of(n, seed, bf16_bits);
}
inline Words words_of(const std::vector<float>& values) {
  Words words(values.size());
  for (size_t i = 0; i < values.size(); ++i) words[i] = bits_of(values[i]);
  return words;
}
inline void append(Words& to, const Words& more) {
  to.insert(to.end(), more.begin(), more.end());
}

}  // namespace heddle::bench
