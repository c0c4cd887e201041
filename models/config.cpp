#include "models/config.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <limits>

#include "core/io/strict_json.h"
#include "core/nn/mlp.h"
#include "kernels/api/check.h"

namespace heddle {
namespace {

void require(bool ok, const std::string& text) {
  if (!ok) fail("model", text, ExitCode::usage);
}

constexpr auto kNorms = std::to_array<std::string_view>({"layer", "rms"});
constexpr auto kPositions = std::to_array<std::string_view>({"learned", "rope", "none"});

// Calls visit(name, field) for all that is stored.
template <class Config, class Visit>
void each_field(Config& c, Visit visit) {
  visit("vocab", c.vocab), visit("layers", c.layers), visit("dim", c.dim), visit("heads", c.heads), visit("kv_heads", c.kv_heads);
  visit("head_dim", c.head_dim), visit("seq", c.seq), visit("mlp", c.mlp), visit("mlp_dim", c.mlp_dim), visit("norm", c.norm);
  visit("norm_affine", c.norm_affine), visit("norm_eps", c.norm_eps), visit("position", c.position), visit("rope_theta", c.rope_theta);
  visit("bias", c.bias), visit("qkv_bias", c.qkv_bias), visit("qk_norm", c.qk_norm), visit("qk_gain", c.qk_gain), visit("tied", c.tied);
  visit("window", c.window), visit("init_std", c.init_std), visit("zero_init_out", c.zero_init_out);
}

// Far above any model, and low enough that products of three stay within int64.
constexpr int64_t kMostSize = int64_t{1} << 24;

struct Reader {
  const nlohmann::json& object;
  const std::string& place;
  size_t found = 0;

  const nlohmann::json& at(const char* name) {
    const auto it = object.find(name);
    if (it == object.end()) refuse(concat("\"", name, "\" is missing"));
    ++found;
    return *it;
  }
  [[noreturn]] void refuse(const std::string& text) const { fail("model", concat(place, ": ", text), ExitCode::bad_data); }

  void operator()(const char* name, int64_t& to) {
    const nlohmann::json& value = at(name);
    if (!value.is_number_unsigned() || value.get<uint64_t>() > static_cast<uint64_t>(kMostSize)) {
      refuse(concat("\"", name, "\" is no whole number from 0 to ", kMostSize));
    }
    to = value.get<int64_t>();
  }
  void operator()(const char* name, double& to) {
    const nlohmann::json& value = at(name);
    if (!value.is_number() || !std::isfinite(value.get<double>())) refuse(concat("\"", name, "\" is no number"));
    to = value.get<double>();
  }
  void operator()(const char* name, float& to) {
    double wide = 0;
    (*this)(name, wide);
    to = static_cast<float>(wide);
  }
  void operator()(const char* name, bool& to) {
    const nlohmann::json& value = at(name);
    if (!value.is_boolean()) refuse(concat("\"", name, "\" is neither true nor false"));
    to = value.get<bool>();
  }
  void operator()(const char* name, std::string& to) {
    const nlohmann::json& value = at(name);
    if (!value.is_string()) refuse(concat("\"", name, "\" is no text"));
    to = value.get<std::string>();
  }
  void operator()(const char* name, NormType& to) { to = static_cast<NormType>(index_in(name, kNorms)); }
  void operator()(const char* name, Position& to) { to = static_cast<Position>(index_in(name, kPositions)); }

