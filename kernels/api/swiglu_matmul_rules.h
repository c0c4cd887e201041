// What backends share of swiglu_matmul: its contract as a refusal, and the operation as two others.
#pragma once

#include "kernels/api/elementwise_rules.h"
#include "kernels/api/matmul.h"
#include "kernels/api/pointwise.h"
#include "kernels/api/swiglu_matmul.h"

namespace heddle::kernels {

inline Refusal contradiction(const SwigluMatmulArgs& args) {
  Rules rules;
  rules.floating("x", args.x).floating("w", args.w).floating("out", args.out);
  rules.same_dtype("w", args.w, "x", args.x).same_dtype("out", args.out, "x", args.x);
  rules.need(args.x.rank == 2 && args.w.rank == 2 && args.out.rank == 2, "x ", args.x, ", w ", args.w, " and out ", args.out, " must be matrices");
  if (args.x.rank != 2 || args.w.rank != 2 || args.out.rank != 2) return rules;
  rules.need(args.x.size(1) == args.w.size(1), "x ", args.x, " and w ", args.w, " differ in K");
  rules.need(args.w.size(0) == 2 * args.out.size(1) && args.out.size(0) == args.x.size(0), "out ", args.out, " must be (M, F) for x ", args.x,
             " and w ", args.w, " of 2F rows");
  if (args.both) {
    rules.floating("both", args.both).same_dtype("both", args.both, "x", args.x);
    rules.need(args.both.rank == 2 && args.both.size(0) == args.x.size(0) && args.both.size(1) == args.w.size(0), "both ", args.both,
               " must be (M, 2F) for out ", args.out);
  }
  return rules;
}

// matmul, which rounds both to its dtype, then swiglu. Scratch: both where nobody wants it, then the product's.
template <DeviceType kDevice>
struct SwigluMatmulInTwo {
  static size_t bytes_of_both(const SwigluMatmulArgs& args) {
    return args.both ? 0 : static_cast<size_t>((args.x.size(0) * args.w.size(0) * size_of(args.x.dtype) + 255) / 256 * 256);
  }
  static MatmulArgs product(const SwigluMatmulArgs& args, std::byte* scratch) {
    const View both = args.both ? args.both : make_view(scratch, args.x.dtype, {args.x.size(0), args.w.size(0)});
    return {.a = args.x, .b = args.w, .trans_b = true, .c = {both, false}};
  }

  static size_t scratch(const SwigluMatmulArgs& args) {
    const MatmulArgs first = product(args, reinterpret_cast<std::byte*>(uintptr_t{256}));  // an address nobody follows, aligned as scratch is
    const Candidate<MatmulArgs>& chosen = matmul.choose(kDevice, first);
    return bytes_of_both(args) + (chosen.scratch ? chosen.scratch(first) : 0);
  }
  static void run(const SwigluMatmulArgs& args, Stream stream) {
    const size_t needed = scratch(args);
    HEDDLE_CHECK(args.scratch.size() >= needed, "swiglu_matmul", "scratch too small: ", args.scratch.size(), " of ", needed, " bytes");
    MatmulArgs first = product(args, args.scratch.data());
    const Candidate<MatmulArgs>& chosen = matmul.choose(kDevice, first);
    first.scratch = args.scratch.subspan(bytes_of_both(args));
    chosen.run(first, stream);
    const SwigluArgs second{first.c.to, args.out};
    swiglu.choose(kDevice, second).run(second, stream);
  }
};

}  // namespace heddle::kernels
