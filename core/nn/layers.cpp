#include "core/nn/layers.h"

namespace heddle {

Linear::Linear(int64_t in, int64_t out, const Options& options) {
  weight_ = add("weight", {.kind = options.kind, .parts = {{.global = {out, in}}}, .init_std = options.init_std});
  if (options.bias) bias_ = add("bias", {.kind = ParamKind::bias, .parts = {{.global = {out}}}});
}

Norm::Norm(int64_t size, Options options) : options_(options) {
  if (!options.affine) return;
  gain_ = add("weight", {.kind = ParamKind::gain, .parts = {{.global = {size}}}, .init_mean = 1});
  if (options.bias && options.type == NormType::layer) bias_ = add("bias", {.kind = ParamKind::bias, .parts = {{.global = {size}}}});
}

NormOutput Norm::forward(const Tensor& stream, const Tensor& branch) const {
  if (options_.type == NormType::layer) return layer_norm(stream, branch, gain_, bias_, options_.eps);
  return rms_norm(stream, branch, gain_, options_.eps);
}

}  // namespace heddle
