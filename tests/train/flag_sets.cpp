#include "tests/train/flag_sets.h"

#include <signal.h>

#include <algorithm>
#include <cmath>
#include <initializer_list>
#include <random>

#include "core/nn/mlp.h"
#include "kernels/api/check.h"
#include "models/presets.h"

namespace heddle::test {
namespace {

class Generator {
 public:
  Generator(uint64_t seed, int64_t vocabulary, int most_ranks) : random_(seed), vocabulary_(vocabulary) {
    for (int i = 0; i < 8; ++i) random_();  // neighbouring seeds start alike
    set_.seed = seed;
    set_.ranks = most_ranks > 1 && chance(0.15) ? 2 : 1;
  }

  FlagSet make() {
    model();
    optimizer();
    machine();
    horizon();
    schedule();
    output();
    stop();
    set_.in_file = chance(0.15);
    if (!set_.in_file) change();  // a flag beside what the file goes on saying would be another matter
    return std::move(set_);
  }

 private:
  int64_t between(int64_t low, int64_t high) { return low + static_cast<int64_t>(random_() % static_cast<uint64_t>(high - low + 1)); }
  double uniform() { return static_cast<double>(random_() >> 11) * 0x1p-53; }
  bool chance(double p) { return uniform() < p; }
  template <class T>
  T pick(std::initializer_list<T> choices) {
    return choices.begin()[between(0, static_cast<int64_t>(choices.size()) - 1)];
  }
  template <class T>
  void add(const std::string& name, const T& value) {
    set_.flags.push_back("--" + name);
    set_.flags.push_back(concat(value));
  }
  void add(const std::string& name) { set_.flags.push_back("--" + name); }
  // --name or --no-name, sometimes; what holds afterwards.
  bool flip(const std::string& name, bool now, double p) {
    if (!chance(p)) return now;
    const bool on = chance(0.5);
    add(on ? name : "no-" + name);
    return on;
  }
  void maybe(double p, const std::string& name, std::initializer_list<const char*> values) {
    if (chance(p)) add(name, pick(values));
  }

  void model() {
    const int64_t kind = between(0, 2);
    bool sizes = true;  // given by hand
    if (kind == 0) {
      const Preset& chosen = presets()[static_cast<size_t>(between(0, static_cast<int64_t>(presets().size()) - 1))];
      shape_ = chosen.config;
      add("model", chosen.name);
      sizes = chosen.name.substr(0, 4) != "tiny" || chance(0.4);
    } else if (kind == 1) {
      depth_ = between(1, 2);
      shape_ = from_depth(depth_);
      add("depth", depth_);
      sizes = chance(0.7);
    }
    plain_ = kind == 2;
    shape_.seq = pick<int64_t>({16, 24, 32});
    add("seq", shape_.seq);
    if (chance(0.5)) {
      shape_.position = pick({Position::learned, Position::rope, Position::none});
      add("position", shape_.position == Position::learned ? "learned" : shape_.position == Position::rope ? "rope" : "none");
    }
    if (shape_.position == Position::rope) maybe(0.4, "rope-theta", {"10000", "500000", "37.5"});
    if (sizes) choose_sizes();
    if (chance(0.5)) {
      shape_.mlp = pick<std::string>({"gelu", "relu2", "swiglu"});
      add("mlp", shape_.mlp);
    }
    if (mlp_kind(shape_.mlp).biases) {
      shape_.bias = flip("bias", shape_.bias, 0.3);
    } else if (shape_.bias) {
      add("no-bias");
      shape_.bias = false;
    }
    maybe(0.4, "norm", {"layer", "rms"});
    flip("qk-norm", false, 0.4);
    shape_.tied = flip("tied", shape_.tied, 0.4);
    flip("zero-init-out", false, 0.3);
    if (chance(0.3)) add("window", between(0, 2 * shape_.seq));
    shape_.vocab = vocabulary_;
    if (chance(0.35)) {
      shape_.vocab += between(0, 200);
      add("vocab", shape_.vocab);
    }
    small_ = sizes;
  }

