// Attention over a KV cache: queries at its end, a few of them, texts of lengths of their own.
#include "tests/kernels/attention_case.h"

namespace heddle::kernels {

using namespace attention_case;

TEST_CASE("attention: queries at the end of a KV cache") {
  size_t next = 0;
  for (int64_t t : {1, 3, 4, 5, 30, 64, 100}) {
    for (int64_t s : {t + 1, int64_t{107}, int64_t{203}}) {
      for (int64_t window : {0, 1, 50}) {
        check_case({.b = 2, .t = t, .s = s, .h = 4, .kv = 2, .d = 24, .window = window, .dtype = kFloating[next++ % kDtypes]});
      }
      ++next;
    }
  }
}

// What a GPU cuts into parts of the keys: one part, several, the last of them short; a group that fills no tile and one that needs two.
TEST_CASE("attention: a few queries over a long KV cache") {
  const auto check_decoded = [](Case x) {
    x.aligned = true;
#if defined(HEDDLE_TEST_CUDA)
    const Attention a(x);
    test::register_kernels();
    CHECK(attention_forward.choose(kDevice, a.forward).name == "decode");
#endif
    check_case(x);
  };
  uint32_t state = 1;
  const auto any = [&](int64_t least, int64_t most) {
    state = state * 1664525 + 1013904223;
    return least + static_cast<int64_t>(state >> 8) % (most - least + 1);
  };
  for (int i = 0; i < 24; ++i) {
    constexpr int64_t kHeadSizes[] = {64, 128, 96, 8, 40};
    const int64_t t = i % 3 ? 1 : any(1, 8), s = any(t, i % 2 ? 150 : 700), kv = any(1, 2), group = any(1, i % 4 ? 5 : 12);
    check_decoded({.b = any(1, 2),
                   .t = t,
                   .s = s,
                   .h = kv * group,
                   .kv = kv,
                   .d = kHeadSizes[i % 5],
                   .window = i % 4 == 3 ? any(1, 200) : 0,
                   .dtype = kFloating[static_cast<size_t>(i) / 2 % kDtypes],
                   .lse = i % 6 != 5,
                   .spread = i % 7 == 6 ? 5.0 : 1.0});
  }
  for (DType dtype : kFloating) {
    check_decoded({.b = 1, .t = 1, .s = 1, .h = 1, .kv = 1, .d = 8, .dtype = dtype});
    check_decoded({.b = 2, .t = 8, .h = 2, .kv = 1, .d = 64, .dtype = dtype, .documents = Documents::growing});
    check_decoded({.b = 1, .t = 1, .s = 257, .h = 7, .kv = 1, .d = 64, .dtype = dtype});
  }
  check_decoded({.b = 1, .t = 1, .s = 32768, .h = 1, .kv = 1, .d = 64, .dtype = DType::bf16, .chosen_only = true});
}

// Texts of lengths of their own in one cache. A GPU that decodes has parts without keys then.
TEST_CASE("attention: each sequence at a position of its own") {
  size_t next = 0;
  for (const int64_t t : {1, 1, 2, 5, 9, 70}) {
    for (const int64_t room : {0, 1, 40, 600}) {
      for (const int64_t window : {0, 1, 30, 300}) {
        const DType dtype = kFloating[next % kDtypes];
        const int64_t kv = 1 + static_cast<int64_t>(next % 2), group = next % 5 == 0 ? 6 : 2;
        constexpr int64_t kHeadSizes[] = {64, 24, 128, 136, 7};
        const int64_t d = kHeadSizes[next++ % 5];
        if (t > 9 && room > 40) continue;
        check_case({.b = 1 + static_cast<int64_t>(next % 4),
                    .t = t,
                    .s = t + room,
                    .h = kv * group,
                    .kv = kv,
                    .d = d,
                    .window = window,
                    .dtype = dtype,
                    .lse = next % 3 != 0,
                    .aligned = next % 2 == 0,
                    .positions = true});
      }
    }
  }
}

TEST_CASE("attention: a cached key gives what the full sequence gives") {
  Attention full({.b = 1, .t = 90, .h = 2, .kv = 1, .d = 32});
  full.run_forward();
  Attention last({.b = 1, .t = 90, .h = 2, .kv = 1, .d = 32});
  Buffer one(DType::f32, {1, 1, 2, 32});
  last.forward.q.shape[1] = 1;
  last.forward.q.data += 89 * last.forward.q.step(1) * 4;
  last.forward.out = one.view();
  last.forward.lse = View{};
  last.run_forward();
  View row = full.out.view();
  row.shape[1] = 1;
  row.data += 89 * row.step(1) * 4;
  const auto want = test::values(row);
  CHECK_CLOSE(one.view(), want, std::vector<double>(want.size(), 1e-5));
}

TEST_CASE("attention: a position outside the cache is a fault that names it") {
  for (const int64_t d : {64, 256}) {
    for (const int64_t bad : {-1, 8, 2147483647}) {
      Attention a({.b = 3, .t = 2, .s = 9, .h = 2, .kv = 1, .d = d, .positions = true});
      a.position.put(1, static_cast<double>(bad));
      by_every_candidate(attention_forward, a.forward, [&](std::string_view) {
        CHECK(test::contains(test::error_of(attention_forward, a.forward),
                             concat("position outside the cache: position[1] = ", bad, ", not in [0, 7]")));
        CHECK(a.out.guards_intact());
      });
    }
  }
}

}  // namespace heddle::kernels
