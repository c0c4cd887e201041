// Parameter: memory that a layer sees as one tensor, made of Parts: the logical tensors stacked in it.
//
// Files, digests, Muon, tensor parallelism, adapters and the names of other formats speak of Parts; kernels speak of the packed memory. The
// projection to queries, keys and values is one Parameter of three Parts; most Parameters have one.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "core/io/boxes.h"
#include "core/tensor.h"
#include "core/weight.h"

namespace heddle {

// What a parameter is; weight decay, Muon and muP groups follow from it. `head` is an output projection with memory of its own.
enum class ParamKind : uint8_t { matrix, embedding, head, gain, bias };

// A logical tensor and the piece of it that this rank holds. Ranks with equal boxes are replicas.
struct Part {
  std::string name;               // relative to the module that registers it; empty: the Parameter's own
  std::vector<int64_t> global;    // shape of the unsharded tensor, rank >= 1
  Box box;                        // this rank's piece; empty: the whole
  bool partial_gradient = false;  // of replicas: each computes a share, and the sum over them is the gradient; else each has all of it
};

struct ParameterSpec {
  ParamKind kind = ParamKind::matrix;
  std::vector<Part> parts;  // stacked along axis 0 of the memory; their other axes have equal local sizes
  float init_std = 0;       // N(init_mean, init_std), keyed by the Part's name; 0: a constant
  float init_mean = 0;      // gains start at 1
  float lr_scale = 1;
  bool frozen = false;  // not trained: no gradient, no moments, no decay
  // Rows of memory behind the Parts, in none of them: what makes the memory of tensor-parallel ranks equal where their boxes are not. Zero, and its
  // gradient too.
  int64_t padding = 0;
};

class Parameter {
 public:
  Parameter() = default;
  // Error when there is no Part, a box leaves its tensor, the Parts do not stack, or the padding is negative.
  Parameter(std::string name, ParameterSpec spec);

  // Of a handle that Module::parameters() returned: the path from the module it was called on. Else the name it was registered under.
  const std::string& name() const { return name_; }
  const ParameterSpec& spec() const { return data_->spec; }  // with every box filled in
  std::vector<Part> parts() const;                           // under their whole names
  const std::string& bucket() const { return bucket_; }      // of a handle from parameters(): see Module::begin_bucket
  const Tensor& tensor() const { return data_->tensor; }     // the leaf, whose memory is the arena's
  // What an op takes; of an undefined handle: none.
  operator Weight() const { return data_ ? Weight(data_->tensor, data_->source) : Weight(); }
  // From here on the values that ops see come from `source`; null: from the tensor itself.
  void set_source(std::shared_ptr<WeightSource> source) { data_->source = std::move(source); }
  explicit operator bool() const { return data_ != nullptr; }
  bool same(const Parameter& other) const { return data_ == other.data_; }

 private:
  friend class Module;
  struct Data {
    ParameterSpec spec;
    Tensor tensor;
    std::shared_ptr<WeightSource> source;
  };
  std::string name_, prefix_, bucket_;  // prefix_: the path of the module that registered it
  std::shared_ptr<Data> data_;
};

}  // namespace heddle
