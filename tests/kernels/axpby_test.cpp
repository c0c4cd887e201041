// axpby against float64: dtypes, sinks, strides, transposed operands, aliasing.
#include "kernels/api/pointwise.h"
#include "tests/kernels/kernel_case.h"
#include "tests/oracles/pointwise.h"

namespace heddle::kernels {
namespace {

using test::Bound;
using test::Buffer;
using test::BufferOptions;
using test::kDevice;
using test::kFloating;
using test::run;

const std::vector<std::vector<int64_t>> kShapes = {{}, {1}, {7}, {3, 5}, {4, 1}, {2, 3, 2, 9}, {1, 1030}, {3, 2500}};

TEST_CASE("axpby: every combination of dtypes and shapes, with and without b, stored and added", "[pointwise]") {
  uint32_t seed = 1;
  for (DType a_type : kFloating) {
    for (DType b_type : kFloating) {
      for (DType out_type : kFloating) {
        for (const auto& shape : kShapes) {
          for (bool accumulate : {false, true}) {
            const bool with_b = seed % 4 != 0;
            const BufferOptions strided{static_cast<int64_t>(seed % 3), static_cast<int64_t>(seed % 2)};
            Buffer a(a_type, shape, strided), b(b_type, shape, {.padding = 1}), out(out_type, shape, strided);
            a.normal(seed);
            b.normal(seed + 1, 1, 30);
            if (accumulate) out.normal(seed + 2);
            AxpbyArgs args{a.view(), with_b ? b.view() : View{}, {out.view(), accumulate}, 1.25, -0.3};
            const oracle::Values want = oracle::axpby(args);
            run(axpby, args);
            INFO(name_of(a_type) << " " << name_of(b_type) << " -> " << shape_text(out.view()) << " += " << accumulate << " b " << with_b);
            CHECK_CLOSE(out.view(), want.want, want.magnitude, Bound{out_type, 5});
            CHECK(out.guards_intact());
            ++seed;
          }
        }
      }
    }
  }
}

TEST_CASE("axpby: a cast to bf16 rounds to nearest even, bit for bit", "[pointwise]") {
  std::vector<float> from;
  for (uint32_t high : {0x0000u, 0x0001u, 0x3f80u, 0x3f81u, 0x7f7fu, 0x7f80u, 0x8000u, 0xbf80u, 0xff80u, 0xff7fu, 0x7fc0u, 0x0080u}) {
    for (uint32_t low : {0x0000u, 0x0001u, 0x7fffu, 0x8000u, 0x8001u, 0xffffu}) from.push_back(std::bit_cast<float>(high << 16 | low));
  }
  const int64_t n = static_cast<int64_t>(from.size());
  std::vector<bf16> to(from.size());
  run(axpby, AxpbyArgs{make_view(from.data(), {n}), {}, {make_view(to.data(), {n})}});
  for (size_t i = 0; i < from.size(); ++i) {
    INFO("f32 bits " << std::hex << std::bit_cast<uint32_t>(from[i]));
    if (kDevice == DeviceType::cpu || !std::isnan(from[i])) CHECK(to[i].bits == bf16(from[i]).bits);  // a GPU has one NaN
    CHECK(std::isnan(from[i]) == std::isnan(static_cast<float>(to[i])));
  }
}

TEST_CASE("axpby: a transposed operand", "[pointwise]") {
  for (DType dtype : kFloating) {
    for (const auto& [rows, columns] : std::vector<std::pair<int64_t, int64_t>>{{1, 1}, {3, 5}, {70, 130}, {1, 9}, {9, 1}, {300, 65}}) {
      for (bool with_b : {false, true}) {
        Buffer stored(dtype, {columns, rows}, {.padding = 2}), b(dtype, {rows, columns}), out(DType::f32, {rows, columns}, {.padding = 1});
        if (dtype == DType::f64) out = Buffer(DType::f64, {rows, columns}, {.padding = 1});
        stored.normal(1);
        b.normal(2);
        View a = stored.view();
        std::swap(a.shape[0], a.shape[1]);
        std::swap(a.stride[0], a.stride[1]);
        AxpbyArgs args{a, with_b ? b.view() : View{}, {out.view()}, 0.5, 2};
        const oracle::Values want = oracle::axpby(args);
        run(axpby, args);
        CHECK_CLOSE(out.view(), want.want, want.magnitude, Bound{out.view().dtype, 3});
        CHECK(out.guards_intact());
      }
    }
  }
}

// The element at `corner` of a larger buffer and `shape` elements from there on: axes that nobody can merge.
View within(const Buffer& buffer, const std::vector<int64_t>& corner, const std::vector<int64_t>& shape) {
  View v = buffer.view();
  for (size_t axis = 0; axis < shape.size(); ++axis) {
    v.data += corner[axis] * v.stride[axis] * size_of(v.dtype);
    v.shape[axis] = shape[axis];
  }
  return v;
}

TEST_CASE("axpby: boxes within larger boxes, aligned or not; nothing around them is written", "[pointwise]") {
  const std::vector<int64_t> shape{2, 3, 4, 43};
  for (DType a_type : kFloating) {
    for (DType b_type : kFloating) {
      for (DType out_type : kFloating) {
        for (bool aligned : {false, true}) {
          for (bool accumulate : {false, true}) {
            const int64_t row = aligned ? 56 : 53;
            const std::vector<int64_t> corner{1, 2, 1, aligned ? 8 : 7};
            Buffer a(a_type, {3, 5, 6, row}), b(b_type, {3, 5, 6, row}), out(out_type, {3, 5, 6, row});
            a.normal(1);
            b.normal(2);
            out.normal(3);
            const std::vector<double> before = test::values(out.view());
            const AxpbyArgs args{within(a, corner, shape), within(b, corner, shape), {within(out, corner, shape), accumulate}, -2, 0.5};
            const oracle::Values want = oracle::axpby(args);
            run(axpby, args);
            INFO(name_of(a_type) << " " << name_of(b_type) << " " << name_of(out_type) << " aligned " << aligned << " += " << accumulate);
            CHECK_CLOSE(args.out.to, want.want, want.magnitude, Bound{out_type, 5});
            const std::vector<double> after = test::values(out.view());
            int64_t untouched = 0;
            for (size_t i = 0; i < after.size(); ++i) untouched += after[i] == before[i];
            CHECK(untouched >= out.view().numel() - args.a.numel());
            CHECK(out.guards_intact());
          }
        }
      }
    }
  }
}

TEST_CASE("axpby: a with its axes in any order", "[pointwise]") {
  const std::vector<int64_t> shape{2, 11, 9, 72};
  std::vector<size_t> order{0, 1, 2, 3};  // of a's axes in memory
  uint32_t seed = 1;
  do {
    for (DType out_type : {DType::f32, DType::bf16}) {
      for (bool aligned : {false, true}) {
        ++seed;
        std::vector<int64_t> stored;
        for (size_t axis : order) stored.push_back(shape[axis]);
        const int64_t padding = aligned ? 8 - stored.back() % 8 : 1;
        Buffer in_memory(seed % 3 ? DType::bf16 : DType::f32, stored, {.padding = padding}), b(seed % 2 ? DType::f32 : DType::bf16, shape);
        Buffer out(out_type, shape, {.padding = aligned ? 8 : 3});
        in_memory.normal(seed);
        b.normal(seed + 1);
        const bool accumulate = seed % 4 == 0, with_b = seed % 5 > 1;
        if (accumulate) out.normal(seed + 2);
        View a = in_memory.view();
        for (size_t i = 0; i < order.size(); ++i) {
          a.shape[order[i]] = stored[i];
          a.stride[order[i]] = in_memory.view().stride[i];
        }
        const AxpbyArgs args{a, with_b ? b.view() : View{}, {out.view(), accumulate}, 0.75, -1.5};
        const oracle::Values want = oracle::axpby(args);
        run(axpby, args);
        INFO("axes " << order[0] << order[1] << order[2] << order[3] << " aligned " << aligned << " " << name_of(a.dtype) << " -> "
                     << name_of(out_type));
        CHECK_CLOSE(out.view(), want.want, want.magnitude, Bound{out_type, 5});
        CHECK(out.guards_intact());
      }
    }
  } while (std::next_permutation(order.begin(), order.end()));
}

// Beside a transposed operand: one column, whose neighbours are no neighbours in memory; an axis of two in front of another one.
TEST_CASE("axpby: a transposed, where the last axis is one or the first in memory is two", "[pointwise]") {
  for (int64_t columns : {1, 5}) {
    for (int64_t b_padding : {0, 1}) {
      for (int64_t out_padding : {0, 1}) {
        const Buffer b = Buffer(DType::f32, {2, 3, columns}, {.padding = b_padding}).normal(2);
        const Buffer out(DType::f32, {2, 3, columns}, {.padding = out_padding}), stored = Buffer(DType::f32, {columns, 3, 2}).normal(1);
        View a = out.view();
        a.data = stored.view().data;
        a.stride = {1, 2, 6, 0};
        const AxpbyArgs args{a, b.view(), {out.view()}, 0.5, 2};
        const oracle::Values want = oracle::axpby(args);
        run(axpby, args);
        INFO(columns << " columns, padding " << b_padding << " and " << out_padding);
        CHECK_CLOSE(out.view(), want.want, want.magnitude, Bound{DType::f32, 3});
        CHECK(out.guards_intact());
      }
    }
  }
}

// Four axes that cannot be merged; no element of a has a neighbour in memory.
TEST_CASE("axpby: a of which every other element is taken, along four axes", "[pointwise]") {
  const std::vector<int64_t> shape{2, 3, 2, 5};
  const Buffer stored = Buffer(DType::f32, {2, 4, 3, 12}).normal(1), b = Buffer(DType::f32, shape).normal(2), out(DType::f32, shape);
  View a = within(stored, {0, 0, 0, 0}, shape);
  a.stride[3] = 2;
  const AxpbyArgs args{a, b.view(), {out.view()}, 0.5, 2};
  const oracle::Values want = oracle::axpby(args);
  run(axpby, args);
  CHECK_CLOSE(out.view(), want.want, want.magnitude, Bound{DType::f32, 3});
}

TEST_CASE("axpby: a transposed, the rows of one operand or of none at odd addresses", "[pointwise]") {
  for (size_t odd = 0; odd < 4; ++odd) {
    int64_t padding[] = {8, 8, 8, 8};
    padding[odd] = 1;
    const Buffer stored = Buffer(DType::f32, {40, 24}, {.padding = padding[0]}).normal(1),
                 b = Buffer(DType::f32, {24, 40}, {.padding = padding[1]}).normal(2);
    const Buffer out(DType::f32, {24, 40}, {.padding = padding[2]});
    View a = stored.view();
    std::swap(a.shape[0], a.shape[1]);
    std::swap(a.stride[0], a.stride[1]);
    const AxpbyArgs args{a, b.view(), {out.view()}, 0.5, 2};
    const oracle::Values want = oracle::axpby(args);
    run(axpby, args);
    INFO("operand " << odd);
    CHECK_CLOSE(out.view(), want.want, want.magnitude, Bound{DType::f32, 3});
    CHECK(out.guards_intact());
  }
}

TEST_CASE("axpby: large matrices, transposed and not", "[pointwise]") {
  for (DType dtype : {DType::f32, DType::bf16}) {
    Buffer stored(dtype, {264, 200}), b(dtype, {200, 264}), out(dtype, {200, 264});
    stored.normal(1);
    b.normal(2);
    View a = stored.view();
    std::swap(a.shape[0], a.shape[1]);
    std::swap(a.stride[0], a.stride[1]);
    for (const View& left : {a, b.view()}) {
      const AxpbyArgs args{left, b.view(), {out.view()}, 2, 3};
      const oracle::Values want = oracle::axpby(args);
      run(axpby, args);
      CHECK_CLOSE(out.view(), want.want, want.magnitude, Bound{dtype, 3});
    }
  }
}

TEST_CASE("axpby: out may be a or b", "[pointwise]") {
  for (DType dtype : kFloating) {
    Buffer a(dtype, {5, 333}, {.padding = 3}), b(dtype, {5, 333});
    a.normal(1);
    b.normal(2);
    const oracle::Values onto_a = oracle::axpby({a.view(), b.view(), {a.view()}, 2, 3});
    Buffer a2 = a;
    run(axpby, AxpbyArgs{a2.view(), b.view(), {a2.view()}, 2, 3});
    CHECK_CLOSE(a2.view(), onto_a.want, onto_a.magnitude, Bound{dtype, 3});
    run(axpby, AxpbyArgs{a.view(), b.view(), {b.view()}, 2, 3});
    CHECK_CLOSE(b.view(), onto_a.want, onto_a.magnitude, Bound{dtype, 3});
  }
}

}  // namespace
}  // namespace heddle::kernels
