// What calls must do at least: by hand, and by counting one by one.
#include "kernels/api/cost.h"

#include <cstring>

#include "kernels/api/rehearsal.h"
#include "tests/support/catch.h"

namespace heddle::kernels {
namespace {

// No kernel looks at it.
std::byte* const kSomewhere = reinterpret_cast<std::byte*>(4096);
View view(DType dtype, std::initializer_list<int64_t> sizes, int64_t place = 0) {
  return make_view(kSomewhere + place, dtype, sizes);
}

TEST_CASE("a product multiplies m n k times, reads its operands, and what it adds to") {
  MatmulArgs args{.a = view(DType::bf16, {7, 5}), .b = view(DType::bf16, {11, 5}), .trans_b = true, .c = {view(DType::f32, {7, 11}), false}};
  CHECK(cost_of(args).flops == 2 * 7 * 11 * 5);
  CHECK(cost_of(args).bytes == 2 * 7 * 5 + 2 * 11 * 5 + 4 * 7 * 11);
  CHECK(shape_of_call(args) == "7 x 11 x 5 NT bf16 to f32");
  args.c.accumulate = true;
  args.bias = view(DType::bf16, {11});
  CHECK(cost_of(args).bytes == 2 * 7 * 5 + 2 * 11 * 5 + 2 * 4 * 7 * 11 + 2 * 11);
  CHECK(shape_of_call(args) == "7 x 11 x 5 NT bf16 to f32, bias, added");
}

TEST_CASE("a matrix times itself transposed multiplies for one half and the diagonal, and is read once") {
  const MatmulArgs args{.a = view(DType::f32, {7, 5}), .b = view(DType::f32, {7, 5}), .trans_b = true, .c = {view(DType::f32, {7, 7}), false}};
  CHECK(cost_of(args).flops == 2 * (7 * 8 / 2) * 5);
  CHECK(cost_of(args).bytes == 4 * 7 * 5 + 4 * 7 * 7);
  CHECK(shape_of_call(args) == "7 x 7 x 5 NT f32, symmetric");
}

TEST_CASE("attention multiplies for the pairs that causality and the window leave") {
  for (const int64_t queries : {1, 4, 9}) {
    for (const int64_t before : {0, 1, 20}) {
      for (const int64_t window : {0, 1, 3, 8, 100}) {
        CAPTURE(queries, before, window);
        const int64_t keys = queries + before;
        int64_t pairs = 0;
        for (int64_t t = 0; t < queries; ++t) {
          for (int64_t key = 0; key <= before + t; ++key) pairs += window == 0 || key > before + t - window;
        }
        const AttentionForwardArgs forward{.q = view(DType::f32, {2, queries, 6, 16}),
                                           .k = view(DType::f32, {2, keys, 3, 16}),
                                           .v = view(DType::f32, {2, keys, 3, 16}),
                                           .out = view(DType::f32, {2, queries, 6, 16}),
                                           .window = window};
        CHECK(cost_of(forward).flops == 4 * 2 * 6 * 16 * static_cast<double>(pairs));
        CHECK(cost_of(forward).bytes == 4 * 2 * 16 * static_cast<double>(2 * 6 * queries + 2 * 3 * keys));
        AttentionBackwardArgs backward;
        backward.q = forward.q, backward.k = forward.k, backward.window = window;
        CHECK(cost_of(backward).flops == 2.5 * cost_of(forward).flops);
      }
    }
  }
}

TEST_CASE("AdamW moves 30 bytes a parameter of bf16, 28 of f32, of the blocks that have moments") {
  AdamWArgs args{.value = view(DType::bf16, {512}),
                 .master = view(DType::f32, {256}, 1 << 12),
                 .grad = view(DType::f32, {512}),
                 .m = view(DType::f32, {256}),
                 .v = view(DType::f32, {256})};
  CHECK(cost_of(args).bytes == 256 * 30);
  args.value = args.master;
  CHECK(cost_of(args).bytes == 256 * 28);
}

TEST_CASE("a gradient of an embedding that is added to touches the rows of its tokens") {
  EmbeddingBackwardArgs args{
      .tokens = view(DType::i32, {2, 8}), .d_out = view(DType::bf16, {2, 8, 32}), .d_weight = {view(DType::f32, {1000, 32}), false}};
  const double rest = 4 * 16 + 2 * 16 * 32;
  CHECK(cost_of(args).bytes == rest + 4 * 1000 * 32);
  args.d_weight.accumulate = true;
  CHECK(cost_of(args).bytes == rest + 2 * 4 * 16 * 32);
  args.tokens = view(DType::i32, {2, 4000});
  args.d_out = view(DType::bf16, {2, 4000, 32});
  CHECK(cost_of(args).bytes == 4 * 8000 + 2 * 8000 * 32 + 2 * 4 * 1000 * 32);
}

TEST_CASE("a rehearsal tells of every call that is not made, and whose it would be") {
  register_cpu_kernels();
  std::vector<RehearsedKernels::Call> calls;
  const FillArgs args{.out = view(DType::f32, {3, 5})};
  {
    RehearsedKernels rehearsed;
    const auto call = [&] { fill.choose(DeviceType::cpu, args).run(args, {}); };
    call();
    rehearsed.listen([&](const RehearsedKernels::Call& heard) { calls.push_back(heard); });
    call();
    call();
  }
  REQUIRE(calls.size() == 2);
  CHECK(calls[1].op == "fill");
  CHECK(calls[1].candidate == fill.candidates(DeviceType::cpu)[0].name);
  CHECK(calls[1].shape == "3 x 5 f32");
  CHECK(calls[1].cost.bytes == 60);
}

}  // namespace
}  // namespace heddle::kernels
