// Rows of a cache: each lands where it is told, and nothing else is touched.
#include "kernels/api/store_rows.h"

#include <functional>
#include <numeric>
#include <random>

#include "tests/kernels/kernel_case.h"

namespace heddle::kernels {
namespace {

using test::Buffer;
using test::kFloating;
using test::run;

struct Shape {
  int64_t rows, columns, held;
};

TEST_CASE("store_rows: rows of any size in any order, beside which all stays as it was") {
  std::mt19937 engine(5);
  for (const DType dtype : kFloating) {
    for (const Shape& s : {Shape{1, 1, 1}, Shape{3, 8, 3}, Shape{2, 7, 40}, Shape{8, 128, 64}, Shape{5, 264, 9}, Shape{40, 24, 1000},
                           Shape{1, 3000, 2}, Shape{300, 16, 300}, Shape{0, 4, 7}, Shape{4, 0, 7}}) {
      for (const int64_t padding : {0, 8, 3}) {
        INFO(name_of(dtype) << " " << s.rows << " of " << s.held << ", " << s.columns << " columns, padding " << padding);
        Buffer x(dtype, {s.rows, s.columns}, {.padding = padding}), out(dtype, {s.held, s.columns}, {.padding = padding}),
            rows(DType::i32, {s.rows}, {.padding = padding});
        x.normal(1);
        out.normal(2);
        std::vector<int64_t> places(static_cast<size_t>(s.held));
        std::iota(places.begin(), places.end(), 0);
        std::shuffle(places.begin(), places.end(), engine);
        rows.fill([&](int64_t n) { return static_cast<double>(places[static_cast<size_t>(n)]); });
        std::vector<double> want = test::values(out.view());
        for (int64_t i = 0; i < s.rows * s.columns; ++i)
          want[static_cast<size_t>(places[static_cast<size_t>(i / s.columns)] * s.columns + i % s.columns)] = test::element(x.view(), i);
        run(store_rows, StoreRowsArgs{x.view(), rows.view(), out.view()});
        CHECK(test::values(out.view()) == want);
        CHECK(out.guards_intact());
      }
    }
  }
}

TEST_CASE("store_rows: of a view whose rows are part of wider ones") {
  Buffer qkv(DType::bf16, {3, 48}), cache(DType::bf16, {10, 32}), rows(DType::i32, {3});
  qkv.normal(1);
  cache.normal(2);
  std::vector<double> want = test::values(cache.view());
  View kv = qkv.view();
  kv.data += 16 * size_of(kv.dtype);
  kv.shape[1] = 32;
  for (int64_t n = 0; n < 3; ++n) {
    rows.put(n, static_cast<double>(9 - 4 * n));
    for (int64_t c = 0; c < 32; ++c) want[static_cast<size_t>((9 - 4 * n) * 32 + c)] = test::element(kv, n * 32 + c);
  }
  run(store_rows, StoreRowsArgs{kv, rows.view(), cache.view()});
  CHECK(test::values(cache.view()) == want);
}

TEST_CASE("store_rows: a row outside the cache is named") {
  for (const double bad : {-1.0, 5.0, 2147483647.0, -2147483648.0}) {
    Buffer x(DType::f32, {3, 8}), out(DType::f32, {5, 8}), rows(DType::i32, {3});
    x.normal(1);
    rows.put(0, 4), rows.put(1, bad), rows.put(2, 0);
    CHECK(test::contains(test::error_of(store_rows, StoreRowsArgs{x.view(), rows.view(), out.view()}),
                         concat("row outside the cache: rows[1] = ", static_cast<int64_t>(bad), ", M = 5")));
    CHECK(out.guards_intact());
  }
}

TEST_CASE("store_rows: arguments that contradict the contract are refused in words") {
  Buffer x(DType::f32, {3, 8}), out(DType::f32, {5, 8}), rows(DType::i32, {3});
  const auto refused = [&](const std::function<void(StoreRowsArgs&)>& change, const std::string& text) {
    StoreRowsArgs args{x.view(), rows.view(), out.view()};
    change(args);
    CHECK(test::contains(test::error_of(store_rows, args), text));
  };
  refused([](StoreRowsArgs& a) { a.x = make_view(a.x.as<float>(), {8}); }, "must be (N, C)");
  refused([](StoreRowsArgs& a) { a.out.dtype = DType::bf16; }, "dtypes differ");
  refused([](StoreRowsArgs& a) { a.out.shape[1] = 7; }, "must be (M, 8)");
  refused([](StoreRowsArgs& a) { a.rows.shape[0] = 2; }, "must have shape (3)");
  refused([](StoreRowsArgs& a) { a.rows.dtype = DType::f32; }, "must be i32");
  refused([](StoreRowsArgs& a) { a.x.dtype = a.out.dtype = DType::i32; }, "must be f32, bf16 or f64");
}

}  // namespace
}  // namespace heddle::kernels
