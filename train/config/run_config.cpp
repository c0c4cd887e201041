#include "train/config/run_config.h"

#include <algorithm>
#include <array>

#include "core/io/json_reader.h"
#include "kernels/api/check.h"
#include "kernels/api/printable.h"

namespace heddle {
namespace {

std::vector<std::string> option_names() {
  std::vector<std::string> names;
  for (const auto& o : RunConfig::options()) names.emplace_back(o.name);
  return names;
}

// Ways to say one thing: where several are written, the one from the highest source stands.
constexpr std::string_view kHorizon[] = {"steps", "tokens", "minutes"}, kShape[] = {"model", "depth"};
constexpr std::array<std::span<const std::string_view>, 2> kEitherOr = {kHorizon, kShape};

// All ways to say what `name` says, itself among them; empty: it is the only one.
std::span<const std::string_view> ways_to_say(std::string_view name) {
  for (const auto ways : kEitherOr) {
    if (std::find(ways.begin(), ways.end(), name) != ways.end()) return ways;
  }
  return {};
}

void settle_either_or(RunConfig& config) {
  for (const auto ways : kEitherOr) {
    Source highest = Source::saved;
    for (const auto way : ways) highest = std::max(highest, config.source(way));
    for (const auto way : ways) {
      if (config.is_set(way) && config.source(way) < highest) config.drop(way);
    }
  }
}

std::string text_of(const Origin& origin) {
  switch (origin.source) {
    case Source::built_in: return "default";
    case Source::derived: return concat("from ", origin.place);
    case Source::kept:
    case Source::saved: return "saved";
    case Source::file:
    case Source::environment:
    case Source::flag: return origin.place;
  }
  return "";
}

// HEDDLE_SIM_*: a simulated GPU's own (kernels/sim).
constexpr auto kOtherEnvironment =
    std::to_array<std::string_view>({"HEDDLE_CONFIG", "HEDDLE_DEPS_DIR", "HEDDLE_SIM_CAPABILITY", "HEDDLE_SIM_DEVICES", "HEDDLE_SIM_FIRST_DEVICE",
                                     "HEDDLE_SIM_GEMM_TIMES", "HEDDLE_SIM_HOST_KERNELS", "HEDDLE_SIM_MEMORY", "HEDDLE_SIM_MODE",
                                     "HEDDLE_SIM_NCCL_TIMEOUT", "HEDDLE_SIM_PROTECT", "HEDDLE_SIM_SMS", "HEDDLE_SIM_STREAMS", "HEDDLE_SIM_THREADS"});

}  // namespace

const Option<RunConfig>& RunConfig::option(std::string_view name) {
  for (const auto& o : options()) {
    if (o.name == name) return o;
  }
  fail_usage("config", concat("no option is called ", quote_text(name), suggestion(name, option_names())));
}

Source RunConfig::source(std::string_view name) const {
  const auto found = origins.find(option(name).name);
  return found == origins.end() ? Source::built_in : found->second.source;
}

std::string RunConfig::origin_text(std::string_view name) const {
  const auto found = origins.find(option(name).name);
  return text_of(found == origins.end() ? Origin{} : found->second);
}

void RunConfig::mark_derived(std::string_view name, std::string why) {
  origins[std::string(option(name).name)] = {Source::derived, std::move(why)};
}

void RunConfig::drop(std::string_view name) {
  static const RunConfig defaults;
  const Option<RunConfig>& o = option(name);
  o.copy(defaults, *this);
  origins.erase(std::string(o.name));
}

void RunConfig::set(std::string_view name, std::string_view text, Source from, const std::string& place) {
  const Option<RunConfig>& o = option(name);
  // The saved configuration is TOML, which is UTF-8: a run must be able to read back what it was given.
  for (size_t i = 0; i < text.size();) {
    const size_t n = utf8_length(text, i);
    if (n == 0) fail_usage("config", concat(place, ": byte ", i, " of the value is not valid UTF-8"));
    i += n;
  }
  if (o.is_list() && source(name) != from) o.clear_list(*this);
  const bool in_file = from == Source::file || from == Source::saved || from == Source::kept;
  o.set(*this, text, in_file ? concat(place, ": ", name) : place);
  origins[std::string(name)] = {from, place};
}

std::string environment_name(std::string_view option) {
  std::string name = "HEDDLE_";
  for (const char c : option) name += c == '-' ? '_' : static_cast<char>(c >= 'a' && c <= 'z' ? c - 'a' + 'A' : c);
  return name;
}

std::span<const std::string_view> other_environment() {
  return kOtherEnvironment;
}

RunConfig make_run_config(const std::string& file, std::span<const std::string> environment, std::span<const FlagValue> flags) {
  std::vector<std::string> known;
  for (const auto& o : RunConfig::options()) known.push_back(environment_name(o.name));
  for (const auto other : kOtherEnvironment) known.emplace_back(other);

  RunConfig config;
  std::string config_file = file;
  std::vector<std::pair<std::string_view, std::string_view>> variables;
  for (const std::string& entry : environment) {
    if (entry.rfind("HEDDLE_", 0) != 0) continue;
    const size_t equals = std::min(entry.find('='), entry.size());
    const std::string_view name = std::string_view(entry).substr(0, equals);
    const std::string_view value = std::string_view(entry).substr(std::min(equals + 1, entry.size()));
    if (std::find(known.begin(), known.end(), name) == known.end()) {
      fail_usage("config", concat("environment variable ", name, " is no option of heddle", suggestion(name, known)));
    }
    if (name == "HEDDLE_CONFIG" && config_file.empty()) config_file = value;
    variables.emplace_back(name, value);
  }

  if (!config_file.empty()) apply_toml_file(config, config_file, Source::file);
  for (const auto& o : RunConfig::options()) {
    const std::string name = environment_name(o.name);
    for (const auto& [variable, value] : variables) {
      if (variable == name) config.set(o.name, value, Source::environment, name);
    }
  }
  for (const FlagValue& flag : flags) config.set(flag.name, flag.text, Source::flag, "--" + flag.name);
  settle_either_or(config);
  return config;
}

std::string to_toml(const RunConfig& config, bool of_launch) {
  // One half of the options: those that somebody stated, or the others.
  const auto half = [&](bool stated) {
    std::string out;
    std::string_view group;
    for (const auto& o : RunConfig::options()) {
      if (!o.in_file || config.is_set(o.name) != stated) continue;
      if (o.group != group) {
        group = o.group;
        out += concat("\n# ", group, "\n");
      }
      const std::string note = printable(config.origin_text(o.name));
      // An empty value stated over one of a lower source still is a statement; what one launch was told binds no later one.
      const char* const mark = o.launch && stated && !of_launch ? "# of one launch: " : "";
      out += o.empty(config) && !stated ? concat("# ", o.name, ": not set\n") : concat(mark, o.name, " = ", o.toml_text(config), "  # ", note, "\n");
    }
    return out;
  };
  return concat(
      "# heddle run configuration. Keys are the long flags of `heddle pretrain`; where a value was stated stands behind it.\n"
      "# A new run can start from this file: heddle pretrain --config FILE --out DIR. A run that goes on reads its checkpoint, not this file: flags, "
      "or\n"
      "# --config, change it.\n",
      half(true), "\n# What followed from the above, and defaults: only the run itself keeps them when it goes on.\n[derived]\n", half(false));
}

std::vector<ResumeDifference> compare_for_resume(std::string_view saved_toml, const RunConfig& given, const std::string& place) {
  RunConfig saved;
  apply_toml(saved, saved_toml, place, Source::saved);
  std::vector<ResumeDifference> differences;
  for (const auto& o : RunConfig::options()) {
    if (!o.in_file || o.launch || !given.is_set(o.name)) continue;
    const std::string before = o.toml_text(saved), after = o.toml_text(given);
    if (before == after) continue;
    differences.push_back(
        {std::string(o.name), o.empty(saved) ? "not set" : before, o.empty(given) ? "not set" : after, o.resume, given.origins.find(o.name)->second});
  }
  return differences;
}

std::string edited_fields(std::string_view file_toml, std::string_view saved_toml, const RunConfig& now, const std::string& place) {
  RunConfig file, saved;
  apply_toml(file, file_toml, place, Source::saved);
  apply_toml(saved, saved_toml, "the checkpoint's configuration", Source::saved);
  std::string names;
  for (const auto& o : RunConfig::options()) {
    if (!o.in_file || now.is_stated(o.name)) continue;
    const std::string written = o.toml_text(file);
    if (written != o.toml_text(saved) && written != o.toml_text(now)) names += concat(names.empty() ? "" : ", ", o.name);
  }
  return names;
}

std::string recomputed_text(const RunConfig& now) {
  std::string names;
  for (const auto& o : RunConfig::options()) {
    const auto found = now.recomputed.find(o.name);
    if (found == now.recomputed.end() || now.is_stated(o.name) || found->second == o.toml_text(now)) continue;
    names += concat(names.empty() ? "" : ", ", o.name);
  }
  if (names.empty()) return "";
  return concat("what a config file holds under [derived] is computed anew, and comes out different here: ", names, "; a key above [derived] counts");
}

ResumedConfig resume_config(std::string_view saved_toml, const RunConfig& given, const std::string& place) {
  ResumedConfig out;
  std::string refused;
  for (ResumeDifference& d : compare_for_resume(saved_toml, given, place)) {
    const bool accept = d.resume == ResumeClass::free || (d.resume == ResumeClass::override_with_flag && d.origin.source == Source::flag);
    if (accept) {
      out.overridden.push_back(std::move(d));
      continue;
    }
    refused += concat("\n  ", d.field, ": saved ", d.saved, ", given ", d.given, " (", text_of(d.origin), "); ",
                      d.resume == ResumeClass::must_match ? "must stay" : concat("pass --", d.field, " on the command line to change it"));
  }
  if (!refused.empty()) {
    fail("resume", concat("the configuration differs from ", place, ":", refused, "\n  or choose another --out for a new run"), ExitCode::mismatch);
  }

  apply_toml(out.config, saved_toml, place, Source::saved);
  out.config.recomputed = given.recomputed;
  for (const auto& o : RunConfig::options()) {
    if (!given.is_set(o.name)) {
      if (!o.in_file || o.launch) {
        o.copy(given, out.config);
        out.config.origins.erase(std::string(o.name));
      }
      continue;
    }
    for (const auto way : ways_to_say(o.name)) {
      const bool chosen = o.name == "minutes" && way == "steps";  // what the saved run's minutes came to
      if (way != o.name && !given.is_set(way) && !chosen) out.config.drop(way);
    }
    o.copy(given, out.config);
    out.config.origins[std::string(o.name)] = given.origins.find(o.name)->second;
  }
  return out;
}

}  // namespace heddle
