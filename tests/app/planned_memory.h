// The memory that --dry-run plans against what the allocator of a real run says: for the CPU's program and the one with a simulated GPU.
#pragma once

#include <cmath>
#include <string>

#include "tests/app/workplace.h"

namespace heddle::test {

// "1.50 GiB" behind `key` in a text, in bytes.
inline double bytes_behind(const std::string& text, const std::string& key) {
  const size_t at = text.find(key);
  REQUIRE(at != std::string::npos);
  size_t used = 0;
  const double value = std::stod(text.substr(at + key.size()), &used);
  const std::string unit = text.substr(text.find_first_not_of(' ', at + key.size() + used), 3);
  return value * (unit == "GiB" ? 1024.0 * 1024 * 1024 : unit == "MiB" ? 1024.0 * 1024 : unit == "KiB" ? 1024.0 : 1);
}

inline void expect_planned_memory(const std::string& device, const std::string& before) {
  const Workplace w;
  std::string text;
  for (int i = 0; i < 3000; ++i) text += "line " + std::to_string(i * i % 97) + (i % 20 == 19 ? "\n\n" : "\n");
  w.write("book.txt", text);
  REQUIRE(w.heddle("tokenize --input book.txt --tokenizer bytes --document-separator blank-line --out shards").code == 0);
  const char* const configurations[] = {
      "--layers 2 --heads 2 --dim 64 --seq 64 --batch 2 --total-batch-tokens 256 --precision fp32",
      "--layers 3 --heads 4 --kv-heads 2 --dim 64 --seq 32 --batch 4 --total-batch-tokens 128 --optimizer muon --mlp swiglu --norm rms --position "
      "rope --qk-norm "
      "--precision bf16",
      "--layers 4 --heads 2 --dim 96 --seq 48 --batch 3 --total-batch-tokens 288 --recompute --precision bf16",
      "--layers 2 --heads 2 --dim 64 --seq 32 --batch 2 --total-batch-tokens 512 --deterministic --optimizer muon --precision fp32",
      "--layers 1 --heads 1 --dim 128 --seq 64 --batch 1 --total-batch-tokens 64 --no-tied --no-doc-mask --position rope --precision fp32",
      "--layers 2 --heads 2 --dim 64 --seq 128 --batch 1 --total-batch-tokens 128 --window 16 --mlp relu2 --z-loss 1e-4 --precision bf16",
  };
  int number = 0;
  for (const std::string configuration : configurations) {
    const std::string run =
        "pretrain " + configuration + " --steps 3 --data 'shards/*.bin' --device " + device + " --out run" + std::to_string(++number);
    const Result planned = w.heddle(run + " --dry-run", before);
    INFO(configuration << "\n" << planned.out << planned.err);
    REQUIRE(planned.code == 0);
    const Result trained = w.heddle(run, before);
    INFO(trained.out << trained.err);
    REQUIRE(trained.code == 0);
    const double plan = bytes_behind(planned.out, "\n  peak"), peak = bytes_behind(trained.out + trained.err, "peak memory ");
    CHECK(peak > 1e6);  // so that a percent is more than a rounding of the text
    CHECK(std::abs(plan - peak) <= 0.01 * peak);
  }
}

}  // namespace heddle::test
