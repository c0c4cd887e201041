#include "train/model.h"

#include "core/launch.h"
#include "kernels/api/pointwise.h"
#include "kernels/api/printable.h"
#include "models/presets.h"
#include "optim/optimizer.h"
#include "train/checkpoint/loading.h"
#include "train/identity.h"

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
  const auto settle = [&]<class A, class B>(std::string_view name, A& field, B& model_field) {
    if (plain || c.is_fixed(name)) {
      model_field = static_cast<B>(field);
    } else {
      field = static_cast<A>(model_field);
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
  if (m.mlp == MlpType::swiglu && m.bias && !c.is_fixed("bias")) {
    m.bias = c.bias = false;
    c.mark_derived("bias", "mlp swiglu");
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

Device choose_device(DeviceChoice choice, int index) {
  const Device gpu{DeviceType::cuda, index};
  if (choice == DeviceChoice::cpu) return {};
  if (choice == DeviceChoice::automatic) return has_device(gpu) && !runtime(gpu.type).simulated() ? gpu : Device{};
  const int devices = runtime(gpu.type).device_count();  // none: an error that says why
  if (index >= devices) fail("device", concat("--device cuda: there is no ", name_of(gpu), ", only ", devices, " of them"), ExitCode::no_device);
  return gpu;
}

StateDict model_state(const Arena& arena, const Tensor& masters) {
  StateDict state;
  add_flat_state(state, "model", arena, masters, 0);
  return state;
}

void check_model_tensors(const Transformer& model, const std::function<void(std::span<const TensorIdentity>)>& check) {
  std::vector<std::string> names;
  std::vector<TensorIdentity> wanted;
  const std::vector<Parameter> parameters = model.parameters();
  for (const Parameter& p : parameters) names.push_back("model." + p.name());
  for (size_t i = 0; i < names.size(); ++i) wanted.push_back({names[i], DType::f32, parameters[i].spec().shard.global});
  check(wanted);
}

SavedModel saved_model(const std::string& path, std::string_view saved_toml) {
  SavedModel saved;
  try {
    apply_toml(saved.config, saved_toml, "saved configuration", Source::saved);
    saved.shape = model_config(saved.config, saved.config.vocab);
  } catch (const Error& e) {
    if (e.code() != ExitCode::usage) throw;
    fail("model", concat(path, ": what it says of itself describes no model: ", e.what()), ExitCode::bad_data);
  }
  return saved;
}

TrainedModel load_trained_model(const std::string& path, Device device, DType dtype) {
  TrainedModel trained;
  const CheckpointReader reader = open_checkpoint(real_file_system(), path);
  trained.step = reader.manifest().step;
  SavedModel saved = saved_model(reader.path(), reader.manifest().config);
  trained.config = std::move(saved.config);
  const TransformerConfig& config = saved.shape;
  const size_t tensors = reader.manifest().tensors.size();
  if (static_cast<uint64_t>(config.layers) > tensors) {
    fail("model", concat(reader.path(), ": its configuration says ", counted(config.layers, "layer"), ", but it holds ", counted(tensors, "tensor")),
         ExitCode::bad_data);
  }
  trained.model = std::make_unique<Transformer>(config);
  // Before any memory is taken: the configuration is only text until the tensors agree with it.
  check_model_tensors(*trained.model, [&](std::span<const TensorIdentity> wanted) { check_tensors(reader, wanted, "model."); });
  trained.arena = std::make_unique<Arena>(*trained.model, device, dtype);
  const Tensor& values = trained.arena->values();
  const Tensor masters = dtype == DType::f32 ? values : Tensor::zeros(values.shape(), DType::f32, device, MemoryTag::workspace);
  StateDict state = model_state(*trained.arena, masters);
  read_state(reader, state, "model.", {});
  if (!masters.same(values)) launch(kernels::axpby, {.a = masters.view(), .out = {values.view(), false}}, device);

  ModelTokenizer theirs = tokenizer_of_model(path, reader.manifest().scalars);
  trained.tokenizer = std::move(theirs.tokenizer);
  trained.identity = std::move(theirs.identity);
  if (trained.tokenizer && trained.tokenizer->vocab_size() > config.vocab) {
    fail("model",
         concat(trained.identity->name, ": ", counted(trained.tokenizer->vocab_size(), "token"), ", but the model in ", path, " knows ", config.vocab,
                ": this is the tokenizer of another model"),
         ExitCode::mismatch);
  }
  return trained;
}

}  // namespace heddle
