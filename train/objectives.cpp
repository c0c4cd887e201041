#include "train/objectives.h"

namespace heddle {

Objective next_token_objective(const Transformer& model) {
  return [&model](const Batch& batch, const ObjectiveOptions& o) {
    return model.loss(batch.tokens, batch.targets, batch.document_start, {.z_loss = o.z_loss, .step = o.step, .nll = o.nll});
  };
}

}  // namespace heddle
