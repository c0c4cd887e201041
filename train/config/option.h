// One row of an option table: a field of the struct T, what it is called, what it may hold and what it means. Flags, environment, config
// files, --help, written config.toml and the resume check are all driven by such rows, so they cannot drift apart.
#pragma once

#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <variant>
#include <vector>

#include "kernels/api/check.h"
#include "train/config/values.h"

namespace heddle {

// What a resumed run may do with a field that was saved with another value.
enum class ResumeClass : uint8_t {
  must_match,          // the saved state means nothing under another value: refuse
  override_with_flag,  // allowed when a command-line flag says so; logged
  free,                // the new value is taken
};

// An enum stored by its index in `words`.
template <class T>
struct ChoiceOf {
  std::span<const std::string_view> words;
  int (*get)(const T&);
  void (*set)(T&, int);
};

// choice<&RunConfig::optimizer>(words): the enum member whose enumerators stand in the order of `words`.
template <auto kMember, class T, class E>
ChoiceOf<T> choice_of(E T::*, std::span<const std::string_view> words) {
  return {words, [](const T& t) { return static_cast<int>(t.*kMember); }, [](T& t, int i) { t.*kMember = static_cast<E>(i); }};
}
template <auto kMember>
auto choice(std::span<const std::string_view> words) {
  return choice_of<kMember>(kMember, words);
}

// Seconds, written as parse_duration() reads them.
template <class T>
struct DurationOf {
  double T::*seconds;
};

// What of an option the flag parser and --help need, without T.
struct OptionInfo {
  std::string_view name;   // long flag without dashes = config key; a positional argument's name when `positional`
  std::string_view value;  // placeholder in --help: "N", "FILE"; empty for a switch
  std::string_view group;
  std::string_view help;
  bool positional = false;
  bool is_switch = false;
  bool is_list = false;
  std::string fallback;  // default shown in --help; empty: none
};

template <class T>
struct Option {
  using Member = std::variant<bool T::*, int64_t T::*, double T::*, std::string T::*, std::vector<std::string> T::*, DurationOf<T>, ChoiceOf<T>>;

  std::string_view name;
  Member member;
  std::string_view value;
  std::string_view group;
  ResumeClass resume = ResumeClass::free;
  double min = -std::numeric_limits<double>::infinity();
  double max = std::numeric_limits<double>::infinity();
  bool open_above = false;      // max itself is out of range
  bool single = false;          // what computes with it is a float: the value is judged as that float
  bool unset_is_empty = false;  // 0, "" and an empty list mean "not given, somebody derives it"
  bool in_file = true;          // false: a matter of one command, neither read from nor written to a config file
  bool launch = false;          // a matter of one launch: a resumed run does not take over what an earlier launch was given
  bool positional = false;
  std::string_view help;

  // A table row reads add("dim", &RunConfig::dim, ...).optional().between(1, 4096).
  Option& optional() { return unset_is_empty = true, *this; }
  Option& at_least(double least) { return min = least, *this; }
  Option& between(double least, double most) { return min = least, max = most, *this; }
  Option& below(double most) { return max = most, open_above = true, *this; }
  Option& as_float() { return single = true, *this; }
  Option& command_only() { return in_file = false, *this; }
  Option& per_launch() { return launch = true, *this; }
  Option& argument() { return positional = true, *this; }

  template <class M>
  const M* as() const {
    return std::get_if<M>(&member);
  }
  bool is_switch() const { return as<bool T::*>() != nullptr; }
  bool is_list() const { return as<std::vector<std::string> T::*>() != nullptr; }

