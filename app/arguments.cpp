#include "app/arguments.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <iostream>

#include "kernels/api/check.h"

namespace heddle::app {
namespace {

constexpr size_t kHelpWidth = 110, kHelpColumn = 36;

std::string flag_text(const OptionInfo& info) {
  if (info.positional) return std::string(info.name);
  if (info.is_switch) return concat("--", info.name, ", --no-", info.name);
  return concat("--", info.name, " ", info.value);
}

// `text` broken at blanks into lines that start at column `indent`, where the first one is already.
void print_wrapped(std::ostream& out, size_t indent, std::string_view text) {
  for (size_t column = indent; !text.empty();) {
    const std::string_view word = text.substr(0, std::min(text.find(' '), text.size()));
    text.remove_prefix(std::min(word.size() + 1, text.size()));
    if (column > indent && column + 1 + word.size() > kHelpWidth) {
      out << '\n' << std::string(indent, ' ');
      column = indent;
    }
    if (column > indent) out << ' ', ++column;
    out << word;
    column += word.size();
  }
  out << '\n';
}

void print_option(std::ostream& out, const std::string& head, std::string_view text) {
  const size_t column = 2 + head.size();
  out << "  " << head << (column + 2 > kHelpColumn ? concat('\n', std::string(kHelpColumn, ' ')) : std::string(kHelpColumn - column, ' '));
  print_wrapped(out, kHelpColumn, text);
}

[[noreturn]] void refuse(const CommandHelp& help, const std::string& text) {
  fail_usage("arguments", concat(text, "; see heddle ", help.name, " --help"));
}

std::string place_of(const OptionInfo& info) {
  return info.positional ? std::string(info.name) : concat("--", info.name);
}

std::vector<std::string> known_flags(std::span<const BoundOption> options) {
  std::vector<std::string> flags = {"help"};
  for (const BoundOption& o : options) {
    if (o.info.positional) continue;
    flags.emplace_back(o.info.name);
    if (o.info.is_switch) flags.push_back(concat("no-", o.info.name));
  }
  return flags;
}

}  // namespace

void print_help(std::ostream& out, const CommandHelp& help, std::span<const BoundOption> options) {
  out << "usage: heddle " << help.name << " " << help.usage << "\n\n";
  for (std::string_view rest = help.description; !rest.empty();) {  // a paragraph a line
    const std::string_view paragraph = rest.substr(0, std::min(rest.find('\n'), rest.size()));
    rest.remove_prefix(std::min(paragraph.size() + 1, rest.size()));
    print_wrapped(out, 0, paragraph);
  }
  std::string_view group;
  for (const BoundOption& o : options) {
    if (o.info.group != group) {
      group = o.info.group;
      out << "\n" << group << "\n";
    }
    std::string text(o.info.help);
    if (!o.info.fallback.empty() && !(o.info.is_switch && o.info.fallback == "false")) text += concat(" [", o.info.fallback, "]");
    print_option(out, flag_text(o.info), text);
  }
  if (!help.examples.empty()) out << "\nExamples\n" << help.examples << "\n";
}

bool parse_arguments(const CommandHelp& help, std::span<const BoundOption> options, Args args) {
  for (const std::string& arg : args) {
    if (arg == "--") break;
    if (arg == "-h" || arg == "--help") return print_help(std::cout, help, options), false;
  }

  CLI::App parser;
  parser.set_help_flag();
  parser.allow_extras();  // judged below, with a suggestion
  std::vector<CLI::Option*> parsed;
  for (const BoundOption& o : options) {
    const std::string name(o.info.name);
    CLI::Option* option = nullptr;
    if (o.info.is_switch) {
      option = parser.add_flag("--" + name + ",!--no-" + name);
    } else {
      option = parser.add_option(o.info.positional ? name : "--" + name, [](const CLI::results_t&) { return true; });
      option->type_size(1)->expected(1, o.info.is_list ? CLI::detail::expected_max_vector_size : 1);
      option->allow_extra_args(o.info.is_list);
    }
    option->multi_option_policy(o.info.is_list ? CLI::MultiOptionPolicy::TakeAll : CLI::MultiOptionPolicy::TakeLast);
    parsed.push_back(option);
  }

  std::vector<std::string> reversed(args.rbegin(), args.rend());
  try {
    parser.parse(reversed);
  } catch (const CLI::ArgumentMismatch& e) {
    const std::string_view text = e.what();  // "--lr: 1 required ..."
    refuse(help, concat(text.substr(0, text.find(':')), " needs a value"));
  } catch (const CLI::ParseError& e) {
    refuse(help, e.what());
  }
  const std::vector<std::string> flags = known_flags(options);
  // A flag that lost its value swallows the next one: say so before anything else looks odd.
  for (size_t i = 0; i < options.size(); ++i) {
    for (const std::string& value : parsed[i]->results()) {
      const std::string_view name = std::string_view(value).substr(0, value.find('='));
      const bool is_flag = name.rfind("--", 0) == 0 && std::find(flags.begin(), flags.end(), name.substr(2)) != flags.end();
      if (is_flag) refuse(help, concat(place_of(options[i].info), " needs a value, found ", value));
    }
  }
  const std::vector<std::string> extras = parser.remaining();
  for (const std::string& extra : extras) {
    if (extra == "--" || extra.size() < 2 || extra[0] != '-') continue;
    const std::string name = extra.substr(std::min(extra.find_first_not_of('-'), extra.size()));
    refuse(help, concat("unknown flag ", extra, suggestion(name.substr(0, name.find('=')), flags, "--")));
  }
  for (const std::string& extra : extras) {
    if (extra != "--") refuse(help, concat("unexpected argument ", quote_text(extra)));
  }

  for (size_t i = 0; i < options.size(); ++i) {
    std::vector<std::string> values = parsed[i]->results();
    if (!options[i].info.is_list && values.size() > 1) values.erase(values.begin(), values.end() - 1);
    for (const std::string& value : values) options[i].set(value, place_of(options[i].info));
  }
  return true;
}

}  // namespace heddle::app
