#include "parallel/shared_norm.h"

#include "core/launch.h"
#include "kernels/api/pointwise.h"
#include "kernels/api/reduce.h"

namespace heddle {

SharedNorm::SharedNorm(const Arena& arena, Communicator& comm, bool sharded)
    : arena_(arena), comm_(comm), by_cells_(!arena.layout().cells().empty()), sharded_(sharded && comm.size() > 1) {
  const Device device = arena.grads().device();
  const auto numbers = [&](int64_t n) { return Tensor::zeros({n}, DType::f64, device, MemoryTag::workspace); };
  squared_ = numbers(1);
  if (by_cells_) {
    parts_ = numbers(static_cast<int64_t>(arena.layout().cells().size()));
  } else if (sharded_) {
    owned_ = arena.layout().owned(comm.rank());
    mine_ = numbers(1);
    parts_ = numbers(comm.size());
  }
}

const Tensor& SharedNorm::squared(Stream stream) {
  const Tensor& grads = arena_.grads();
  const Device device = grads.device();
  const auto squares = [&](const View& x, const View& out, bool accumulate) {
    launch(kernels::sum, {.x = x, .out = {out, accumulate}, .squares = true}, device);
  };
  if (!by_cells_ && !sharded_) {
    squares(grads.view(), squared_.view(), false);
    return squared_;
  }
  if (by_cells_) {
    const std::vector<Layout::Cell>& cells = arena_.layout().cells();
    if (comm_.size() > 1) launch(kernels::fill, {parts_.view(), 0}, device);
    for (size_t i = 0; i < cells.size(); ++i) {
      const auto at = static_cast<int64_t>(i);
      if (cells[i].owner == comm_.rank()) squares(flat_view(grads, cells[i].range), flat_view(parts_, {at, at + 1}), false);
    }
    comm_.all_reduce(parts_.view(), stream).join(stream);  // to each number one rank adds something: there is no order
  } else {
    launch(kernels::fill, {mine_.view(), 0}, device);
    for (const Range& range : owned_) squares(flat_view(grads, range), mine_.view(), true);
    comm_.all_gather(mine_.view(), parts_.view(), {}, stream).join(stream);
  }
  launch(kernels::sum, {.x = parts_.view(), .out = {squared_.view(), false}}, device);
  return squared_;
}

}  // namespace heddle
