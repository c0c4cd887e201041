#include "train/trainer.h"

#include <algorithm>
#include <cstring>
#include <span>
#include <utility>

#include "core/autograd/engine.h"
#include "core/fault.h"
#include "core/launch.h"
#include "kernels/api/check.h"
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
      buckets_(arena, comm, {.sharded = options.sharded, .ordered = options.deterministic, .wire = options.wire}),
      norm_(arena, comm, options.sharded),
      leaves_(arena.leaves()),
      staging_(std::in_place, device_, upload_bytes(options), static_cast<int>(slots_)),
      graphs_(device_, options.graphs, options.deterministic, options.tell) {
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
  if (options.sharded) values_.emplace(arena, comm);
  HEDDLE_CHECK(!options.deterministic || comm.size() == 1 || !arena.layout().cells().empty(), "train", "the layout of ", comm.size(),
               " ranks has no fixed cells, and the gradient's norm would depend on their number");
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

void Trainer::join_values() {
  if (values_) values_->join(current_stream(device_));
}

void Trainer::masters_changed() {
  const Stream stream = current_stream(device_);
  if (values_) values_->join(stream);
  optimizer_.masters_changed();
  if (values_) values_->start(stream);
}

bool Trainer::upload(int64_t index, const StepPlan& plan, const FillBatch& fill, const std::function<bool()>& stop) {
  const std::span<std::byte> slot = staging_->next();
  const int64_t n = options_.batch * options_.seq;
  const StepInput input{.lr = plan.lr,
                        .loss_scale = plan.valid_targets > 0 ? 1.0f / static_cast<float>(plan.valid_targets) : 0.0f,
                        .clip_norm = plan.clip_norm,
                        .spike_z = plan.spike_z};
  std::memcpy(slot.data(), &input, sizeof input);
  auto* const numbers = reinterpret_cast<int32_t*>(slot.data() + kBatchAt);
  fill(index, BatchView{options_.batch, options_.seq, numbers, numbers + n, numbers + 2 * n});
  if (stop && stop()) return false;
  staging_->send(upload_.impl().data, current_stream(device_));
  return true;
}

void Trainer::begin_sums(int64_t units) {
  buckets_.begin_step(units);
  if (!options_.deterministic) arena_.begin_step();
}

// The last micro-step's hooks start the reduction of each bucket while backward goes on.
void Trainer::compute(int64_t index, const StepPlan& plan) {
  const bool tree = options_.deterministic;
  const int64_t units = plan.micro_steps;
  const Stream stream = current_stream(device_);
  if (index == 0) copy_async(control_.device_state(), device_, upload_.impl().data, device_, sizeof(StepInput), stream);
  if (tree) arena_.begin_step();
  const Tensor loss = objective_(batch_, {.z_loss = plan.z_loss, .step = control_.device_state(), .nll = nll_});
  if (tree) {
    const int64_t unit = comm_.rank() * units + index;
    launch(kernels::axpby, {.a = flat_view(nll_, {0, 1}), .out = {flat_view(unit_losses_, {unit, unit + 1}), false}}, device_);
  } else {
    launch(kernels::axpby, {.a = nll_.view(), .out = {loss_.view(), index > 0}}, device_);
  }
  if (index + 1 < units) {
    backward(loss, leaves_);
    if (tree) buckets_.keep_unit();
    return;
  }
  buckets_.begin();
  backward(loss, leaves_, [this](const Tensor& leaf) { buckets_.ready(leaf); });
  if (tree) join_unit_losses(units);
  update();
}

// Every rank decides from what all of them found, in rank order: no two can come to different decisions.
void Trainer::update() {
  const Stream stream = current_stream(device_);
  const View fault = make_view(reinterpret_cast<std::byte*>(&fault_word(device_)->kind), DType::i32, {1});
  const Work losses = comm_.all_gather(make_view(loss_.impl().data, loss_.dtype(), {1}), losses_.view(), {}, stream);
  const Work faults = comm_.all_gather(fault, faults_.view(), {}, stream);
  buckets_.finish(stream);
  const Tensor& squared = norm_.squared(stream);
  for (const Work* work : {&losses, &faults}) work->join(stream);
  control_.finish_norm(squared, losses_, faults_.view());
  if (values_) values_->join(stream);  // of what no op has asked for
  optimizer_.step(control_.device_state());
  control_.advance();
}

void Trainer::join_unit_losses(int64_t units) {
  const auto add_up = [&](const std::vector<TreeJoin>& joins) {
    for (const TreeJoin& join : joins) {
      const View into = flat_view(unit_losses_, {join.into, join.into + 1}), from = flat_view(unit_losses_, {join.from, join.from + 1});
      launch(kernels::axpby, {.a = into, .b = from, .out = {into, false}}, device_);
    }
  };
  const auto first = [&](int rank) { return rank * units; };
  std::vector<TreeNode> all, mine;
  for (int64_t unit = first(comm_.rank()); unit < first(comm_.rank() + 1); ++unit) mine.push_back({0, unit});
  add_up(tree_joins(mine, false));
  for (int rank = 0; rank < comm_.size(); ++rank) {
    for (const TreeNode& node : tree_nodes(first(rank), units)) all.push_back(node);
  }
  const Stream stream = current_stream(device_);
  comm_.all_gather(flat_view(unit_losses_, {first(comm_.rank()), first(comm_.rank() + 1)}), unit_losses_.view(), {}, stream).join(stream);
  add_up(tree_joins(all, true));
  // All ranks have all of it; what they gather next it counts once.
  if (comm_.rank() == 0) {
    launch(kernels::axpby, {.a = flat_view(unit_losses_, {0, 1}), .out = {flat_view(loss_, {0, 1}), false}}, device_);
  } else {
    launch(kernels::fill, {loss_.view(), 0}, device_);
  }
}

bool Trainer::start(const StepPlan& plan, const FillBatch& fill, const std::function<bool()>& stop) {
  const int64_t units = plan.micro_steps;
  if (units >= slots_) {  // so that no micro-step waits for the copy of another
    slots_ = units + 1;
    staging_.emplace(device_, upload_bytes(options_), static_cast<int>(slots_));
  }
  if (options_.deterministic && (!unit_losses_ || unit_losses_.numel() != units * comm_.size()))
    unit_losses_ = Tensor::zeros({units * comm_.size()}, loss_.dtype(), device_);
  const Stream stream = current_stream(device_);
  graphs_.begin_step({.micro_steps = units, .z_loss = plan.z_loss});
  if (!graphs_.replays()) begin_sums(units);
  for (int64_t m = 0; m < units; ++m) {
    if (!upload(m, plan, fill, stop)) {
      graphs_.stop_step();
      return false;
    }
    const bool gathers = m == 0 && values_ && !graphs_.direct();  // within the graph, from where each bucket is joined by who asks for it first
    if (gathers) values_->join_begun(stream);
    const auto work = [&] {
      if (gathers) values_->owe();
      compute(m, plan);
      if (gathers) values_->join(stream);
    };
    const bool done = graphs_.run(m, stream, work);
    if (gathers) values_->forget();
    if (done) continue;
    if (gathers) values_->owe();  // what was begun in the recording was never begun
    begin_sums(units);
    compute(m, plan);
  }
  if (values_) graphs_.direct() ? values_->start(stream) : values_->owe();
  control_.send_result();
  graphs_.end_step();
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
