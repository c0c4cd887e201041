// Norms of particular rows: far from zero, of equal numbers, without columns; none at all.
#include "kernels/api/norm.h"
#include "tests/kernels/kernel_case.h"
#include "tests/oracles/norm.h"

namespace heddle::kernels {
namespace {

using test::Bound;
using test::Buffer;
using test::run;

TEST_CASE("norm forward: the variance of numbers far from zero", "[norm]") {
  const Buffer x = Buffer(DType::f32, {8, 64}).normal(1, 4096, 1), y(DType::f32, {8, 64}), mean(DType::f32, {8}), rstd(DType::f32, {8});
  NormForwardArgs args{NormKind::layer, x.view()};
  args.y = y.view(), args.mean = mean.view(), args.rstd = rstd.view();
  const oracle::NormResult want = oracle::norm_forward(args);
  run(norm_forward, args);
  CHECK_CLOSE(rstd.view(), want.rstd.want, want.rstd.magnitude, Bound{DType::f32, 74});
}

// Whichever thread of a row they fall to.
TEST_CASE("norm forward: equal numbers of a row stay equal", "[norm]") {
  constexpr int64_t kColumns = 4100, kPeriod = 20;
  Buffer x(DType::f32, {3, kColumns}), y(DType::f32, {3, kColumns}), rstd(DType::f32, {3});
  x.normal(1);
  for (int64_t i = 0; i < 3 * kColumns; ++i)
    if (i % kColumns >= kPeriod) x.put(i, test::element(x.view(), i - kPeriod));
  NormForwardArgs args{NormKind::rms, x.view()};
  args.y = y.view(), args.rstd = rstd.view();
  run(norm_forward, args);
  int64_t differ = 0;
  for (int64_t i = 0; i < 3 * kColumns; ++i) differ += i % kColumns >= kPeriod && test::element(y.view(), i) != test::element(y.view(), i - kPeriod);
  CHECK(differ == 0);
}

TEST_CASE("norm backward: no columns, no launch", "[norm]") {
  const Buffer x(DType::f32, {3, 0}), rstd = Buffer(DType::f32, {3}).normal(1, 1, 0.1), d_gain(DType::f32, {0});
  run(norm_backward, NormBackwardArgs{NormKind::rms, x.view(), {}, {}, rstd.view(), x.view(), {}, {x.view()}, {d_gain.view()}, {}, {}});
  CHECK((x.guards_intact() && d_gain.guards_intact()));
}

TEST_CASE("norm: no rows", "[norm]") {
  for (const int64_t c : {5, 9001}) {
    Buffer x(DType::f32, {0, c}), rstd(DType::f32, {0}), d_gain(DType::f32, {c}), d_bias(DType::f32, {c});
    d_bias.normal(1);
    const Buffer before = d_bias;
    NormForwardArgs args{NormKind::rms, x.view()};
    args.y = x.view(), args.rstd = rstd.view();
    run(norm_forward, args);
    run(norm_backward,
        NormBackwardArgs{NormKind::rms, x.view(), {}, {}, rstd.view(), x.view(), {}, {x.view()}, {d_gain.view()}, {d_bias.view(), true}, {}});
    CHECK(test::values(d_gain.view()) == std::vector<double>(static_cast<size_t>(c)));
    CHECK(d_bias == before);
  }
}

}  // namespace
}  // namespace heddle::kernels
