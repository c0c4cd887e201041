#include "train/trainer.h"

#include <algorithm>

#include "core/autograd/engine.h"
#include "core/launch.h"
#include "kernels/api/pointwise.h"

namespace heddle {

Trainer::Trainer(Transformer& model, Arena& arena, Optimizer& optimizer, Communicator& comm, Options options)
    : model_(model),
      arena_(arena),
      optimizer_(optimizer),
      comm_(comm),
      options_(options),
      device_(arena.values().device()),
      control_(device_),
      buckets_(arena, comm),
      leaves_(arena.leaves()) {
  const Shape shape{options.batch, options.seq};
  tokens_ = Tensor::zeros(shape, DType::i32, device_);
  targets_ = Tensor::zeros(shape, DType::i32, device_);
  document_start_ = Tensor::zeros(shape, DType::i32, device_);
  nll_ = Tensor::zeros({}, arena.grads().dtype(), device_);
  loss_ = Tensor::zeros({}, arena.grads().dtype(), device_);
  if (device_.type != DeviceType::cpu) staging_.resize(static_cast<size_t>(3 * shape.numel()));
}

void Trainer::set_counters(uint64_t step, uint64_t adam_t, uint64_t skipped) {
  StepState state = control_.get();
  state.step = step;
  state.adam_t = adam_t;
  state.skipped = skipped;
  control_.set(state);
}

std::optional<Tensor> Trainer::micro_step(int64_t index, const StepPlan& plan, const FillBatch& fill, const std::function<bool()>& stop) {
  const int64_t n = tokens_.numel();
  BatchView batch{options_.batch, options_.seq, nullptr, nullptr, nullptr};
  if (staging_.empty()) {
    batch.tokens = tokens_.view().as<int32_t>();
    batch.targets = targets_.view().as<int32_t>();
    batch.document_start = document_start_.view().as<int32_t>();
    fill(index, batch);
  } else {
    batch.tokens = staging_.data();
    batch.targets = staging_.data() + n;
    batch.document_start = staging_.data() + 2 * n;
    fill(index, batch);
    int64_t at = 0;
    for (const Tensor* t : {&tokens_, &targets_, &document_start_}) {
      copy_bytes(t->impl().data, device_, staging_.data() + at * n, Device{}, static_cast<size_t>(n) * sizeof(int32_t));
      ++at;
    }
  }
  if (stop && stop()) return std::nullopt;
  const Tensor start = options_.document_mask ? document_start_ : Tensor();
  return model_.loss(tokens_, targets_, start, {.z_loss = plan.z_loss, .step = control_.device_state(), .nll = nll_});
}

// Gradients are added in turn; the last micro-step's hooks start the reduction of each bucket while backward goes on.
bool Trainer::run_in_order(const StepPlan& plan, const FillBatch& fill, const std::function<bool()>& stop) {
  arena_.begin_step();
  for (int64_t m = 0; m < plan.micro_steps; ++m) {
    const std::optional<Tensor> loss = micro_step(m, plan, fill, stop);
    if (!loss) return false;
    launch(kernels::axpby, {.a = nll_.view(), .out = {loss_.view(), m > 0}}, device_);
    if (m + 1 < plan.micro_steps) {
      backward(*loss, leaves_);
    } else {
      buckets_.begin();
      backward(*loss, leaves_, [this](const Tensor& leaf) { buckets_.ready(leaf); });
    }
  }
  comm_.start_all_reduce(loss_.view(), current_stream(device_));
  buckets_.finish();
  return true;
}

// Unit u of the step is micro-step u of rank 0, then of rank 1, ...: sums of 2^k neighbours are formed like the carries of a binary counter on each
// rank, and the ranks' subtrees are joined pairwise, so the tree over all units is the same however many ranks share them.
bool Trainer::run_as_tree(const StepPlan& plan, const FillBatch& fill, const std::function<bool()>& stop) {
  const auto is_power_of_two = [](int64_t n) { return n > 0 && (n & (n - 1)) == 0; };
  HEDDLE_CHECK(comm_.size() == 1 || (is_power_of_two(comm_.size()) && is_power_of_two(plan.micro_steps)), "deterministic", comm_.size(), " ranks of ",
               plan.micro_steps, " micro-steps: both must be powers of two");
  struct Subtree {
    Tensor grads, loss;
    int level = 0;
  };
  std::vector<Subtree> stack;
  const Tensor& grads = arena_.grads();
  const auto add = [&](const Tensor& left, const Tensor& right) {  // left <- left + right
    launch(kernels::axpby, {.a = left.view(), .b = right.view(), .out = {left.view(), false}}, device_);
  };
  const auto join_top = [&] {
    Subtree right = std::move(stack.back());
    stack.pop_back();
    add(stack.back().grads, right.grads);
    add(stack.back().loss, right.loss);
    ++stack.back().level;
  };
  for (int64_t m = 0; m < plan.micro_steps; ++m) {
    arena_.begin_step();
    const std::optional<Tensor> loss = micro_step(m, plan, fill, stop);
    if (!loss) return false;
    backward(*loss, leaves_);
    Subtree unit{Tensor::empty(grads.shape(), grads.dtype(), device_, MemoryTag::gradient), Tensor::empty({}, loss_.dtype(), device_), 0};
    launch(kernels::axpby, {.a = grads.view(), .out = {unit.grads.view(), false}}, device_);
    launch(kernels::axpby, {.a = nll_.view(), .out = {unit.loss.view(), false}}, device_);
    stack.push_back(std::move(unit));
    while (stack.size() > 1 && stack[stack.size() - 2].level == stack.back().level) join_top();
  }
  while (stack.size() > 1) join_top();
  Tensor sum = stack[0].grads, loss = stack[0].loss;
  const Stream stream = current_stream(device_);
  if (comm_.size() > 1) {
    Tensor other = Tensor::empty(sum.shape(), sum.dtype(), device_, MemoryTag::gradient), other_loss = Tensor::empty({}, loss.dtype(), device_);
    for (int bit = 1; bit < comm_.size(); bit *= 2) {
      if (comm_.rank() & bit) {
        comm_.send(sum.view(), comm_.rank() - bit, stream);
        comm_.send(loss.view(), comm_.rank() - bit, stream);
        break;
      }
      comm_.recv(other.view(), comm_.rank() + bit, stream);
      comm_.recv(other_loss.view(), comm_.rank() + bit, stream);
      add(sum, other);
      add(loss, other_loss);
    }
    comm_.broadcast(sum.view(), 0, stream);
    comm_.broadcast(loss.view(), 0, stream);
  }
  launch(kernels::axpby, {.a = sum.view(), .out = {grads.view(), false}}, device_);
  launch(kernels::axpby, {.a = loss.view(), .out = {loss_.view(), false}}, device_);
  return true;
}

std::optional<StepReport> Trainer::step(const StepPlan& plan, const FillBatch& fill, const std::function<bool()>& stop) {
  StepState state = control_.get();
  state.lr = plan.lr;
  state.loss_scale = plan.valid_targets > 0 ? 1.0f / static_cast<float>(plan.valid_targets) : 0.0f;
  state.clip_norm = plan.clip_norm;
  state.max_grad_norm = plan.max_grad_norm;
  state.max_loss = plan.max_loss;
  state.rng_stream = state.step;
  control_.set(state);
  if (!(options_.deterministic ? run_as_tree(plan, fill, stop) : run_in_order(plan, fill, stop))) return std::nullopt;
  control_.finish_norm(arena_, loss_);
  optimizer_.step(control_.device_state());
  control_.advance();
  state = control_.get();
  StepReport report;
  report.loss = loss_.item();
  report.grad_norm = state.grad_norm;
  report.applied = state.apply != 0;
  report.finite = state.finite != 0;
  return report;
}

}  // namespace heddle
