// Module and Parameter: named, ordered, typed by kind.
//
// A Module registers its parameters and children in order; paths join with dots ("blocks.3.attn.qkv.weight"). forward() is each layer's own typed
// method. Parameters have no memory until an Arena (core/arena.h) gives it to them.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "core/state.h"
#include "core/tensor.h"

namespace heddle {

// What a parameter is; weight decay, Muon and muP groups follow from it.
enum class ParamKind : uint8_t { matrix, embedding, gain, bias };

struct ParameterSpec {
  ParamKind kind = ParamKind::matrix;
  ShardSpec shard;      // shard.global: the shape; default slicing: whole
  float init_std = 0;   // N(0, init_std); 0: a constant
  float init_mean = 0;  // gains start at 1
  float lr_scale = 1;
  // A matrix of stacked projections (q over k over v): the rows of each. Muon treats them one by one. Empty: one matrix.
  std::vector<int64_t> stacked_rows;
};

class Parameter {
 public:
  Parameter() = default;
  Parameter(std::string name, ParameterSpec spec);

  // Of a handle that parameters() returned: the path from the module it was called on. Else the name it was registered under.
  const std::string& name() const { return name_; }
  const ParameterSpec& spec() const { return data_->spec; }
  const Tensor& tensor() const { return data_->tensor; }
  operator const Tensor&() const { return data_->tensor; }
  explicit operator bool() const { return data_ != nullptr; }
  bool same(const Parameter& other) const { return data_ == other.data_; }

 private:
  friend class Module;
  struct Data {
    ParameterSpec spec;
    Tensor tensor;
  };
  std::string name_;
  std::shared_ptr<Data> data_;
};

// An optional parameter as an op argument: undefined when there is none.
inline const Tensor& tensor_or_none(const Parameter& p) {
  static const Tensor none;
  return p ? p.tensor() : none;
}

class Module {
 public:
  Module() = default;
  virtual ~Module() = default;
  Module(const Module&) = delete;
  Module& operator=(const Module&) = delete;

  // Every parameter below this module, in registration order, a tied one once (under its first name).
  std::vector<Parameter> parameters() const;
  // The same as tensors, for backward().
  std::vector<Tensor> leaves() const;
  int64_t parameter_count() const;

 protected:
  Parameter add(std::string name, ParameterSpec spec);
  void add(std::string name, Module& child);
  // The module also uses a parameter registered elsewhere; it is listed there only.
  void tie(std::string name, const Parameter& parameter);

 private:
  void collect(const std::string& prefix, std::vector<Parameter>& into) const;

  struct Item {
    std::string name;
    Parameter parameter;  // or
    Module* child = nullptr;
  };
  std::vector<Item> items_;
};

// y = fn(x), without keeping what backward needs: backward runs fn again. `region` holds every parameter fn uses; random numbers are keyed, so the
// second run draws the same ones (Chen et al. 2016, "Training deep nets with sublinear memory cost").
Tensor checkpoint(const Module& region, const std::function<Tensor(const Tensor&)>& fn, const Tensor& x);

}  // namespace heddle
