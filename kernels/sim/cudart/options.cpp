// What the environment says a machine is like: the variables of this folder's README.
#include <cstdlib>
#include <string>
#include <string_view>

#include "kernels/api/check.h"
#include "kernels/sim/cudart/runtime.h"

namespace heddle::sim::cudart {
namespace {

constexpr double kMostMemory = 256.0 * (1 << 30);  // bytes: the addresses that cudart_memory.cpp sets aside for a device

[[noreturn]] void refuse_variable(const char* name, const std::string& text, const std::string& allowed) {
  fail("cuda", concat(name, ": \"", text, "\" is not ", allowed), ExitCode::usage);
}

size_t parse_bytes(const char* name, const std::string& text) {
  char* end = nullptr;
  const double number = std::strtod(text.c_str(), &end);
  double unit = 1;
  if (*end == 'k' || *end == 'K')
    unit = 1024.0, ++end;
  else if (*end == 'm' || *end == 'M')
    unit = 1024.0 * 1024, ++end;
  else if (*end == 'g' || *end == 'G')
    unit = 1024.0 * 1024 * 1024, ++end;
  if (end == text.c_str() || *end != 0 || !(number * unit >= 1 && number * unit <= kMostMemory))
    refuse_variable(name, text, "a size like 512M or 2G, of at most 256G");
  return static_cast<size_t>(number * unit);
}

// A whole number of at most 18 digits, or text is refused in the words of `allowed`.
uint64_t parse_digits(const char* name, const std::string& text, size_t from, const std::string& allowed) {
  const std::string digits = text.substr(from);
  if (digits.empty() || digits.size() > 18 || digits.find_first_not_of("0123456789") != std::string::npos) refuse_variable(name, text, allowed);
  return std::strtoull(digits.c_str(), nullptr, 10);
}

int parse_count(const char* name, const std::string& text, uint64_t least, uint64_t most) {
  const std::string allowed = concat("a whole number from ", least, " to ", most);
  const uint64_t n = parse_digits(name, text, 0, allowed);
  if (n < least || n > most) refuse_variable(name, text, allowed);
  return static_cast<int>(n);
}

int parse_capability(const char* name, const std::string& text) {
  if (text != "80" && text != "90") refuse_variable(name, text, "80 or 90");
  return text == "80" ? 80 : 90;
}

HostKernels parse_host_kernels(const char* name, const std::string& text) {
  if (text == "also") return HostKernels::also;
  if (text == "only") return HostKernels::only;
  if (text != "never") refuse_variable(name, text, "also, only or never");
  return HostKernels::never;
}

bool parse_switch(const char* name, const std::string& text) {
  if (text != "0" && text != "1") refuse_variable(name, text, "0 or 1");
  return text == "1";
}

void parse_order(const char* name, const std::string& text, RuntimeOptions& options) {
  constexpr const char* kAllowed = "immediate, fifo, random or random:SEED with a whole number of at most 18 digits";
  constexpr std::string_view kSeeded = "random:";
  const bool seeded = text.rfind(kSeeded, 0) == 0;
  if (text == "immediate")
    options.order = StreamOrder::immediate;
  else if (text == "fifo")
    options.order = StreamOrder::fifo;
  else if (text == "random" || seeded)
    options.order = StreamOrder::random;
  else
    refuse_variable(name, text, kAllowed);
  if (seeded) options.seed = parse_digits(name, text, kSeeded.size(), kAllowed);
}

}  // namespace

RuntimeOptions from_environment() {
  RuntimeOptions options;
  const auto read = [](const char* name, auto&& use) {
    if (const char* value = std::getenv(name)) use(name, std::string(value));
  };
  using Text = const std::string&;
  read("HEDDLE_SIM_DEVICES", [&](const char* name, Text value) { options.devices = parse_count(name, value, 0, 64); });
  read("HEDDLE_SIM_FIRST_DEVICE", [&](const char* name, Text value) { options.first_device = parse_count(name, value, 0, 63); });
  read("HEDDLE_SIM_MEMORY", [&](const char* name, Text value) { options.memory = parse_bytes(name, value); });
  read("HEDDLE_SIM_SMS", [&](const char* name, Text value) { options.multiprocessors = parse_count(name, value, 1, 1024); });
  read("HEDDLE_SIM_CAPABILITY", [&](const char* name, Text value) { options.capability = parse_capability(name, value); });
  read("HEDDLE_SIM_HOST_KERNELS", [&](const char* name, Text value) { options.host_kernels = parse_host_kernels(name, value); });
  read("HEDDLE_SIM_PROTECT", [&](const char* name, Text value) { options.protect = parse_switch(name, value); });
  read("HEDDLE_SIM_STREAMS", [&](const char* name, Text value) { parse_order(name, value, options); });
  return options;
}

}  // namespace heddle::sim::cudart
