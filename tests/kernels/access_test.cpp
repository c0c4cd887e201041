// What elementwise kernels ask of memory where everything is aligned: whole sectors, and no bank twice. Counted by the check flavour of the simulated
// machine; the others count nothing.
#include "kernels/api/pointwise.h"
#include "kernels/api/random.h"
#include "kernels/sim/check/check.h"
#include "kernels/sim/core/machine.h"
#include "tests/kernels/kernel_case.h"

namespace heddle::kernels {
namespace {

using test::Buffer;
using test::run;

// Transactions that f() needs beyond those for the number of its bytes, line by line, in the sources of this name.
template <class F>
std::string wasted(const std::string& source, const F& f) {
  if (!sim::checking) return "";
  sim::count_accesses(true);
  f();
  sim::count_accesses(false);
  std::string text;
  uint64_t counted = 0;
  for (const sim::AccessCount& count : sim::access_counts()) {
    if (count.file.find(source) == std::string::npos) continue;
    counted += count.transactions;
    if (count.extra() > 0)
      text += concat(count.file, ":", count.line, count.shared ? " shared " : " global ", count.extra(), " of ", count.transactions, "; ");
  }
  return counted == 0 ? "nothing counted in " + source : text;
}

TEST_CASE("maps of aligned views move whole sectors", "[access]") {
  for (DType type : {DType::f32, DType::bf16}) {
    for (DType out_type : {DType::f32, DType::bf16}) {
      Buffer a(type, {5, 512}, {.padding = 32}), b(type, {5, 512}), out(out_type, {5, 512}, {.padding = 64});
      a.normal(1);
      b.normal(2);
      out.normal(3);
      INFO(name_of(type) << " -> " << name_of(out_type));
      CHECK(wasted("map.cuh", [&] { run(axpby, AxpbyArgs{a.view(), b.view(), {out.view(), true}}); }) == "");
      CHECK(wasted("map.cuh", [&] { run(axpby, AxpbyArgs{a.view(), {}, {out.view()}}); }) == "");
    }
    Buffer x(type, {6, 1024}), y(type, {6, 512}), dx(type, {6, 1024});
    x.normal(1);
    y.normal(2);
    CHECK(wasted("map.cuh", [&] { run(swiglu_backward, SwigluBackwardArgs{x.view(), y.view(), dx.view()}); }) == "");
    CHECK(wasted("map.cuh", [&] { run(map, MapArgs{Map::gelu, x.view(), dx.view()}); }) == "");
    CHECK(wasted("map.cuh", [&] { run(dropout, DropoutArgs{x.view(), {dx.view(), true}, {}, 8, 0.5f}); }) == "");
    CHECK(wasted("fill.cu", [&] { run(fill, FillArgs{y.view(), 1}); }) == "");
  }
}

TEST_CASE("a transposed operand: whole sectors on either side, no bank conflict between them", "[access]") {
  for (DType type : {DType::f32, DType::bf16}) {
    for (DType out_type : {DType::f32, DType::bf16}) {
      Buffer stored(type, {192, 128}), b(out_type, {128, 192}), out(out_type, {128, 192});
      stored.normal(1);
      b.normal(2);
      View a = stored.view();
      std::swap(a.shape[0], a.shape[1]);
      std::swap(a.stride[0], a.stride[1]);
      const auto transpose = [&] { run(axpby, AxpbyArgs{a, b.view(), {out.view()}}); };
      INFO(name_of(type) << " -> " << name_of(out_type));
      CHECK(wasted("map.cuh", transpose) == "");
      CHECK(wasted("transpose.cuh", transpose) == "");
    }
  }
}

}  // namespace
}  // namespace heddle::kernels
