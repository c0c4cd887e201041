// What a test needs to see the order of a step's work on several simulated GPUs: a session that can be spoilt, and the recorded graph.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "core/device.h"
#include "kernels/api/embedding.h"
#include "kernels/api/matmul.h"
#include "kernels/api/norm.h"
#include "kernels/api/reduce.h"
#include "kernels/sim/cudart/cudart.h"
#include "kernels/sim/cudart/order.h"
#include "parallel/control.h"
#include "parallel/local_device.h"
#include "tests/models/support.h"
#include "train/objectives.h"
#include "train/trainer.h"

namespace heddle::test {

inline Control& control() {
  static const std::unique_ptr<Control> world = world_control();
  return *world;
}
inline Device own_device() {
  return {DeviceType::cuda, device_of_rank(runtime(DeviceType::cuda).device_count())};
}

struct Way {
  const char* name;
  bool sharded = false, muon = false, deterministic = false;
};

// What a program that waits for too much would do.
enum class Needless : uint8_t {
  none,
  late_reductions,    // a bucket is reduced when the next one is ready
  joined_reductions,  // what follows on the stream waits for a bucket's sum
  joined_gathers      // who waits for one bucket's values waits for those of all
};

// Hands everything on, and notes what each call carries.
class Told final : public Communicator {
 public:
  Told(std::unique_ptr<Communicator> real, Needless needless) : real_(std::move(real)), needless_(needless) {}
  int rank() const override { return real_->rank(); }
  int size() const override { return real_->size(); }
  std::string_view name() const override { return real_->name(); }
  Work all_reduce(View data, Stream s) override {
    return reduce(
        data, [this, data, s] { return real_->all_reduce(data, s); }, s);
  }
  Work reduce_scatter(View in, View out, std::span<const int64_t> counts, Stream s) override {
    const std::vector<int64_t> kept(counts.begin(), counts.end());
    return reduce(
        in, [this, in, out, kept, s] { return real_->reduce_scatter(in, out, kept, s); }, s);
  }
  Work all_gather(View in, View out, std::span<const int64_t> counts, Stream s) override {
    return gather(out, real_->all_gather(in, out, counts, s));
  }
  Work broadcast(View data, int root, Stream s) override { return gather(data, real_->broadcast(data, root, s)); }
  Work grouped(std::span<const Transfer> transfers, Stream s) override {
    return gather(transfers.empty() ? View{} : transfers.front().data, real_->grouped(transfers, s));
  }
  void abort() override { real_->abort(); }

  struct Call {
    bool reduces;
    const std::byte* data;
  };
  std::vector<Call> calls;

 private:
  Work reduce(const View& data, std::function<Work()> start, Stream s) {
    begin_held();
    calls.push_back({true, data.data});
    if (needless_ != Needless::late_reductions) {
      Work work = start();
      if (needless_ == Needless::joined_reductions) work.join(s);
      return work;
    }
    held_ = std::move(start);
    begun_ = std::make_shared<std::optional<Work>>();
    return Work([this, begun = begun_](Stream stream) {
      begin_held();
      (*begun)->join(stream);
    });
  }
  Work gather(const View& data, Work work) {
    calls.push_back({false, data.data});
    if (needless_ != Needless::joined_gathers) return work;
    gathers_.push_back(std::move(work));
    return Work([this](Stream stream) {
      for (const Work& each : gathers_) each.join(stream);
    });
  }
  void begin_held() {
    if (held_) *begun_ = std::exchange(held_, nullptr)();
  }

  std::unique_ptr<Communicator> real_;
  Needless needless_;
  std::function<Work()> held_;
  std::shared_ptr<std::optional<Work>> begun_;
  std::vector<Work> gathers_;
};

// A model in training on all ranks, without files.
struct Session {
  static constexpr int64_t kSeq = 8, kBatch = 2, kVocab = 13;
  Transformer model;
  Arena arena;
  std::unique_ptr<Optimizer> optimizer;
  Told comm;
  std::string told;
  Trainer trainer;
  uint64_t steps = 0;

  // `graphs`: steps are recorded where they can be; `waits`: they cannot, as the objective waits for the device.
  explicit Session(const Way& way, Needless needless = Needless::none, bool graphs = false, bool waits = false)
      : model(shape()),
        arena(model,
              Layout(model, {.dp = control().size(), .dp_rank = control().rank()},
                     {.whole_matrices = way.muon, .fixed_cells = way.deterministic, .bucket_elements = 1}),
              own_device(), DType::f32),
        optimizer((arena.init(7), way.muon ? make_muon(arena, {}, {}, {}, owned(way)) : make_adamw(arena, {.lr = 0.01f}, {}, owned(way)))),
        comm(control().communicator(own_device()), needless),
        trainer(objective(waits), arena, *optimizer, comm,
                {.batch = kBatch,
                 .seq = kSeq,
                 .document_mask = true,
                 .deterministic = way.deterministic,
                 .sharded = way.sharded,
                 .graphs = graphs,
                 .tell = [this](const std::string& line) { told += line; }}) {}

