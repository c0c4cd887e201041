// A model with a parameter of every kind, its arena on the device of the test, gradients to order, and the whole state of an optimizer as bytes.
#pragma once

#include <cmath>
#include <cstring>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "core/arena.h"
#include "kernels/api/kernel.h"
#include "optim/grad_norm.h"
#include "optim/optimizer.h"
#include "tests/support/catch.h"
#include "tests/support/compare.h"
#include "tests/support/tensors.h"

namespace heddle::test {

// No parameter's size is a multiple of 128 but one: there is padding, and a border without any.
struct EveryKind final : Module {
  EveryKind() {
    const auto spec = [](ParamKind kind, std::vector<int64_t> shape, float lr_scale = 1) {
      ParameterSpec s;
      s.kind = kind;
      s.parts = {{.global = std::move(shape)}};
      s.init_std = kind == ParamKind::matrix || kind == ParamKind::embedding ? 0.5f : 0.0f;
      s.init_mean = kind == ParamKind::gain ? 1.0f : 0.0f;
      s.lr_scale = lr_scale;
      return s;
    };
    ParameterSpec qkv = spec(ParamKind::matrix, {16, 6});  // of 8, 4 and 4 rows: tall, wide, wide
    qkv.parts = {{.name = "q.weight", .global = {8, 6}}, {.name = "k.weight", .global = {4, 6}}, {.name = "v.weight", .global = {4, 6}}};
    add("table", spec(ParamKind::embedding, {7, 4}, 0.25f));
    add("norm.weight", spec(ParamKind::gain, {9}));
    add("wide.weight", spec(ParamKind::matrix, {5, 31}));
    add("wide.bias", spec(ParamKind::bias, {5}, 2));
    add("tall.weight", spec(ParamKind::matrix, {18, 5}, 0.5f));
    add("square.weight", spec(ParamKind::matrix, {16, 16}));
    add("qkv.weight", qkv);
  }
};

struct OptimCase {
  EveryKind model;
  Arena arena;
  explicit OptimCase(DType values) : arena((kernels::register_cpu_kernels(), model), device(), values) { arena.init(11); }

  // Gradients N(0, 0.3) of every parameter; the padding stays zero.
  void draw_gradients(uint32_t seed) const {
    std::mt19937 engine(seed);
    std::normal_distribution<double> normal(0, 0.3);
    for (const Parameter& p : arena.parameters()) {
      std::vector<double> values(static_cast<size_t>(p.tensor().numel()));
      for (double& v : values) v = normal(engine);
      write(p.tensor().grad(), values);
    }
  }
  const Layout::Slot& slot(const std::string& name) const {
    for (const Layout::Slot& s : arena.layout().slots()) {
      if (s.name == name) return s;
    }
    throw std::runtime_error("no parameter " + name);
  }
  const Parameter& parameter(const std::string& name) const {
    for (const Parameter& p : arena.parameters()) {
      if (p.name() == name) return p;
    }
    throw std::runtime_error("no parameter " + name);
  }
};

inline void take_step(Optimizer& optimizer, const StepState& state) {
  optimizer.step(DeviceValue(state).get());
}

// Of the optimizer's memory, which is its device's.
inline std::map<std::string, View> entries(const Optimizer& optimizer) {
  StateDict state;
  optimizer.add_state(state);
  std::map<std::string, View> by_name;
  for (const StateDict::Entry& e : state.tensors) by_name[e.name] = e.data;
  return by_name;
}

// Values (padding included) and every tensor that a checkpoint would hold.
inline std::vector<std::byte> all_bytes(const OptimCase& c, const Optimizer& optimizer) {
  std::vector<std::byte> all = bytes_of(c.arena.values());
  for (const auto& [name, view] : entries(optimizer)) {
    const std::vector<std::byte> bytes = bytes_of(Tensor::borrow(view, device()));
    all.insert(all.end(), bytes.begin(), bytes.end());
  }
  return all;
}

}  // namespace heddle::test
