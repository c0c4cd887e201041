// A call of a kernel with memory of its own: made from the arguments of another call, whose memory need not exist, with the same strides and the same
// sharing of memory between operands.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/launch.h"
#include "core/tensor.h"
#include "kernels/api/cost.h"
#include "kernels/api/operands.h"

namespace heddle {

class KernelCase {
 public:
  virtual ~KernelCase() = default;
  virtual std::string_view op() const = 0;
  virtual kernels::Cost cost() const = 0;
  virtual std::string shape() const = 0;
  virtual size_t bytes() const = 0;                                        // of all operands
  virtual std::vector<std::string_view> candidates(DeviceType) const = 0;  // that take the arguments, the one that is chosen first
  // Fresh operands, `copies` of them: N(0, 1), positive numbers and indices where they are asked for.
  virtual void make(Device device, int64_t copies) = 0;
  virtual void run(std::string_view candidate, int64_t copy) = 0;
  // The candidate's results on fresh operands, off by so much of their own size (root mean squares): beside the CPU's kernels in f64. nullopt: those
  // do not take f64 here.
  virtual std::optional<double> error(std::string_view candidate) = 0;
  // The same beside another candidate, of no more than the first 4M elements of an operand.
  virtual double difference(std::string_view candidate, std::string_view other) = 0;
  virtual bool in_bf16() const = 0;
};

// Of one call's operands: above it the call is not made.
inline constexpr size_t kMostCaseBytes = size_t{4} << 30;
// How many copies of the operands have to take turns so that no cache has them from the call before.
inline int64_t copies_beyond_caches(const KernelCase& kernel) {
  constexpr double kRotated = 256.0 * (1 << 20);
  return static_cast<int64_t>(std::clamp(kRotated / static_cast<double>(std::max<size_t>(kernel.bytes(), 1)), 1.0, 64.0));
}

template <class Args>
class KernelCaseOf final : public KernelCase {
 public:
  KernelCaseOf(kernels::Kernel<Args>& kernel, const Args& args) : kernel_(kernel), args_(args) {
    kernels::each_operand(args_, [&](View& view, kernels::Role role) {
      if (!view || view.numel() == 0) return;
      int64_t last = 0;
      for (int axis = 0; axis < view.rank; ++axis) last += (view.size(axis) - 1) * view.step(axis);
      operands_.push_back({view.data, static_cast<size_t>((last + 1) * size_of(view.dtype)), view.dtype, role, 0, 0});
    });
    // What overlaps is one region.
    std::vector<size_t> order(operands_.size());
    for (size_t i = 0; i < order.size(); ++i) order[i] = i;
    std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return operands_[a].from < operands_[b].from; });
    const std::byte* end = nullptr;
    for (const size_t i : order) {
      Operand& x = operands_[i];
      if (regions_.empty() || x.from >= end) {
        regions_.push_back({x.from, 0, x.dtype, x.role});
        end = x.from;
      }
      Region& region = regions_.back();
      if (region.role == kernels::Role::written) region.role = x.role;
      end = std::max<const std::byte*>(end, x.from + x.bytes);
      region.bytes = static_cast<size_t>(end - region.from);
      x.region = regions_.size() - 1;
      x.offset = static_cast<size_t>(x.from - region.from);
    }
  }

  std::string_view op() const override { return kernel_.op(); }
  kernels::Cost cost() const override { return kernels::cost_of(args_); }
  std::string shape() const override { return kernels::shape_of_call(args_); }
  size_t bytes() const override {
    size_t all = 0;
    for (const Region& region : regions_) all += region.bytes;
    return all;
  }
  bool in_bf16() const override {
    return std::any_of(operands_.begin(), operands_.end(), [](const Operand& x) { return x.dtype == DType::bf16; });
  }
  std::vector<std::string_view> candidates(DeviceType type) const override {
    std::vector<std::string_view> names;
    for (const auto& candidate : kernel_.candidates(type)) {
      if (!candidate.refuses || !candidate.refuses(args_)) names.push_back(candidate.name);
    }
    return names;
  }

  void make(Device device, int64_t copies) override {
    device_ = device;
    copies_.clear();
    for (int64_t i = 0; i < copies; ++i) copies_.push_back(made(device, static_cast<uint64_t>(i), {}));
  }
  void run(std::string_view candidate, int64_t copy) override {
    const Forced forced(kernel_, candidate);
    launch(kernel_, copies_[static_cast<size_t>(copy)].args, device_);
  }

  std::optional<double> error(std::string_view candidate) override {
    Copy got = made(device_, 0, {}), want;
    try {
      want = made(Device{}, 0, &got);
      launch(kernel_, want.args, Device{});
    } catch (const Error&) {
      return std::nullopt;
    }
    {
      const Forced forced(kernel_, candidate);
      launch(kernel_, got.args, device_);
    }
    return off(results(got, device_), results(want, Device{}));
  }
  double difference(std::string_view candidate, std::string_view other) override {
    constexpr int64_t kMost = int64_t{1} << 22;
    Copy of[2] = {made(device_, 0, {}), made(device_, 0, {})};
    for (const int i : {0, 1}) {
      const Forced forced(kernel_, i == 0 ? candidate : other);
      launch(kernel_, of[i].args, device_);
    }
    return off(results(of[0], device_, kMost), results(of[1], device_, kMost));
  }

 private:
  struct Operand {
    std::byte* from;
    size_t bytes;
    DType dtype;
    kernels::Role role;
    size_t region, offset;
  };
  struct Region {
    const std::byte* from;
    size_t bytes;
    DType dtype;
    kernels::Role role;
  };
  struct Copy {
    std::vector<Tensor> memory;
    Tensor step;
    Args args;
  };
  class Forced {
   public:
    Forced(kernels::Kernel<Args>& kernel, std::string_view name) : kernel_(kernel) { kernel_.force(name); }
    ~Forced() { kernel_.force({}); }

   private:
    kernels::Kernel<Args>& kernel_;
  };

  // Below it an index is sound.
  int64_t indices() const {
    if constexpr (requires { args_.logits; }) return std::max<int64_t>(args_.logits ? args_.logits.size(-1) : 1, 1);
    if constexpr (requires {
                    args_.weight;
                    args_.tokens;
                  })
      return args_.weight.size(0);
    if constexpr (requires { args_.d_weight; }) return args_.d_weight.to ? args_.d_weight.to.size(0) : 1;
    return 1;
  }
  bool spread(const View& view) const {  // an index that chooses among rows; others are 0
    if constexpr (requires { args_.tokens; }) return view.data == args_.tokens.data;
    if constexpr (requires { args_.targets; }) return view.data == args_.targets.data;
    return false;
  }
  bool ascending(const View& view) const {
    if constexpr (requires { args_.arena_block; }) return view.data == args_.arena_block.data;
    return false;
  }

  // `like`: the same numbers in f64, on the CPU.
  Copy made(Device device, uint64_t number, const Copy* like) {
    Copy copy{{}, {}, args_};
    for (size_t i = 0; i < regions_.size(); ++i) {
      const Region& region = regions_[i];
      const int64_t n = static_cast<int64_t>(region.bytes) / size_of(region.dtype);
      if (like && is_floating(region.dtype)) {
        copy.memory.push_back(Tensor::from(like->memory[i].to_vector(), {n}, DType::f64, device));
      } else if (is_floating(region.dtype)) {
        const bool positive = region.role == kernels::Role::positive || region.role == kernels::Role::moment;
        copy.memory.push_back(Tensor::empty({n}, region.dtype, device));
        launch(kernels::normal,
               {.out = copy.memory.back().view(),
                .key = {.seed = 11, .purpose = RngPurpose::test, .name = i, .stream = number},
                .mean = positive ? 4.0f : 0.0f,
                .std = positive ? 0.5f : 1.0f},
               device);
      } else if (like) {
        copy.memory.push_back(Tensor::empty({n}, region.dtype, device));
        copy_bytes(copy.memory.back().impl().data, device, like->memory[i].impl().data, device_, region.bytes);
      } else {
        copy.memory.push_back(Tensor::zeros({n}, region.dtype, device));
        const View there = at(region.from, region.dtype, n);
        if (region.dtype == DType::i32 && (spread(there) || ascending(there))) {
          std::vector<int32_t> numbers(static_cast<size_t>(n));
          for (size_t j = 0; j < numbers.size(); ++j) {
            const auto some = static_cast<uint32_t>(j * 2654435761u + number) >> 7;
            numbers[j] = ascending(there) ? static_cast<int32_t>(j) : static_cast<int32_t>(some % static_cast<uint64_t>(indices()));
          }
          copy.memory.back() = Tensor::from(numbers, {n}, device);
        }
      }
    }
    if constexpr (requires { args_.step; }) {
      if (args_.step) {
        StepState state;
        state.lr = 1e-3f;
        copy.step = Tensor::empty({static_cast<int64_t>(sizeof state)}, DType::u8, device);
        copy_bytes(copy.step.impl().data, device, &state, Device{}, sizeof state);
        copy.args.step = reinterpret_cast<StepState*>(copy.step.impl().data);
      }
    }
    size_t next = 0;
    kernels::each_operand(copy.args, [&](View& view, kernels::Role) {
      if (!view || view.numel() == 0) return;
      const Operand& x = operands_[next++];
      size_t offset = x.offset;
      if (like && is_floating(view.dtype)) {
        offset = offset / static_cast<size_t>(size_of(view.dtype)) * sizeof(double);
        view.dtype = DType::f64;
      }
      view.data = copy.memory[x.region].impl().data + offset;
    });
    return copy;
  }
  static View at(const std::byte* data, DType dtype, int64_t n) {
    View view;
    view.data = const_cast<std::byte*>(data);
    view.dtype = dtype, view.rank = 1, view.shape[0] = n, view.stride[0] = 1;
    return view;
  }

  // The greatest root mean square by which an operand is off, as a part of its size; NaN where there is one.
  static double off(const std::vector<std::vector<double>>& a, const std::vector<std::vector<double>>& b) {
    double worst = 0;
    for (size_t i = 0; i < a.size(); ++i) {
      double off = 0, size = 0;
      for (size_t j = 0; j < a[i].size(); ++j) off += (a[i][j] - b[i][j]) * (a[i][j] - b[i][j]), size += b[i][j] * b[i][j];
      const double relative = std::sqrt(off / std::max(size, 1e-300));
      worst = relative <= worst ? worst : relative;  // NaN stays
    }
    return worst;
  }
  // Of each operand that is written, every element, or the first rows of about `most`.
  std::vector<std::vector<double>> results(const Copy& copy, Device device, int64_t most = INT64_MAX) {
    std::vector<std::vector<double>> all;
    Args args = copy.args;
    size_t next = 0;
    kernels::each_operand(args, [&](View& view, kernels::Role role) {
      if (!view || view.numel() == 0) return;
      const Operand& x = operands_[next++];
      if (role != kernels::Role::written && role != kernels::Role::updated && role != kernels::Role::moment) return;
      const Tensor& memory = copy.memory[x.region];
      const int64_t first = (view.data - memory.impl().data) / size_of(view.dtype);
      const auto rank = static_cast<size_t>(view.rank);
      if (view.numel() > most) view.shape[0] = std::max<int64_t>(most / (view.numel() / view.shape[0]), 1);
      const Shape shape(std::span(view.shape).first(rank)), strides(std::span(view.stride).first(rank));
      all.push_back(make_view_tensor(memory, shape, strides, first).to_vector());
    });
    synchronize(device);
    return all;
  }

  kernels::Kernel<Args>& kernel_;
  Args args_;
  std::deque<Operand> operands_;  // in the order of each_operand()
  std::vector<Region> regions_;
  Device device_;
  std::vector<Copy> copies_;
};

}  // namespace heddle
