// split_parts OLD OUT: a checkpoint whose tensors are whole Parameters ("blocks.0.attn.qkv.weight"), as versions before the split into Parts wrote
// them, becomes a run directory OUT of this version. split_parts --compare A B: the largest difference of every Part of two checkpoints of this
// version.
#include <cmath>
#include <cstdio>
#include <cstring>
#include <map>
#include <set>

#include "checkpoint/checkpoints.h"
#include "checkpoint/loading.h"
#include "core/io/strict_json.h"
#include "infer/load.h"
#include "kernels/api/check.h"
#include "kernels/api/kernel.h"
#include "models/transformer.h"
#include "train/assembly.h"
#include "train/config/run_config.h"
#include "train/config/shape.h"

namespace heddle {
namespace {

// Everything that the run of a saved configuration keeps, with memory of its own.
struct Kept {
  explicit Kept(const std::string& config_text) {
    apply_toml(config, config_text, "saved configuration", Source::saved);
    model = std::make_unique<Transformer>(model_config(config, config.vocab));
    arena = std::make_unique<Arena>(*model, Device{}, compute_dtype(config.precision, Device{}));
    optimizer = make_optimizer(config, *arena);
    optimizer->add_state(state);
  }
  RunConfig config;
  std::unique_ptr<Transformer> model;
  std::unique_ptr<Arena> arena;
  std::unique_ptr<Optimizer> optimizer;
  StateDict state;
};

std::string name_before(std::string name) {
  if (const size_t at = name.rfind("gateup."); at != std::string::npos) name.replace(at, 6, "up");
  return name;
}

// The same memory under the Parameters' names: Parts lie one after the other.
StateDict whole_parameters(const Kept& kept) {
  std::map<std::string, const Layout::Slot*> first;  // Part to its Parameter, of each one's first Part
  std::set<std::string> others;
  for (const Layout::Slot& slot : kept.arena->layout().slots()) {
    first.emplace(slot.spec.parts[0].name, &slot);
    for (size_t i = 1; i < slot.spec.parts.size(); ++i) others.insert(slot.spec.parts[i].name);
  }
  StateDict old;
  for (const StateDict::Entry& e : kept.state.tensors) {
    for (const char* prefix : {"model.", "optim.momentum.", "optim.m.", "optim.v."}) {
      if (e.name.rfind(prefix, 0) != 0) continue;
      const std::string part = e.name.substr(std::strlen(prefix));
      if (others.count(part)) break;
      const Layout::Slot& slot = *first.at(part);
      StateDict::Entry whole = e;
      whole.name = prefix + name_before(slot.name);
      for (size_t i = 1; i < slot.spec.parts.size(); ++i) whole.global[0] += slot.spec.parts[i].global[0];
      whole.data.shape[0] = whole.global[0];
      whole.box[0].end = whole.global[0];
      old.tensors.push_back(std::move(whole));
      break;
    }
  }
  return old;
}

void split(const std::string& from, const std::string& to) {
  const Kept kept(describe_checkpoint(from).config);
  StateDict old = whole_parameters(kept);
  const Checkpoints::Loaded loaded = read_checkpoint(from, old);
  const auto comm = local_control();
  CheckpointOptions options;
  options.environment = loaded.environment;
  Checkpoints checkpoints(to, *comm, options);
  checkpoints.find_newest(Checkpoints::Resume::never);
  StateDict state = kept.state;
  nlohmann::json scalars = parse_strict_json(loaded.scalars, from);
  scalars[kModelCounter] = nlohmann::json::parse(to_json(kept.model->config()));
  scalars[kDocumentMaskCounter] = kept.config.doc_mask;
  state.scalars = scalars.dump();
  checkpoints.save(loaded.step, state, loaded.config);
  checkpoints.wait();
}

bool compare(const std::string& a, const std::string& b) {
  const Kept first(describe_checkpoint(a).config), second(describe_checkpoint(b).config);
  StateDict x = first.state, y = second.state;
  read_checkpoint(a, x), read_checkpoint(b, y);
  HEDDLE_CHECK(x.tensors.size() == y.tensors.size(), "compare", a, " and ", b, " hold different tensors");
  size_t unequal = 0;
  double worst = 0;
  for (size_t i = 0; i < x.tensors.size(); ++i) {
    const View &u = x.tensors[i].data, &v = y.tensors[i].data;
    HEDDLE_CHECK(x.tensors[i].name == y.tensors[i].name && u.dtype == DType::f32 && u.numel() == v.numel(), "compare", x.tensors[i].name);
    if (std::memcmp(u.data, v.data, static_cast<size_t>(u.bytes())) == 0) continue;
    double difference = 0, size = 0;
    for (int64_t k = 0; k < u.numel(); ++k) {
      const double p = u.as<float>()[k], q = v.as<float>()[k];
      difference = std::max(difference, std::abs(p - q));
      size = std::max(size, std::abs(p));
    }
    std::printf("%s differs: by at most %.3g of %.3g\n", x.tensors[i].name.c_str(), difference, size);
    ++unequal;
    worst = std::max(worst, difference / std::max(size, 1e-30));
  }
  std::printf("%zu of %zu tensors equal, bit for bit", x.tensors.size() - unequal, x.tensors.size());
  std::printf(unequal ? "; the others differ by at most %.3g of their largest element\n" : "\n", worst);
  return unequal == 0;
}

}  // namespace
}  // namespace heddle

int main(int argc, char** argv) {
  const bool compares = argc == 4 && std::strcmp(argv[1], "--compare") == 0;
  if (argc != 3 && !compares) {
    std::fprintf(stderr, "usage: split_parts OLD OUT | split_parts --compare A B\n");
    return 2;
  }
  try {
    heddle::kernels::register_cpu_kernels();
    if (compares) return heddle::compare(argv[2], argv[3]) ? 0 : 1;
    heddle::split(argv[1], argv[2]);
    return 0;
  } catch (const heddle::Error& e) {
    std::fprintf(stderr, "split_parts: %s\n", e.what());
    return static_cast<int>(e.code());
  }
}