  template <size_t N>
  size_t index_in(const char* name, const std::array<std::string_view, N>& words) {
    std::string text;
    (*this)(name, text);
    const auto it = std::find(words.begin(), words.end(), text);
    if (it == words.end()) refuse(concat("\"", name, "\" is \"", text, "\", which this version does not know"));
    return static_cast<size_t>(it - words.begin());
  }
};

struct Writer {
  nlohmann::json& object;
  template <class T>
  void operator()(const char* name, const T& value) {
    object[name] = value;
  }
  void operator()(const char* name, const float& value) { object[name] = static_cast<double>(value); }
  void operator()(const char* name, const NormType& value) { object[name] = kNorms[static_cast<size_t>(value)]; }
  void operator()(const char* name, const Position& value) { object[name] = kPositions[static_cast<size_t>(value)]; }
};

}  // namespace

TransformerConfig TransformerConfig::resolved() const {
  TransformerConfig c = *this;
  require(
      c.vocab > 0 && c.layers > 0 && c.dim > 0 && c.heads > 0 && c.seq > 0,
      concat("--vocab ", c.vocab, ", --layers ", c.layers, ", --dim ", c.dim, ", --heads ", c.heads, ", --seq ", c.seq, ": all must be at least 1"));
  if (c.kv_heads == 0) c.kv_heads = c.heads;
  require(c.kv_heads > 0 && c.heads % c.kv_heads == 0, concat("--heads ", c.heads, " is not divisible by --kv-heads ", c.kv_heads,
                                                              ": every key/value head serves the same number of query heads"));
  if (c.head_dim == 0) {
    require(c.dim % c.heads == 0, concat("--dim ", c.dim, " is not divisible by --heads ", c.heads, ": give a multiple, for example --dim ",
                                         (c.dim / c.heads + 1) * c.heads, ", or the width of a head by --head-dim"));
    c.head_dim = c.dim / c.heads;
  }
  const std::string width = concat(c.head_dim, head_dim == 0 ? concat(" (--dim ", c.dim, " / --heads ", c.heads, ")") : " (--head-dim)");
  require(c.head_dim > 0, concat("the width of a head is ", width));
  require(c.position != Position::rope || c.head_dim % 2 == 0, concat("--position rope needs an even width of a head, not ", width));
  require(c.head_dim <= 256, concat("the width of a head is ", width, "; at most 256 is supported"));
  const MlpKind& kind = mlp_kind(c.mlp);
  if (c.mlp_dim == 0) c.mlp_dim = kind.hidden(c.dim);
  require(c.mlp_dim > 0, concat("--mlp-dim ", c.mlp_dim));
  require(c.window >= 0, concat("--window ", c.window));
  require(!c.bias || kind.biases, concat("--bias with --mlp ", c.mlp, ": ", c.mlp, " has no biases"));
  return c;
}

int64_t TransformerConfig::matrix_parameters() const {
  const TransformerConfig c = resolved();
  const int64_t attention = c.dim * (c.heads + 2 * c.kv_heads) * c.head_dim + c.heads * c.head_dim * c.dim;
  const int64_t mlp = mlp_kind(c.mlp).matrices() * c.dim * c.mlp_dim;
  return c.layers * (attention + mlp) + c.vocab * c.dim;
}

double TransformerConfig::flops_per_token(int64_t seq) const {
  const TransformerConfig c = resolved();
  const double span = static_cast<double>(c.window > 0 ? std::min(2 * c.window, seq) : seq);  // a window sees at most `window` keys: T = 2 windows
  return 6.0 * static_cast<double>(matrix_parameters()) + 6.0 * static_cast<double>(c.layers * c.heads * c.head_dim) * span;
}

std::string to_json(const TransformerConfig& config) {
  nlohmann::json object = nlohmann::json::object();
  each_field(config, Writer{object});
  return object.dump();
}

TransformerConfig transformer_config(std::string_view json, const std::string& place) {
  const nlohmann::json object = parse_strict_json(std::string(json), place);
  Reader read{object, place};
  if (!object.is_object()) read.refuse("no JSON object");
  TransformerConfig config;
  each_field(config, std::ref(read));
  if (read.found != object.size()) read.refuse("it holds keys that this version does not know");
  try {
    return config.resolved();
  } catch (const Error& e) {
    read.refuse(concat("it describes no model: ", e.what()));
  }
}

}  // namespace heddle
