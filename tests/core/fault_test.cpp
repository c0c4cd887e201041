// Data that a kernel cannot use: on a CPU the op throws; on a GPU the host hears of it with the next result it waits for, once.
#include "core/fault.h"

#include <functional>
#include <initializer_list>
#include <span>
#include <string>

#include "core/ops/ops.h"
#include "tests/support/devices.h"

namespace heddle {
namespace {

DEVICE_TEST_CASE("data that a kernel cannot use is noted where it is met and told once", "[fault]") {
  const Device device = test::device();
  const auto numbers = [&](std::initializer_list<int32_t> values, Shape shape) { return Tensor::from(std::span(values), shape, device); };
  const auto text_of = [&](const std::function<Tensor()>& op) -> std::string {
    try {
      op().to_vector();
    } catch (const Error& e) {
      CHECK(e.code() == ExitCode::bad_data);
      return e.what();
    }
    return "";
  };
  const auto told = [&](const std::function<Tensor()>& op, const std::string& want) {
    const std::string text = text_of(op);
    CAPTURE(text);
    CHECK(text.find(want) != std::string::npos);
    CHECK_NOTHROW(raise_fault(device));
  };
  const Tensor weight = Tensor::zeros({5, 4}, DType::f32, device), table = Tensor::zeros({3, 4}, DType::f32, device);
  const auto embed = [&](int32_t token) { return [&, token] { return embedding(numbers({1, 0, token, 4}, {2, 2}), weight); }; };
  CHECK(text_of(embed(3)).empty());
  told(embed(5), "token outside the vocabulary: tokens[b = 1][t = 0] = 5, V = 5");
  told(embed(-1), "tokens[b = 1][t = 0] = -1, V = 5");
  CHECK(text_of(embed(3)).empty());
  told(
      [&] {
        return embedding(numbers({1, 0}, {1, 2}), weight, table, numbers({0, -5}, {1, 2}));
      },
      "position outside the table: b = 0, t = 1 gives 6, P = 3");
  const Tensor x = Tensor::zeros({2, 4}, DType::f32, device);
  told([&] { return token_losses(x, weight, numbers({4, 9}, {2})); }, "target outside the vocabulary: targets[1] = 9, V = 5");
  const Tensor q = Tensor::zeros({1, 2, 1, 8}, DType::f32, device);
  told(
      [&] {
        return attention(q, q, q, {.scale = 1, .document_start = numbers({0, 2}, {1, 2})});
      },
      "document_start[b = 0][t = 1] is 2, not in [0, 1]");
}

}  // namespace
}  // namespace heddle
