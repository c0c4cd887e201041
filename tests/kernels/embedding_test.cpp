// Token and position embedding against float64; bad indices are named.
#include "kernels/api/embedding.h"

#include <sys/mman.h>

#include <cmath>
#include <limits>

#include "tests/kernels/kernel_case.h"
#include "tests/oracles/embedding.h"

namespace heddle::kernels {
namespace {

using test::Bound;
using test::Buffer;
using test::kFloating;
using test::run;

struct Shape {
  int64_t b, t, vocabulary, c;
};
const Shape kShapes[] = {{1, 1, 1, 1}, {2, 5, 7, 3}, {3, 40, 11, 100}, {2, 9, 65, 1100}, {3, 20, 1500, 70}, {2, 7, 600, 8}, {2, 30, 40, 264}};

// Room behind rows: of eight elements where C is a multiple of them, so that rows stay aligned.
test::BufferOptions room(const Shape& s, int64_t n) {
  return {.padding = s.c % 8 == 0 ? 8 * n : n};
}

// Tokens with many repeats; documents restart in the middle of a row.
Buffer make_tokens(const Shape& s) {
  Buffer tokens(DType::i32, {s.b, s.t}, {.padding = 1});
  return tokens.fill([&](int64_t i) { return static_cast<double>((i * i + 3 * i) % s.vocabulary); });
}
Buffer make_start(const Shape& s) {
  Buffer start(DType::i32, {s.b, s.t}, {.padding = 2});
  return start.fill([&](int64_t i) { return static_cast<double>(i % s.t >= s.t / 2 ? s.t / 2 : 0); });
}

TEST_CASE("embedding forward: with and without positions and documents", "[embedding]") {
  for (DType dtype : kFloating) {
    for (const Shape& s : kShapes) {
      for (int options = 0; options < 3; ++options) {
        const Buffer tokens = make_tokens(s), start = make_start(s);
        Buffer weight(dtype, {s.vocabulary, s.c}, room(s, 1)), position(dtype, {s.t, s.c}, room(s, 2)), out(dtype, {s.b, s.t, s.c}, room(s, 3));
        weight.normal(1);
        position.normal(2);
        EmbeddingForwardArgs args{tokens.view(), weight.view(), options ? position.view() : View{}, options == 2 ? start.view() : View{}, out.view()};
        const oracle::Values want = oracle::embedding_forward(args);
        run(embedding_forward, args);
        CHECK_CLOSE(out.view(), want.want, want.magnitude, Bound{dtype, 1});
        CHECK(out.guards_intact());
      }
    }
  }
}

TEST_CASE("embedding backward: sinks of either type, stored and added, rows that do not occur", "[embedding]") {
  for (DType dtype : kFloating) {
    for (const Shape& s : kShapes) {
      for (int options = 0; options < 8; ++options) {
        const bool accumulate = options & 1, wide = options & 2, documents = options & 4;
        const DType out_type = wide ? accumulator_of(dtype) : dtype;
        const Buffer tokens = make_tokens(s), start = make_start(s);
        const int64_t rows = s.vocabulary + 5;  // the last ones never occur
        Buffer d_out(dtype, {s.b, s.t, s.c}, room(s, 1)), d_weight(out_type, {rows, s.c}, room(s, 2)), d_position(out_type, {s.t + 2, s.c});
        d_out.normal(1);
        if (accumulate) {
          d_weight.normal(2);
          d_position.normal(3);
        }
        EmbeddingBackwardArgs args{
            tokens.view(), documents ? start.view() : View{}, d_out.view(), {d_weight.view(), accumulate}, {d_position.view(), accumulate}, {}};
        const oracle::EmbeddingGradient want = oracle::embedding_backward(args);
        run(embedding_backward, args);
        const double terms = static_cast<double>(s.b * s.t) + 1;
        CHECK_CLOSE(d_weight.view(), want.d_weight.want, want.d_weight.magnitude, Bound{out_type, terms});
        CHECK_CLOSE(d_position.view(), want.d_position.want, want.d_position.magnitude, Bound{out_type, terms});
        CHECK((d_weight.guards_intact() && d_position.guards_intact()));
        args.d_position = {};
        d_weight.poison();
        args.d_weight.accumulate = false;
        run(embedding_backward, args);  // one sink alone
        CHECK(d_weight.guards_intact());
      }
    }
  }
}

TEST_CASE("embedding: tokens of another shard have a row of zeros and give no gradient", "[embedding]") {
  for (DType dtype : kFloating) {
    for (const Shape& s : kShapes) {
      for (const int64_t rows : {int64_t{1}, (s.vocabulary + 2) / 3, s.vocabulary + 4}) {
        for (const int64_t first : {int64_t{0}, s.vocabulary / 3, s.vocabulary - 1, s.vocabulary + 2}) {
          const VocabShard shard{.first = first, .vocabulary = s.vocabulary};
          const Buffer tokens = make_tokens(s);
          Buffer weight(dtype, {rows, s.c}, room(s, 1)), out(dtype, {s.b, s.t, s.c}, room(s, 3));
          weight.normal(1);
          for (int64_t i = shard.held(rows) * s.c; i < rows * s.c; ++i) weight.put(i, std::numeric_limits<double>::quiet_NaN());  // padding
          const EmbeddingForwardArgs forward{.tokens = tokens.view(), .weight = weight.view(), .out = out.view(), .shard = shard};
          const oracle::Values want = oracle::embedding_forward(forward);
          run(embedding_forward, forward);
          CHECK_CLOSE(out.view(), want.want, want.magnitude, Bound{dtype, 1});
          CHECK(out.guards_intact());

          Buffer d_out(dtype, {s.b, s.t, s.c}), d_weight(accumulator_of(dtype), {rows, s.c}, room(s, 2));
          d_out.normal(2);
          const EmbeddingBackwardArgs backward{.tokens = tokens.view(), .d_out = d_out.view(), .d_weight = {d_weight.view()}, .shard = shard};
          const oracle::EmbeddingGradient gradient = oracle::embedding_backward(backward);
          run(embedding_backward, backward);
          CHECK_CLOSE(d_weight.view(), gradient.d_weight.want, gradient.d_weight.magnitude,
                      Bound{accumulator_of(dtype), static_cast<double>(s.b * s.t) + 1});
          CHECK(d_weight.guards_intact());
        }
      }
    }
  }
}

TEST_CASE("embedding backward: rows are added in token order", "[embedding]") {
  // In f32 the order shows: (1 + 2^24) - 2^24 is 0, 1 + (2^24 - 2^24) is 1.
  const int32_t tokens[] = {2, 2, 0, 2};
  const float d_out[] = {1, 0x1p24f, 5, -0x1p24f};
  float d_weight[3];
  run(embedding_backward, EmbeddingBackwardArgs{make_view(tokens, {1, 4}), {}, make_view(d_out, {1, 4, 1}), {make_view(d_weight, {3, 1})}, {}, {}});
  CHECK(d_weight[0] == 5);
  CHECK(d_weight[1] == 0);
  CHECK(d_weight[2] == 0);
}

// d_weight of rows added one after the other in f32.
std::vector<float> in_token_order(const Buffer& tokens, const Buffer& d_out, const VocabShard& shard, int64_t rows, int64_t columns) {
  std::vector<float> sum(static_cast<size_t>(rows * columns), 0);
  const std::vector<double> ids = test::values(tokens.view()), d = test::values(d_out.view());
  for (size_t n = 0; n < ids.size(); ++n) {
    const int64_t row = shard.row(static_cast<int64_t>(ids[n]), rows);
    for (int64_t c = 0; row >= 0 && c < columns; ++c)
      sum[static_cast<size_t>(row * columns + c)] += static_cast<float>(d[n * static_cast<size_t>(columns) + static_cast<size_t>(c)]);
  }
  return sum;
}

TEST_CASE("embedding backward: thousands of rows are added in token order, however many share a token and wherever they lie", "[embedding]") {
  // Vocabularies of one digit of a sort by 9 bits and of two, with a token that a third of the rows hold.
  for (const Shape& s : {Shape{3, 1500, 1200, 5}, Shape{2, 1100, 500, 40}, Shape{1, 3000, 1, 1}, Shape{5, 700, 300000, 4}}) {
    for (const DType dtype : {DType::f32, DType::bf16}) {
      Buffer tokens(DType::i32, {s.b, s.t}), d_out(dtype, {s.b, s.t, s.c});
      std::mt19937 engine(11);
      tokens.fill([&](int64_t) { return static_cast<double>(engine() % 3 == 0 ? s.vocabulary / 2 : static_cast<int64_t>(engine()) % s.vocabulary); });
      d_out.fill([&](int64_t) { return (static_cast<double>(engine() % 2001) - 1000) * std::exp2(static_cast<double>(engine() % 30)); });
      for (const VocabShard shard : {VocabShard{}, VocabShard{s.vocabulary / 3, s.vocabulary}}) {
        const int64_t rows = std::min<int64_t>(s.vocabulary - shard.first, 2000);
        const bool whole = shard.first == 0 && rows == s.vocabulary;
        const VocabShard of{shard.first, s.vocabulary};
        Buffer d_weight(DType::f32, {rows, s.c});
        run(embedding_backward,
            EmbeddingBackwardArgs{.tokens = tokens.view(), .d_out = d_out.view(), .d_weight = {d_weight.view()}, .shard = whole ? VocabShard{} : of});
        const std::vector<float> want = in_token_order(tokens, d_out, of, rows, s.c);
        CHECK(test::values(d_weight.view()) == std::vector<double>(want.begin(), want.end()));
        CHECK(d_weight.guards_intact());
      }
    }
  }
}

TEST_CASE("embedding backward: without tokens the sinks are zeroed, or left alone where they accumulate", "[embedding]") {
  for (const bool accumulate : {false, true}) {
    Buffer tokens(DType::i32, {0, 5}), start(DType::i32, {0, 5}), d_out(DType::f32, {0, 5, 8}), d_weight(DType::f32, {600, 8}),
        d_position(DType::f32, {5, 8});
    d_weight.normal(1), d_position.normal(2);
    const Buffer weight_before = d_weight, position_before = d_position;
    Buffer out(DType::f32, {0, 5, 8});
    run(embedding_forward, EmbeddingForwardArgs{tokens.view(), d_weight.view(), {}, {}, out.view()});
    CHECK(out.guards_intact());
    for (const View& starts : {View{}, start.view()}) {
      run(embedding_backward,
          EmbeddingBackwardArgs{tokens.view(), starts, d_out.view(), {d_weight.view(), accumulate}, {d_position.view(), accumulate}, {}});
      if (accumulate) {
        CHECK((d_weight == weight_before && d_position == position_before));
      } else {
        CHECK(test::values(d_weight.view()) == std::vector<double>(600 * 8, 0.0));
        CHECK(test::values(d_position.view()) == std::vector<double>(5 * 8, 0.0));
      }
    }
  }
}

// Lines of d_out with others behind them; nine columns in rows that begin at multiples of 16 bytes; no columns at all.
TEST_CASE("embedding: where rows lie", "[embedding]") {
  for (DType dtype : kFloating) {
    for (const Shape& s : {Shape{3, 4, 5, 9}, Shape{3, 4, 5, 16}, Shape{2, 3, 5, 0}}) {
      const test::BufferOptions to_16{.padding = (16 - s.c % 16) % 16};
      const Buffer tokens = make_tokens(s);
      Buffer longer(dtype, {s.b, s.t + 3, s.c}, to_16), d_weight(dtype, {s.vocabulary, s.c}, to_16), weight = d_weight,
                                                                                                     out(dtype, {s.b, s.t, s.c}, to_16);
      longer.normal(1), weight.normal(2);
      View d_out = longer.view();
      d_out.shape[1] = s.t;
      const EmbeddingBackwardArgs backward{tokens.view(), {}, d_out, {d_weight.view()}, {}, {}};
      const oracle::EmbeddingGradient gradient = oracle::embedding_backward(backward);
      run(embedding_backward, backward);
      CHECK_CLOSE(d_weight.view(), gradient.d_weight.want, gradient.d_weight.magnitude, Bound{dtype, static_cast<double>(s.b * s.t) + 1});
      CHECK(d_weight.guards_intact());
      const EmbeddingForwardArgs forward{tokens.view(), weight.view(), {}, {}, out.view()};
      const oracle::Values want = oracle::embedding_forward(forward);
      run(embedding_forward, forward);
      CHECK_CLOSE(out.view(), want.want, want.magnitude, Bound{dtype, 1});
      CHECK(out.guards_intact());
    }
  }
}

// A table of 2^18 rows, whose numbers take three passes of a sort by 9 bits; fewer where every access is looked at.
TEST_CASE("embedding backward: a large table", "[embedding]") {
  const int32_t rows = 1 << (test::buffer_watch.every_access ? 10 : 18), tokens[] = {rows - 1, 5, rows / 2, rows - 1};
  const float d_out[] = {1, 2, 3, 4};
  Buffer d_weight(DType::f32, {rows, 1});
  for (const int32_t token : tokens) d_weight.put(token, 0);
  run(embedding_backward,
      EmbeddingBackwardArgs{.tokens = make_view(tokens, {1, 4}), .d_out = make_view(d_out, {1, 4, 1}), .d_weight = {d_weight.view(), true}});
  CHECK((test::element(d_weight.view(), 5) == 2 && test::element(d_weight.view(), rows / 2) == 3 && test::element(d_weight.view(), rows - 1) == 5));
}

// Two rows of d_out 2^32 elements apart, in 8 GB of addresses of which two pages are memory.
TEST_CASE("embedding backward: rows far apart", "[embedding]") {
  constexpr size_t kApart = size_t{2} << 32, kPage = 4096, kRoom = 256, kRow = 8;  // kRoom: an access beside a row meets nothing
  void* const addresses = mmap(nullptr, kApart + kPage, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  REQUIRE(addresses != MAP_FAILED);
  std::byte* const first = static_cast<std::byte*>(addresses) + kRoom;
  for (const double value : {1.0, 2.0}) {
    std::byte* const row = first + (value == 1 ? 0 : kApart);
    REQUIRE(mprotect(row - kRoom, kPage, PROT_READ | PROT_WRITE) == 0);
    std::fill_n(reinterpret_cast<bf16*>(row), kRow, bf16(static_cast<float>(value)));
    if (test::buffer_watch.made) test::buffer_watch.made(row, kRow * sizeof(bf16));
  }
  View d_out = make_view(first, DType::bf16, {2, 1, kRow});
  d_out.stride[0] = int64_t{1} << 32;
  const int32_t tokens[] = {1, 1};
  const Buffer d_weight(DType::f32, {2, kRow});
  run(embedding_backward, EmbeddingBackwardArgs{.tokens = make_view(tokens, {2, 1}), .d_out = d_out, .d_weight = {d_weight.view()}});
  const std::vector<double> got = test::values(d_weight.view());
  CHECK(std::vector<double>(got.begin() + kRow, got.end()) == std::vector<double>(kRow, 3.0));
  for (std::byte* const row : {first, first + kApart})
    if (test::buffer_watch.gone) test::buffer_watch.gone(row);
  munmap(addresses, kApart + kPage);
}

TEST_CASE("embedding: bits do not depend on the number of threads", "[embedding]") {
  const Shape s{4, 600, 1300, 48};
  const Buffer tokens = make_tokens(s), start = make_start(s);
  Buffer weight(DType::f32, {s.vocabulary, s.c}), d_out(DType::f32, {s.b, s.t, s.c});
  weight.normal(1);
  d_out.normal(2);
  CHECK(test::same_on_any_thread_count([&] {
    Buffer out(DType::f32, {s.b, s.t, s.c}), d_weight(DType::f32, {s.vocabulary, s.c}), d_position(DType::f32, {s.t, s.c});
    run(embedding_forward, EmbeddingForwardArgs{tokens.view(), weight.view(), {}, {}, out.view()});
    run(embedding_backward, EmbeddingBackwardArgs{tokens.view(), start.view(), d_out.view(), {d_weight.view()}, {d_position.view()}, {}});
    return std::vector{out, d_weight, d_position};
  }));
}

TEST_CASE("embedding forward: a bad token is found before anything is written", "[embedding][cpu]") {
  const Shape s{2, 3, 7, 4};
  Buffer weight(DType::f32, {7, 4}), out(DType::f32, {2, 3, 4}), tokens = make_tokens(s);
  tokens.put(5, 7);
  const Buffer before = out;
  CHECK(test::error_of(embedding_forward, EmbeddingForwardArgs{tokens.view(), weight.view(), {}, {}, out.view()}) != "");
  CHECK(out == before);
}

TEST_CASE("embedding: a bad token or position is an Error that names it", "[embedding]") {
  const Shape s{2, 3, 7, 4};
  Buffer weight(DType::f32, {7, 4}), position(DType::f32, {2, 4}), out(DType::f32, {2, 3, 4}), d_out(DType::f32, {2, 3, 4});
  d_out.normal(1);
  for (int32_t bad : {7, -1}) {
    Buffer tokens = make_tokens(s);
    tokens.put(5, bad);
    const std::string where = concat("tokens[b = 1][t = 2] = ", bad, ", V = 7");
    CHECK(test::contains(test::error_of(embedding_forward, EmbeddingForwardArgs{tokens.view(), weight.view(), {}, {}, out.view()}), where));
    const EmbeddingBackwardArgs backward{tokens.view(), {}, d_out.view(), {weight.view()}, {}, {}};
    CHECK(test::contains(test::error_of(embedding_backward, backward), where));
  }
  for (const auto& [bad, shard] :
       std::vector<std::pair<int32_t, VocabShard>>{{9, {2, 9}}, {5, {2, 5}}, {-1, {2, 9}}}) {  // outside the whole vocabulary
    Buffer tokens(DType::i32, {2, 3});
    tokens.fill([bad = bad](int64_t i) { return i == 5 ? bad : 0; });
    const std::string where = concat("tokens[b = 1][t = 2] = ", bad, ", V = ", shard.vocabulary);
    CHECK(test::contains(
        test::error_of(embedding_forward, EmbeddingForwardArgs{.tokens = tokens.view(), .weight = weight.view(), .out = out.view(), .shard = shard}),
        where));
    const EmbeddingBackwardArgs backward{.tokens = tokens.view(), .d_out = d_out.view(), .d_weight = {weight.view()}, .shard = shard};
    CHECK(test::contains(test::error_of(embedding_backward, backward), where));
  }
  const Buffer tokens = make_tokens(s);
  Buffer start(DType::i32, {2, 3});
  start.fill([](int64_t i) { return i == 5 ? 1 : 0; });  // of the two tokens behind the table's end, one is in a document of its own
  const EmbeddingForwardArgs forward{tokens.view(), weight.view(), position.view(), start.view(), out.view()};
  CHECK(test::contains(test::error_of(embedding_forward, forward), "b = 0, t = 2 gives 2, P = 2"));
  const EmbeddingBackwardArgs backward{.tokens = tokens.view(), .start = start.view(), .d_out = d_out.view(), .d_position = {position.view()}};
  CHECK(test::contains(test::error_of(embedding_backward, backward), "b = 0, t = 2 gives 2, P = 2"));
  start.put(5, 3), start.put(2, 1);
  CHECK(test::contains(test::error_of(embedding_backward, backward), "b = 1, t = 2 gives -1, P = 2"));
  for (const int64_t b : {1, 2}) {  // without documents every line has it
    EmbeddingBackwardArgs plain{.tokens = tokens.view(), .d_out = d_out.view(), .d_position = {position.view()}};
    plain.tokens.shape[0] = plain.d_out.shape[0] = b;
    CHECK(test::contains(test::error_of(embedding_backward, plain), "t = 2 gives 2, P = 2"));
  }
  try {
    run(embedding_forward, forward);
  } catch (const Error& error) {
    CHECK(error.code() == ExitCode::bad_data);
  }
}

TEST_CASE("embedding: a bad token is passed over where nobody asks for faults", "[embedding]") {
  const int32_t tokens[] = {1, 7};
  const Buffer weight = Buffer(DType::f32, {7, 4}).normal(1), out(DType::f32, {1, 2, 4});
  const EmbeddingForwardArgs args{make_view(tokens, {1, 2}), weight.view(), {}, {}, out.view()};
  test::register_kernels();
  embedding_forward.choose(test::kDevice, args).run(args, Stream{Device{test::kDevice, 0}});
  test::finish_kernels();
  CHECK(out.guards_intact());
}

TEST_CASE("embedding: arguments that contradict the contract are refused by name", "[embedding]") {
  const Shape s{2, 3, 7, 4};
  const Buffer tokens = make_tokens(s), weight(DType::f32, {7, 4}), out(DType::f32, {2, 3, 5}), floats(DType::f32, {2, 3});
  CHECK(test::contains(test::error_of(embedding_forward, EmbeddingForwardArgs{tokens.view(), weight.view(), {}, {}, out.view()}), "shape (2, 3, 4)"));
  CHECK(test::contains(test::error_of(embedding_forward, EmbeddingForwardArgs{floats.view(), weight.view(), {}, {}, out.view()}), "must be i32"));
  CHECK(
      test::contains(test::error_of(embedding_backward, EmbeddingBackwardArgs{tokens.view(), {}, out.view(), {weight.view()}, {}, {}}), "5 columns"));
}

#if defined(HEDDLE_TEST_CUDA)
TEST_CASE("embedding: a GPU refuses f64, 2^31 rows and columns, and too little scratch", "[embedding]") {
  test::register_kernels();
  int32_t token = 0;
  float number = 0;
  const auto refusal = [](const auto& kernel, const auto& args) -> std::string {
    try {
      kernel.choose(test::kDevice, args);
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  };
  const auto forward = [&](DType dtype, int64_t b, int64_t t, int64_t columns) {
    View weight = make_view(&number, {5, columns}), out = make_view(&number, {b, t, columns});
    weight.dtype = out.dtype = dtype;
    return refusal(embedding_forward, EmbeddingForwardArgs{make_view(&token, {b, t}), weight, {}, {}, out});
  };
  CHECK(test::contains(forward(DType::f64, 1, 1, 8), "f32 and bf16 only"));
  CHECK(test::contains(forward(DType::f32, 1 << 16, 1 << 15, 8), "more than 2^31 rows or columns"));
  CHECK(test::contains(forward(DType::f32, 1, 1, int64_t{1} << 31), "more than 2^31 rows or columns"));
  CHECK(forward(DType::f32, 1, INT32_MAX, 8) == "");
  CHECK(forward(DType::f32, 1, 1, INT32_MAX) == "");

  const auto backward = [&](int64_t rows, int64_t columns) {
    return refusal(
        embedding_backward,
        EmbeddingBackwardArgs{make_view(&token, {1, 1}), {}, make_view(&number, {1, 1, columns}), {make_view(&number, {rows, columns})}, {}, {}});
  };
  CHECK(test::contains(backward(INT32_MAX, 8), "a table of 2^31 rows or columns"));
  CHECK(test::contains(backward(5, INT32_MAX - 1023), "a table of 2^31 rows or columns"));
  CHECK(backward(INT32_MAX - 1, 8) == "");
  CHECK(backward(5, INT32_MAX - 1024) == "");

  const Buffer tokens = make_tokens({2, 3, 7, 4}), weight(DType::f32, {7, 4}), out(DType::f32, {2, 3, 4});
  const EmbeddingBackwardArgs no_scratch{tokens.view(), {}, out.view(), {weight.view()}, {}, {}};
  CHECK_THROWS_AS(embedding_backward.candidates(test::kDevice)[0].run(no_scratch, Stream{}), Error);
}
#endif

}  // namespace
}  // namespace heddle::kernels
