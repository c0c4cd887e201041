#include "core/nn/parameter.h"

#include "kernels/api/check.h"

namespace heddle {

Parameter::Parameter(std::string name, ParameterSpec spec) : name_(std::move(name)), data_(std::make_shared<Data>()) {
  HEDDLE_CHECK(!spec.parts.empty(), "parameter", "\"", name_, "\" has no parts");
  auto impl = std::make_shared<TensorImpl>();
  for (size_t i = 0; i < spec.parts.size(); ++i) {
    Part& part = spec.parts[i];
    HEDDLE_CHECK(!part.global.empty() && part.global.size() <= Shape::kMaxRank, "parameter", "\"", name_, "\": a part of rank ", part.global.size());
    if (part.box.empty()) part.box = whole_box(part.global);
    HEDDLE_CHECK(is_inside(part.box, part.global), "parameter", "\"", name_, "\": box ", box_text(part.box), " of a tensor of shape ",
                 shape_text(Shape(part.global)));
    Shape local{std::span<const int64_t>(part.global)};
    for (int axis = 0; axis < local.rank(); ++axis) local[axis] = part.box[static_cast<size_t>(axis)].size();
    if (i == 0) {
      impl->shape = local;
      continue;
    }
    Shape stacked = impl->shape;
    stacked[0] = local.rank() == stacked.rank() ? local[0] : -1;
    HEDDLE_CHECK(stacked == local, "parameter", "\"", name_, "\": a part of ", shape_text(local), " does not stack under ", shape_text(impl->shape));
    impl->shape[0] += local[0];
  }
  HEDDLE_CHECK(spec.padding >= 0, "parameter", "\"", name_, "\": ", spec.padding, " rows of padding");
  impl->shape[0] += spec.padding;
  impl->strides = dense_strides(impl->shape);
  impl->requires_grad = !spec.frozen;
  data_->spec = std::move(spec);
  data_->tensor = Tensor(std::move(impl));
}

std::vector<Part> Parameter::parts() const {
  std::vector<Part> parts = data_->spec.parts;
  for (Part& part : parts) part.name = part.name.empty() ? name_ : prefix_.empty() ? part.name : prefix_ + "." + part.name;
  return parts;
}

}  // namespace heddle
