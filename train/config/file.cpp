// Config files. The only place that sees toml++.
//
// Version 3.3 asserts what a file can break ("[[["), and with NDEBUG lets the compiler assume it. Behind both the parser has an error with a line.
#pragma push_macro("NDEBUG")
#undef NDEBUG
#define TOML_ASSERT(condition) static_cast<void>(0)
#include <toml++/toml.h>
#pragma pop_macro("NDEBUG")

#include <algorithm>
#include <cmath>
#include <fstream>
#include <sstream>

#include "train/config/run_config.h"

namespace heddle {
namespace {

constexpr size_t kMaxConfigBytes = size_t{1} << 20;
constexpr int64_t kConfigVersion = 1;
constexpr std::string_view kDerived = "derived";

std::string at(const std::string& place, const toml::source_region& where) {
  return concat(place, ":", where.begin.line);
}

// A scalar as the text a flag would carry. `count` fields take numbers or "512k"; text and choices take strings only.
std::string scalar_text(const Option<RunConfig>& option, const toml::node& node, const std::string& where) {
  using Text = std::string RunConfig::*;
  const bool wants_text = option.as<Text>() || option.is_list() || option.as<ChoiceOf<RunConfig>>();
  const bool wants_number = option.as<int64_t RunConfig::*>() || option.as<double RunConfig::*>() || option.as<DurationOf<RunConfig>>();
  const bool count_as_text = wants_number && !option.as<double RunConfig::*>();
  if (const auto* text = node.as_string(); text && (wants_text || count_as_text)) return text->get();
  if (const auto* flag = node.as_boolean(); flag && option.is_switch()) return flag->get() ? "true" : "false";
  if (const auto* integer = node.as_integer(); integer && wants_number) return std::to_string(integer->get());
  if (const auto* real = node.as_floating_point(); real && wants_number) {
    const double value = real->get();
    if (!std::isfinite(value)) fail_usage("config", concat(where, ": ", value, " is not finite"));
    // 1e9 for a count; above 2^53 a double no longer says which whole number was meant.
    if (option.as<int64_t RunConfig::*>() && value == std::trunc(value) && std::abs(value) <= 9007199254740992.0) {
      return std::to_string(static_cast<int64_t>(value));
    }
    return real_text(value);
  }
  const char* expected = option.is_switch() ? "true or false"
                         : option.is_list() ? "a string or an array of strings"
                         : wants_text       ? "a string"
                                            : "a number";
  std::ostringstream kind;
  kind << node.type();
  fail_usage("config", concat(where, ": expected ", expected, ", found ", kind.str()));
}

// The keys of one table. Of a resumed run's own values those are left out that are a matter of the launch.
void apply_table(RunConfig& config, const toml::table& table, const std::string& place, Source source) {
  static const std::vector<std::string> names = [] {
    std::vector<std::string> all;
    for (const auto& o : RunConfig::options()) {
      if (o.in_file) all.emplace_back(o.name);
    }
    return all;
  }();
  // toml++ keeps a table sorted by key; errors should come in the order of the file.
  std::vector<std::pair<std::string, const toml::node*>> entries;
  for (const auto& [key, node] : table) entries.emplace_back(std::string(key), &node);
  std::stable_sort(entries.begin(), entries.end(), [](const auto& a, const auto& b) { return a.second->source().begin < b.second->source().begin; });

  for (const auto& [key, node] : entries) {
    const std::string where = at(place, node->source());
    if (key == kDerived && node->is_table() && source != Source::kept) continue;
    if (node->is_table() || node->is_array_of_tables()) {
      fail_usage("config", concat(where, ": [", key, "]: config files are flat, keys are the long flags of heddle pretrain"));
    }
    if (key == "config-version") {
      if (node->value<int64_t>() != kConfigVersion) fail_usage("config", concat(where, ": config-version must be ", kConfigVersion));
      continue;
    }
    if (std::find(names.begin(), names.end(), key) == names.end()) {
      fail_usage("config", concat(where, ": unknown key ", quote_text(key), suggestion(key, names)));
    }
    const Option<RunConfig>& option = RunConfig::option(key);
    if (option.launch && source == Source::kept) continue;
    const std::string named = concat(where, ": ", key);
    const toml::array* array = node->as_array();
    if (array && option.is_list()) {
      option.clear_list(config);
      config.origins[key] = {source, where};
      for (const toml::node& item : *array) config.set(key, scalar_text(option, item, named), source, where);
    } else {
      config.set(key, scalar_text(option, *node, named), source, where);
    }
  }
}

}  // namespace

void apply_toml(RunConfig& config, std::string_view text, const std::string& place, Source source) {
  if (text.size() > kMaxConfigBytes) fail_usage("config", concat(place, ": ", text.size(), " bytes, at most ", kMaxConfigBytes, " are accepted"));
  toml::table table;
  try {
    table = toml::parse(text, std::string_view(place));
  } catch (const toml::parse_error& e) {
    fail_usage("config", concat(at(place, e.source()), ": ", e.description()));
  }
  const toml::table* derived = table[kDerived].as_table();
  const bool resumes = source == Source::saved;
  apply_table(config, table, place, resumes && !derived ? Source::kept : source);
  if (!derived) return;
  if (resumes) return apply_table(config, *derived, place, Source::kept);
  toml::table known;  // the names of another version's options mean nothing here
  for (const auto& [key, node] : *derived) {
    const auto same = [&, name = key.str()](const auto& o) { return o.name == name; };
    if (std::any_of(RunConfig::options().begin(), RunConfig::options().end(), same)) known.insert(key, node);
  }
  RunConfig there;
  apply_table(there, known, place, Source::kept);
  config.recomputed.clear();
  for (const auto& [name, origin] : there.origins) config.recomputed[name] = RunConfig::option(name).toml_text(there);
}

void apply_toml_file(RunConfig& config, const std::filesystem::path& file, Source source) {
  namespace fs = std::filesystem;
  std::error_code error;
  const fs::file_status status = fs::status(file, error);
  if (fs::is_directory(status)) fail_usage("config", concat(file.string(), ": is a directory, not a config file"));
  // Opening a pipe nobody writes to would wait for ever.
  if (fs::exists(status) && !fs::is_regular_file(status)) {
    fail_usage("config", concat(file.string(), ": is a pipe, socket or device, not a config file; write the configuration to a file"));
  }
  std::ifstream in(file, std::ios::binary);
  if (!in) {
    const std::string why = error ? error.message() : std::generic_category().message(errno);
    fail_usage("config", concat("cannot open config file ", file.string(), ": ", why, "; check --config or HEDDLE_CONFIG"));
  }
  std::string text(kMaxConfigBytes + 1, '\0');
  in.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<size_t>(in.gcount()));
  if (in.bad()) fail("config", concat("cannot read config file ", file.string()), ExitCode::io);
  apply_toml(config, text, file.string(), source);
}

}  // namespace heddle
