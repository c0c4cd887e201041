// Presets have the published sizes; configurations that cannot be are refused with the flag's name.
#include "models/presets.h"

#include "kernels/api/check.h"
#include "tests/models/support.h"
#include "tests/support/catch.h"

namespace heddle {
namespace {

using Catch::Matchers::Contains;

TEST_CASE("presets have the published number of parameters") {
  // GPT-2: the released checkpoints. Llama 3.2 1B and 3B, Llama 3 8B, Qwen2.5 and Qwen3: their model cards' safetensors (tied heads counted once).
  const std::vector<std::pair<std::string_view, int64_t>> published = {
      {"gpt2-124m", 124439808},     {"gpt2-355m", 354823168},  {"gpt2-774m", 774030080},   {"gpt2-1558m", 1557611200},
      {"llama-1b", 1235814400},     {"llama-3b", 3212749824},  {"llama-8b", 8030261248},   {"qwen2.5-0.5b", 494032768},
      {"qwen2.5-1.5b", 1543714304}, {"qwen3-0.6b", 596049920}, {"qwen3-1.7b", 1720574976},
  };
  for (const auto& [name, count] : published) {
    CAPTURE(name);
    CHECK(Transformer(preset(name).config).parameter_count() == count);
  }
  CHECK(presets().size() == published.size() + 3);
}

TEST_CASE("every preset resolves and trains on paper") {
  for (const Preset& p : presets()) {
    CAPTURE(p.name);
    const TransformerConfig c = p.config.resolved();
    CHECK(c.kv_heads >= 1);
    CHECK(c.flops_per_token(c.seq) > 6.0 * static_cast<double>(c.matrix_parameters()));
    CHECK_FALSE(p.what.empty());
  }
}

TEST_CASE("floating-point operations of a GPT-2 token") {
  const TransformerConfig c = preset("gpt2-124m").config;
  // 12 layers of 12 C^2, and the head; attention 12 L H D T / 2 = 6 L C T.
  const double matrices = 12 * 12 * 768.0 * 768 + 50257.0 * 768;
  CHECK(static_cast<double>(c.matrix_parameters()) == matrices);
  CHECK(c.flops_per_token(1024) == 6 * matrices + 6.0 * 12 * 768 * 1024);
  TransformerConfig windowed = c;
  windowed.window = 128;
  CHECK(windowed.flops_per_token(1024) < c.flops_per_token(1024));
  CHECK(windowed.flops_per_token(64) == c.flops_per_token(64));
}

TEST_CASE("parameter names and kinds") {
  const Transformer model(test::gpt2_style());
  std::vector<std::string> names;
  for (const Parameter& p : model.parameters()) names.push_back(p.name());
  const std::vector<std::string> block{"norm1.weight", "norm1.bias", "attn.qkv.weight", "attn.qkv.bias", "attn.out.weight", "attn.out.bias",
                                       "norm2.weight", "norm2.bias", "mlp.up.weight",   "mlp.up.bias",   "mlp.down.weight", "mlp.down.bias"};
  std::vector<std::string> want{"tok.weight", "pos.weight"};
  for (const char* i : {"0", "1"}) {
    for (const std::string& name : block) want.push_back(concat("blocks.", i, ".", name));
  }
  want.insert(want.end(), {"norm.weight", "norm.bias"});
  CHECK(names == want);
  TransformerConfig untied = test::gpt2_style();
  untied.tied = false;
  CHECK(Transformer(untied).parameters().back().name() == "head.weight");
  CHECK(Transformer(untied).parameters().back().spec().kind == ParamKind::head);
}

TEST_CASE("initialisation: residual projections are scaled by depth, or zero") {
  kernels::register_cpu_kernels();
  const auto deviation = [](const TransformerConfig& c, std::string_view name) {
    const Transformer model(c);
    Arena arena(model, Device{}, DType::f32);
    arena.init(1);
    for (const Parameter& p : model.parameters()) {
      if (p.name() != name) continue;
      double squares = 0;
      for (double v : p.tensor().to_vector()) squares += v * v;
      return std::sqrt(squares / static_cast<double>(p.tensor().numel()));
    }
    return -1.0;
  };
  const TransformerConfig c = preset("tiny-gpt").config;  // two layers: 0.02 / sqrt(4)
  // 4096 and more draws: the standard error of a deviation is 1 / sqrt(2 n) = 1.1 % of it.
  CHECK(std::abs(deviation(c, "blocks.0.attn.qkv.weight") / 0.02 - 1) < 0.06);
  CHECK(std::abs(deviation(c, "blocks.0.attn.out.weight") / 0.01 - 1) < 0.06);
  CHECK(std::abs(deviation(c, "blocks.1.mlp.down.weight") / 0.01 - 1) < 0.06);
  TransformerConfig small = from_depth(1);
  small.vocab = 10, small.seq = 8;
  CHECK(deviation(small, "blocks.0.mlp.down.weight") == 0);
  CHECK(deviation(small, "blocks.0.attn.out.weight") == 0);
  CHECK(deviation(small, "blocks.0.mlp.up.weight") > 0);
}

TEST_CASE("one dial: depth") {
  const TransformerConfig c = from_depth(12);
  CHECK((c.layers == 12 && c.dim == 768 && c.heads == 12));
  CHECK_THROWS_WITH(from_depth(0), Contains("--depth 0"));
  CHECK_THROWS_WITH(from_depth(1000), Contains("--depth 1000"));
}

TEST_CASE("impossible configurations are usage errors that name the flag") {
  const auto error = [](const std::function<void(TransformerConfig&)>& change) -> std::string {
    TransformerConfig c = test::llama_style();
    change(c);
    try {
      c.resolved();
    } catch (const Error& e) {
      CHECK(e.code() == ExitCode::usage);
      return e.what();
    }
    return "";
  };
  CHECK_THAT(error([](auto& c) { c.kv_heads = 3; }), Contains("--kv-heads 3"));
  CHECK_THAT(error([](auto& c) { c.kv_heads = -1; }), Contains("--kv-heads -1"));
  CHECK_THAT(error([](auto& c) { c.dim = 9; }), Contains("--dim 9") && Contains("--heads 4"));
  CHECK_THAT(error([](auto& c) { c.dim = 12; }), Contains("even width of a head"));
  CHECK_THAT(error([](auto& c) { c.vocab = 0; }), Contains("--vocab 0"));
  CHECK_THAT(error([](auto& c) { c.head_dim = 512; }), Contains("512"));
  CHECK_THAT(error([](auto& c) { c.head_dim = -2; }), Contains("-2"));
  CHECK_THAT(error([](auto& c) { c.bias = true; }), Contains("swiglu has no biases"));
  CHECK_THAT(error([](auto& c) { c.window = -1; }), Contains("--window -1"));
  CHECK_THROWS_WITH(preset("gpt2-124"), Contains("did you mean gpt2-124m?"));
  CHECK_THROWS_WITH(preset("lama-8b"), Contains("llama-8b"));
}

}  // namespace
}  // namespace heddle
