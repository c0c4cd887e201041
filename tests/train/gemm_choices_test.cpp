// --gemm auto: which products a vendor's library does, by times that a test gives, and where they are kept.
#include "train/gemm_choices.h"

#include <filesystem>
#include <fstream>
#include <map>

#include "core/device.h"
#include "kernels/sim/vendor/cublaslt.h"
#include "kernels/vendor/register.h"
#include "tests/data/support.h"
#include "tests/support/catch.h"
#include "tests/support/devices.h"
#include "train/step_count.h"
#include "train/vendor_kernels.h"

namespace heddle {
namespace {

std::optional<Device> gpu() {
  for (const Device device : test::devices()) {
    if (device.type == DeviceType::cuda && runtime(DeviceType::cuda).simulated()) return device;
  }
  return {};
}

// Chooses with times of its own: the vendor's are shorter at every second product.
struct Chooser {
  test::Scratch folder;
  std::string run = folder / "run/gemm.json", cache = folder / "cache";
  std::vector<std::string> told;
  int64_t timed = 0;
  bool fails = false;  // the library, at its first product

  static RunConfig config() {
    RunConfig config;
    config.device = DeviceChoice::cuda;
    config.precision = PrecisionChoice::bf16;
    config.batch = 2, config.seq = 16, config.total_batch_tokens = 32;
    config.dp = 1, config.zero = 0;
    config.optimizer = OptimizerChoice::adamw;
    return config;
  }
  static TransformerConfig shape() { return {.vocab = 64, .layers = 1, .dim = 32, .heads = 2, .seq = 16}; }
  GemmChoices operator()() {
    kernels::vendor::forget_cublaslt();
    sim::cublaslt::reset();
    if (fails) sim::cublaslt::fail_call("cublasLtMatmul", 1, 13);
    timed = 0;
    return choose_gemms(
        config(), shape(), *gpu(), run, cache, [this](const std::string& line) { told.push_back(line); },
        [this](KernelCase&, std::string_view own, std::string_view vendor) {
          CHECK(own != "host");
          CHECK(vendor == "cublaslt");
          return std::pair(++timed % 2 == 0 ? 2.0 : 1.0, 1.5);
        });
  }
  std::string cache_file() const {
    std::string found;
    for (const auto& entry : std::filesystem::directory_iterator(cache)) found = entry.path().string();
    return found;
  }
};

TEST_CASE("--gemm auto: products are timed once, and what is kept is taken by other runs and by a run that goes on", "[device]") {
  if (!gpu()) return;
  Chooser choose;
  const GemmChoices first = choose();
  REQUIRE(choose.timed == static_cast<int64_t>(first.products.size()));
  REQUIRE(choose.timed > 5);
  CHECK(static_cast<int64_t>(first.of_vendor().size()) == choose.timed / 2);
  double most = 0;
  for (const GemmTimes& p : first.products) {
    CAPTURE(p.product, p.own);
    CHECK((p.difference >= 0 && p.difference < 0.02));
    CHECK(p.calls >= 1);
    most = std::max(most, p.difference);
  }
  CHECK(most > 0);  // gelu's at least: results are compared
  CHECK_THAT(summary(first), Catch::StartsWith(concat("gemm: of ", choose.timed, " products measured on this GPU cuBLASLt does ", choose.timed / 2)));
  const auto same = [&](const GemmChoices& other) { return other.of_vendor() == first.of_vendor(); };
  const std::string kept = test::slurp(choose.run), cache = choose.cache_file();
  CHECK(test::slurp(cache) == kept);

  CHECK(same(choose()));  // goes on
  CHECK(choose.timed == 0);
  std::filesystem::remove_all(choose.folder / "run");  // another run
  CHECK(same(choose()));
  CHECK(choose.timed == 0);
  CHECK(test::slurp(choose.run) == kept);
  std::filesystem::remove(cache);  // the run's own bits stay what they are
  CHECK(same(choose()));
  CHECK(choose.timed == 0);
  CHECK(test::slurp(cache) == kept);
  CHECK(choose.told == std::vector<std::string>());

  // What the run keeps goes before what the cache does.
  GemmChoices changed = GemmChoices::parse(kept, "kept");
  for (GemmTimes& p : changed.products) p.own_us = 9;
  std::ofstream(choose.run) << changed.to_text();
  CHECK(choose().of_vendor().size() == first.products.size());
  CHECK(choose.timed == 0);

  // Of another machine, or by another of heddle's kernels.
  changed.machine = "another";
  std::ofstream(choose.run) << changed.to_text();
  std::ofstream(cache) << changed.to_text();
  CHECK(same(choose()));
  CHECK(choose.timed == static_cast<int64_t>(first.products.size()));
  changed = GemmChoices::parse(kept, "kept");
  changed.products[0].own = "older";
  std::ofstream(choose.run) << changed.to_text();
  std::ofstream(cache) << changed.to_text();
  choose();
  CHECK(choose.timed == 1);
}

TEST_CASE("--gemm auto: files that are damaged, or in no place to write, cost a measurement and a line", "[device]") {
  if (!gpu()) return;
  Chooser choose;
  const GemmChoices first = choose();
  const std::string kept = test::slurp(choose.run);
  for (const std::string& text :
       {std::string(), kept.substr(0, kept.size() / 2), std::string("[]"), std::string("{\"machine\": 1, \"products\": []}"),
        std::string("{\"machine\": \"\", \"products\": [{\"product\": \"\"}]}")}) {
    CAPTURE(text);
    choose.told.clear();
    std::filesystem::remove_all(choose.cache);
    std::ofstream(choose.run) << text;
    CHECK(choose().of_vendor() == first.of_vendor());
    CHECK(choose.timed == static_cast<int64_t>(first.products.size()));
    REQUIRE(choose.told.size() == 1);
    CHECK_THAT(choose.told[0], Catch::Contains("run/gemm.json") && Catch::EndsWith("; it is written anew"));
    CHECK(test::slurp(choose.run) == kept);
  }
  choose.told.clear();
  std::filesystem::remove_all(choose.cache);
  std::ofstream(choose.cache) << "a file where a folder is to be";
  CHECK(choose().of_vendor() == first.of_vendor());
  REQUIRE(choose.told.size() == 1);
  CHECK_THAT(choose.told[0], Catch::StartsWith("gemm: times of products are not kept: "));
  choose.cache = "";
  choose.told.clear();
  CHECK(choose().of_vendor() == first.of_vendor());
  CHECK(choose.told == std::vector<std::string>());
}

TEST_CASE("--gemm auto: a result that differs is never taken, nor a time that hardly differs", "[device]") {
  const std::string f32 = "1 x 2 x 3 NN f32; rows of 1, 2, 3", bf16 = "1 x 2 x 3 NN bf16; rows of 1, 2, 3";
  const auto taken = [](const GemmTimes& p) { return !GemmChoices{"", {p}}.of_vendor().empty(); };
  CHECK(taken({f32, "simt", 2, 1, 1e-5, 1}));
  CHECK_FALSE(taken({f32, "simt", 2, 1, 1e-3, 1}));
  CHECK(taken({bf16, "mma_sm90", 2, 1, 1e-3, 1}));
  CHECK_FALSE(taken({bf16, "mma_sm90", 2, 1, 0.03, 1}));
  CHECK_FALSE(taken({bf16, "mma_sm90", 2, 1.99, 1e-3, 1}));
  CHECK_FALSE(taken({bf16, "mma_sm90", 1, 2, 1e-3, 1}));
}

TEST_CASE("--gemm auto: what the library fails at is no choice", "[device]") {
  if (!gpu()) return;
  Chooser choose;
  const size_t all = choose().products.size();
  std::filesystem::remove_all(choose.folder / "run");
  std::filesystem::remove_all(choose.cache);
  choose.fails = true;
  CHECK(choose().products.size() == all - 1);
  CHECK(choose.timed == static_cast<int64_t>(all) - 1);
  CHECK(GemmChoices::parse(test::slurp(choose.run), choose.run).products.size() == all - 1);
  kernels::vendor::forget_cublaslt();
}

TEST_CASE("--gemm auto: a step takes the vendor's products that were chosen, and no others", "[device]") {
  if (!gpu()) return;
  Chooser choose;
  const GemmChoices choices = choose();
  const kernels::ProductNames chosen = choices.of_vendor();
  REQUIRE(!chosen.empty());
  const auto candidates = [&] {
    std::map<std::string, std::string> by_product;
    count_kernels(Chooser::config(), Chooser::shape(), 1, DeviceType::cuda, [&](const kernels::RehearsedKernels::Call& call) {
      if (call.op == "matmul") by_product[kernels::product_name(*static_cast<const kernels::MatmulArgs*>(call.args))] = call.candidate;
    });
    return by_product;
  };
  const std::map<std::string, std::string> own = candidates();
  {
    const VendorKernels vendor{chosen};
    size_t vendors = 0;
    for (const auto& [product, candidate] : candidates()) {
      CAPTURE(product);
      CHECK(candidate == (chosen.contains(product) ? "cublaslt" : own.at(product)));
      vendors += candidate == "cublaslt";
    }
    CHECK(vendors == chosen.size());
  }
  CHECK(candidates() == own);
  const VendorKernels vendor(GemmChoice::vendor, *gpu());
  std::map<std::string, std::string> all = candidates();
  for (const GemmTimes& p : choices.products) CHECK(all[p.product] == "cublaslt");
}

}  // namespace
}  // namespace heddle