  void choose_sizes() {
    const bool all = plain_ || depth_ == 0;
    if (all || chance(0.5)) {
      shape_.layers = between(1, 3);
      add("layers", shape_.layers);
    }
    shape_.heads = between(1, 4);
    const bool odd_width = shape_.position != Position::rope && chance(0.2);
    const int64_t width = odd_width ? pick<int64_t>({3, 5, 7}) : 2 * between(1, 8);
    add("heads", shape_.heads);
    shape_.head_dim = 0;
    if (chance(0.45)) {  // a head's width of its own: nothing has to divide
      shape_.head_dim = width;
      shape_.dim = between(8, 40);
      add("head-dim", width);
    } else {
      shape_.dim = shape_.heads * width;
    }
    add("dim", shape_.dim);
    shape_.kv_heads = 0;
    if (chance(0.4)) {
      do shape_.kv_heads = between(1, shape_.heads);
      while (shape_.heads % shape_.kv_heads != 0);
      add("kv-heads", shape_.kv_heads);
    }
    shape_.mlp_dim = 0;
    if (chance(0.4)) {
      shape_.mlp_dim = between(5, 70);
      add("mlp-dim", shape_.mlp_dim);
    }
  }

  void optimizer() {
    muon_ = depth_ > 0;
    if (chance(depth_ > 0 ? 0.4 : 0.6)) {
      muon_ = chance(0.6);
      add("optimizer", muon_ ? "muon" : "adamw");
    }
    maybe(0.6, "lr", {"0.001", "0.01", "3e-4", "0.0031415926"});
    if (muon_) {
      maybe(0.6, "muon-lr", {"0.01", "0.002", "0.05"});
      maybe(0.4, "muon-momentum", {"0.9", "0.5", "0"});
    }
    maybe(0.3, "embed-lr-scale", {"0.5", "2", "0"});
    if (!shape_.tied) maybe(0.6, "head-lr-scale", {"0.5", "2"});
    maybe(0.4, "weight-decay", {"0", "0.01", "0.3"});
    maybe(0.4, "grad-clip", {"0", "0.5", "1"});
    maybe(0.3, "beta1", {"0", "0.8", "0.95"});
    maybe(0.3, "beta2", {"0.99", "0.999", "0.5"});
    maybe(0.3, "eps", {"1e-10", "1e-5"});
    maybe(0.3, "z-loss", {"1e-4", "0.01"});
    maybe(0.3, "spike-z", {"6", "3.5"});
    maybe(0.15, "spike-rollbacks", {"0", "5"});
    maybe(0.15, "nonfinite-limit", {"1", "9"});
  }

  void machine() {
    maybe(0.6, "precision", {"fp32", "bf16", "auto"});
    maybe(0.3, "device", {"cpu", "auto"});
    flip("recompute", false, 0.4);
    deterministic_ = flip("deterministic", false, 0.5);
    flip("doc-mask", true, 0.5);
    if (set_.ranks > 1 ? chance(0.6) : chance(0.1)) add("dp", set_.ranks);
    maybe(0.3, "seed", {"0", "7", "123456789012"});
    if (set_.ranks > 1) maybe(0.5, "zero", {"0", "1"});
    if (!deterministic_) maybe(0.2, "grad-reduce", {"bf16"});
    if (chance(0.1)) add("no-memory-check");
  }

  void horizon() {
    batch_ = between(1, 4);
    constexpr int64_t kMostTokens = 400'000;  // a second of training
    const bool neither = depth_ > 0 && small_ && 20 * shape_.matrix_parameters() < kMostTokens && chance(0.9);
    if (neither) batch_ = 16;  // the horizon follows from the model's size: larger steps make it short
    const int64_t unit = shape_.seq * batch_ * set_.ranks;
    int64_t micro_steps = between(1, 4);
    set_.steps = between(12, 28);
    if (neither) {
      const int64_t tokens = 20 * shape_.matrix_parameters();
      for (micro_steps = 1; micro_steps * unit * set_.steps < tokens;) micro_steps *= 2;
      set_.steps = std::max<int64_t>(1, tokens / (micro_steps * unit));
    }
    const int64_t total = micro_steps * unit;
    add("batch", batch_);
    if (micro_steps > 1 || chance(0.3)) add("total-batch-tokens", total);
    if (neither) return;
    if (chance(0.6)) {
      add("steps", set_.steps);
    } else {
      add("tokens", set_.steps * total + between(0, total - 1));
    }
  }

