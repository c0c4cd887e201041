// The candidate `cublaslt` on the simulated library: against float64, what it refuses, and that a product is done whatever the library says.
#include <unistd.h>

#include <array>
#include <cstdio>
#include <random>
#include <set>

#include "kernels/api/matmul.h"
#include "kernels/sim/vendor/cublaslt.h"
#include "kernels/vendor/register.h"
#include "tests/kernels/kernel_case.h"
#include "tests/oracles/matmul.h"

namespace heddle::kernels {
namespace {

namespace library = sim::cublaslt;
using test::Bound;
using test::Buffer;

constexpr int kExecutionFailed = 13, kNotSupported = 15;

// A process that has not met the library yet, and whose products prefer it.
class FreshLibrary {
 public:
  FreshLibrary() {
    test::register_kernels();
    vendor::forget_cublaslt();
    library::reset();
    matmul.prefer("cublaslt");
  }
  ~FreshLibrary() {
    matmul.prefer({});
    library::reset();
    vendor::forget_cublaslt();
  }
  FreshLibrary(const FreshLibrary&) = delete;
};

// What f() writes to stderr.
template <class F>
std::string said_by(const F& f) {
  std::fflush(stderr);
  std::FILE* const file = std::tmpfile();
  REQUIRE(file);
  const int before = dup(2);
  dup2(fileno(file), 2);
  f();
  std::fflush(stderr);
  dup2(before, 2);
  close(before);
  std::string text(static_cast<size_t>(std::ftell(file)), '\0');
  std::rewind(file);
  REQUIRE(std::fread(text.data(), 1, text.size(), file) == text.size());
  std::fclose(file);
  return text;
}

struct Case {
  int64_t m = 64, n = 48, k = 40;
  DType dtype = DType::bf16, c_dtype = DType::bf16;
  bool trans_a = false, trans_b = true;
  bool bias = false, preact = false, column_sum = false, accumulate = false;
  Epilogue epilogue = Epilogue::none;
  int64_t extra = 0;  // of the rows' stride
};

std::ostream& operator<<(std::ostream& out, const Case& x) {
  return out << x.m << " x " << x.n << " x " << x.k << ' ' << name_of(x.dtype) << " to " << name_of(x.c_dtype) << (x.trans_a ? " T" : " N")
             << (x.trans_b ? "T" : "N") << " epilogue " << static_cast<int>(x.epilogue) << " bias " << x.bias << " preact " << x.preact << " sum "
             << x.column_sum << " accumulate " << x.accumulate << " extra " << x.extra;
}

struct Operands {
  Buffer a, b, c, bias, preact, column_sum;
  MatmulArgs args;

  explicit Operands(const Case& x) {
    const auto rows = [&](DType dtype, int64_t rows, int64_t columns) {
      return Buffer(dtype, {rows, columns}, {.padding = (8 - columns % 8) % 8 + x.extra});
    };
    a = x.trans_a ? rows(x.dtype, x.k, x.m) : rows(x.dtype, x.m, x.k);
    b = x.trans_b ? rows(x.dtype, x.n, x.k) : rows(x.dtype, x.k, x.n);
    a.normal(1);
    b.normal(2, 0, 1 / std::sqrt(static_cast<double>(x.k)));
    c = rows(x.c_dtype, x.m, x.n);
    if (x.accumulate) c.normal(3);
    bias = Buffer(x.dtype, {x.n});
    bias.normal(4);
    preact = rows(x.dtype, x.m, x.n);
    if (is_backward(x.epilogue)) preact.normal(5);
    column_sum = Buffer(x.c_dtype, {x.n});
    args = {.a = a.view(), .b = b.view(), .trans_a = x.trans_a, .trans_b = x.trans_b, .c = {c.view(), x.accumulate}, .epilogue = x.epilogue};
    if (x.bias) args.bias = bias.view();
    if (x.preact) args.preact = preact.view();
    if (x.column_sum) args.column_sum = {column_sum.view()};
  }
  Operands(const Operands&) = delete;

