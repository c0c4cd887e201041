#include "infer/load.h"

#include <vector>

#include "core/io/strict_json.h"
#include "core/launch.h"
#include "infer/device_state.h"
#include "infer/identity.h"
#include "kernels/api/pointwise.h"
#include "kernels/api/printable.h"

namespace heddle {

ModelDescription describe_model(const std::string& scalars, const std::string& place) {
  const nlohmann::json counters = parse_strict_json(scalars, place + " (counters of the checkpoint)");
  const auto model = counters.find(kModelCounter);
  if (model == counters.end()) {
    fail("model",
         concat(place,
                ": the checkpoint does not say what its model is: a version of heddle before 0.2 wrote it, whose tensors are not split into their "
                "parts. Go on with that version, or train anew"),
         ExitCode::mismatch);
  }
  ModelDescription description;
  description.config = transformer_config(model->dump(), place);
  const auto mask = counters.find(kDocumentMaskCounter);
  if (mask == counters.end() || !mask->is_boolean()) {
    fail("model", concat(place, ": its counters do not say whether attention stays within documents"), ExitCode::bad_data);
  }
  description.document_mask = mask->get<bool>();
  return description;
}

StateDict model_state(const Arena& arena, const Tensor& masters) {
  StateDict state;
  const PackedRange all{{0, arena.layout().size()}, 0};
  add_state(state, "model", arena.layout(), masters, {&all, 1});
  return state;
}

void check_model_tensors(const Layout& layout, const std::function<void(std::span<const TensorIdentity>)>& check) {
  std::vector<std::string> names;
  std::vector<TensorIdentity> wanted;
  for (const Layout::Place& place : layout.places()) names.push_back("model." + place.part.name);
  for (size_t i = 0; i < names.size(); ++i) wanted.push_back({names[i], DType::f32, layout.places()[i].part.global});
  check(wanted);
}

TrainedModel load_trained_model(const std::string& path, Device device, DType dtype) {
  TrainedModel trained;
  const CheckpointReader reader = open_checkpoint(real_file_system(), path);
  trained.step = reader.manifest().step;
  const auto [config, document_mask] = describe_model(reader.manifest().scalars, reader.path());
  trained.document_mask = document_mask;
  const size_t tensors = reader.manifest().tensors.size();
  if (static_cast<uint64_t>(config.layers) > tensors) {
    fail("model",
         concat(reader.path(), ": it says that its model has ", counted(config.layers, "layer"), ", but it holds ", counted(tensors, "tensor")),
         ExitCode::bad_data);
  }
  trained.model = std::make_unique<Transformer>(config);
  // Before any memory is taken: what a checkpoint says of itself is only text until the tensors agree with it.
  Layout layout(*trained.model);
  check_model_tensors(layout, [&](std::span<const TensorIdentity> wanted) { check_tensors(reader, wanted, "model."); });
  trained.arena = std::make_unique<Arena>(*trained.model, std::move(layout), device, dtype, false);
  const Tensor& values = trained.arena->values();
  const Tensor masters = dtype == DType::f32 ? values : Tensor::zeros(values.shape(), DType::f32, device, MemoryTag::workspace);
  StateDict state = model_state(*trained.arena, masters);
  read_state(reader, state, "model.", copy_into(device));
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
