// What a run left behind, as a model again: for evaluation, generation and whoever starts from it.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "checkpoint/loading.h"
#include "core/arena.h"
#include "core/state.h"
#include "data/same_tokenizer.h"
#include "models/transformer.h"

namespace heddle {

// The keys of a checkpoint's counters under which it says what its model is (to_json of models/config.h) and whether attention was kept within
// documents.
inline constexpr char kModelCounter[] = "model", kDocumentMaskCounter[] = "document_mask";

// What a checkpoint says of itself.
struct ModelDescription {
  TransformerConfig config;
  bool document_mask = true;
};
// `scalars` are the counters of the checkpoint that errors call `place`. Error(mismatch) where they do not describe a model: an earlier version of
// heddle wrote it, whose tensors are not split into Parts; Error(bad_data) where what they say is no model.
ModelDescription describe_model(const std::string& scalars, const std::string& place);

// A trained model for reading. It has no gradients.
struct TrainedModel {
  std::unique_ptr<Transformer> model;
  std::unique_ptr<Arena> arena;
  std::optional<Tokenizer> tokenizer;         // absent when the run had none
  std::optional<TokenizerIdentity> identity;  // of that tokenizer, or what the checkpoint records of it
  bool document_mask = true;
  uint64_t step = 0;
};

// `path`: a run directory (its newest verified checkpoint) or one checkpoint directory in it. Throws Error(bad_data) naming what is wrong,
// Error(mismatch) when the tokenizer.json there is not this model's.
TrainedModel load_trained_model(const std::string& path, Device device, DType dtype);

// The model part of a checkpoint as names and shapes, given to `check`: asked before memory is taken for a model that is only text so far.
void check_model_tensors(const Layout& layout, const std::function<void(std::span<const TensorIdentity>)>& check);

// The model part of a checkpoint, "model.<part>", over masters that lie as the values of the arena do.
StateDict model_state(const Arena& arena, const Tensor& masters);

}  // namespace heddle