  // Stores `text`; lists append. Throws Error(usage) opening with `place`.
  void set(T& to, std::string_view text, std::string_view place) const {
    const auto check = [&](auto number) {
      const double value = single ? static_cast<double>(static_cast<float>(number)) : static_cast<double>(number);
      if (single && (value == 0) != (number == 0)) {
        fail_usage("config", concat(place, ": ", quote_text(text), " is zero in single precision, which computes with it"));
      }
      if (value < min || value > max || (open_above && value >= max)) {
        using Number = decltype(number);  // a limit is printed as the values are: 16777216, not 1.67772e+07
        constexpr double kNone = std::numeric_limits<double>::infinity();
        const auto limit = [](double x) { return concat(static_cast<Number>(x)); };
        const std::string least = min == -kNone ? "" : concat("at least ", limit(min)), most = max == kNone ? "" : concat("below ", limit(max));
        fail_usage("config",
                   concat(place, ": ", quote_text(text), " is out of range", single ? " in single precision, which computes with it" : "", ": ",
                          open_above || most.empty() ? least + (least.empty() || most.empty() ? "" : " and ") + most
                                                     : concat("from ", limit(min), " to ", limit(max))));
      }
    };
    std::visit(
        [&](const auto& m) {
          using M = std::remove_cvref_t<decltype(m)>;
          if constexpr (std::is_same_v<M, bool T::*>) {
            to.*m = parse_switch(text, place);
          } else if constexpr (std::is_same_v<M, int64_t T::*>) {
            const int64_t count = parse_count(text, place);
            check(count);
            to.*m = count;
          } else if constexpr (std::is_same_v<M, double T::*>) {
            const double number = parse_real(text, place);
            check(number);
            to.*m = number;
          } else if constexpr (std::is_same_v<M, DurationOf<T>>) {
            to.*m.seconds = parse_duration(text, place);
          } else if constexpr (std::is_same_v<M, ChoiceOf<T>>) {
            m.set(to, parse_choice(text, m.words, place));
          } else {
            if (text.find('\0') != std::string_view::npos) fail_usage("config", concat(place, ": text holds a NUL byte"));
            if constexpr (std::is_same_v<M, std::string T::*>) {
              to.*m = std::string(text);
            } else {
              if (text.empty()) fail_usage("config", concat(place, ": an empty name"));
              (to.*m).emplace_back(text);
            }
          }
        },
        member);
  }

  void copy(const T& from, T& to) const {
    std::visit(
        [&](const auto& m) {
          using M = std::remove_cvref_t<decltype(m)>;
          if constexpr (std::is_same_v<M, DurationOf<T>>) {
            to.*m.seconds = from.*m.seconds;
          } else if constexpr (std::is_same_v<M, ChoiceOf<T>>) {
            m.set(to, m.get(from));
          } else {
            to.*m = from.*m;
          }
        },
        member);
  }

  void clear_list(T& to) const {
    if (const auto* m = as<std::vector<std::string> T::*>()) (to.**m).clear();
  }

  // The value in canonical form: equal text = equal value. Strings and choices are quoted, lists are TOML arrays, so this is also the
  // right-hand side of a TOML line.
  std::string toml_text(const T& from) const {
    return std::visit(
        [&](const auto& m) -> std::string {
          using M = std::remove_cvref_t<decltype(m)>;
          if constexpr (std::is_same_v<M, bool T::*>) {
            return from.*m ? "true" : "false";
          } else if constexpr (std::is_same_v<M, int64_t T::*>) {
            return std::to_string(from.*m);
          } else if constexpr (std::is_same_v<M, double T::*>) {
            return real_text(from.*m);
          } else if constexpr (std::is_same_v<M, DurationOf<T>>) {
            return concat("\"", seconds_text(from.*m.seconds), "\"");
          } else if constexpr (std::is_same_v<M, ChoiceOf<T>>) {
            return quote_text(m.words[static_cast<size_t>(m.get(from))]);
          } else if constexpr (std::is_same_v<M, std::string T::*>) {
            return quote_text(from.*m);
          } else {
            std::string list = "[";
            for (const std::string& item : from.*m) list += concat(list.size() > 1 ? ", " : "", quote_text(item));
            return list + "]";
          }
        },
        member);
  }

  // True where the field holds 0, "" or an empty list and these mean "not given".
  bool empty(const T& from) const {
    if (!unset_is_empty) return false;
    return std::visit(
        [&](const auto& m) {
          using M = std::remove_cvref_t<decltype(m)>;
          if constexpr (std::is_same_v<M, DurationOf<T>>) {
            return from.*m.seconds == 0;
          } else if constexpr (std::is_same_v<M, ChoiceOf<T>>) {
            return false;
          } else if constexpr (std::is_same_v<M, bool T::*>) {
            return false;
          } else if constexpr (std::is_same_v<M, int64_t T::*> || std::is_same_v<M, double T::*>) {
            return from.*m == 0;
          } else {
            return (from.*m).empty();
          }
        },
        member);
  }

  OptionInfo info() const {
    const T defaults{};
    OptionInfo out{name, value, group, help, positional, is_switch(), is_list(), ""};
    if (!positional && !empty(defaults) && !is_list()) {
      out.fallback = toml_text(defaults);
      if (!out.fallback.empty() && out.fallback.front() == '"') out.fallback = out.fallback.substr(1, out.fallback.size() - 2);
    }
    return out;
  }
};

template <class T>
Option<T> make_option(std::string_view name, typename Option<T>::Member member, std::string_view group, std::string_view value, std::string_view help,
                      ResumeClass resume = ResumeClass::free) {
  Option<T> o;
  o.name = name;
  o.member = member;
  o.group = group;
  o.value = value;
  o.help = help;
  o.resume = resume;
  return o;
}

}  // namespace heddle
