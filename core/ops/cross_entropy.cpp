#include "kernels/api/cross_entropy.h"

#include <algorithm>

#include "core/ops/common.h"
#include "kernels/api/matmul.h"
#include "kernels/api/pointwise.h"
#include "kernels/api/reduce.h"

namespace heddle {
namespace {

// loss = f sum_n CE(x_n W^T, target_n). For a chunk of rows: z = x W^T; dz = f (softmax(z) - onehot) in place; dx = dz W; dW += dz^T x.
// All of it happens in the forward pass while the chunk's logits are in cache; backward only hands dx out, which is why the seed must be 1.
class LossNode final : public Node {
 public:
  std::string_view name() const override { return "linear_cross_entropy"; }
  bool takes_unit_seed() const override { return true; }
  void backward(std::span<const Tensor> dy, std::span<GradSlot> dx) override {
    HEDDLE_CHECK(!dy[0], name(), "the loss must be the root of backward; a factor belongs into LossOptions::scale");
    dx[0].give(dx_);
    if (dw_) dx[1].give(dw_);  // a leaf's was written through grad_sink() in the forward pass
  }
  void release_saved() override { dx_ = Tensor(), dw_ = Tensor(); }

  Tensor dx_, dw_;  // dw_ only when the weight is not a leaf
};

// loss_n = weight_n CE(z_n, target_n): dz = dy weight (softmax(z) - onehot), by phase 2 over a copy of z. It takes a factor a row as it takes
// weights.
class CrossEntropyNode final : public Node {
 public:
  std::string_view name() const override { return "cross_entropy"; }
  void backward(std::span<const Tensor> dy, std::span<GradSlot> dx) override {
    const Tensor& logits = logits_.get(name());
    const Device device = logits.device();
    Tensor factors = dy[0];  // (N)
    if (weights_) {
      factors = Tensor::empty_like(dy[0]);
      launch(kernels::multiply, {dy[0].view(), weights_.get(name()).view(), {factors.view(), false}}, device);
    }
    Tensor dz = Tensor::empty(logits.shape(), logits.dtype(), device);                                // (N, V)
    const Tensor losses = Tensor::empty(dy[0].shape(), dy[0].dtype(), device, MemoryTag::workspace);  // (N), not wanted
    launch(kernels::axpby, {.a = logits.view(), .out = {dz.view(), false}}, device);
    args.logits = rows_of(dz);
    args.targets = make_view(targets_.get(name()).impl().data, DType::i32, {losses.numel()});
    args.stats = stats_.view();
    args.losses = losses.view();
    args.weights = factors.view();
    args.write_gradient = true;
    launch(kernels::cross_entropy, args, device);
    dx[0].give(dz);
  }
  void release_saved() override {
    for (Saved* s : {&logits_, &targets_, &weights_}) s->reset();
    stats_ = Tensor();
  }

