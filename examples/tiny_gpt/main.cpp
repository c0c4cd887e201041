// Trains a small GPT on the characters of a text and writes some of its own:  tiny_gpt [TEXT FILE] [STEPS]
//
// Everything a training run has is here in the open: a batch, forward, backward into the arena, the global norm, AdamW, a schedule, sampling with
// a KV cache. `heddle pretrain` adds files, restarts, many ranks.
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <iterator>
#include <string>
#include <vector>

#include "core/arena.h"
#include "core/autograd/engine.h"
#include "kernels/api/kernel.h"
#include "models/transformer.h"
#include "optim/grad_norm.h"
#include "optim/optimizer.h"
#include "optim/schedule.h"

namespace {

using namespace heddle;

constexpr int64_t kBatch = 8, kContext = 64;  // sequences a step, characters a sequence
constexpr uint64_t kSeed = 42;

// Random numbers are functions of what they are for: nothing to save, the same on every machine.
uint32_t random_word(RngPurpose purpose, uint64_t stream, uint64_t index) {
  return Philox::draw({.seed = kSeed, .purpose = purpose, .stream = stream}, index)[0];
}

// Sentences of a small grammar.
std::string built_in_text() {
  const std::vector<std::string> who{"the weaver", "a spider", "the old loom", "her apprentice", "the night"},
      does{"threads", "mends", "unpicks", "knows"}, what{"the red cloth", "a net of silk", "every pattern", "the long warp"};
  std::string text;
  for (uint64_t i = 0; i < 2000; ++i) {
    const uint32_t r = random_word(RngPurpose::test, 0, i);
    text += who[r % 5] + " " + does[r / 5 % 4] + " " + what[r / 20 % 4] + ".\n";
  }
  return text;
}

std::string read_file(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) throw Error("cannot read " + path, ExitCode::io);
  return {std::istreambuf_iterator<char>(in), {}};
}

// Characters as ids, in order of their bytes.
struct Alphabet {
  explicit Alphabet(std::string text) {
    std::sort(text.begin(), text.end());
    text.erase(std::unique(text.begin(), text.end()), text.end());
    characters = text;
  }
  std::vector<int32_t> encode(const std::string& text) const {
    std::vector<int32_t> ids;
    for (char c : text) ids.push_back(static_cast<int32_t>(characters.find(c)));
    return ids;
  }
  std::string characters;
};

int32_t sample(const std::vector<double>& logits, double temperature, uint64_t index) {
  const double largest = *std::max_element(logits.begin(), logits.end());
  std::vector<double> weight;
  double total = 0;
  for (double z : logits) total += weight.emplace_back(std::exp((z - largest) / temperature));
  double point = Philox::uniform(random_word(RngPurpose::sample, 0, index)) * total;
  for (size_t i = 0; i < weight.size(); ++i) {
    point -= weight[i];
    if (point < 0) return static_cast<int32_t>(i);
  }
  return static_cast<int32_t>(logits.size()) - 1;
}

int run(const std::string& text, uint64_t steps) {
  const Alphabet alphabet(text);
  const std::vector<int32_t> ids = alphabet.encode(text);
  if (ids.size() <= static_cast<size_t>(kContext) + 1)
    throw Error(concat("the text has ", ids.size(), " characters; more than ", kContext + 1, " are needed"));

  const Transformer model({.vocab = static_cast<int64_t>(alphabet.characters.size()), .layers = 2, .dim = 64, .heads = 4, .seq = kContext});
  Arena arena(model, Device{}, DType::f32);
  arena.init(kSeed);
  const auto optimizer = make_adamw(arena, {.lr = 3e-3f, .weight_decay = 0.1f});
  const Schedule schedule{.kind = ScheduleKind::cosine, .steps = steps, .warmup = std::max<uint64_t>(steps / 20, 1)};
  StepControl control(Device{});
  std::cout << text.size() << " characters, " << alphabet.characters.size() << " different; " << model.parameter_count() << " parameters\n";

  double loss = 0;
  for (uint64_t step = 0; step < steps; ++step) {
    std::vector<int32_t> inputs, targets;  // (B, T), targets one character ahead
    for (int64_t b = 0; b < kBatch; ++b) {
      const size_t at = random_word(RngPurpose::shuffle, step, static_cast<uint64_t>(b)) % (ids.size() - kContext - 1);
      inputs.insert(inputs.end(), ids.begin() + at, ids.begin() + at + kContext);
      targets.insert(targets.end(), ids.begin() + at + 1, ids.begin() + at + 1 + kContext);
    }
    StepState state = control.get();
    state.lr = static_cast<float>(schedule.factor(step));
    state.loss_scale = 1.0f / (kBatch * kContext);
    state.clip_norm = 1;
    control.set(state);

    arena.begin_step();
    const Tensor mean_loss = model.loss(Tensor::from(std::span<const int32_t>(inputs), {kBatch, kContext}),
                                        Tensor::from(std::span<const int32_t>(targets), {kBatch, kContext}), {}, {.step = control.device_state()});
    backward(mean_loss, arena.leaves());
    control.finish_norm(arena);
    optimizer->step(control.device_state());
    control.advance();

    loss = mean_loss.item();
    if (step % std::max<uint64_t>(steps / 10, 1) == 0 || step + 1 == steps) {
      std::cout << "step " << step << ", loss " << loss << ", norm " << control.get().grad_norm << "\n";
    }
  }

  std::cout << "----\n";
  Transformer::Cache cache = model.make_cache(1, kContext);
  int32_t next = ids[0];
  for (int64_t i = 0; i < kContext; ++i) {
    std::cout << alphabet.characters[static_cast<size_t>(next)];
    next = sample(model.next_logits(Tensor::from(std::vector<int32_t>{next}, {1, 1}), cache).to_vector(), 0.7, static_cast<uint64_t>(i));
  }
  std::cout << "\n";
  return loss < 0.8 * std::log(static_cast<double>(alphabet.characters.size())) ? 0 : 1;  // learned something
}

}  // namespace

int main(int argc, char** argv) {
  kernels::register_cpu_kernels();
  try {
    const uint64_t steps = argc > 2 ? std::strtoull(argv[2], nullptr, 10) : 300;
    if (steps == 0) throw Error("usage: tiny_gpt [TEXT FILE] [STEPS], at least one step", ExitCode::usage);
    return run(argc > 1 ? read_file(argv[1]) : built_in_text(), steps);
  } catch (const Error& e) {
    std::cerr << e.what() << "\n";
    return static_cast<int>(e.code());
  }
}