  // Where it waits, one weight has been asked for and the others have not.
  Objective objective(bool waits) const {
    const Objective inner = next_token_objective(model);
    if (!waits) return inner;
    return [inner, this](const Batch& batch, const ObjectiveOptions& options) {
      const WeightUse first(arena.parameters()[0]);
      first.values().to_vector();
      return inner(batch, options);
    };
  }

  std::optional<std::vector<Range>> owned(const Way& way) const {
    return way.sharded ? std::optional(arena.layout().owned(control().rank())) : std::nullopt;
  }
  static TransformerConfig shape() {
    TransformerConfig c{.vocab = kVocab, .layers = 2, .dim = 16, .heads = 2, .seq = kSeq};
    c.tied = false;
    return c;
  }
  // `bad_target`: on rank 0, one that the vocabulary has not.
  void start(bool bad_target = false) {
    const uint64_t step = steps++;
    const FillBatch fill = [&](int64_t m, const BatchView& into) {
      for (int64_t i = 0; i < kBatch * kSeq; ++i) {
        const Philox::Block words =
            Philox::draw({.seed = step, .purpose = RngPurpose::test, .name = static_cast<uint64_t>(2 * comm.rank() + m)}, static_cast<uint64_t>(i));
        into.tokens[i] = static_cast<int32_t>(words[0] % kVocab);
        into.targets[i] = static_cast<int32_t>(words[1] % kVocab);
        into.document_start[i] = 0;
      }
      if (bad_target && comm.rank() == 0) into.targets[0] = kVocab;
    };
    trainer.start({.micro_steps = 2, .valid_targets = 2 * kBatch * kSeq * comm.size(), .lr = 1, .clip_norm = 1}, fill);
  }
  // Everything that came of the steps, as bits: loss and norm of each, values, masters.
  void result(std::vector<uint64_t>& all) {
    runtime(DeviceType::cuda).synchronize_device(own_device().index);  // quicker than to ask for the result again and again
    const StepState s = trainer.result();
    all.insert(all.end(), {std::bit_cast<uint64_t>(s.loss), std::bit_cast<uint32_t>(s.grad_norm)});
  }
  void state(std::vector<uint64_t>& all) {
    trainer.masters_changed();  // joins what is on its way
    for (const double x : arena.values().to_vector()) all.push_back(std::bit_cast<uint64_t>(x));
    for (const double x : optimizer->masters().to_vector()) all.push_back(std::bit_cast<uint64_t>(x));
  }
  // The bucket that holds this memory; -1: none.
  int bucket_of(const Tensor& whole, const std::byte* data) const {
    const std::byte* const begin = whole.impl().data;
    const auto& buckets = arena.layout().buckets();
    for (size_t b = 0; b < buckets.size(); ++b) {
      const std::byte *first = begin + 4 * buckets[b].range.begin, *end = begin + 4 * buckets[b].range.end;
      if (!std::less<>()(data, first) && std::less<>()(data, end)) return static_cast<int>(b);
    }
    return -1;
  }
};

// What reads parameters, and what writes their gradients.
inline std::vector<View> read_by(const kernels::MatmulArgs& a) {
  return {a.a, a.b};
}
inline std::vector<View> written_by(const kernels::MatmulArgs& a) {
  return {a.c.to};
}
inline std::vector<View> read_by(const kernels::NormForwardArgs& a) {
  return {a.gain, a.bias};
}
inline std::vector<View> written_by(const kernels::NormForwardArgs&) {
  return {};
}
inline std::vector<View> read_by(const kernels::NormBackwardArgs& a) {
  return {a.gain};
}
inline std::vector<View> written_by(const kernels::NormBackwardArgs& a) {
  return {a.d_gain.to, a.d_bias.to};
}
inline std::vector<View> read_by(const kernels::EmbeddingForwardArgs& a) {
  return {a.weight, a.position};
}
inline std::vector<View> written_by(const kernels::EmbeddingForwardArgs&) {
  return {};
}
inline std::vector<View> read_by(const kernels::EmbeddingBackwardArgs&) {
  return {};
}
inline std::vector<View> written_by(const kernels::EmbeddingBackwardArgs& a) {
  return {a.d_weight.to, a.d_position.to};
}
inline std::vector<View> read_by(const kernels::ColumnSumArgs&) {
  return {};
}
inline std::vector<View> written_by(const kernels::ColumnSumArgs& a) {
  return {a.out.to};
}

// While one lives, the host's kernels say in the record which bucket they write a gradient of ("gradient 3"), or else read ("values 3").
class NamedBuckets {
 public:
  explicit NamedBuckets(const Session& session) {
    now() = &session;
    Named<kernels::MatmulArgs>::take(kernels::matmul);
    Named<kernels::NormForwardArgs>::take(kernels::norm_forward);
    Named<kernels::NormBackwardArgs>::take(kernels::norm_backward);
    Named<kernels::EmbeddingForwardArgs>::take(kernels::embedding_forward);
    Named<kernels::EmbeddingBackwardArgs>::take(kernels::embedding_backward);
    Named<kernels::ColumnSumArgs>::take(kernels::column_sum);
  }
  ~NamedBuckets() {
    kernels::matmul.force("host"), kernels::norm_forward.force("host"), kernels::norm_backward.force("host");
    kernels::embedding_forward.force("host"), kernels::embedding_backward.force("host"), kernels::column_sum.force("host");
  }
  NamedBuckets(const NamedBuckets&) = delete;
  NamedBuckets& operator=(const NamedBuckets&) = delete;

