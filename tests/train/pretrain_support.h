// Small real runs: a data set, the command line's configuration, `pretrain` with its console silenced, and what it left behind.
#pragma once

#include <fcntl.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <limits>
#include <map>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "checkpoint/checkpoints.h"
#include "data/prepare.h"
#include "kernels/api/embedding.h"
#include "kernels/api/kernel.h"
#include "kernels/api/optimizer.h"
#include "kernels/api/reduce.h"
#include "tests/data/support.h"
#include "tests/support/intercept.h"
#include "train/config/run_config.h"
#include "train/pretrain.h"

namespace heddle::test {

// Short documents of made-up words over bytes, so that a sample of 32 tokens holds several of them.
struct DataSet {
  Scratch folder;

  explicit DataSet(uint32_t seed, int documents = 160) {
    std::mt19937 engine(seed);
    std::string text;
    for (int d = 0; d < documents; ++d) {
      for (int words = 1 + static_cast<int>(engine() % 12); words > 0; --words) {
        for (int letters = 1 + static_cast<int>(engine() % 6); letters > 0; --letters) text += static_cast<char>('a' + engine() % 20);
        text += words > 1 ? ' ' : '\n';
      }
      text += '\n';
    }
    PrepareOptions options;
    options.inputs = {folder.write("words.txt", text)};
    options.tokenizer = "bytes";
    options.out = folder / "shards";
    options.val_fraction = 0.1;
    options.separator = DocumentSeparator::blank_line;
    options.threads = 1;
    prepare(options);
  }
  std::string train() const { return folder / "shards/*_train_*.bin"; }
  std::string val() const { return folder / "shards/*_val_*.bin"; }
};

inline const DataSet& data_set() {
  static const DataSet data(1);
  return data;
}

using Flags = std::map<std::string, std::string>;

// Twelve steps of two micro-steps of two sequences unless told otherwise.
inline RunConfig run_config(const std::string& out, const Flags& changes = {}) {
  Flags all = {{"out", out},
               {"data", data_set().train()},
               {"device", "cpu"},
               {"precision", "fp32"},
               {"layers", "2"},
               {"heads", "2"},
               {"dim", "32"},
               {"seq", "32"},
               {"batch", "2"},
               {"total-batch-tokens", "128"},
               {"steps", "12"},
               {"lr", "0.01"},
               {"warmup", "3"},
               {"save-every", "0"},
               {"eval-every", "0"},
               {"threads", "1"},
               {"tensorboard", "false"},
               {"progress", "false"}};
  for (const auto& [name, text] : changes) all[name] = text;
  std::vector<FlagValue> flags;
  for (const auto& [name, text] : all) {
    if (!text.empty()) flags.push_back({name, text});
  }
  return make_run_config("", {}, flags);
}

// Standard output and error go nowhere while one lives.
class Quiet {
 public:
  Quiet() {
    std::fflush(nullptr);
    const int nowhere = ::open("/dev/null", O_WRONLY);
    for (int fd : {1, 2}) {
      kept_[fd - 1] = ::dup(fd);
      ::dup2(nowhere, fd);
    }
    ::close(nowhere);
  }
  ~Quiet() {
    std::fflush(nullptr);
    for (int fd : {1, 2}) {
      ::dup2(kept_[fd - 1], fd);
      ::close(kept_[fd - 1]);
    }
  }

