// Attention forward and backward against the float64 oracle, by every candidate that takes a case: ragged lengths, head sizes, GQA, windows,
// documents, packed buffers, dtypes, thread counts, refusals.
#include "tests/kernels/attention_case.h"

namespace heddle::kernels {

using namespace attention_case;

TEST_CASE("attention: ragged lengths and head sizes in every dtype") {
  for (DType dtype : kFloating) {
    for (int64_t d : {1, 7, 16, 20, 64, 128}) {
      for (int64_t t : {1, 2, 4, 5, 17, 64, 65}) check_case({.b = 1, .t = t, .h = 2, .kv = 2, .d = d, .dtype = dtype});
    }
    check_case({.b = 1, .t = 131, .h = 2, .kv = 2, .d = 32, .dtype = dtype});
    check_case({.b = 2, .t = 70, .h = 1, .kv = 1, .d = 256, .dtype = dtype});
    check_case({.b = 3, .t = 33, .h = 3, .kv = 3, .d = 96, .dtype = dtype, .lse = false});
  }
}

TEST_CASE("attention: grouped queries, windows and documents, alone and together") {
  size_t next = 0;
  for (int64_t kv : {1, 2, 4}) {
    for (int64_t window : {0, 1, 3, 40, 64, 1000}) {
      for (Documents documents : {Documents::none, Documents::growing}) {
        check_case({.b = 2, .t = 150, .h = 4, .kv = kv, .d = 16, .window = window, .dtype = kFloating[next++ % kDtypes], .documents = documents});
        check_case({.b = 2, .t = 70, .h = 4, .kv = kv, .d = 8, .window = window, .dtype = kFloating[next++ % kDtypes], .documents = documents});
        ++next;
      }
    }
  }
}

TEST_CASE("attention: documents whose starts do not rise with the token") {
  for (DType dtype : kFloating) {
    check_case({.b = 2, .t = 150, .h = 2, .kv = 1, .d = 16, .dtype = dtype, .documents = Documents::scattered});
    check_case({.b = 2, .t = 90, .h = 2, .kv = 2, .d = 8, .window = 20, .dtype = dtype, .documents = Documents::scattered});
  }
}

// What tensor cores take: bf16, head sizes of whole tiles, rows at multiples of 16 bytes.
TEST_CASE("attention: aligned rows of 64, 96 and 128 in bf16") {
  constexpr DType kType = DType::bf16;
  for (int64_t d : {64, 96, 128}) {
    for (int64_t t : {1, 17, 130}) check_case({.b = 1, .t = t, .h = 1, .kv = 1, .d = d, .dtype = kType, .aligned = true});
    check_case({.b = 2, .t = 70, .h = 4, .kv = 2, .d = d, .dtype = kType, .aligned = true});
    check_case({.b = 1, .t = 200, .h = 3, .kv = 1, .d = d, .window = 50, .dtype = kType, .aligned = true});
    check_case({.b = 2, .t = 150, .h = 1, .kv = 1, .d = d, .dtype = kType, .documents = Documents::growing, .aligned = true});
    check_case({.b = 1, .t = 150, .h = 2, .kv = 1, .d = d, .window = 70, .dtype = kType, .documents = Documents::growing, .aligned = true});
    check_case({.b = 1, .t = 150, .h = 1, .kv = 1, .d = d, .dtype = kType, .documents = Documents::scattered, .aligned = true});
    check_case({.b = 2, .t = 1, .s = 133, .h = 2, .kv = 1, .d = d, .dtype = kType, .lse = false, .aligned = true});
    check_case({.b = 1, .t = 70, .s = 200, .h = 2, .kv = 2, .d = d, .window = 40, .dtype = kType, .aligned = true});
    check_case({.b = 1, .t = 70, .h = 1, .kv = 1, .d = d, .window = 1, .dtype = kType, .aligned = true});
    // Query 95, and 127, begins with the second key of a tile.
    check_case({.b = 1, .t = 130, .h = 1, .kv = 1, .d = d, .window = 95, .dtype = kType, .aligned = true});
  }
}

// Which tiles need no mask, and which no visit, is decided by all tokens of a tile: each of them in turn differs from the others.
TEST_CASE("attention: one token of a tile sees less than its neighbours, or more") {
  for (Documents documents : {Documents::odd_one, Documents::odd_many})
    check_case({.b = 64, .t = 128, .h = 1, .kv = 1, .d = 96, .dtype = DType::bf16, .documents = documents, .aligned = true, .chosen_only = true});
  for (DType dtype : kFloating) check_case({.b = 32, .t = 70, .h = 1, .kv = 1, .d = 8, .dtype = dtype, .documents = Documents::odd_one});
  // With nothing beside it that would take the place of what that token sees.
  check_case(
      {.b = 8, .t = 70, .h = 1, .kv = 1, .d = 64, .dtype = DType::bf16, .documents = Documents::odd_one, .aligned = true, .odd_gradient = true});
}

// How far the queries reach that see a key is looked up in what each tile of them notes: of two tiles and more, of several sequences, of more tiles
// than a warp has lanes.
TEST_CASE("attention: the last token alone sees what is far in front of it") {
  for (const auto& [b, t] : {std::pair{3, 150}, {2, 260}, {1, 4097}}) {
    check_case({.b = b, .t = t, .h = 1, .kv = 1, .d = 64, .dtype = DType::bf16, .documents = Documents::last, .aligned = true, .chosen_only = true});
  }
}

TEST_CASE("attention: more sequences than tokens, more heads than columns, a head that fills no piece of 16 bytes") {
  for (DType dtype : kFloating) {
    check_case({.b = 40, .t = 1, .h = 1, .kv = 1, .d = 128, .dtype = dtype, .aligned = true});
    check_case({.b = 1, .t = 70, .h = 4, .kv = 2, .d = 1, .dtype = dtype});
    for (int64_t d : {17, 36}) check_case({.b = 1, .t = 1, .h = 1, .kv = 1, .d = d, .dtype = dtype});
  }
}

TEST_CASE("attention: every head size whose rows lie aligned") {
  for (int64_t d = 8; d <= 256; d += d < 136 ? 8 : 24) check_case({.b = 1, .t = 17, .h = 1, .kv = 1, .d = d, .dtype = DType::bf16, .aligned = true});
}

TEST_CASE("attention: nothing to attend to") {
  for (DType dtype : kFloating) {
    check_case({.b = 0, .t = 5, .h = 2, .kv = 1, .d = 8, .dtype = dtype});
    check_case({.b = 2, .t = 0, .h = 2, .kv = 1, .d = 8, .dtype = dtype});
    check_case({.b = 2, .t = 0, .s = 4, .h = 2, .kv = 1, .d = 8, .dtype = dtype});
    check_case({.b = 0, .t = 5, .h = 2, .kv = 1, .d = 64, .dtype = dtype, .aligned = true});
    check_case({.b = 2, .t = 0, .h = 2, .kv = 1, .d = 64, .dtype = dtype, .aligned = true});
  }
}

TEST_CASE("attention: large scores neither overflow nor lose the answer; NaN stays in its row") {
  check_case({.b = 1, .t = 100, .h = 2, .kv = 2, .d = 32, .spread = 30});
  check_case({.b = 1, .t = 3, .h = 2, .kv = 2, .d = 32, .spread = 30});
  check_case({.b = 1, .t = 100, .h = 2, .kv = 2, .d = 64, .dtype = DType::bf16, .lse = false, .aligned = true, .spread = 30});
  for (int64_t t : {4, 100}) {
    Attention a({.b = 1, .t = t, .h = 2, .kv = 2, .d = 8});
    a.in.buffer.put(1 * 48 + 3, std::numeric_limits<double>::quiet_NaN());  // q of t = 1, head 0
    a.run_forward();
    for (int64_t row = 0; row < t * 2; ++row) {
      for (int64_t c = 0; c < 8; ++c) CHECK(std::isnan(test::element(a.out.view(), row * 8 + c)) == (row == 2));
    }
  }
}

TEST_CASE("attention: the bits do not depend on the number of threads, nor on the run") {
  for (const Case& x : {Case{.b = 1, .t = 200, .h = 1, .kv = 1, .d = 64},
                        Case{.b = 2, .t = 150, .h = 4, .kv = 2, .d = 32, .dtype = DType::bf16, .documents = Documents::growing},
                        Case{.b = 1, .t = 150, .h = 4, .kv = 2, .d = 64, .dtype = DType::bf16, .documents = Documents::growing, .aligned = true},
                        Case{.b = 1, .t = 2, .s = 1000, .h = 8, .kv = 2, .d = 64},
                        Case{.b = 1, .t = 3, .s = 900, .h = 5, .kv = 1, .d = 128, .dtype = DType::bf16, .aligned = true}}) {
    INFO(x);
    CHECK(test::same_on_any_thread_count([&] {
      Attention a(x);
      a.run_forward();
      if (!x.s) a.run_backward();
      return std::vector<Buffer>{a.out, a.lse, a.grad.buffer};
    }));
  }
}

TEST_CASE("attention: a document that begins behind its token, or before the sequence, is a fault that names it") {
  for (const bool tensor_cores : {false, true}) {
    const Case x{.b = 2,
                 .t = 70,
                 .h = tensor_cores ? 1 : 4,
                 .kv = tensor_cores ? 1 : 2,
                 .d = tensor_cores ? 64 : 8,
                 .dtype = tensor_cores ? DType::bf16 : DType::f32,
                 .documents = Documents::growing,
                 .aligned = tensor_cores};
    Attention a(x);
    a.run_forward();
    for (const auto& [token, start, text] : {std::tuple{2, 3, "document_start[b = 1][t = 2] is 3, not in [0, 2]"},
                                             {69, 70, "document_start[b = 1][t = 69] is 70, not in [0, 69]"},
                                             {40, 1 << 30, "document_start[b = 1][t = 40] is 1073741824, not in [0, 40]"},
                                             {0, -1, "document_start[b = 1][t = 0] is -1, not in [0, 0]"}}) {
      Buffer changed = a.start;
      changed.put(70 + token, start);
      a.forward.document_start = a.backward.document_start = changed.view();
      by_every_candidate(attention_forward, a.forward,
                         [&](std::string_view) { CHECK(test::contains(test::error_of(attention_forward, a.forward), text)); });
      by_every_candidate(attention_backward, a.backward,
                         [&](std::string_view) { CHECK(test::contains(test::error_of(attention_backward, a.backward), text)); });
      CHECK(a.out.guards_intact());
      CHECK(a.grad.buffer.guards_intact());
    }
  }
}

TEST_CASE("attention: arguments that contradict the contract give one error naming the shapes") {
  using Catch::Matchers::Contains;
  const auto refused = [](const std::function<void(AttentionForwardArgs&)>& change, const std::string& text) {
    Attention a({.b = 2, .t = 6, .h = 4, .kv = 2, .d = 8, .documents = Documents::growing});
    change(a.forward);
    CHECK_THROWS_WITH(check(a.forward), Contains(text));
  };
  using Args = AttentionForwardArgs;
  refused([](Args& a) { a.k.shape[3] = 7; }, "[attention_forward] batch or head size differs: q f32 (2, 6, 4, 8), k f32 (2, 6, 2, 7)");
  refused([](Args& a) { a.v.shape[1] = 5; }, "k and v must have one shape");
  refused([](Args& a) { a.q.shape[2] = 3; }, "query heads must be a multiple of KV heads: q f32 (2, 6, 3, 8), k f32 (2, 6, 2, 8)");
  refused([](Args& a) { a.k.shape[1] = a.v.shape[1] = 5; }, "fewer keys than queries");
  refused([](Args& a) { a.k.dtype = DType::bf16; }, "one floating dtype");
  refused([](Args& a) { a.out.shape[1] = 5; }, "out must be like q: f32 (2, 5, 4, 8) and f32 (2, 6, 4, 8)");
  refused([](Args& a) { a.lse.shape[1] = 2; }, "lse must be (B, H, T), is f32 (2, 2, 6)");
  refused([](Args& a) { a.lse.dtype = DType::f64; }, "lse must be f32");
  refused([](Args& a) { a.document_start.shape[1] = 5; }, "document_start must be i32 (B, T), is i32 (2, 5)");
  refused([](Args& a) { a.k.shape[1] = a.v.shape[1] = 9; }, "document_start needs as many keys as queries");
  refused([](Args& a) { a.v.stride[3] = 2; }, "the last stride of v is not 1");
  refused([](Args& a) { a.position = make_view(a.document_start.as<int32_t>(), {2}); }, "position goes with a cache");
  refused(
      [](Args& a) {
        a.position = a.document_start;
        a.document_start = {};
      },
      "position must be i32 (B), is i32 (2, 6)");

  test::register_kernels();
  Attention wide({.b = 1, .t = 2, .h = 1, .kv = 1, .d = 300});
  CHECK_THROWS_WITH(attention_forward.choose(kDevice, wide.forward), Contains("head size 300 is above 256"));
  CHECK_THROWS_WITH(attention_backward.choose(kDevice, wide.backward), Contains("head size 300 is above 256"));

  Attention a({.b = 2, .t = 6, .h = 4, .kv = 2, .d = 8});
  const auto backward_refused = [&](const std::function<void(AttentionBackwardArgs&)>& change, const std::string& text) {
    AttentionBackwardArgs args = a.backward;
    change(args);
    CHECK_THROWS_WITH(check(args), Contains(text));
  };
  backward_refused([](auto& args) { args.dk.shape[2] = 4; }, "dk must be like k");
  backward_refused([](auto& args) { args.d_out.dtype = DType::f64; }, "d_out must be like q");
  backward_refused([](auto& args) { args.lse = View{}; }, "lse is absent");
}

TEST_CASE("attention: scratch that is too small is refused", "[cpu]") {
  Attention a({.b = 2, .t = 6, .h = 4, .kv = 2, .d = 8});
  a.run_forward();
  std::vector<std::byte> little(8);
  a.backward.scratch = little;
  CHECK_THROWS_WITH(attention_backward.candidates(DeviceType::cpu)[0].run(a.backward, Stream{}),
                    Catch::Matchers::Contains("scratch too small: 8 of"));
}

}  // namespace heddle::kernels
