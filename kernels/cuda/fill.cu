// fill on a GPU: the value's bits, 16 bytes a lane where the view allows it. Writes the view once.
#include "kernels/api/elementwise_rules.h"
#include "kernels/arch/ptx.h"
#include "kernels/cuda/map_walk.h"
#include "kernels/cuda/register.h"

namespace heddle::kernels::cuda {

inline constexpr int kFillThreads = 256, kFillPieces = 4;

struct FillParams {
  MapWalk<1> walk;
  std::byte* out;
  uint4 pattern;  // the value again and again
  int size;       // bytes of an element
  int width;      // elements of a unit: 16 bytes, or one
};

__global__ void __launch_bounds__(kFillThreads) fill_kernel(const FillParams p) {
#pragma unroll
  for (int i = 0; i < kFillPieces; ++i) {
    int64_t at[1];
    const int count = p.walk.locate((static_cast<int64_t>(blockIdx.x) * kFillPieces + i) * kFillThreads + threadIdx.x, p.width, at);
    std::byte* const to = p.out + at[0] * p.size;
    if (count > 0 && count * p.size == 16) {
      ptx::st128(to, p.pattern);
      continue;
    }
    for (int e = 0; e < count; ++e) {
      switch (p.size) {
        case 8: reinterpret_cast<uint64_t*>(to)[e] = uint64_t{p.pattern.y} << 32 | p.pattern.x; break;
        case 4: reinterpret_cast<uint32_t*>(to)[e] = p.pattern.x; break;
        case 2: reinterpret_cast<uint16_t*>(to)[e] = static_cast<uint16_t>(p.pattern.x); break;
        default: reinterpret_cast<uint8_t*>(to)[e] = static_cast<uint8_t>(p.pattern.x); break;
      }
    }
  }
}

namespace {

// The value as the dtype stores it, repeated over eight bytes.
uint64_t bits_of(DType dtype, double value) {
  switch (dtype) {
    case DType::f64: return std::bit_cast<uint64_t>(value);
    case DType::f32: return std::bit_cast<uint32_t>(static_cast<float>(value)) * uint64_t{0x1'0000'0001};
    case DType::i32: return static_cast<uint32_t>(static_cast<int32_t>(value)) * uint64_t{0x1'0000'0001};
    case DType::bf16: return bf16(static_cast<float>(value)).bits * uint64_t{0x1'0001'0001'0001};
    case DType::u16: return static_cast<uint16_t>(value) * uint64_t{0x1'0001'0001'0001};
    case DType::u8: return static_cast<uint8_t>(value) * uint64_t{0x101'0101'0101'0101};
  }
  return 0;
}

Refusal refuses(const FillArgs& args) {
  return contradiction(args);
}

void run(const FillArgs& args, Stream stream) {
  if (args.out.numel() == 0) return;
  const int size = static_cast<int>(size_of(args.out.dtype));
  const MapAxes<1> axes = map_axes<1>({args.out});
  const int width = moves_whole(axes, 0, args.out, 16 / size) ? 16 / size : 1;
  const uint64_t bits = bits_of(args.out.dtype, args.value);
  const uint32_t low = static_cast<uint32_t>(bits), high = static_cast<uint32_t>(bits >> 32);
  const FillParams p{MapWalk<1>(axes, width), args.out.data, make_uint4(low, high, low, high), size, width};
  constexpr int64_t kOfBlock = kFillThreads * kFillPieces;
  HEDDLE_LAUNCH(fill_kernel, static_cast<unsigned>((p.walk.units + kOfBlock - 1) / kOfBlock), kFillThreads, 0, stream, p);
}

}  // namespace

void register_fill() {
  fill.add(DeviceType::cuda, {"patterns", refuses, nullptr, run});
}

}  // namespace heddle::kernels::cuda
