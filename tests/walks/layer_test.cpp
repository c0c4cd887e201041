// The Transformer of the walk "add a layer": it has the adapters' parameters, and right gradients for all of them.
#include <algorithm>

#include "tests/models/support.h"
#include "tests/support/gradcheck.h"

namespace heddle {
namespace {

DEVICE_TEST_CASE("a Transformer with adapters has their parameters and gradients") {
  const Transformer model(test::llama_style());
  const auto parameters = model.parameters();
  const auto has = [&](std::string_view name) {
    return std::any_of(parameters.begin(), parameters.end(), [&](const Parameter& p) { return p.name() == name; });
  };
  CHECK(has("blocks.0.adapter.down.weight"));
  CHECK(has("blocks.1.adapter.up.weight"));

  const Arena arena(model, test::device(), DType::f64);
  test::randomize(arena);
  const Tensor tokens = test::random_tokens(1, 5, 7, 1), targets = test::random_tokens(1, 5, 7, 2);
  const GradCheck result = check_gradients(test::one([&](auto) { return model.loss(tokens, targets, {}, {.scale = 0.1f}); }), model.leaves(),
                                           {.step = 1e-4, .subsets = false});
  CHECK(result.text == "");
  CHECK(result.elements == model.parameter_count());
}

}  // namespace
}  // namespace heddle
