// The types kernels speak: dtype, device, stream, View, Sink. No Tensor, no allocation, std only.
#pragma once

#include <array>
#include <bit>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>
#include <type_traits>

#if defined(__CUDACC__)
#define HEDDLE_HOST_DEVICE __host__ __device__
#else
#define HEDDLE_HOST_DEVICE
#endif

namespace heddle {

enum class DType : uint8_t { f32, bf16, f64, i32, u16, u8 };  // f64 only on the CPU: gradient checks and oracles

constexpr int64_t size_of(DType dtype) {
  switch (dtype) {
    case DType::f64: return 8;
    case DType::f32:
    case DType::i32: return 4;
    case DType::bf16:
    case DType::u16: return 2;
    case DType::u8: return 1;
  }
  return 0;
}

constexpr std::string_view name_of(DType dtype) {
  switch (dtype) {
    case DType::f64: return "f64";
    case DType::f32: return "f32";
    case DType::i32: return "i32";
    case DType::bf16: return "bf16";
    case DType::u16: return "u16";
    case DType::u8: return "u8";
  }
  return "?";
}

constexpr bool is_floating(DType dtype) {
  return dtype == DType::f32 || dtype == DType::bf16 || dtype == DType::f64;
}

// The dtype sums are kept in: bf16 and f32 accumulate in f32, f64 in f64.
constexpr DType accumulator_of(DType dtype) {
  return dtype == DType::f64 ? DType::f64 : DType::f32;
}

// bfloat16: the upper half of an IEEE f32, rounded to nearest even. NaN stays NaN (quiet).
struct bf16 {
  uint16_t bits = 0;

  bf16() = default;
  HEDDLE_HOST_DEVICE constexpr explicit bf16(float value) {
    const uint32_t u = std::bit_cast<uint32_t>(value);
    const bool is_nan = (u & 0x7fffffffu) > 0x7f800000u;
    bits = is_nan ? static_cast<uint16_t>((u >> 16) | 0x40u) : static_cast<uint16_t>((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
  }
  HEDDLE_HOST_DEVICE constexpr explicit operator float() const { return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16); }
};
static_assert(sizeof(bf16) == 2);

template <class T>
inline constexpr DType dtype_of = [] {
  static_assert(sizeof(T) == 0, "not a heddle dtype");
  return DType::u8;
}();
template <>
inline constexpr DType dtype_of<float> = DType::f32;
template <>
inline constexpr DType dtype_of<double> = DType::f64;
template <>
inline constexpr DType dtype_of<bf16> = DType::bf16;
template <>
inline constexpr DType dtype_of<int32_t> = DType::i32;
template <>
inline constexpr DType dtype_of<uint16_t> = DType::u16;
template <>
inline constexpr DType dtype_of<uint8_t> = DType::u8;

enum class DeviceType : uint8_t { cpu, cuda };  // a simulated GPU is a build, not a device type

struct Device {
  DeviceType type = DeviceType::cpu;
  int index = 0;
  auto operator<=>(const Device&) const = default;
};

inline std::string name_of(Device device) {
  return device.type == DeviceType::cpu ? std::string("cpu") : "cuda:" + std::to_string(device.index);
}

// Where work is queued. `native` is the CUDA stream, unseen by headers; CPU work runs at once, in order.
struct Stream {
  Device device;
  void* native = nullptr;
};

// A typed window on memory somebody else owns. Strides count elements; the last stride is 1.
// Rank 0 is a scalar. A default View (data == nullptr) means "absent".
struct View {
  static constexpr int kMaxRank = 4;

  std::byte* data = nullptr;
  DType dtype = DType::f32;
  int rank = 0;
  std::array<int64_t, kMaxRank> shape{}, stride{};

  explicit operator bool() const { return data != nullptr; }
  int64_t size(int axis) const { return shape[axis < 0 ? rank + axis : axis]; }
  int64_t step(int axis) const { return stride[axis < 0 ? rank + axis : axis]; }
  int64_t numel() const {
    int64_t n = 1;
    for (int i = 0; i < rank; ++i) n *= shape[i];
    return n;
  }
  int64_t bytes() const { return numel() * size_of(dtype); }
  bool contiguous() const {
    int64_t expected = 1;
    for (int i = rank - 1; i >= 0; --i) {
      if (shape[i] != 1 && stride[i] != expected) return false;
      expected *= shape[i];
    }
    return true;
  }
  // Unchecked element pointer; the caller has looked at dtype.
  template <class T>
  T* as() const {
    return reinterpret_cast<T*>(data);
  }
};

// A dense row-major View.
inline View make_view(void* data, DType dtype, std::initializer_list<int64_t> shape) {
  View v;
  v.data = static_cast<std::byte*>(data);
  v.dtype = dtype;
  v.rank = static_cast<int>(shape.size());
  int i = 0;
  for (int64_t n : shape) v.shape[i++] = n;
  int64_t step = 1;
  for (int axis = v.rank - 1; axis >= 0; --axis) {
    v.stride[axis] = step;
    step *= v.shape[axis];
  }
  return v;
}

template <class T>
View make_view(T* data, std::initializer_list<int64_t> shape) {
  return make_view(const_cast<std::remove_const_t<T>*>(data), dtype_of<std::remove_const_t<T>>, shape);
}

// "f32 (4, 96)" for messages.
std::string shape_text(const View& view);

// How every gradient leaves a kernel: written ("=") or added ("+="). A default Sink (no view) means "not wanted".
struct Sink {
  View to;
  bool accumulate = false;

  explicit operator bool() const { return static_cast<bool>(to); }
};

}  // namespace heddle
