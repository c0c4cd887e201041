// From a run's configuration to a model, and from what a run left behind to a model again.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "core/arena.h"
#include "core/state.h"
#include "data/same_tokenizer.h"
#include "models/transformer.h"
#include "train/config.h"
#include "train/threads.h"

namespace heddle {

struct TensorIdentity;  // train/checkpoint/loading.h

// The model that `config` describes: a preset or depth, overruled by every field the user set; `vocab` comes from the data unless set. Writes each
// derived value back into `config` (mark_derived), so that config.toml and --print-config show it. Throws Error(usage).
TransformerConfig model_config(RunConfig& config, int64_t vocab);

// The dtype of values and activations on a device: automatic is bf16 on a GPU, fp32 on a CPU.
DType compute_dtype(PrecisionChoice precision, Device device);
// automatic: a GPU when there is one (a simulated one has to be asked for). Throws Error(no_device).
Device choose_device(DeviceChoice choice, int index = 0);

// The model that a checkpoint's configuration describes. Error(bad_data), which names `path`, when it describes none.
struct SavedModel {
  RunConfig config;
  TransformerConfig shape;
};
SavedModel saved_model(const std::string& path, std::string_view saved_toml);

// A trained model for reading: evaluation and generation.
struct TrainedModel {
  std::unique_ptr<Transformer> model;
  std::unique_ptr<Arena> arena;
  std::optional<Tokenizer> tokenizer;         // absent when the run had none
  std::optional<TokenizerIdentity> identity;  // of that tokenizer, or what the checkpoint records of it
  RunConfig config;
  uint64_t step = 0;
};

// `path`: a run directory (its newest verified checkpoint) or one checkpoint directory in it. Throws Error(bad_data) naming what is wrong,
// Error(mismatch) when the tokenizer.json there is not this model's.
TrainedModel load_trained_model(const std::string& path, Device device, DType dtype);

// The model part of a checkpoint, "model.<name>", over flat f32 masters in the arena's order.
StateDict model_state(const Arena& arena, const Tensor& masters);
// The same part as names and shapes, given to `check`: asked before memory is taken for a model that is only text so far.
void check_model_tensors(const Transformer& model, const std::function<void(std::span<const TensorIdentity>)>& check);

}  // namespace heddle
