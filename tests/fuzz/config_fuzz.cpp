// A command line, an environment and a config file. The first line names a command; then lines `arg TEXT` and `env NAME=VALUE`; what follows a line
// `toml` is the file that --config names (pretrain only):
//   pretrain
//   arg --lr=6e-4
//   env HEDDLE_SEQ=512
//   toml
//   batch = 4
// Accepted: the configuration written as TOML, as flags and as variables reads back the same, and a run that saved it resumes without a difference.
#include <iostream>
#include <streambuf>

#include "app/arguments.h"
#include "app/model_commands.h"
#include "app/pretrain.h"
#include "infer/evaluator.h"
#include "tests/fuzz/target.h"
#include "train/dry_run.h"
#include "train/pretrain.h"

#ifdef HEDDLE_FUZZ
// app/pretrain.cpp holds the command beside the parser; this program has no training to link.
int heddle::pretrain(RunConfig) {
  heddle::fuzz::broken("parsing a command line started a run");
}
void heddle::print_config(const RunConfig&) {
  heddle::fuzz::broken("parsing a command line printed a plan");
}
#endif

namespace heddle::fuzz {
namespace {

// toml++ keeps about a hundred bytes for each value and an array doubles; the parser of the command line keeps a description of every flag.
constexpr Rules kRules = {{ExitCode::usage}, 128, size_t{2} << 20};

class Quiet {  // --help prints
 public:
  Quiet() : before_(std::cout.rdbuf(&nothing_)) {}
  ~Quiet() { std::cout.rdbuf(before_); }

 private:
  struct Nothing : std::streambuf {
    int overflow(int c) override { return c == EOF ? 0 : c; }
  } nothing_;
  std::streambuf* before_;
};

struct Request {
  std::string command, toml;
  bool has_toml = false;
  std::vector<std::string> args, environment;
};

bool starts_with(std::string_view text, std::string_view with) {
  return text.substr(0, with.size()) == with;
}

Request read_request(std::string_view input) {
  Request request;
  bool first = true;
  while (!input.empty()) {
    const size_t end = std::min(input.find('\n'), input.size());
    const std::string_view line = input.substr(0, end);
    input.remove_prefix(std::min(end + 1, input.size()));
    if (first) {
      request.command = line;
      first = false;
    } else if (starts_with(line, "arg ")) {
      request.args.emplace_back(line.substr(4));
    } else if (starts_with(line, "env ")) {
      request.environment.emplace_back(line.substr(4));
    } else if (line == "toml") {
      request.toml = input;
      request.has_toml = true;
      break;
    }
  }
  return request;
}

template <class T>
void require_same(const T& a, const T& b, std::string_view how, bool file_only = false) {
  for (const auto& o : T::options()) {
    if (file_only && !o.in_file) continue;
    require(o.toml_text(a) == o.toml_text(b), o.name, " ", how, ": ", o.toml_text(a), " became ", o.toml_text(b));
  }
}

// Every way a value can be written, as (option, text): what set() takes.
template <class T>
std::vector<FlagValue> as_flags(const T& options) {
  std::vector<FlagValue> flags;
  for (const auto& o : T::options()) {
    if (o.empty(options)) continue;
    if (const auto* list = o.template as<std::vector<std::string> T::*>()) {
      for (const std::string& item : options.**list) flags.push_back({std::string(o.name), item});
    } else if (const auto* text = o.template as<std::string T::*>()) {
      flags.push_back({std::string(o.name), options.**text});
    } else {
      std::string value = o.toml_text(options);
      if (value.front() == '"') value = value.substr(1, value.size() - 2);  // a choice's word
      flags.push_back({std::string(o.name), value});
    }
  }
  return flags;
}

template <class T>
void check_flags(const T& options) {
  T again;
  for (const FlagValue& flag : as_flags(options)) {
    for (const auto& o : T::options()) {
      if (o.name == flag.name) o.set(again, flag.text, "again");
    }
  }
  require_same(options, again, "set again from its own text");
}

void check_config(const RunConfig& config) {
  check_flags(config);
  const std::string toml = to_toml(config, true);
  RunConfig from_toml;
  apply_toml(from_toml, toml, "written", Source::saved);
  require_same(config, from_toml, "written as TOML", true);
  require(compare_for_resume(toml, config).empty(), "a saved configuration differs from itself");
  ResumedConfig resumed = resume_config(toml, config);
  require(resumed.overridden.empty(), "resuming with the same configuration overrides something");
  validate(resumed.config);
  require_same(config, resumed.config, "resumed and judged again");

  std::vector<std::string> environment;
  RunConfig whole_lists = config;  // a variable holds one item of a list
  for (const auto& o : RunConfig::options()) {
    if (o.is_list()) o.clear_list(whole_lists);
  }
  for (const FlagValue& flag : as_flags(whole_lists)) environment.push_back(environment_name(flag.name) + "=" + flag.text);
  require_same(whole_lists, make_run_config("", environment, {}), "set by variables");
}

void parse_pretrain_request(Request& request, size_t input_bytes) {
  // Files of this machine are no part of the input. CLI11 knows no abbreviations, so this is every spelling.
  for (const std::string& arg : request.args) {
    if (starts_with(arg, "--config")) return;
  }
  for (const std::string& entry : request.environment) {
    if (starts_with(entry, "HEDDLE_CONFIG")) return;
  }
  std::optional<MemoryFile> file;
  if (request.has_toml) {
    file.emplace(request.toml);
    request.args.insert(request.args.begin(), "--config=" + file->path());
  }
  const auto parsed = parse_input(kRules, input_bytes, [&] {
    const Quiet quiet;
    app::PretrainArguments arguments = app::parse_pretrain(request.args, request.environment);
    validate(arguments.config);
    return arguments;
  });
  if (parsed && !parsed->help) check_config(parsed->config);
}

template <class T>
std::optional<T> parse_command(const Request& request, size_t input_bytes) {
  constexpr app::CommandHelp kHelp = {"command", "", "", ""};
  const auto parsed = parse_input(kRules, input_bytes, [&] {
    const Quiet quiet;
    T options;
    const bool run = app::parse_arguments(kHelp, app::bind_options(T::options(), options), request.args);
    if (run) options.validate();
    return run ? std::optional<T>(options) : std::nullopt;
  });
  if (!parsed || !*parsed) return std::nullopt;
  check_flags(**parsed);
  return *parsed;
}

}  // namespace

void run_target(std::string_view input) {
  Request request = read_request(input);
  if (request.command == "generate") {
    if (const auto options = parse_command<app::GenerateOptions>(request, input.size())) {
      for (const int32_t id : options->prompt_tokens()) require(id >= 0, "--prompt-ids gives ", id);
    }
  } else if (request.command == "eval") {
    parse_command<app::EvalOptions>(request, input.size());
  } else if (request.command == "pretrain") {
    parse_pretrain_request(request, input.size());
  }
}

}  // namespace heddle::fuzz