 private:
  int kept_[2];
};

inline int run(const RunConfig& config) {
  kernels::register_cpu_kernels();
  const Quiet quiet;
  return pretrain(config);
}
inline int run(const std::string& out, const Flags& changes = {}) {
  return run(run_config(out, changes));
}

// --minutes counts by a clock that goes on by so much whenever it is looked at.
inline int run_by(double tick, const RunConfig& config) {
  kernels::register_cpu_kernels();
  const Quiet quiet;
  return pretrain(config, {}, [now = 0.0, tick]() mutable { return now += tick; });
}

// What a run that ends well writes to standard output.
inline std::string said_by(const RunConfig& config) {
  kernels::register_cpu_kernels();
  const Scratch folder;
  std::fflush(stdout);
  const int kept = ::dup(1), file = ::open((folder / "out").c_str(), O_WRONLY | O_CREAT, 0600);
  ::dup2(file, 1);
  const int code = pretrain(config);
  ::dup2(kept, 1);
  ::close(kept), ::close(file);
  CHECK(code == 0);
  return slurp(folder / "out");
}

// The text of one field in every line of metrics.jsonl: numbers are written so that they read back exactly.
inline std::vector<std::string> metric(const std::string& out, const std::string& name) {
  std::vector<std::string> all;
  const std::string text = slurp(out + "/metrics.jsonl"), key = "\"" + name + "\":";
  for (size_t begin = 0, end; (end = text.find('\n', begin)) != std::string::npos; begin = end + 1) {
    const std::string line = text.substr(begin, end - begin);
    const size_t at = line.find(key);
    all.push_back(at == std::string::npos ? "" : line.substr(at + key.size(), line.find_first_of(",}", at + key.size()) - at - key.size()));
  }
  return all;
}

struct Outcome {
  std::vector<std::string> steps, losses, norms;
  std::string digest;  // weights, optimizer state and counters
  bool operator==(const Outcome&) const = default;
};
inline Outcome outcome(const std::string& out) {
  return {metric(out, "step"), metric(out, "loss"), metric(out, "grad_norm"), digest(out)};
}
inline std::vector<std::string> numbers(int first, int last) {
  std::vector<std::string> all;
  for (int i = first; i <= last; ++i) all.push_back(std::to_string(i));
  return all;
}

// SIGUSR1 at the end of the n-th step from now.
class StopAfterStep {
 public:
  explicit StopAfterStep(int steps)
      : intercept_(kernels::advance_step, nullptr, [](const kernels::AdvanceStepArgs&) {
          if (--left_ == 0) std::raise(SIGUSR1);
        }) {
    left_ = steps;
  }

 private:
  static inline int left_ = 0;
  Intercept<kernels::AdvanceStepArgs> intercept_;
};

// A NaN, or another number, stands in one place of the gradient (a part of its length) when the norms of these steps, counted from now, are taken.
class BadGradients {
 public:
  explicit BadGradients(std::vector<int> steps, float value = std::numeric_limits<float>::quiet_NaN(), double place = 0.5)
      : intercept_(
            kernels::sum,
            [](const kernels::SumArgs& args) {
              if (!args.squares) return;
              ++step_;
              const auto at = static_cast<int64_t>(place_ * static_cast<double>(args.x.numel() - 1));
              for (int bad : bad_) {
                if (bad == step_) args.x.as<float>()[at] = value_;
              }
            },
            nullptr) {
    step_ = 0, bad_ = std::move(steps), value_ = value, place_ = place;
  }

 private:
  static inline int step_ = 0;
  static inline std::vector<int> bad_;
  static inline float value_ = 0;
  static inline double place_ = 0;
  Intercept<kernels::SumArgs> intercept_;
};

// Gradients become NaN in every step that sees one of these samples, as they would from a broken document: whenever, and however often, it is seen.
class BadSamples {
 public:
  BadSamples(const std::string& shards, int64_t seq, const std::vector<uint64_t>& positions)
      : see_(
            kernels::embedding_forward,
            [](const kernels::EmbeddingForwardArgs& args) {
              const int64_t length = args.tokens.shape[1];
              for (int64_t b = 0; b < args.tokens.shape[0]; ++b) {
                const int32_t* row = args.tokens.as<const int32_t>() + b * length;
                for (const std::vector<int32_t>& bad : bad_) seen_ = seen_ || std::equal(bad.begin(), bad.end(), row);
              }
            },
            nullptr),
        spoil_(
            kernels::sum,
            [](const kernels::SumArgs& args) {
              if (args.squares && std::exchange(seen_, false)) args.x.as<float>()[0] = std::numeric_limits<float>::quiet_NaN();
            },
            nullptr) {
    LoaderOptions options;
    options.shards = {shards};
    options.seq = seq;
    options.seed = static_cast<uint64_t>(RunConfig{}.seed);
    Loader loader(options);
    bad_.clear(), seen_ = false;
    for (const uint64_t position : positions) {
      OwnedBatch batch(1, seq);
      loader.fill(position, batch.view);
      bad_.push_back(batch.tokens);
    }
  }

 private:
  static inline std::vector<std::vector<int32_t>> bad_;
  static inline bool seen_ = false;
  Intercept<kernels::EmbeddingForwardArgs> see_;
  Intercept<kernels::SumArgs> spoil_;
};

}  // namespace heddle::test
