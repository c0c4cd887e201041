// How a candidate is chosen.
#include "kernels/api/forced_kernels.h"
#include "kernels/api/matmul.h"
#include "kernels/api/rope.h"
#include "tests/kernels/kernel_case.h"

namespace heddle::kernels {
namespace {

// A kernel of its own, so that forcing and refusing do not disturb others.
struct ProbeArgs {
  int size = 0;
};

TEST_CASE("registry: the first candidate that takes the arguments, or the one forced by name", "[registry]") {
  Kernel<ProbeArgs> probe("probe");
  static std::string words;  // of the last refusal
  const auto refuse_large = [](const ProbeArgs& args) {
    const Refusal refusal = args.size > 10 ? refused("size ", args.size, " > 10") : Refusal();
    words = refusal.value_or("");
    return refusal;
  };
  const auto refuse_huge = [](const ProbeArgs& args) { return args.size > 100 ? refused("too big") : Refusal(); };
  CHECK(test::error_of(probe, ProbeArgs{}).find("none is registered") != std::string::npos);
  probe.add(DeviceType::cpu, {"small", refuse_large});
  probe.add(DeviceType::cpu, {"large", refuse_huge});
  CHECK(probe.choose(DeviceType::cpu, {5}).name == "small");
  CHECK(probe.choose(DeviceType::cpu, {50}).name == "large");
  CHECK(words.empty());  // a launch that passes over it builds no text
  probe.force("large");
  CHECK(probe.choose(DeviceType::cpu, {5}).name == "large");
  probe.force("");
  CHECK(probe.choose(DeviceType::cpu, {5}).name == "small");
  std::string text;
  try {
    probe.choose(DeviceType::cpu, {500});
  } catch (const Error& error) {
    text = error.what();
  }
  CHECK(test::contains(text, "[probe] no kernel on cpu takes these arguments; small: size 500 > 10; large: too big"));
  CHECK_THROWS_AS(probe.choose(DeviceType::cuda, {5}), Error);
}

TEST_CASE("registry: the preferred candidate comes before all others where it takes the arguments and none is forced", "[registry]") {
  Kernel<ProbeArgs> probe("probe");
  const auto refuse_small = [](const ProbeArgs& args) { return args.size < 10 ? refused("size ", args.size, " < 10") : Refusal(); };
  probe.add(DeviceType::cpu, {"first", nullptr});
  probe.add(DeviceType::cpu, {"second", nullptr});
  probe.add(DeviceType::cpu, {"large", refuse_small});
  {
    std::string name = "large";
    probe.prefer(name);
    name = "#####";  // the text is gone
  }
  CHECK(probe.preferred(DeviceType::cpu) == "large");
  CHECK(probe.preferred(DeviceType::cuda) == "");
  CHECK(probe.choose(DeviceType::cpu, {50}).name == "large");
  CHECK(probe.choose(DeviceType::cpu, {5}).name == "first");
  CHECK(probe.first_but("large", DeviceType::cpu, {50})->name == "first");
  CHECK(probe.first_but("first", DeviceType::cpu, {5})->name == "second");
  probe.force("second");
  CHECK(probe.choose(DeviceType::cpu, {50}).name == "second");
  probe.force("");
  CHECK(probe.choose(DeviceType::cpu, {50}).name == "large");
  probe.prefer("");
  CHECK(probe.choose(DeviceType::cpu, {50}).name == "first");
}

// Which candidate of matmul takes a product now that all of them take.
MatmulArgs call() {
  static test::Buffer a(DType::f32, {512, 256}), b(DType::f32, {256, 256}), c(DType::f32, {512, 256});
  return {.a = a.view(), .b = b.view(), .c = {c.view()}};
}
std::string_view chosen() {
  return matmul.choose(DeviceType::cpu, call()).name;
}

TEST_CASE("registry: kernels forced by text hold for as long as the object lives, not the text", "[registry]") {
  register_cpu_kernels();
  const std::string first(chosen());
  int others = 0;
  for (const auto& candidate : matmul.candidates(DeviceType::cpu)) {
    const std::string name(candidate.name);
    if (name == first || (candidate.refuses && candidate.refuses(call()))) continue;
    ++others;
    std::vector<std::string> choices = {"rope=" + std::string(rope.candidates(DeviceType::cpu)[0].name), "matmul=" + name};
    {
      const ForcedKernels forced(choices);
      for (std::string& choice : choices) std::fill(choice.begin(), choice.end(), '#');  // the text is gone
      choices.clear();
      CHECK(chosen() == name);
    }
    CHECK(chosen() == first);
    // One choice that fails takes back those before it.
    const std::vector<std::string> wrong = {"matmul=" + name, "matmul=nope"};
    CHECK_THROWS_WITH(ForcedKernels(wrong), Catch::Matchers::Contains("nope") && Catch::Matchers::Contains(first));
    CHECK(chosen() == first);
    ForcedKernels later;
    later = ForcedKernels(std::vector<std::string>{"matmul=" + name});
    CHECK(chosen() == name);
    later = ForcedKernels();
    CHECK(chosen() == first);
  }
  CHECK(others > 0);
  for (const char* wrong : {"matmul=", "matmul", "matmul2=eigen", "=", ""}) {
    CHECK_THROWS_WITH(ForcedKernels(std::vector<std::string>{wrong}), Catch::Matchers::Contains(concat("--kernel ", wrong, ": ")));
  }
}

}  // namespace
}  // namespace heddle::kernels
