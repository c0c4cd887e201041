#include "train/gemm_choices.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <tuple>

#include "core/io/strict_json.h"
#include "data/file.h"
#include "kernels/api/printable.h"
#include "train/environment.h"
#include "train/step_count.h"

namespace heddle {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::string_view kVendor = "cublaslt";
constexpr double kFaster = 1.03;  // than heddle's own by at least this much
constexpr size_t kMostText = size_t{4} << 20;

double most_difference(std::string_view product) {
  return product.find(" bf16") != product.npos ? 0.02 : 1e-4;
}

// By turns, so that a clock that changes meets both.
std::pair<double, double> time_both(KernelCase& kernel, Device device, std::string_view own, std::string_view vendor) {
  constexpr double kLeastSample = 2e-3;  // seconds between two looks at the clock
  constexpr size_t kSamples = 7;
  const int64_t copies = copies_beyond_caches(kernel);
  int64_t next = 0;
  const auto seconds = [&](std::string_view candidate, int64_t n) {
    const Clock::time_point begin = Clock::now();
    for (int64_t i = 0; i < n; ++i) kernel.run(candidate, next++ % copies);
    synchronize(device);
    return std::chrono::duration<double>(Clock::now() - begin).count();
  };
  std::vector<double> us[2];
  int64_t calls = 1;
  for (size_t i = 0; i <= kSamples; ++i) {
    for (const bool second : {false, true}) {
      const double each = seconds(second ? vendor : own, calls) / static_cast<double>(calls);
      if (i > 0) us[second].push_back(1e6 * each);
    }
    if (i == 0) calls = std::clamp<int64_t>(static_cast<int64_t>(kLeastSample / std::max(seconds(own, 1), 1e-7)), 1, 1000);
  }
  for (std::vector<double>& of : us) std::nth_element(of.begin(), of.begin() + kSamples / 2, of.end());
  return {us[0][kSamples / 2], us[1][kSamples / 2]};
}

// Of an environment, what times depend on: program, GPU, and the vendor's library, which is loaded by now.
std::string machine_of(const RunConfig& config, Device device) {
  std::string machine;
  const std::string environment = environment_text(config, device, 1);
  for (size_t at = 0; at < environment.size();) {
    const size_t end = std::min(environment.find('\n', at), environment.size());
    const std::string_view line = std::string_view(environment).substr(at, end - at);
    if (line.starts_with("program:") || line.starts_with("device:")) machine += concat(line, "\n");
    for (size_t name = line.find("libcublas"); name != line.npos && line.starts_with("libraries:"); name = line.find("libcublas", name + 1))
      machine += concat(line.substr(name, line.find(',', name) - name), "\n");
    at = end + 1;
  }
  return machine;
}

struct Product {
  std::unique_ptr<KernelCase> kernel;
  std::string name;
  std::string_view own;
  double calls = 0;
};
// Of a step, those that the vendor's library takes and heddle has a kernel for.
std::vector<Product> products_of(const RunConfig& config, const TransformerConfig& shape, Device device) {
  std::map<std::string, std::pair<std::string, std::unique_ptr<KernelCase>>> cases;  // by shape and bytes, as calls are counted
  const auto key = [](const std::string& text, double bytes) { return concat(text, '\n', bytes); };
  const std::vector<KernelCalls> counted = count_kernels(config, shape, 1, device.type, [&](const kernels::RehearsedKernels::Call& call) {
    if (call.op != kernels::matmul.op()) return;
    const auto& args = *static_cast<const kernels::MatmulArgs*>(call.args);
    cases[key(call.shape, call.cost.bytes)] = {kernels::product_name(args),
                                               std::make_unique<KernelCaseOf<kernels::MatmulArgs>>(kernels::matmul, args)};
  });
  std::vector<Product> products;
  for (const KernelCalls& k : counted) {
    if (k.op != kernels::matmul.op()) continue;
    auto& [name, kernel] = cases.at(key(k.shape, k.cost.bytes));
    const std::vector<std::string_view> all = kernel->candidates(device.type);
    if (all.front() == kVendor || std::find(all.begin(), all.end(), kVendor) == all.end()) continue;
    if (kernel->bytes() > kMostCaseBytes) continue;
    products.push_back({std::move(kernel), std::move(name), all.front(), k.calls});
  }
  return products;
}

std::optional<GemmChoices> read(const std::string& path, const std::function<void(const std::string&)>& tell) {
  if (path.empty() || !std::filesystem::exists(path)) return {};
  try {
    return GemmChoices::parse(read_small_file(path, kMostText), path);
  } catch (const Error& error) {
    tell(concat("gemm: ", error.what(), "; it is written anew"));
    return {};
  }
}

}  // namespace

kernels::ProductNames GemmChoices::of_vendor() const {
  kernels::ProductNames names;
  for (const GemmTimes& p : products) {
    if (kFaster * p.vendor_us < p.own_us && p.difference <= most_difference(p.product)) names.insert(p.product);
  }
  return names;
}

std::string GemmChoices::to_text() const {
  nlohmann::json rows = nlohmann::json::array();
  for (const GemmTimes& p : products)
    rows.push_back({{"product", p.product}, {"own", p.own}, {"own_us", p.own_us}, {"vendor_us", p.vendor_us}, {"difference", p.difference}});
  return nlohmann::json{{"machine", machine}, {"products", std::move(rows)}}.dump(1) + "\n";
}