  void schedule() {
    if (chance(0.5)) add("warmup", between(0, set_.steps));
    std::string shape = depth_ > 0 ? "linear" : "cosine";
    if (chance(0.7)) {
      shape = pick({"cosine", "linear", "constant", "wsd"});
      add("schedule", shape);
    }
    constant_ = shape == "constant";
    if (!constant_) maybe(0.5, "final-lr-fraction", {"0", "0.05", "0.5", "1"});
    if (shape == "wsd") maybe(0.6, "decay-fraction", {"0.1", "0.5", "1"});
  }

  void output() {
    set_.validates = chance(0.7);
    if (set_.validates) {
      maybe(0.7, "eval-every", {"0", "3", "7"});
      maybe(0.8, "eval-tokens", {"1", "100", "400"});
    }
    const bool saves = !chance(0.25);
    if (saves) maybe(0.7, "save-every", {"2", "5"});
    if (!saves) add("save-every", 0);
    maybe(0.3, "keep-last", {"2", "5"});
    if (saves) maybe(0.3, "keep-every", {"4"});
    samples_ = chance(0.4);
    if (samples_) {
      add("sample-every", between(2, 6));
      add("sample-tokens", between(1, 40));
      maybe(0.5, "sample-prompt", {"ab cd", "\xC3\xA9", "a longer prompt than the context is, for most of the contexts"});
    } else if (chance(0.2)) {
      add("sample-every", 0);
    }
    flip("tensorboard", true, 0.6);
    maybe(0.3, "log-every", {"1", "4"});
    if (chance(0.3)) add("no-progress");
    set_.prompt = pick({"ab cd", "", "many words, more than one context holds of tokens"});
  }

  void stop() {
    set_.signal = pick({SIGTERM, SIGUSR1, SIGHUP, 0});
    set_.stop_at = 0.05 + 0.5 * uniform();
    if (chance(0.35)) set_.stop_again_at = set_.stop_at + 0.25 * uniform();
    if (set_.signal == 0) set_.time_limit = std::pow(10.0, -3 + 2 * uniform());
  }

  void change() {
    if (!chance(0.5)) return;
    using Flags = std::vector<std::string>;
    std::vector<Flags> same, other;
    if (samples_) same.push_back({"--sample-every", "0"});
    if (set_.validates) same.push_back({"--eval-every", "0"});
    same.push_back({"--save-every", "4"});
    same.push_back({"--keep-last", "4"});
    if (!constant_) other.push_back({"--schedule", "constant"});
    if (muon_) other.push_back({"--muon-lr", "0.004"});
    other.push_back({"--steps", std::to_string(set_.steps + 3)});
    other.push_back({"--lr", "0.002"});
    if (batch_ > 1) other.push_back({"--batch", "1"});
    other.push_back({"--grad-clip", "0.25"});
    set_.same_state = chance(0.4);
    const std::vector<Flags>& from = set_.same_state ? same : other;
    set_.change = from[static_cast<size_t>(between(0, static_cast<int64_t>(from.size()) - 1))];
  }

  std::mt19937_64 random_;
  int64_t vocabulary_;
  FlagSet set_;
  TransformerConfig shape_;  // what the flags so far come to
  int64_t depth_ = 0, batch_ = 1;
  bool plain_ = false, small_ = false, muon_ = false, deterministic_ = false, constant_ = false, samples_ = false;
};

}  // namespace

std::string config_lines(const std::vector<std::string>& flags) {
  std::string lines;
  for (size_t i = 0; i < flags.size(); ++i) {
    std::string name = flags[i].substr(2), value = "true";
    if (i + 1 < flags.size() && flags[i + 1].substr(0, 2) != "--") {
      value = flags[++i];
      if (value.find_first_not_of("0123456789.e-") != std::string::npos) value = concat("\"", value, "\"");
    } else if (name.substr(0, 3) == "no-") {
      name = name.substr(3), value = "false";
    }
    lines += concat(name, " = ", value, "\n");
  }
  return lines;
}

FlagSet random_flag_set(uint64_t seed, int64_t vocabulary, int most_ranks) {
  return Generator(seed, vocabulary, most_ranks).make();
}

}  // namespace heddle::test
