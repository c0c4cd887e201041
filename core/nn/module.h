// Module: parameters and children, named, in order.
//
// A Module registers its parameters and children; paths join with dots ("blocks.3.attn.qkv.weight"). forward() is each layer's own typed method.
// Parameters have no memory until an Arena (core/arena.h) gives it to them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/nn/parameter.h"

namespace heddle {

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
  int64_t parameter_count() const;  // elements of this rank's Parts

 protected:
  Parameter add(std::string name, ParameterSpec spec);
  // An empty name: the child's names count as this module's own.
  void add(std::string name, Module& child);
  // The module also uses a parameter registered elsewhere; it is listed there only.
  void tie(std::string name, const Parameter& parameter);
  // What is registered from here on, down to the next call, has gradients that become final together in backward: they are reduced in one bucket
  // (core/layout.h). A child without calls of its own belongs to its parent's bucket.
  void begin_bucket(std::string name) { bucket_ = std::move(name); }

 private:
  void collect(const std::string& prefix, const std::string& bucket, std::vector<Parameter>& into) const;
  void require_new(const std::string& name) const;

  struct Item {
    std::string name, bucket;
    Parameter parameter;  // or
    Module* child = nullptr;
  };
  std::vector<Item> items_;
  std::string bucket_;
};

}  // namespace heddle