GemmChoices GemmChoices::parse(std::string_view text, const std::string& path) {
  const auto wrong = [&](const std::string& why) { fail("gemm", concat(printable(path), ": ", why), ExitCode::bad_data); };
  const nlohmann::json file = parse_strict_json(text, path);
  GemmChoices choices;
  try {
    choices.machine = file.at("machine").get<std::string>();
    for (const nlohmann::json& row : file.at("products")) {
      GemmTimes p{row.at("product").get<std::string>(), row.at("own").get<std::string>()};
      p.own_us = row.at("own_us").get<double>();
      p.vendor_us = row.at("vendor_us").get<double>();
      p.difference = row.at("difference").get<double>();
      if (!(p.own_us > 0) || !(p.vendor_us > 0)) wrong("a time is not above 0");
      choices.products.push_back(std::move(p));
    }
  } catch (const nlohmann::json::exception& e) {
    wrong(concat("not the times of products: ", e.what()));
  }
  return choices;
}

GemmChoices choose_gemms(const RunConfig& config, const TransformerConfig& shape, Device device, const std::string& run_file,
                         const std::string& cache, const std::function<void(const std::string&)>& tell, const TimeGemm& time) {
  std::vector<Product> products = products_of(config, shape, device);
  GemmChoices choices{machine_of(config, device), {}};
  const std::string files[] = {run_file, cache.empty() ? "" : concat(cache, "/gemm-", sha256_hex(choices.machine).substr(0, 16), ".json")};
  std::vector<GemmChoices> kept;  // by file: what it says of this machine
  for (const std::string& path : files) {
    std::optional<GemmChoices> found = read(path, tell);
    kept.push_back(found && found->machine == choices.machine ? std::move(*found) : GemmChoices{choices.machine, {}});
  }
  const auto find = [](GemmChoices& in, const std::string& name) {
    return std::find_if(in.products.begin(), in.products.end(), [&](const GemmTimes& p) { return p.product == name; });
  };
  for (Product& p : products) {
    GemmTimes times{p.name, std::string(p.own), 0, 0, 0, p.calls};
    bool known = false;
    for (GemmChoices& in : kept) {
      const auto it = find(in, p.name);
      if (known || it == in.products.end() || it->own != p.own) continue;
      times = *it;
      times.calls = p.calls;
      known = true;
    }
    if (!known) {
      p.kernel->make(device, copies_beyond_caches(*p.kernel));
      times.difference = p.kernel->difference(kVendor, p.own);
      const std::vector<std::string_view> left = p.kernel->candidates(device.type);  // the vendor's refuses what it has failed at
      if (std::find(left.begin(), left.end(), kVendor) == left.end()) continue;
      std::tie(times.own_us, times.vendor_us) = time ? time(*p.kernel, p.own, kVendor) : time_both(*p.kernel, device, p.own, kVendor);
      p.kernel->make(device, 0);
      if (!std::isfinite(times.difference)) times.difference = 1e9;  // JSON has no NaN
      if (times.difference > most_difference(p.name))
        tell(concat("gemm: ", p.name, ": the vendor's result is off by ", times.difference, " of its size beside that of ", p.own, ": not used"));
    }
    choices.products.push_back(std::move(times));
  }
  for (size_t i = 0; i < kept.size(); ++i) {
    bool lacks = false;
    for (const GemmTimes& times : choices.products) {
      const auto it = find(kept[i], times.product);
      if (it != kept[i].products.end() && it->own == times.own) continue;
      if (it != kept[i].products.end()) kept[i].products.erase(it);
      kept[i].products.push_back(times);
      lacks = true;
    }
    if (!lacks || files[i].empty()) continue;
    try {
      std::filesystem::create_directories(std::filesystem::path(files[i]).parent_path());
      replace_file(files[i], kept[i].to_text());
    } catch (const std::exception& error) {
      tell(concat("gemm: times of products are not kept: ", error.what()));
    }
  }
  return choices;
}

std::string summary(const GemmChoices& choices) {
  const kernels::ProductNames vendor = choices.of_vendor();
  double own = 0, best = 0;
  int64_t theirs = 0;
  for (const GemmTimes& p : choices.products) {
    const bool is_vendor = vendor.contains(p.product);
    theirs += is_vendor;
    own += p.calls * p.own_us;
    best += p.calls * (is_vendor ? p.vendor_us : p.own_us);
  }
  char times[96];
  std::snprintf(times, sizeof times, "%.2f ms of a micro-step's products, %.2f ms by heddle's own alone", best / 1e3, own / 1e3);
  return concat("gemm: of ", counted(static_cast<int64_t>(choices.products.size()), "product"), " measured on this GPU cuBLASLt does ", theirs,
                ", heddle's own kernels all else: ", times);
}

std::string cache_folder() {
  const char* const cache = std::getenv("XDG_CACHE_HOME");
  const char* const home = std::getenv("HOME");
  if (cache && cache[0] == '/') return concat(cache, "/heddle");
  if (home && home[0] == '/') return concat(home, "/.cache/heddle");
  return {};
}

}  // namespace heddle
