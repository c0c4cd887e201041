// Texts continued together: what each of them is alone, and what that costs the host.
#include "infer/generate.h"

#include "core/autograd/node.h"
#include "core/storage.h"
#include "kernels/api/forced_kernels.h"
#include "tests/models/support.h"
#include "tests/support/devices.h"
#include "tests/support/host_kernels.h"
#include "tests/train/expect_error.h"
#if HEDDLE_TEST_SIMULATED_GPU
#include "kernels/sim/cudart/cudart.h"
#endif

namespace heddle {
namespace {

// What each text is alone: its prompt by itself, with the seed of its place.
std::vector<std::vector<int32_t>> alone(const Transformer& model, const std::vector<std::vector<int32_t>>& prompts, int64_t most, SamplingOptions o,
                                        int32_t end) {
  std::vector<std::vector<int32_t>> texts;
  for (const std::vector<int32_t>& prompt : prompts) {
    texts.emplace_back();
    generate_tokens(model, prompt, most, o, [&](int32_t token, const Tensor&) {
      texts.back().push_back(token);
      return token != end;
    });
    ++o.seed;
  }
  return texts;
}

// Products of one row and of several may add in another order: logits differ in their last places, which no token of these models hangs on.
DEVICE_TEST_CASE("generation: texts that are continued together are what each is alone") {
  std::vector<std::vector<int32_t>> prompts;
  for (size_t i = 0; i < 7; ++i) {
    prompts.emplace_back();
    for (size_t t = 0; t <= (i * 5) % 13; ++t) prompts.back().push_back(static_cast<int32_t>((i * i + 3 * t) % 7));
  }
  for (TransformerConfig config : {test::gpt2_style(), test::llama_style()}) {
    config.seq = 9;  // some prompts are longer; all texts pass it
    const Transformer model(config);
    // A CPU's bf16 products add in an order of their own on each kind of CPU, and what is then rounded to bf16 can tip a token.
    const bool cpu = test::device().type == DeviceType::cpu;
    for (const DType dtype : {DType::f32, cpu ? DType::f64 : DType::bf16}) {
      const Arena arena(model, test::device(), dtype);
      test::randomize(arena);
      for (const SamplingOptions& o : {SamplingOptions{.greedy = true}, SamplingOptions{.temperature = 1.5, .top_k = 5, .seed = 9}}) {
        constexpr int32_t kEnd = 3;
        const auto want = alone(model, prompts, 9, o, kEnd);
        for (const int64_t batch : {3, 40}) {
          const bool graphs = batch == 3;
          CAPTURE(batch, graphs, o.greedy, static_cast<int>(config.position), static_cast<int>(dtype));
          std::vector<std::vector<int32_t>> texts(prompts.size());
          std::vector<std::string> told;
          generate_texts(model, prompts, 9,
                         {.sampling = o, .batch = batch, .graphs = graphs, .tell = [&](const std::string& s) { told.push_back(s); }},
                         [&](size_t text, int32_t token, const Tensor& logits) {
                           CHECK(logits.shape() == Shape{1, config.vocab});
                           texts.at(text).push_back(token);
                           return token != kEnd;
                         });
          CHECK(texts == want);
          CHECK(told == std::vector<std::string>());
        }
      }
    }
  }
}

#if HEDDLE_TEST_SIMULATED_GPU
TEST_CASE("generation: a recorded step costs the host the same few calls whatever the model, and one wait, for its tokens", "[device]") {
  const std::vector<Device> devices = test::devices();
  if (devices.back().type != DeviceType::cuda || !runtime(DeviceType::cuda).simulated()) return;
  const kernels::ForcedKernels forced(test::host_kernels());
  const auto calls_of_tokens = [&](int64_t layers, bool graphs) {
    TransformerConfig config = test::llama_style();
    config.layers = layers;
    const Transformer model(config);
    const Arena arena(model, devices.back(), DType::bf16);
    test::randomize(arena);
    const std::vector<std::vector<int32_t>> prompts{{1, 2}, {3}, {4, 5, 6}};
    std::vector<uint64_t> calls, waits, allocations;
    generate_texts(model, prompts, 6, {.sampling = {.seed = 3}, .batch = 3, .graphs = graphs}, [&](size_t text, int32_t, const Tensor&) {
      if (text != 0) return true;
      calls.push_back(sim::runtime_counters().calls);
      waits.push_back(runtime(DeviceType::cuda).host_synchronisations());
      allocations.push_back(memory_stats(devices.back()).device_allocations);
      return true;
    });
    REQUIRE(calls.size() == 6);
    for (const size_t token : {4, 5}) {  // the third is recorded
      CHECK(waits[token] - waits[token - 1] == 1);
      CHECK(allocations[token] == allocations[token - 1]);
    }
    CHECK(calls[5] - calls[4] == calls[4] - calls[3]);
    return calls[5] - calls[4];
  };
  const uint64_t recorded = calls_of_tokens(2, true), direct = calls_of_tokens(2, false);
  CAPTURE(recorded, direct);
  CHECK(calls_of_tokens(3, true) == recorded);
  CHECK(calls_of_tokens(3, false) > direct);
  CHECK(recorded <= 12);  // an upload with its event, a launch, the tokens
}
#endif

TEST_CASE("generation: an empty prompt among others is refused before anything is made") {
  kernels::register_cpu_kernels();
  const Transformer model(test::gpt2_style());
  const Arena arena(model, Device{}, DType::f32);
  test::randomize(arena);
  const std::vector<std::vector<int32_t>> prompts{{1}, {}};
  int made = 0;
  expect_error([&] { generate_texts(model, prompts, 3, {}, [&](size_t, int32_t, const Tensor&) { return ++made > 0; }); }, ExitCode::runtime,
               {"empty prompt"});
  CHECK(made == 0);
}

}  // namespace
}  // namespace heddle
