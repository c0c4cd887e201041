// Normal numbers on a GPU: see kernels/api/random.h. Bound by double precision: Box-Muller as Philox::normal has it, so that a model starts from the
// same parameters on either device. Sine and cosine come from the bits of the angle, reduced exactly: libm's reduction would need local memory.
#include "kernels/api/elementwise_rules.h"
#include "kernels/cuda/philox_walk.cuh"
#include "kernels/cuda/refusals.h"
#include "kernels/cuda/register.h"

namespace heddle::kernels::cuda {

struct NormalParams {
  PhiloxWalk walk;
  std::byte* out;
  RngKey key;
  float mean, std;
  bool whole;
};

namespace thread {

// c = cos(2 pi b / 2^32), s = sin(2 pi b / 2^32), to the last bit or two of a double: the polynomials of fdlibm's __kernel_cos and __kernel_sin on
// an eighth of a turn to either side of the nearest quarter.
__device__ __forceinline__ void turn(uint32_t b, double& c, double& s) {
  const uint32_t quarter = (b + (1u << 29)) >> 30;
  const double x = static_cast<double>(static_cast<int32_t>(b - (quarter << 30))) * (6.283185307179586477 * 0x1p-32);
  const double z = x * x;
  double p = fma(z, 1.58969099521155010221e-10, -2.50507602534068634195e-08);
  p = fma(z, p, 2.75573137070700676789e-06);
  p = fma(z, p, -1.98412698298579493134e-04);
  p = fma(z, p, 8.33333333332248946124e-03);
  p = fma(z, p, -1.66666666666666324348e-01);
  const double sine = fma(x * z, p, x);
  double q = fma(z, -1.13596475577881948265e-11, 2.08757232129817482790e-09);
  q = fma(z, q, -2.75573143513906633035e-07);
  q = fma(z, q, 2.48015872894767294178e-05);
  q = fma(z, q, -1.38888888888741095749e-03);
  q = fma(z, q, 4.16666666666666019037e-02);
  const double cosine = fma(z * z, q, fma(z, -0.5, 1.0));
  c = quarter % 2 == 0 ? cosine : sine;
  s = quarter % 2 == 0 ? sine : cosine;
  if (quarter % 4 == 1 || quarter % 4 == 2) c = -c;
  if (quarter % 4 >= 2) s = -s;
}

// Two words to two independent N(0, 1).
__device__ __forceinline__ void normal_pair(uint32_t a, uint32_t b, float& first, float& second) {
  double c, s;
  turn(b, c, s);
  const double r = sqrt(-2.0 * log((static_cast<double>(a) + 1.0) * 0x1p-32));
  first = static_cast<float>(r * c);
  second = static_cast<float>(r * s);
}

}  // namespace thread

template <class Out>
__global__ void __launch_bounds__(kPhiloxThreads) normal_kernel(const NormalParams p) {
  int64_t at;
  uint64_t group;
  philox_unit<4>(p.walk, at, group);
  if (at >= p.walk.n) return;
  const Philox::Block words = Philox::draw(p.key, group);
  float z[4];
  thread::normal_pair(words[0], words[1], z[0], z[1]);
  thread::normal_pair(words[2], words[3], z[2], z[3]);
#pragma unroll
  for (int e = 0; e < 4; ++e) z[e] = fmaf(p.std, z[e], p.mean);
  store_drawn<Out>(p.walk, p.out, at, p.whole, z);
}

namespace {

Refusal refuses(const NormalArgs& args) {
  return refused_on_gpu(contradiction(args), {&args.out});
}

void run(const NormalArgs& args, Stream stream) {
  NormalParams p{{args.first, args.out.numel()}, args.out.data, args.key, args.mean, args.std, false};
  if (p.walk.n == 0) return;
  p.whole = p.walk.whole(args.out, 4);
  with_float(args.out.dtype, [&](auto zero) { HEDDLE_LAUNCH((normal_kernel<decltype(zero)>), p.walk.blocks(4), kPhiloxThreads, 0, stream, p); });
}

}  // namespace

void register_normal() {
  normal.add(DeviceType::cuda, {"philox", refuses, nullptr, run});
}

}  // namespace heddle::kernels::cuda
