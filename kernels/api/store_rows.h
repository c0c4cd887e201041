// Rows of x stored where `rows` says: a decoding step's keys and values into the cache of each of its texts.
//
//   x (N, C), rows (N) i32, out (M, C): out[rows[n]] = x[n]; what no row names is left as it is
// No two rows are alike; one outside [0, M) is a Fault, and stored nowhere. dtypes f32, bf16, f64, x like out. Last strides 1.
#pragma once

#include "kernels/api/fault.h"
#include "kernels/api/kernel.h"
#include "kernels/api/types.h"

namespace heddle::kernels {

struct StoreRowsArgs {
  View x, rows;
  View out;
  Fault* fault = nullptr;
};

// What in these arguments contradicts the above; nullopt: nothing.
Refusal contradiction(const StoreRowsArgs&);

extern Kernel<StoreRowsArgs> store_rows;

}  // namespace heddle::kernels
