// Small Transformers of every style, with parameters that hide nothing.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "core/arena.h"
#include "kernels/api/kernel.h"
#include "models/transformer.h"
#include "tests/support/tensors.h"

namespace heddle::test {

struct Style {
  std::string name;
  TransformerConfig config;
};

inline TransformerConfig gpt2_style() {
  return {.vocab = 7, .layers = 2, .dim = 6, .heads = 2, .seq = 8, .mlp_dim = 10};
}
inline TransformerConfig llama_style() {
  TransformerConfig c{.vocab = 7, .layers = 2, .dim = 8, .heads = 4, .kv_heads = 2, .seq = 8, .mlp = "swiglu", .mlp_dim = 6};
  c.norm = NormType::rms;
  c.position = Position::rope;
  c.rope_theta = 100;
  c.bias = false;
  c.tied = false;
  return c;
}

// One configuration a feature, so that a failure names it.
inline std::vector<Style> styles() {
  std::vector<Style> all{{"gpt2", gpt2_style()}, {"llama", llama_style()}};
  const auto add = [&](std::string name, TransformerConfig c, const std::function<void(TransformerConfig&)>& change) {
    change(c);
    all.push_back({std::move(name), c});
  };
  add("gpt2 untied, recomputed", gpt2_style(), [](auto& c) { c.tied = false, c.recompute = true; });
  add("gpt2 windowed", gpt2_style(), [](auto& c) { c.window = 3; });
  add("llama tied, recomputed", llama_style(), [](auto& c) { c.tied = true, c.recompute = true; });
  add("llama windowed, one kv head", llama_style(), [](auto& c) { c.window = 2, c.kv_heads = 1; });
  add("qwen2: qkv bias", llama_style(), [](auto& c) { c.qkv_bias = true; });
  add("qwen3: qk norm, wide heads", llama_style(), [](auto& c) { c.qk_norm = true, c.head_dim = 4; });
  add("relu2, no gains, no positions", llama_style(),
      [](auto& c) { c.mlp = "relu2", c.norm_affine = false, c.qk_norm = true, c.qk_gain = false, c.position = Position::none; });
  return all;
}

// Every parameter N(its init mean, 0.4): zero-initialised projections would hide what lies behind them.
inline void randomize(const Arena& arena, double stddev = 0.4) {
  uint64_t seed = 100;
  for (const Parameter& p : arena.parameters()) {
    const Tensor& t = p.tensor();
    write(t, random_input(t.shape(), ++seed, p.spec().init_mean, stddev, t.dtype(), false).to_vector());
  }
}

// (B, T) tokens below `vocab`, the same for the same seed.
inline Tensor random_tokens(int64_t b, int64_t t, int64_t vocab, uint64_t seed) {
  std::vector<int32_t> values(static_cast<size_t>(b * t));
  const RngKey key{.seed = seed, .purpose = RngPurpose::test, .name = 99};
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<int32_t>(Philox::draw(key, i)[0] % static_cast<uint32_t>(vocab));
  return ints(values, {b, t});
}

}  // namespace heddle::test
