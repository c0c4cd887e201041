// The whole Transformer in every style against central differences, and the equalities between styles.
#include "core/autograd/engine.h"
#include "tests/models/support.h"
#include "tests/support/gradcheck.h"
#include "tests/support/host_kernels.h"

namespace heddle {
namespace {

constexpr int64_t kB = 2, kT = 6;

Tensor tokens() {
  return test::ints({0, 3, 3, 6, 2, 1, 5, 5, 0, 4, 1, 3}, {kB, kT});
}
Tensor targets() {
  return test::ints({3, 3, 6, 2, -1, 5, 5, 0, 4, 1, 3, -1}, {kB, kT});
}
Tensor documents() {
  return test::ints({0, 0, 0, 3, 3, 5, 0, 1, 1, 1, 1, 1}, {kB, kT});
}

// On the CPU alone, as it takes tens of thousands of passes; what other devices come to is compared with it below.
TEST_CASE("gradients of every parameter of a Transformer") {
  const auto style = GENERATE(from_range(test::styles()));
  const bool masked = GENERATE(false, true);
  CAPTURE(style.name, masked);
  const test::Poisoned poisoned;
  const Transformer model(style.config);
  const Arena arena(model, test::device(), DType::f64);
  test::randomize(arena);
  const Tensor x = tokens(), y = targets(), starts = masked ? documents() : Tensor();
  const GradFunction loss = test::one([&](auto) { return model.loss(x, y, starts, {.z_loss = 1e-3f, .scale = 0.1f, .chunk_rows = 5}); });
  // Differences of a sum over a few hundred roundings: a step of 1e-4 leaves errors of 1e-16 / 1e-4 and, extrapolated, 1e-16.
  // relu2 has a kink in its derivative: there a smaller step.
  const GradCheck result = check_gradients(loss, model.leaves(), {.step = style.config.mlp == "relu2" ? 1e-5 : 1e-4});
  CHECK(result.text == "");
  CHECK(result.elements == model.parameter_count());
}

struct Pass {
  double loss = 0;
  std::vector<double> grads;
  bool operator==(const Pass&) const = default;
};
Pass pass(const TransformerConfig& config, DType dtype, const Tensor& x, const Tensor& y, const Tensor& starts = {}) {
  const test::Poisoned poisoned;
  const Transformer model(config);
  Arena arena(model, test::device(), dtype);
  test::randomize(arena);
  arena.begin_step();
  const Tensor loss = model.loss(x, y, starts, {.scale = 0.1f});
  backward(loss, arena.leaves());
  return {loss.item(), arena.grads().to_vector()};
}

TEST_CASE("a simulated device whose ops the host does has the CPU's loss and gradients, bit by bit") {
  const kernels::ForcedKernels forced(test::host_kernels());
  const auto style = GENERATE(from_range(test::styles()));
  const bool masked = GENERATE(false, true);
  CAPTURE(style.name, masked);
  const auto on = [&](Device device) {
    const test::OnDevice guard(device);
    return pass(style.config, DType::f32, tokens(), targets(), masked ? documents() : Tensor());
  };
  for (const Device device : test::devices()) {
    if (device == Device{} || !runtime(device.type).simulated()) continue;
    CHECK(on(device) == on(Device{}));
  }
}

DEVICE_TEST_CASE("recomputing changes no bit of the loss or of any gradient") {
  const auto style = GENERATE(from_range(test::styles()));
  const DType dtype = GENERATE(DType::f32, DType::bf16);
  CAPTURE(style.name, name_of(dtype));
  TransformerConfig plain = style.config, recomputed = style.config;
  plain.recompute = false, recomputed.recompute = true;
  CHECK(pass(plain, dtype, tokens(), targets(), documents()) == pass(recomputed, dtype, tokens(), targets(), documents()));
}

DEVICE_TEST_CASE("a window as long as the sequence is no window") {
  TransformerConfig c = test::llama_style();
  const Pass full = pass(c, DType::f64, tokens(), targets());
  c.window = kT;
  CHECK(pass(c, DType::f64, tokens(), targets()) == full);
  c.window = kT - 1;
  CHECK_FALSE(pass(c, DType::f64, tokens(), targets()) == full);
}

DEVICE_TEST_CASE("the norm of queries and keys takes the model's epsilon") {
  // Queries and keys of about 1e-3: beside an epsilon of 1 nothing is left of them, and every score is as good as 0, what it is without gains.
  const auto forward = [](float eps, bool gains) {
    TransformerConfig c = test::llama_style();
    c.qk_norm = true, c.norm_eps = eps;
    const Transformer model(c);
    const Arena arena(model, test::device(), DType::f64);
    test::randomize(arena);
    for (const Parameter& p : arena.parameters()) {
      const auto ends_with = [&](std::string_view end) { return p.name().size() > end.size() && p.name().ends_with(end); };
      std::vector<double> values = p.tensor().to_vector();
      const size_t scaled = ends_with("attn.qkv.weight") ? values.size() * 6 / 8 : 0;  // four heads of q, two of k, two of v
      for (size_t i = 0; i < scaled; ++i) values[i] *= 1e-3;
      if (!gains && (ends_with("q_norm") || ends_with("k_norm"))) values.assign(values.size(), 0);
      test::write(p.tensor(), values);
    }
    return model.hidden(test::random_tokens(2, 8, c.vocab, 1)).to_vector();
  };
  const auto distance = [](const std::vector<double>& a, const std::vector<double>& b) {
    double most = 0;
    for (size_t i = 0; i < a.size(); ++i) most = std::max(most, std::abs(a[i] - b[i]));
    return most;
  };
  CHECK(distance(forward(1, true), forward(1, false)) < 1e-4);
  CHECK(distance(forward(1e-9f, true), forward(1e-9f, false)) > 1e-2);
}

DEVICE_TEST_CASE("documents packed in one row are documents alone") {
  const bool gpt2 = GENERATE(true, false);
  CAPTURE(gpt2);
  const TransformerConfig c = gpt2 ? test::gpt2_style() : test::llama_style();
  // Rows of 2 and 4 tokens: packed, and alone with what would follow ignored.
  const Pass packed =
      pass(c, DType::f64, test::ints({0, 3, 5, 2, 6, 1}, {1, 6}), test::ints({3, -1, 2, 6, 1, 0}, {1, 6}), test::ints({0, 0, 2, 2, 2, 2}, {1, 6}));
  const Pass alone = pass(c, DType::f64, test::ints({0, 3, 0, 0, 5, 2, 6, 1}, {2, 4}), test::ints({3, -1, -1, -1, 2, 6, 1, 0}, {2, 4}));
  // The same sums in another order, some through rotations by other angles (RoPE is relative; its table is f32, each entry off by 2^-25, and a
  // rotation by p - q is only as exact as both): relative errors of a few 2^-24 for RoPE, of a few hundred 2^-53 otherwise.
  const double tolerance = gpt2 ? 1e-12 : 1e-6;
  CHECK(std::abs(packed.loss - alone.loss) <= tolerance * std::abs(alone.loss));
  double largest = 1, worst = 0;
  for (size_t i = 0; i < packed.grads.size(); ++i) {
    largest = std::max(largest, std::abs(alone.grads[i]));
    worst = std::max(worst, std::abs(packed.grads[i] - alone.grads[i]));
  }
  CHECK(worst <= tolerance * largest);
}

DEVICE_TEST_CASE("later tokens do not change earlier ones") {
  const auto style = GENERATE(from_range(test::styles()));
  CAPTURE(style.name);
  const Transformer model(style.config);
  const Arena arena(model, test::device(), DType::f64);
  test::randomize(arena);
  const Tensor other = test::ints({0, 3, 3, 6, 4, 0, 5, 5, 0, 4, 6, 6}, {kB, kT});
  const std::vector<double> a = model.token_losses(tokens(), targets(), {}).to_vector(), b = model.token_losses(other, targets(), {}).to_vector();
  for (size_t i : {0u, 1u, 2u, 3u, 6u, 7u, 8u, 9u}) CHECK(a[i] == b[i]);
  CHECK(a[5] != b[5]);
}

DEVICE_TEST_CASE("token losses sum to the loss") {
  const auto style = GENERATE(from_range(test::styles()));
  const Transformer model(style.config);
  const Arena arena(model, test::device(), DType::f64);
  test::randomize(arena);
  double total = 0;
  for (double v : model.token_losses(tokens(), targets(), documents()).to_vector()) total += v;
  const double loss = model.loss(tokens(), targets(), documents(), {}).item();
  CHECK(std::abs(total - loss) <= 1e-13 * loss);
}

}  // namespace
}  // namespace heddle
