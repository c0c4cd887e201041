// `heddle bench`: measurements of this machine, one JSON line or a table each.
#pragma once

#include <cstdint>
#include <string>

#include "models/transformer.h"
#include "train/config.h"

namespace heddle::app {

struct BenchOptions {
  RunConfig config;      // the model, batch, optimizer, precision, threads
  int64_t repeats = 20;  // measured steps
  int64_t warmup = 3;    // steps before them
};

// Times whole training steps on random tokens; returns one JSON object.
std::string bench_train_step(BenchOptions options);

// Times every op at the shapes of one training step of this model; prints a table: time, floor, time / floor.
// The floor is the larger of FLOPs / this machine's measured matmul rate and bytes / its measured copy rate.
void bench_ops(BenchOptions options);

// GFLOP/s of the matmul kernel over every product of a training step of this model (forward, input gradient, weight gradient), weighted by FLOPs.
double model_gemm_rate(const TransformerConfig& model, int64_t rows, DType dtype, Device device, int repeats);

}  // namespace heddle::app
