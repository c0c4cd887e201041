#include "train/config/shape.h"

#include "core/nn/mlp.h"
#include "kernels/api/check.h"
#include "models/presets.h"
#include "parallel/local_device.h"

namespace heddle {

TransformerConfig model_config(RunConfig& c, int64_t vocab) {
  TransformerConfig m;
  std::string why;
  if (!c.model.empty()) {
    m = preset(c.model).config;
    why = "model " + c.model;
  } else if (c.depth > 0) {
    m = from_depth(c.depth);
    why = "depth " + std::to_string(c.depth);
  }
  const bool plain = why.empty();  // every field comes from the configuration itself
  // What is fixed rules the preset; what is not follows from it.
  const auto settle = [&]<class T>(std::string_view name, T& field, T& model_field) {
    if (plain || c.is_fixed(name)) {
      model_field = field;
    } else {
      field = model_field;
      c.mark_derived(name, why);
    }
  };
  settle("layers", c.layers, m.layers);
  settle("heads", c.heads, m.heads);
  settle("dim", c.dim, m.dim);
  // What belongs to the preset's heads and width goes with them.
  const bool own_heads = plain || c.is_fixed("heads"), own_width = plain || c.is_fixed("dim");
  const auto part = [&](std::string_view name, const int64_t& field, int64_t& model_field, bool preset_holds) {
    if (c.is_fixed(name)) {
      model_field = field;
    } else if (!preset_holds) {
      model_field = 0;
    }
  };
  part("kv-heads", c.kv_heads, m.kv_heads, !own_heads);
  part("head-dim", c.head_dim, m.head_dim, !own_heads && !own_width);
  settle("mlp", c.mlp, m.mlp);
  part("mlp-dim", c.mlp_dim, m.mlp_dim, !own_width);
  settle("norm", c.norm, m.norm);
  settle("position", c.position, m.position);
  settle("rope-theta", c.rope_theta, m.rope_theta);
  settle("qk-norm", c.qk_norm, m.qk_norm);
  settle("bias", c.bias, m.bias);
  if (m.bias && !mlp_kind(m.mlp).biases && !c.is_fixed("bias")) {
    m.bias = c.bias = false;
    c.mark_derived("bias", "mlp " + m.mlp);
  }
  settle("tied", c.tied, m.tied);
  settle("zero-init-out", c.zero_init_out, m.zero_init_out);
  settle("window", c.window, m.window);
  if (plain && m.norm == NormType::rms) m.norm_eps = 1e-6f;
  m.seq = c.seq;
  if (c.is_fixed("vocab")) {
    m.vocab = c.vocab;
  } else if (vocab > 0) {
    m.vocab = vocab;  // the data decides, whatever a preset says
  }
  if (vocab > 0 && m.vocab < vocab) {
    fail("model", concat("--vocab ", m.vocab, " (", c.origin_text("vocab"), ") is smaller than the data's vocabulary of ", vocab), ExitCode::usage);
  }
  m.recompute = c.recompute;
  m = m.resolved();
  const auto derived = [&](std::string_view name, int64_t& field, int64_t value, const std::string& from) {
    if (c.is_fixed(name)) return;
    field = value;
    c.mark_derived(name, from);
  };
  const std::string shape = plain ? "the model" : why;
  derived("kv-heads", c.kv_heads, m.kv_heads, shape);
  derived("mlp-dim", c.mlp_dim, m.mlp_dim, shape);
  derived("head-dim", c.head_dim, m.head_dim, shape);
  derived("vocab", c.vocab, m.vocab, vocab > 0 ? "the data" : shape);
  return m;
}

DType compute_dtype(PrecisionChoice precision, Device device) {
  switch (precision) {
    case PrecisionChoice::bf16: return DType::bf16;
    case PrecisionChoice::fp32: return DType::f32;
    case PrecisionChoice::automatic: break;
  }
  return device.type == DeviceType::cuda ? DType::bf16 : DType::f32;
}

Device choose_device(DeviceChoice choice) {
  constexpr DeviceType kGpu = DeviceType::cuda;
  if (choice == DeviceChoice::cpu) return {};
  if (choice == DeviceChoice::automatic && (!has_device({kGpu, 0}) || runtime(kGpu).simulated())) return {};
  return {kGpu, device_of_rank(runtime(kGpu).device_count())};  // none: an error that says why
}

}  // namespace heddle
