// Elementwise operations. Shapes of all operands are equal unless said; views may be strided, last stride 1.
#pragma once

#include "kernels/api/kernel.h"
#include "kernels/api/types.h"

namespace heddle::kernels {

// out (+)= alpha a + beta b.  b may be absent. dtypes of a, b, out may differ (f32, bf16, f64): this is also cast, copy and scale.
// out may alias a or b when their strides agree. Rank up to 4. `a` may have any strides, also a last one that is not 1 (a transposed operand).
struct AxpbyArgs {
  View a, b;
  Sink out;
  double alpha = 1, beta = 1;
};

// out (+)= a b, elementwise; b may have rank 1 and the size of a's last axis (a row of factors).
struct MultiplyArgs {
  View a, b;
  Sink out;
};

// out (+)= scale a c / b, elementwise; c may be absent: its own gradients are such quotients, da = dy / b and db = -dy y / b. b as of multiply.
struct DivideArgs {
  View a, b;
  Sink out;
  View c;
  double scale = 1;
};

// One-input maps: out = f(x); backward: dx (+)= dy f'(x). softcap is cap tanh(x / cap), cap > 0; the others have no parameter.
enum class Map : uint8_t { gelu, relu2, silu, sigmoid, tanh, exp, log, softcap };
struct MapArgs {
  Map map = Map::gelu;
  View x, out;
  float cap = 0;
};
struct MapBackwardArgs {
  Map map = Map::gelu;
  View x, dy;
  Sink dx;
  float cap = 0;
};

// SwiGLU (Shazeer 2020) on packed halves: x (N, 2F) = [gate, up]; out (N, F) = silu(gate) up.
// Backward: dx (N, 2F) from x and d_out; dx may alias x.
struct SwigluArgs {
  View x, out;
};
struct SwigluBackwardArgs {
  View x, d_out;
  View dx;
};

// Fills with one value (any dtype).
struct FillArgs {
  View out;
  double value = 0;
};

extern Kernel<AxpbyArgs> axpby;
extern Kernel<MultiplyArgs> multiply;
extern Kernel<DivideArgs> divide;
extern Kernel<MapArgs> map;
extern Kernel<MapBackwardArgs> map_backward;
extern Kernel<SwigluArgs> swiglu;
extern Kernel<SwigluBackwardArgs> swiglu_backward;
extern Kernel<FillArgs> fill;

}  // namespace heddle::kernels
