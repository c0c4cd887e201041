// The CUDA candidate of store_rows: a team of up to 32 lanes copies a row, 16 bytes a lane, or one element where rows are not aligned or C is no
// multiple of 16 bytes. Bound by latency: what a decoding step stores is small.
#include "kernels/api/store_rows.h"
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/fault.cuh"
#include "kernels/cuda/refusals.h"
#include "kernels/cuda/register.h"

namespace heddle::kernels::cuda {

inline constexpr int kStoreThreads = 128;

// Of pieces: 16 bytes, or one element.
template <class Piece>
struct StoreRowsParams {
  const Piece* x;
  Piece* out;
  const int32_t* rows;
  int64_t x_row, out_row, step;         // pieces between rows of x and of out; elements between rows' numbers
  int count, held, pieces, team_shift;  // N, M; a team has 1 << team_shift lanes
  Fault* fault;
};

template <class Piece>
__global__ void __launch_bounds__(kStoreThreads) store_rows_kernel(const StoreRowsParams<Piece> p) {
  const int64_t index = static_cast<int64_t>(blockIdx.x) * kStoreThreads + threadIdx.x;
  if (index >> p.team_shift >= p.count) return;
  const int n = static_cast<int>(index >> p.team_shift), team = 1 << p.team_shift, member = static_cast<int>(threadIdx.x) & (team - 1);
  const int row = p.rows[n * p.step];
  if (row < 0 || row >= p.held) {
    if (member == 0) thread::note(p.fault, FaultKind::row, n, 0, row, p.held);
    return;
  }
  for (int piece = member; piece < p.pieces; piece += team) p.out[row * p.out_row + piece] = p.x[n * p.x_row + piece];
}

namespace {

Refusal refuses(const StoreRowsArgs& args) {
  return refused_on_gpu(contradiction(args), {&args.x, &args.out});
}

template <class Piece>
void launch_store_rows(const StoreRowsArgs& args, Stream stream) {
  constexpr auto kBytes = static_cast<int64_t>(sizeof(Piece));
  const int64_t element = static_cast<int64_t>(size_of(args.x.dtype));
  StoreRowsParams<Piece> p{.x = args.x.as<const Piece>(),
                           .out = args.out.as<Piece>(),
                           .rows = args.rows.as<const int32_t>(),
                           .x_row = args.x.step(0) * element / kBytes,
                           .out_row = args.out.step(0) * element / kBytes,
                           .step = args.rows.step(0),
                           .count = static_cast<int>(args.x.size(0)),
                           .held = static_cast<int>(args.out.size(0)),
                           .pieces = static_cast<int>(args.x.size(1) * element / kBytes),
                           .team_shift = 0,
                           .fault = args.fault};
  while (p.team_shift < 5 && 1 << p.team_shift < p.pieces) ++p.team_shift;
  const int64_t threads = static_cast<int64_t>(p.count) << p.team_shift;
  HEDDLE_LAUNCH((store_rows_kernel<Piece>), static_cast<unsigned>((threads + kStoreThreads - 1) / kStoreThreads), kStoreThreads, 0, stream, p);
}

void run(const StoreRowsArgs& args, Stream stream) {
  if (args.x.numel() == 0) return;
  const bool wide = rows_aligned_16(args.x) && rows_aligned_16(args.out) && args.x.size(1) * size_of(args.x.dtype) % 16 == 0;
  if (wide) return launch_store_rows<uint4>(args, stream);
  args.x.dtype == DType::bf16 ? launch_store_rows<uint16_t>(args, stream) : launch_store_rows<uint32_t>(args, stream);
}

}  // namespace

void register_store_rows() {
  store_rows.add(DeviceType::cuda, {"rows", refuses, nullptr, run});
}

}  // namespace heddle::kernels::cuda