  // Runs what is chosen, compared with float64.
  void run(const Case& x) {
    const auto want = oracle::matmul(args);
    check(args);
    test::run(matmul, args);
    const double terms = static_cast<double>(x.k) + 20;  // products and sums, bias, activation, accumulation
    CHECK_CLOSE(c.view(), want.c, want.c_magnitude, Bound{x.c_dtype, terms});
    if (x.preact && !is_backward(x.epilogue)) CHECK_CLOSE(preact.view(), want.preact, want.preact_magnitude, Bound{x.dtype, terms});
    if (x.column_sum) CHECK_CLOSE(column_sum.view(), want.column_sum, want.column_sum_magnitude, Bound{x.c_dtype, terms + static_cast<double>(x.m)});
    CHECK((c.guards_intact() && preact.guards_intact() && column_sum.guards_intact()));
  }
};

void run(const Case& x) {
  Operands(x).run(x);
}

const std::array kEpilogues{Case{},
                            Case{.bias = true},
                            Case{.accumulate = true},
                            Case{.bias = true, .accumulate = true},
                            Case{.epilogue = Epilogue::gelu},
                            Case{.bias = true, .epilogue = Epilogue::gelu},
                            Case{.preact = true, .epilogue = Epilogue::gelu},
                            Case{.bias = true, .preact = true, .epilogue = Epilogue::gelu},
                            Case{.preact = true, .epilogue = Epilogue::gelu_backward},
                            Case{.preact = true, .column_sum = true, .epilogue = Epilogue::gelu_backward}};

TEST_CASE("vendor: cuBLASLt's products against float64, random shapes with every epilogue") {
  const FreshLibrary fresh;
  std::mt19937 random(7);
  const auto up_to = [&](int64_t most) { return std::uniform_int_distribution<int64_t>(1, most)(random); };
  uint64_t products = 0;
  const std::string said = said_by([&] {
    for (int shape = 0; shape < 24; ++shape) {
      const int64_t m = up_to(90), n = up_to(90), k = up_to(shape % 4 == 0 ? 300 : 60), extra = 8 * (up_to(3) - 1);
      for (Case x : kEpilogues) {
        x.m = m, x.n = n, x.k = k, x.extra = extra;
        x.trans_a = shape & 1, x.trans_b = shape & 2;
        x.dtype = shape % 3 == 0 ? DType::f32 : DType::bf16;
        const bool vectors = x.bias || x.preact;
        x.c_dtype = vectors || shape % 5 ? x.dtype : DType::f32;
        INFO(x);
        run(x);
        CHECK(library::calls("cublasLtMatmul") == ++products);
      }
    }
  });
  CHECK(said == "");
  CHECK(products == 240);
}

TEST_CASE("vendor: whichever call of cuBLASLt fails, the product is right, one line says so, and the shape is not tried again") {
  const Case x{.k = 1100, .bias = true, .preact = true, .epilogue = Epilogue::gelu}, other{.m = 8};  // heddle's own needs scratch
  std::set<std::string> failed;
  for (const std::string function :
       {"cublasLtCreate", "cublasLtMatmulDescCreate", "cublasLtMatmulDescSetAttribute", "cublasLtMatrixLayoutCreate",
        "cublasLtMatmulPreferenceCreate", "cublasLtMatmulPreferenceSetAttribute", "cublasLtMatmulAlgoGetHeuristic", "cublasLtMatmul"}) {
    for (uint64_t nth = 1;; ++nth) {
      const FreshLibrary fresh;
      INFO(function << ", call " << nth);
      const int status = nth % 2 ? kExecutionFailed : kNotSupported;
      library::fail_call(function, nth, status);
      const std::string said = said_by([&] { run(x); });
      if (said.empty()) break;  // it is called less often
      failed.insert(function);
      CHECK(std::count(said.begin(), said.end(), '\n') == 1);
      const std::string begin =
          concat("heddle: ", function, " gave ", status == 13 ? "CUBLAS_STATUS_EXECUTION_FAILED (13)" : "CUBLAS_STATUS_NOT_SUPPORTED (15)",
                 ", for matmul 64 x 48 x 1100 NT bf16, bias, gelu: wgmma_sm90 ");
      CHECK(said.substr(0, begin.size()) == begin);

      const uint64_t calls = library::calls(function), products = library::calls("cublasLtMatmul");
      CHECK(said_by([&] { run(x); }) == "");
      CHECK(library::calls(function) == calls);
      CHECK(library::calls("cublasLtMatmul") == products);
      CHECK(said_by([&] { run(other); }) == "");  // which the library does, unless nothing of it can be used
      CHECK(library::calls("cublasLtMatmul") == products + (function != "cublasLtCreate"));
      CHECK(test::contains(matmul.reasons(DeviceType::cuda, Operands(x).args), function + " failed"));
    }
  }
  CHECK(failed.size() == 8);
}

TEST_CASE("vendor: without cuBLASLt, or with one that lacks a function, products are heddle's own") {
  const FreshLibrary fresh;
  const Case x, other{.m = 8};
  const auto told_once = [&](const std::string& why) {
    const std::string said = said_by([&] { run(x), run(other), run(x); });
    INFO(said);
    CHECK(std::count(said.begin(), said.end(), '\n') == 1);
    CHECK(test::contains(said, why));
    CHECK(test::contains(said, "for matmul 64 x 48 x 40 NT bf16: wgmma_sm90 is used instead"));
    CHECK(test::contains(matmul.reasons(DeviceType::cuda, Operands(other).args), why));
  };
  library::hide_library();
  told_once("cuBLASLt is not there: libcublasLt.so.13: ");
  library::reset();
  vendor::forget_cublaslt();
  library::hide_function("cublasLtMatmul");
  told_once("this cuBLASLt has no cublasLtMatmul");
  CHECK(library::calls("cublasLtCreate") == 0);
}

TEST_CASE("vendor: a shape is planned once, wherever its operands lie, and has the same bits each time") {
  const FreshLibrary fresh;
  const Case x{.m = 40, .n = 24, .k = 900, .c_dtype = DType::f32};  // bf16 would hide the order of sums
  Operands first(x);
  first.run(x);
  for (int64_t away : {0, 8, 16, 24}) {  // elements
    Operands again(x);
    Buffer a(DType::bf16, {x.m, x.k}, {.padding = 4, .offset = away});
    again.args.a = a.normal(1).view();
    test::run(matmul, again.args);
    CHECK(again.c == first.c);
  }
  CHECK(library::calls("cublasLtMatmulAlgoGetHeuristic") == 1);
  CHECK(library::calls("cublasLtMatmul") == 5);
}

TEST_CASE("vendor: what cuBLASLt is not asked for is refused in words, and done by the next") {
  const FreshLibrary fresh;
  const auto refused = [&](Case x, const std::string& why, const std::function<void(MatmulArgs&)>& change = {}) {
    Operands o(x);
    if (change) change(o.args);
    INFO(x << ": " << matmul.reasons(DeviceType::cuda, o.args));
    CHECK(test::contains(matmul.reasons(DeviceType::cuda, o.args), "cublaslt: " + why));
    CHECK(matmul.choose(DeviceType::cuda, o.args).name != "cublaslt");
  };
  const Case backward{.preact = true, .column_sum = true, .epilogue = Epilogue::gelu_backward};
  refused({.epilogue = Epilogue::relu2}, "cuBLASLt squares no ReLU");
  refused({.preact = true, .epilogue = Epilogue::relu2_backward}, "cuBLASLt squares no ReLU");
  refused({.accumulate = true, .epilogue = Epilogue::gelu}, "cuBLASLt adds to c before the activation");
  refused({.bias = true, .preact = true, .epilogue = Epilogue::gelu_backward}, "cuBLASLt adds no bias before a derivative");
  refused({.column_sum = true}, "cuBLASLt sums columns behind gelu_backward alone");
  refused(backward, "cuBLASLt stores the sums of columns", [](MatmulArgs& args) { args.column_sum.accumulate = true; });
  refused({.c_dtype = DType::f32, .bias = true}, "cuBLASLt has one dtype for c, bias, preact and column_sum: f32 (64, 48) and bf16 (48)");
  refused({}, "rows must start at multiples of 16 bytes: bf16 (64, 40), row stride 40", [](MatmulArgs& args) { args.a.data += 8; });
  refused({}, "rows must start at multiples of 16 bytes: bf16 (64, 48), row stride 52", [](MatmulArgs& args) { args.c.to.stride[0] = 52; });
  refused({.bias = true}, "not at a multiple of 16 bytes: bf16 (48)", [](MatmulArgs& args) { args.bias.data += 2; });
  refused({.dtype = DType::f32, .c_dtype = DType::f32, .preact = true, .epilogue = Epilogue::gelu},
          "the row stride of preact must be a multiple of 8", [](MatmulArgs& args) { args.preact.stride[0] = 52; });
  refused({}, "nothing to multiply", [](MatmulArgs& args) { args.a.shape[1] = args.b.shape[1] = 0; });
  CHECK(library::calls("cublasLtCreate") == 0);  // none of it needed the library
}

TEST_CASE("vendor: no product is cuBLASLt's unless it is asked for") {
  const FreshLibrary fresh;
  matmul.prefer({});
  const Case x;
  CHECK(matmul.choose(DeviceType::cuda, Operands(x).args).name == "wgmma_sm90");
  run(x);
  CHECK(library::calls("cublasLtCreate") == 0);
}

}  // namespace
}  // namespace heddle::kernels
