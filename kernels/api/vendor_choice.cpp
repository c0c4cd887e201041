#include "kernels/api/vendor_choice.h"

#include <utility>

#include "kernels/api/cost.h"

namespace heddle::kernels {
namespace {

struct Choice {
  std::optional<ProductNames> only;
  uint64_t changes = 0;
};
Choice choice;

}  // namespace

std::string product_name(const MatmulArgs& args) {
  return concat(shape_of_call(args), "; rows of ", args.a.step(0), ", ", args.b.step(0), ", ", args.c.to.step(0),
                args.preact ? concat(", ", args.preact.step(0)) : "");
}

void vendor_takes_only(std::optional<ProductNames> products) {
  choice.only = std::move(products);
  ++choice.changes;
}
bool vendor_takes(const MatmulArgs& args) {
  return !choice.only || choice.only->contains(product_name(args));
}
uint64_t vendor_choices() {
  return choice.changes;
}

}  // namespace heddle::kernels
