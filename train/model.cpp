#include "train/model.h"

#include <omp.h>

#include <filesystem>

#include "core/launch.h"
#include "data/dataset.h"
#include "data/file.h"
#include "kernels/api/pointwise.h"
#include "models/presets.h"
#include "optim/optimizer.h"
#include "train/checkpoint/checkpoints.h"

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
  const auto number = [&](std::string_view name, int64_t& field, int64_t& model_field) {
    if (plain || c.is_set(name)) {
      model_field = field;
    } else {
      field = model_field;
      c.mark_derived(name, why);
    }
  };
  const auto choose = [&]<class A, class B>(std::string_view name, A& field, B& model_field) {
    if (plain || c.is_set(name)) {
      model_field = static_cast<B>(field);
    } else {
      field = static_cast<A>(model_field);
      c.mark_derived(name, why);
    }
  };
  number("layers", c.layers, m.layers);
  number("heads", c.heads, m.heads);
  number("dim", c.dim, m.dim);
  number("mlp-dim", c.mlp_dim, m.mlp_dim);
  number("head-dim", c.head_dim, m.head_dim);
  if (c.is_set("kv-heads") || plain) {
    m.kv_heads = c.kv_heads;
  } else if (c.is_set("heads")) {
    m.kv_heads = 0;  // the preset's GQA belongs to the preset's heads
  }
  if ((c.is_set("dim") || c.is_set("heads")) && !c.is_set("head-dim")) m.head_dim = 0;
  if (c.is_set("dim") && !c.is_set("mlp-dim")) m.mlp_dim = 0;
  choose("mlp", c.mlp, m.mlp);
  choose("norm", c.norm, m.norm);
  choose("position", c.position, m.position);
  choose("rope-theta", c.rope_theta, m.rope_theta);
  choose("qk-norm", c.qk_norm, m.qk_norm);
  choose("bias", c.bias, m.bias);
  choose("tied", c.tied, m.tied);
  choose("zero-init-out", c.zero_init_out, m.zero_init_out);
  number("window", c.window, m.window);
  if (plain && m.norm == NormType::rms) m.norm_eps = 1e-6f;
  m.seq = c.seq;
  if (c.is_set("vocab")) {
    m.vocab = c.vocab;
  } else if (vocab > 0) {
    m.vocab = vocab;  // the data decides, whatever a preset says
  }
  if (vocab > 0 && m.vocab < vocab) {
    fail("model", concat("--vocab ", m.vocab, " is smaller than the data's vocabulary of ", vocab), ExitCode::usage);
  }
  m.recompute = c.recompute;
  m = m.resolved();
  const auto derived = [&](std::string_view name, int64_t& field, int64_t value) {
    if (c.is_set(name) && field == value) return;
    field = value;
    if (!c.is_set(name)) c.mark_derived(name, why.empty() ? "the model" : why);
  };
  derived("kv-heads", c.kv_heads, m.kv_heads);
  derived("mlp-dim", c.mlp_dim, m.mlp_dim);
  derived("head-dim", c.head_dim, m.head_dim);
  if (!c.is_set("vocab")) {
    c.vocab = m.vocab;
    c.mark_derived("vocab", "the data");
  }
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
  if (has_device(gpu)) return gpu;
  if (choice == DeviceChoice::cuda) fail("device", "--device cuda: this build or machine has no GPU; heddle doctor says more", ExitCode::no_device);
  return {};
}

void use_threads(int64_t threads) {
  if (threads > 0) omp_set_num_threads(static_cast<int>(threads));
}

void require_same_tokenizer(const std::string& shards, const Tokenizer& tokenizer, const std::string& name) {
  const std::string folder = directory_name(expand_glob(shards).front());
  const std::optional<DatasetInfo> info = DatasetInfo::load(folder);
  if (!info || info->tokenizer_fingerprint == tokenizer.fingerprint()) return;
  fail("tokenizer",
       concat(folder, "/dataset.json: the shards were written with a tokenizer of ", info->vocab, " tokens, fingerprint ",
              info->tokenizer_fingerprint.substr(0, 12), ", but ", name, " has ", tokenizer.vocab_size(), ", fingerprint ",
              tokenizer.fingerprint().substr(0, 12), ": use the tokenizer the shards were written with"),
       ExitCode::mismatch);
}

StateDict model_state(const Arena& arena, const Tensor& masters) {
  StateDict state;
  add_flat_state(state, "model", arena, masters, 0);
  return state;
}

TrainedModel load_trained_model(const std::string& path, Device device, DType dtype) {
  namespace fs = std::filesystem;
  TrainedModel trained;
  const Checkpoints::Loaded found = describe_checkpoint(path);
  apply_toml(trained.config, found.config, path + " (saved configuration)", Source::saved);
  trained.step = found.step;
  const TransformerConfig config = model_config(trained.config, trained.config.vocab);
  trained.model = std::make_unique<Transformer>(config);
  trained.arena = std::make_unique<Arena>(*trained.model, device, dtype);
  const Tensor& values = trained.arena->values();
  const Tensor masters = dtype == DType::f32 ? values : Tensor::zeros(values.shape(), DType::f32, device, MemoryTag::workspace);
  StateDict state = model_state(*trained.arena, masters);
  read_checkpoint(path, state, "model.");
  if (!masters.same(values)) launch(kernels::axpby, {.a = masters.view(), .out = {values.view(), false}}, device);

  // run/tokenizer.json; from a checkpoint directory it lies two levels up.
  for (const fs::path& place : {fs::path(path), fs::path(path) / ".." / ".."}) {
    if (fs::exists(place / "tokenizer.json")) {
      trained.tokenizer = Tokenizer::load((place / "tokenizer.json").string());
      break;
    }
  }
  return trained;
}

}  // namespace heddle
