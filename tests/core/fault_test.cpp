// Data that a kernel cannot use: on a CPU the op throws; on a GPU the host hears of it with the next result it waits for, once.
#include "core/fault.h"

#include "core/ops/ops.h"
#include "kernels/api/kernel.h"
#include "tests/support/catch.h"
#include "tests/support/devices.h"

namespace heddle {
namespace {

TEST_CASE("a token outside the vocabulary is noted where it is met and told once", "[fault]") {
  kernels::register_cpu_kernels();
  for (const Device device : test::devices()) {
    DYNAMIC_SECTION(name_of(device)) {
      const Tensor weight = Tensor::zeros({5, 4}, DType::f32, device);
      const auto tokens = [&](double second) { return Tensor::from_values({1, 0, second, 4}, {2, 2}, DType::i32).to(device); };
      const auto text_of = [&](const Tensor& ids) -> std::string {
        try {
          embedding(ids, weight).to_vector();
        } catch (const Error& e) {
          CHECK(e.code() == ExitCode::bad_data);
          return e.what();
        }
        return "";
      };
      CHECK(text_of(tokens(3)).empty());
      CHECK(text_of(tokens(5)).find("token outside the vocabulary: tokens[b = 1][t = 0] = 5, V = 5") != std::string::npos);
      CHECK(text_of(tokens(-1)).find("tokens[b = 1][t = 0] = -1") != std::string::npos);
      CHECK(text_of(tokens(3)).empty());
      CHECK_NOTHROW(raise_fault(device));
    }
  }
}

}  // namespace
}  // namespace heddle
