#include "core/nn/module.h"

#include <algorithm>

#include "kernels/api/check.h"

namespace heddle {
namespace {

std::string joined(const std::string& prefix, const std::string& name) {
  return prefix.empty() || name.empty() ? prefix + name : prefix + "." + name;
}

}  // namespace

void Module::require_new(const std::string& name) const {
  for (const Item& item : items_) HEDDLE_CHECK(name.empty() || item.name != name, "module", "\"", name, "\" is registered twice");
}

Parameter Module::add(std::string name, ParameterSpec spec) {
  HEDDLE_CHECK(!name.empty(), "module", "a parameter without a name");
  require_new(name);
  Parameter parameter(name, std::move(spec));
  items_.push_back({std::move(name), bucket_, parameter, nullptr});
  return parameter;
}

void Module::add(std::string name, Module& child) {
  require_new(name);
  items_.push_back({std::move(name), bucket_, {}, &child});
}

void Module::tie(std::string name, const Parameter& parameter) {
  items_.push_back({std::move(name), bucket_, parameter, nullptr});
}

void Module::collect(const std::string& prefix, const std::string& bucket, std::vector<Parameter>& into) const {
  for (const Item& item : items_) {
    const std::string path = joined(prefix, item.name), label = item.bucket.empty() ? bucket : joined(prefix, item.bucket);
    if (item.child) {
      item.child->collect(path, label, into);
    } else if (std::none_of(into.begin(), into.end(), [&](const Parameter& p) { return p.same(item.parameter); })) {
      into.push_back(item.parameter);
      into.back().name_ = path;
      into.back().prefix_ = prefix;
      into.back().bucket_ = label;
    }
  }
}

std::vector<Parameter> Module::parameters() const {
  std::vector<Parameter> all;
  collect("", "", all);
  return all;
}

std::vector<Tensor> Module::leaves() const {
  std::vector<Tensor> all;
  for (const Parameter& p : parameters()) all.push_back(p.tensor());
  return all;
}

int64_t Module::parameter_count() const {
  int64_t n = 0;
  for (const Parameter& p : parameters()) {
    for (const Part& part : p.spec().parts) n += volume(part.box);
  }
  return n;
}

}  // namespace heddle
