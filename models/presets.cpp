#include "models/presets.h"

#include <algorithm>

#include "kernels/api/check.h"

namespace heddle {
namespace {

TransformerConfig gpt2(int64_t layers, int64_t heads, int64_t dim, int64_t seq = 1024, int64_t vocab = 50257) {
  return {.vocab = vocab, .layers = layers, .dim = dim, .heads = heads, .seq = seq};
}

TransformerConfig llama(int64_t layers, int64_t dim, int64_t heads, int64_t kv_heads, int64_t mlp_dim, bool tied, int64_t vocab = 128256,
                        int64_t seq = 8192) {
  TransformerConfig c{
      .vocab = vocab, .layers = layers, .dim = dim, .heads = heads, .kv_heads = kv_heads, .seq = seq, .mlp = MlpType::swiglu, .mlp_dim = mlp_dim};
  c.norm = NormType::rms;
  c.position = Position::rope;
  c.rope_theta = 500000;
  c.bias = false;
  c.tied = tied;
  return c;
}

TransformerConfig qwen3(int64_t layers, int64_t dim, int64_t heads, int64_t kv_heads, int64_t mlp_dim, bool tied) {
  TransformerConfig c = llama(layers, dim, heads, kv_heads, mlp_dim, tied, 151936);
  c.head_dim = 128;
  c.rope_theta = 1e6;
  c.norm_eps = 1e-6f;
  c.qk_norm = true;
  return c;
}

TransformerConfig qwen2(int64_t layers, int64_t dim, int64_t heads, int64_t kv_heads, int64_t mlp_dim, bool tied) {
  TransformerConfig c = llama(layers, dim, heads, kv_heads, mlp_dim, tied, 151936);
  c.rope_theta = 1e6;
  c.norm_eps = 1e-6f;
  c.qkv_bias = true;
  return c;
}

size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t above = row[j];
      row[j] = std::min({above + 1, row[j - 1] + 1, diagonal + (a[i - 1] != b[j - 1])});
      diagonal = above;
    }
  }
  return row[b.size()];
}

}  // namespace

const std::vector<Preset>& presets() {
  static const std::vector<Preset> all = {
      {"tiny-gpt", "2 layers of 64, for tests", gpt2(2, 2, 64, 128, 257)},
      {"tiny-llama", "2 layers of 64, GQA and RoPE, for tests", llama(2, 64, 4, 2, 192, true, 257, 128)},
      {"gpt-10m", "6 layers of 384, T = 256, characters of Shakespeare", gpt2(6, 6, 384, 256, 65)},
      {"gpt2-124m", "GPT-2 small", gpt2(12, 12, 768)},
      {"gpt2-355m", "GPT-2 medium", gpt2(24, 16, 1024)},
      {"gpt2-774m", "GPT-2 large", gpt2(36, 20, 1280)},
      {"gpt2-1558m", "GPT-2 XL", gpt2(48, 25, 1600)},
      {"llama-1b", "the shape of Llama 3.2 1B", llama(16, 2048, 32, 8, 8192, true)},
      {"llama-3b", "the shape of Llama 3.2 3B", llama(28, 3072, 24, 8, 8192, true)},
      {"llama-8b", "the shape of Llama 3 8B", llama(32, 4096, 32, 8, 14336, false)},
      {"qwen2.5-0.5b", "the shape of Qwen2.5 0.5B", qwen2(24, 896, 14, 2, 4864, true)},
      {"qwen2.5-1.5b", "the shape of Qwen2.5 1.5B", qwen2(28, 1536, 12, 2, 8960, true)},
      {"qwen3-0.6b", "the shape of Qwen3 0.6B", qwen3(28, 1024, 16, 8, 3072, true)},
      {"qwen3-1.7b", "the shape of Qwen3 1.7B", qwen3(28, 2048, 16, 8, 6144, true)},
  };
  return all;
}

const Preset& preset(std::string_view name) {
  const Preset* nearest = nullptr;
  for (const Preset& p : presets()) {
    if (p.name == name) return p;
    if (!nearest || edit_distance(name, p.name) < edit_distance(name, nearest->name)) nearest = &p;
  }
  std::string names;
  for (const Preset& p : presets()) names += concat(names.empty() ? "" : ", ", p.name);
  fail("model", concat("no preset \"", name, "\"; did you mean ", nearest->name, "? (", names, ")"), ExitCode::usage);
}

TransformerConfig from_depth(int64_t depth) {
  if (depth < 1 || depth > 256) fail("model", concat("--depth ", depth, " is not between 1 and 256"), ExitCode::usage);
  TransformerConfig c{.layers = depth, .dim = 64 * depth, .heads = depth};
  c.mlp = MlpType::relu2;
  c.norm = NormType::rms;
  c.norm_eps = 1e-6f;
  c.position = Position::rope;
  c.bias = false;
  c.qk_norm = true;
  c.tied = false;
  c.zero_init_out = true;
  return c;
}

}  // namespace heddle