  Saved logits_, targets_, weights_;  // weights in the dtype of the losses
  Tensor stats_;                      // (1, N, 3)
  kernels::CrossEntropyArgs args;     // the options
};

void check_loss(std::string_view op, const Tensor& x, const Tensor& weight, const Tensor& targets, const LossOptions& options) {
  check_floating(x, op, "x");
  check_same_dtype(x, weight, op);
  HEDDLE_CHECK(weight && weight.rank() == 2 && x.size(-1) == weight.size(1), op, "x ", shape_text(x.view()), " does not fit the head ",
               shape_text(weight.view()));
  HEDDLE_CHECK(targets && targets.dtype() == DType::i32 && targets.is_contiguous() && targets.numel() * x.size(-1) == x.numel(), op, "targets ",
               shape_text(targets.view()), " for x ", shape_text(x.view()));
  const Tensor& weights = options.weights;
  HEDDLE_CHECK(!weights || (weights.dtype() == DType::f32 && weights.is_contiguous() && weights.numel() == targets.numel()), op, "weights ",
               shape_text(weights.view()), " for targets ", shape_text(targets.view()));
  HEDDLE_CHECK(options.gather || options.shard.whole(weight.size(0)), op, "a head of ", options.shard.held(weight.size(0)), " of ",
               options.shard.tokens(weight.size(0)), " tokens needs LossOptions::gather, for what the other shards know");
}

// On a CPU about 4 MiB of logits: they stay in its cache, and the products keep enough rows to run at full rate. On a GPU as many rows as fit in 1
// GiB: few launches, each of which fills the device.
int64_t chunk_of(int64_t asked, int64_t rows, int64_t vocabulary, DType dtype, Device device) {
  if (asked > 0) return std::min(asked, std::max<int64_t>(rows, 1));
  constexpr int64_t kFewest = 128;
  const int64_t bytes = device.type == DeviceType::cpu ? int64_t{4} << 20 : int64_t{1} << 30;
  const int64_t fit = bytes / std::max<int64_t>(vocabulary * size_of(dtype), 1);
  return std::clamp(fit / 64 * 64, std::min(kFewest, std::max<int64_t>(rows, 1)), std::max<int64_t>(rows, 1));
}

// Room for (rows, vocabulary), with rows that begin at multiples of 64 bytes: a vocabulary of any size meets what tensor cores ask of an address.
View logits_view(const Tensor& room, int64_t rows, int64_t vocabulary) {
  View v = room.view();
  v.shape[0] = rows;
  v.shape[1] = vocabulary;
  return v;
}
Tensor stats_room(int64_t rows, DType dtype, Device device) {
  return Tensor::empty({rows, 3}, dtype, device, MemoryTag::workspace);
}
View weights_of(const LossOptions& options) {
  return options.weights ? make_view(options.weights.impl().data, DType::f32, {options.weights.numel()}) : View{};
}
Tensor logits_room(int64_t rows, int64_t vocabulary, DType dtype, Device device) {
  const int64_t unit = 64 / size_of(dtype);
  return Tensor::empty({rows, (vocabulary + unit - 1) / unit * unit}, dtype, device, MemoryTag::workspace);
}

View rows(const View& matrix, int64_t begin, int64_t end) {  // rows [begin, end) of (N, C), or of (N)
  View v = matrix;
  if (!v) return v;
  v.data += begin * v.stride[0] * size_of(v.dtype);
  v.shape[0] = end - begin;
  return v;
}

// The loss of a chunk of rows. Between its phases lies what ranks that share the vocabulary tell each other.
void chunk_losses(kernels::CrossEntropyArgs args, const Tensor& room, const LossOptions& options, Device device) {
  args.ignore_index = options.ignore_index;
  args.shard = options.shard;
  const int64_t n = args.logits.shape[0];
  const View mine = rows(room.view(), 0, n);  // (R, 3)
  launch(kernels::cross_entropy_stats,
         {.logits = args.logits, .targets = args.targets, .stats = mine, .ignore_index = args.ignore_index, .shard = args.shard}, device);
  const Tensor all = options.gather ? options.gather(slice(room, 0, 0, n)) : Tensor();  // (S, R, 3)
  args.stats = all ? all.view() : make_view(mine.data, mine.dtype, {1, n, 3});
  launch(kernels::cross_entropy, args, device);
}

}  // namespace

Tensor linear_cross_entropy(const Tensor& x, const Weight& head, const Tensor& targets, const LossOptions& options) {
  check_loss("linear_cross_entropy", x, head.slot(), targets, options);
  const WeightUse used(head);  // by all chunks
  const Tensor& weight = used.values();
  const Device device = x.device();
  const View x_rows = rows_of(x), target_rows = make_view(targets.impl().data, DType::i32, {targets.numel()});
  const View weights = weights_of(options);
  const int64_t n = x_rows.shape[0], vocabulary = weight.size(0);
  const int64_t chunk = chunk_of(options.chunk_rows, n, vocabulary, x.dtype(), device);
  const bool want_x = recording({&x}), want_w = recording({&head.slot()});

  const DType sum_type = accumulator_of(x.dtype());
  HEDDLE_CHECK(!options.nll || (options.nll.dtype() == sum_type && options.nll.numel() == 1), "linear_cross_entropy", "nll ",
               shape_text(options.nll.shape()), " must be one number of the loss's dtype");

  Tensor losses = Tensor::empty({n}, sum_type, device);                         // (N)
  Tensor nlls = options.nll ? Tensor::empty({n}, sum_type, device) : Tensor();  // (N)
  const Tensor room = logits_room(chunk, vocabulary, x.dtype(), device);        // (R, V padded)
  const View logits = logits_view(room, chunk, vocabulary);                     // (R, V)
  const Tensor stats = stats_room(chunk, sum_type, device);                     // (R, 3)
  Tensor dx = want_x ? Tensor::empty(x.shape(), x.dtype(), device) : Tensor();  // (N, C)
  Tensor dw;                                                                    // of a weight that is itself computed
  Sink w_sink;
  if (want_w) {
    if (head.slot().is_leaf()) {
      w_sink = grad_sink(head.slot().impl());
    } else {
      dw = Tensor::empty(weight.shape(), weight.dtype(), device);
      w_sink = {dw.view(), false};
    }
  }
  for (int64_t begin = 0; begin < n; begin += chunk) {
    const int64_t end = std::min(begin + chunk, n);
    const View z = rows(logits, 0, end - begin), xc = rows(x_rows, begin, end);
    launch(kernels::matmul, {.a = xc, .b = weight.view(), .trans_b = true, .c = {z, false}}, device);
    chunk_losses({.logits = z,
                  .targets = rows(target_rows, begin, end),
                  .losses = rows(losses.view(), begin, end),
                  .nll = rows(nlls.view(), begin, end),
                  .z_loss = options.z_loss,
                  .scale = options.scale,
                  .write_gradient = want_x || want_w,
                  .step = options.step,
                  .weights = rows(weights, begin, end)},
                 stats, options, device);
    if (want_x) launch(kernels::matmul, {.a = z, .b = weight.view(), .c = {rows(rows_of(dx), begin, end), false}}, device);
    if (want_w) {
      launch(kernels::matmul, {.a = z, .b = xc, .trans_a = true, .c = w_sink}, device);
      w_sink.accumulate = true;
    }
  }
  if (want_w && n == 0 && !w_sink.accumulate) launch(kernels::fill, {w_sink.to, 0}, device);
  Tensor loss = Tensor::empty({}, sum_type, device);
  launch(kernels::sum, {.x = losses.view(), .out = {loss.view(), false}, .scale = options.scale, .step = options.step}, device);
  if (nlls) launch(kernels::sum, {.x = nlls.view(), .out = {options.nll.view(), false}, .scale = options.scale, .step = options.step}, device);
  if (want_x || want_w) {
    auto node = std::make_shared<LossNode>();
    node->dx_ = dx, node->dw_ = dw;
    record(node, {&x, &head.slot()}, {&loss});
  }
  return loss;
}

Tensor cross_entropy(const Tensor& logits, const Tensor& targets, const CrossEntropyOptions& options) {
  constexpr std::string_view op = "cross_entropy";
  check_floating(logits, op, "logits");
  HEDDLE_CHECK(logits.rank() >= 1 && targets && targets.dtype() == DType::i32 && targets.is_contiguous() && logits.size(-1) > 0 &&
                   targets.numel() * logits.size(-1) == logits.numel(),
               op, "targets ", shape_text(targets.view()), " for logits ", shape_text(logits.view()));
  const int64_t n = targets.numel();
  HEDDLE_CHECK(!options.weights || (options.weights.dtype() == DType::f32 && options.weights.is_contiguous() && options.weights.numel() == n), op,
               "weights ", shape_text(options.weights.view()), " for targets ", shape_text(targets.view()));
  const Device device = logits.device();
  const Tensor z = contiguous(logits);
  const DType sum_type = accumulator_of(z.dtype());
  const Tensor stats = Tensor::empty({1, n, 3}, sum_type, device);
  Tensor losses = Tensor::empty({n}, sum_type, device);  // (N)
  const View target_rows = make_view(targets.impl().data, DType::i32, {n});
  launch(
      kernels::cross_entropy_stats,
      {.logits = rows_of(z), .targets = target_rows, .stats = make_view(stats.impl().data, sum_type, {n, 3}), .ignore_index = options.ignore_index},
      device);
  kernels::CrossEntropyArgs args{.targets = target_rows, .stats = stats.view(), .losses = losses.view()};
  args.ignore_index = options.ignore_index;
  args.z_loss = options.z_loss;
  if (options.weights) args.weights = make_view(options.weights.impl().data, DType::f32, {n});
  launch(kernels::cross_entropy, args, device);
  if (recording({&logits})) {
    auto node = std::make_shared<CrossEntropyNode>();
    node->logits_ = Saved(z), node->targets_ = Saved(targets), node->stats_ = stats;
    if (options.weights) {
      const NoGradGuard no_grad;
      node->weights_ = Saved(reshape(cast(options.weights, sum_type), {n}));
    }
    node->args.ignore_index = options.ignore_index;
    node->args.z_loss = options.z_loss;
    record(node, {&logits}, {&losses});
  }
  return losses;
}

Tensor token_losses(const Tensor& x, const Weight& head, const Tensor& targets, const LossOptions& options) {
  check_loss("token_losses", x, head.slot(), targets, options);
  const WeightUse used(head);
  const Tensor& weight = used.values();
  const Device device = x.device();
  const View x_rows = rows_of(x), target_rows = make_view(targets.impl().data, DType::i32, {targets.numel()});
  const View weights = weights_of(options);
  const int64_t n = x_rows.shape[0], vocabulary = weight.size(0), chunk = chunk_of(options.chunk_rows, n, vocabulary, x.dtype(), device);
  const DType sum_type = accumulator_of(x.dtype());
  Tensor losses = Tensor::empty({n}, sum_type, device);                   // (N)
  const Tensor room = logits_room(chunk, vocabulary, x.dtype(), device);  // (R, V padded)
  const View logits = logits_view(room, chunk, vocabulary);               // (R, V)
  const Tensor stats = stats_room(chunk, sum_type, device);               // (R, 3)
  for (int64_t begin = 0; begin < n; begin += chunk) {
    const int64_t end = std::min(begin + chunk, n);
    const View z = rows(logits, 0, end - begin);
    launch(kernels::matmul, {.a = rows(x_rows, begin, end), .b = weight.view(), .trans_b = true, .c = {z, false}}, device);
    chunk_losses(
        {.logits = z, .targets = rows(target_rows, begin, end), .losses = rows(losses.view(), begin, end), .weights = rows(weights, begin, end)},
        stats, options, device);
  }
  return losses;
}

}  // namespace heddle
