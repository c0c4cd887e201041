// Rows stored where they belong: see kernels/api/store_rows.h.
#include "kernels/api/store_rows.h"

#include <cstring>

#include "kernels/cpu/rows_internal.h"
#include "kernels/cpu/rules_internal.h"

namespace heddle::kernels::cpu {

Refusal refuses(const StoreRowsArgs& args) {
  return contradiction(args);
}
void run(const StoreRowsArgs& args, Stream) {
  const int64_t rows = args.x.size(0), columns = args.x.size(1), held = args.out.size(0);
  const auto row_of = [&](int64_t n) { return int64_t{args.rows.as<const int32_t>()[n * args.rows.step(0)]}; };
  for (int64_t n = 0; n < rows; ++n) {
    if (row_of(n) >= 0 && row_of(n) < held) continue;
    noted(args.fault, {.kind = FaultKind::row, .row = n, .value = row_of(n), .limit = held});
    return;
  }
  const auto size = static_cast<int64_t>(size_of(args.x.dtype));
  for_tiles(rows, rows_per_tile(columns), rows * columns, [&](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n) {
      std::memcpy(args.out.data + row_of(n) * args.out.step(0) * size, args.x.data + n * args.x.step(0) * size, static_cast<size_t>(columns * size));
    }
  });
}

}  // namespace heddle::kernels::cpu