 private:
  static constexpr std::string_view kName = "says its bucket";
  template <class Args>
  struct Named {
    static inline const kernels::Kernel<Args>* kernel = nullptr;
    static void take(kernels::Kernel<Args>& taken) {
      kernel = &taken;
      const auto named = [&](std::string_view name) {
        return std::ranges::find(taken.candidates(DeviceType::cuda), name, &kernels::Candidate<Args>::name);
      };
      if (named(kName) == taken.candidates(DeviceType::cuda).end()) {
        const kernels::Candidate<Args> host = *named("host");
        taken.add(DeviceType::cuda, {kName, host.refuses, host.scratch, run});
      }
      taken.force(kName);
    }
    static void run(const Args& args, Stream stream) {
      int reads = -1, writes = -1;
      for (const View& v : read_by(args)) reads = std::max(reads, now()->bucket_of(now()->arena.values(), v.data));
      for (const View& v : written_by(args)) writes = std::max(writes, now()->bucket_of(now()->arena.grads(), v.data));
      const std::string name = writes >= 0 ? concat("gradient ", writes) : reads >= 0 ? concat("values ", reads) : std::string(kernel->op());
      const auto chosen = kernel->choose(DeviceType::cpu, args).run;
      sim::launch_on_host(
          name.c_str(), [args, chosen] { chosen(args, Stream{}); }, stream.native);
    }
  };
  static const Session*& now() {
    static const Session* session = nullptr;
    return session;
  }
};

// The record, with what comes before what.
class OrderGraph {
 public:
  explicit OrderGraph(std::vector<sim::RecordedWork> work) : work_(std::move(work)), before_(closure(work_.size())) {}
  size_t size() const { return work_.size(); }
  const std::string& what(size_t i) const { return work_[i].what; }
  bool is_collective(size_t i) const { return what(i).rfind("nccl", 0) == 0; }
  bool before(size_t first, size_t second) const { return before_[second][first]; }
  // The number behind `kind` in "kernel KIND 3 on the host"; -1: something else.
  int bucket(size_t i, const std::string& kind) const {
    const std::string begin = concat("kernel ", kind, " ");
    return what(i).rfind(begin, 0) == 0 ? std::atoi(what(i).c_str() + begin.size()) : -1;
  }
  // Of each wait for an event in [from, end), in turn: does any work come earlier than it must without it? Else others imply it.
  std::vector<bool> needed_waits(size_t from) const {
    std::vector<bool> needed;
    for (size_t i = from; i < work_.size(); ++i) {
      if (work_[i].event == 0) continue;
      const std::vector<std::vector<bool>> without = closure(i);
      bool differs = false;
      for (size_t second = i; second < work_.size() && !differs; ++second) {
        for (size_t first = 0; first < second && !differs; ++first)
          differs = before_[second][first] != without[second][first] && is_work(first) && is_work(second);
      }
      needed.push_back(differs);
    }
    return needed;
  }

 private:
  bool is_work(size_t i) const { return work_[i].event == 0 && what(i).rfind("record of", 0) != 0; }
  // [second][first], without the event that `forgotten` waits for.
  std::vector<std::vector<bool>> closure(size_t forgotten) const {
    std::vector<std::vector<bool>> before(work_.size(), std::vector<bool>(work_.size()));
    for (size_t i = 0; i < work_.size(); ++i) {
      for (const uint64_t number : work_[i].after) {
        if (number < work_.front().number || (i == forgotten && number == work_[i].event)) continue;  // from before the record, or left out
        const auto p = static_cast<size_t>(number - work_.front().number);
        before[i][p] = true;
        for (size_t q = 0; q < p; ++q) before[i][q] = before[i][q] || before[p][q];
      }
    }
    return before;
  }
  std::vector<sim::RecordedWork> work_;
  std::vector<std::vector<bool>> before_;
};

}  // namespace heddle::test
