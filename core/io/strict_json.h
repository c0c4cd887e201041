// JSON as heddle reads it: every file is input from outside. Internal to .cpp files (nlohmann stays out of public headers).
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/api/check.h"

namespace heddle {

// Builds the document as its parts are met, in time proportional to the text. (nlohmann's own builder with a callback looks through all of a
// container after each value that ends in it.)
class StrictJsonBuilder final : public nlohmann::json_sax<nlohmann::json> {
 public:
  explicit StrictJsonBuilder(const std::string& place) : place_(place) {}
  nlohmann::json take() { return std::move(root_); }

  bool null() override { return add(nullptr); }
  bool boolean(bool value) override { return add(value); }
  bool number_integer(number_integer_t value) override { return add(value); }
  bool number_unsigned(number_unsigned_t value) override { return add(value); }
  bool number_float(number_float_t value, const string_t&) override { return add(value); }
  bool string(string_t& value) override { return add(std::move(value)); }
  bool binary(binary_t& value) override { return add(std::move(value)); }
  bool start_object(size_t) override { return open(nlohmann::json::value_t::object); }
  bool start_array(size_t) override { return open(nlohmann::json::value_t::array); }
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }
  bool key(string_t& name) override {
    const auto [at, is_new] = open_.back()->get_ref<nlohmann::json::object_t&>().emplace(name, nullptr);
    if (!is_new) refuse(concat("key \"", name, "\" appears twice in one object"));
    named_ = &at->second;
    return true;
  }
  bool parse_error(size_t, const std::string&, const nlohmann::json::exception& e) override { refuse(e.what()); }

 private:
  static constexpr size_t kMaxDepth = 32;

  [[noreturn]] void refuse(const std::string& rule) const { fail("json", concat(place_, ": ", rule), ExitCode::bad_data); }
  nlohmann::json* put(nlohmann::json value) {
    if (open_.empty()) return &(root_ = std::move(value));
    if (!open_.back()->is_array()) return &(*named_ = std::move(value));
    return &open_.back()->get_ref<nlohmann::json::array_t&>().emplace_back(std::move(value));
  }
  bool add(nlohmann::json value) { return put(std::move(value)) != nullptr; }
  bool open(nlohmann::json::value_t kind) {
    if (open_.size() == kMaxDepth) refuse(concat("nested deeper than ", kMaxDepth, " levels"));
    open_.push_back(put(kind));
    return true;
  }
  bool close() {
    open_.pop_back();
    return true;
  }

  const std::string& place_;
  nlohmann::json root_;
  std::vector<nlohmann::json*> open_;  // the containers that have begun and not ended; only the last one grows, so the others stay where they are
  nlohmann::json* named_ = nullptr;    // the value of the key read last
};

// Parses one JSON document: at most `max_bytes` long and 32 levels deep, no duplicate keys, no comments, nothing after it.
// `place` is how messages call it ("run/ckpt/s10-i1/MANIFEST"). Throws Error(bad_data).
inline nlohmann::json parse_strict_json(std::string_view text, const std::string& place, size_t max_bytes = size_t{16} << 20) {
  if (text.size() > max_bytes) {
    fail("json", concat(place, ": ", text.size(), " bytes of JSON, at most ", max_bytes, " are accepted"), ExitCode::bad_data);
  }
  StrictJsonBuilder builder(place);
  nlohmann::json::sax_parse(text, &builder);
  return builder.take();
}

}  // namespace heddle
