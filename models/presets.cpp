#include "models/presets.h"

#include "core/io/nearest.h"
#include "kernels/api/check.h"

namespace heddle {
namespace {

TransformerConfig gpt2(int64_t layers, int64_t heads, int64_t dim, int64_t seq = 1024, int64_t vocab = 50257) {
  return {.vocab = vocab, .layers = layers, .dim = dim, .heads = heads, .seq = seq};
}

TransformerConfig llama(int64_t layers, int64_t dim, int64_t heads, int64_t kv_heads, int64_t mlp_dim, bool tied, int64_t vocab = 128256,
                        int64_t seq = 8192) {
  TransformerConfig c{
      .vocab = vocab, .layers = layers, .dim = dim, .heads = heads, .kv_heads = kv_heads, .seq = seq, .mlp = "swiglu", .mlp_dim = mlp_dim};
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
  std::vector<std::string> names;
  for (const Preset& p : presets()) {
    if (p.name == name) return p;
    names.emplace_back(p.name);
  }
  std::string list;
  for (const std::string& n : names) list += concat(list.empty() ? "" : ", ", n);
  fail("model", concat("no preset \"", name, "\"", suggestion(name, names), "; there are ", list), ExitCode::usage);
}

TransformerConfig from_depth(int64_t depth) {
  if (depth < 1 || depth > 256) fail("model", concat("--depth ", depth, " is not between 1 and 256"), ExitCode::usage);
  TransformerConfig c{.layers = depth, .dim = 64 * depth, .heads = depth};
  c.mlp = "relu2";
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
