#include "train/trainer.h"

#include <algorithm>
#include <cstring>
#include <span>
#include <utility>

#include "core/autograd/engine.h"
#include "core/fault.h"
#include "core/launch.h"
#include "kernels/api/pointwise.h"

namespace heddle {

namespace {

// Where in the upload the batch begins: behind the StepInput, aligned for every kernel.
constexpr size_t kBatchAt = 64;
static_assert(sizeof(StepInput) <= kBatchAt);

size_t upload_bytes(const Trainer::Options& o) {
  return kBatchAt + static_cast<size_t>(3 * o.batch * o.seq) * sizeof(int32_t);
}

}  // namespace

Trainer::Trainer(Objective objective, Arena& arena, Optimizer& optimizer, Communicator& comm, Options options)
    : objective_(std::move(objective)),
      arena_(arena),
      optimizer_(optimizer),
      comm_(comm),
      options_(options),
      device_(arena.values().device()),
      control_(device_),
      buckets_(arena, comm),
      leaves_(arena.leaves()),
      staging_(std::in_place, device_, upload_bytes(options), static_cast<int>(slots_)) {
  const Shape shape{options.batch, options.seq};
  upload_ = Tensor::zeros({static_cast<int64_t>(upload_bytes(options) / sizeof(int32_t))}, DType::i32, device_, MemoryTag::workspace);
  const auto part = [&](int64_t i) {
    return make_view_tensor(upload_, shape, dense_strides(shape), static_cast<int64_t>(kBatchAt / sizeof(int32_t)) + i * shape.numel());
  };
  batch_ = {part(0), part(1), options.document_mask ? part(2) : Tensor()};
  nll_ = Tensor::zeros({}, arena.grads().dtype(), device_);
  loss_ = Tensor::zeros({}, arena.grads().dtype(), device_);
  losses_ = Tensor::zeros({comm.size()}, loss_.dtype(), device_);
  faults_ = Tensor::zeros({comm.size()}, DType::i32, device_);
  fault_word(device_);  // made before the first step
}

void Trainer::go_on_from(const StepState& kept) {
  StepState state = control_.get();
  state.step = state.rng_stream = kept.step;
  state.adam_t = kept.adam_t;
  state.skipped = kept.skipped;
  state.spikes = kept.spikes;
  control_.set(state);
}

std::optional<Tensor> Trainer::micro_step(int64_t index, const StepPlan& plan, const FillBatch& fill, const std::function<bool()>& stop) {
  const std::span<std::byte> slot = staging_->next();
  const int64_t n = options_.batch * options_.seq;
  const StepInput input{.lr = plan.lr,
                        .loss_scale = plan.valid_targets > 0 ? 1.0f / static_cast<float>(plan.valid_targets) : 0.0f,
                        .clip_norm = plan.clip_norm,
                        .spike_z = plan.spike_z};
  std::memcpy(slot.data(), &input, sizeof input);
  auto* const numbers = reinterpret_cast<int32_t*>(slot.data() + kBatchAt);
  fill(index, BatchView{options_.batch, options_.seq, numbers, numbers + n, numbers + 2 * n});
  if (stop && stop()) return std::nullopt;
  const Stream stream = current_stream(device_);
  staging_->send(upload_.impl().data, stream);
  if (index == 0) copy_async(control_.device_state(), device_, upload_.impl().data, device_, sizeof(StepInput), stream);
  return objective_(batch_, {.z_loss = plan.z_loss, .step = control_.device_state(), .nll = nll_});
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
  buckets_.finish(current_stream(device_));
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
        const Transfer both[] = {{sum.view(), comm_.rank() - bit, true}, {loss.view(), comm_.rank() - bit, true}};
        comm_.grouped(both, stream).join(stream);
        break;
      }
      const Transfer both[] = {{other.view(), comm_.rank() + bit, false}, {other_loss.view(), comm_.rank() + bit, false}};
      comm_.grouped(both, stream).join(stream);
      add(sum, other);
      add(loss, other_loss);
    }
    comm_.broadcast(sum.view(), 0, stream).join(stream);
  }
  launch(kernels::axpby, {.a = sum.view(), .out = {grads.view(), false}}, device_);
  if (comm_.rank() == 0) {  // which has all of it
    launch(kernels::axpby, {.a = loss.view(), .out = {loss_.view(), false}}, device_);
  } else {
    launch(kernels::fill, {loss_.view(), 0}, device_);
  }
  return true;
}

bool Trainer::start(const StepPlan& plan, const FillBatch& fill, const std::function<bool()>& stop) {
  if (plan.micro_steps >= slots_) {  // so that no micro-step waits for the copy of another
    slots_ = plan.micro_steps + 1;
    staging_.emplace(device_, upload_bytes(options_), static_cast<int>(slots_));
  }
  if (!(options_.deterministic ? run_as_tree(plan, fill, stop) : run_in_order(plan, fill, stop))) return false;
  // Every rank decides from what all of them found, in rank order: no two can come to different decisions.
  const Stream stream = current_stream(device_);
  const View fault = make_view(reinterpret_cast<std::byte*>(&fault_word(device_)->kind), DType::i32, {1});
  const Work losses = comm_.all_gather(make_view(loss_.impl().data, loss_.dtype(), {1}), losses_.view(), {}, stream);
  comm_.all_gather(fault, faults_.view(), {}, stream).join(stream);
  losses.join(stream);
  control_.finish_norm(arena_, losses_, faults_.view());
  optimizer_.step(control_.device_state());
  control_.advance();
  control_.send_result();
  return true;
}

StepState Trainer::result() {
  const StepState state = control_.take_result();
  if (state.fault) {
    raise_fault(device_, "train");  // this rank's own
    fail("train", "another rank met data that it cannot use", ExitCode::bad_data);
  }
  return state;
}

std::optional<StepState> Trainer::step(const StepPlan& plan, const FillBatch& fill, const std::function<bool()>& stop) {
  if (!start(plan, fill, stop)) return std::nullopt;
  return result();
}

}  // namespace heddle
