// Numbers, durations and switches as people write them, the same for flags, environment and config files.
//
// `place` opens every error, so that it names what the user wrote: "--lr", "HEDDLE_LR", "run.toml:3: lr". All errors are Error(usage).
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/io/nearest.h"

namespace heddle {

// Throws Error(usage) "[op] text": the flag, variable or file:line in `text` is the place, no source line is added.
[[noreturn]] void fail_usage(std::string_view op, const std::string& text);

// A whole number >= 0: "4096", "512k", "1M", "2G" (powers of 1024), "1e9", "1.5k" (= 1536). Exact: what is no whole number or exceeds
// 2^63 - 1 is refused, never rounded.
int64_t parse_count(std::string_view text, std::string_view place);

// A finite number: "3e-4", "0.1", "-2".
double parse_real(std::string_view text, std::string_view place);

// Seconds >= 0: "90", "90s", "1h30m", "2d", and Slurm's "HH:MM:SS", "D-HH:MM:SS".
double parse_duration(std::string_view text, std::string_view place);

// true/false, yes/no, on/off, 1/0.
bool parse_switch(std::string_view text, std::string_view place);

// The index of `text` in `words`.
int parse_choice(std::string_view text, std::span<const std::string_view> words, std::string_view place);

// The shortest decimal that reads back as the same double, always with a point or exponent ("0.1", "1.0", "1e-08"): also a TOML float.
std::string real_text(double value);

// Seconds as parse_duration() reads back the same: "5400s", "0.001s".
std::string seconds_text(double seconds);

// `text` as a TOML basic string or JSON string, quotes included: both escape alike.
std::string quote_text(std::string_view text);

}  // namespace heddle
