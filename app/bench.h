// `heddle bench`: measurements of this machine, one JSON line or a table each.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "models/transformer.h"
#include "train/config/run_config.h"

namespace heddle::app {

struct BenchOptions {
  RunConfig config;                        // resolved: the model, batch, optimizer, precision, threads
  TransformerConfig shape;                 // of its model
  int64_t repeats = 20;                    // measured steps
  int64_t warmup = 3;                      // steps before them
  int64_t most_bytes = int64_t{64} << 20;  // collectives: the largest message
  std::string card = "h200";               // floors
  int64_t micro_steps = 1;                 // floors: of the step
  std::string op;                          // kernels: of this one alone
  std::string json, compare;               // kernels: files
  std::string save_dir;                    // save-stall: where checkpoints go, a directory on the disk to be measured; "": the working directory
};

// Times whole training steps on random tokens; returns one JSON object.
std::string bench_train_step(BenchOptions options);

// Trains and saves `repeats` times; returns one JSON object. stall = the time in save() and what the steps until its commit take longer than others,
// the median over the saves; also as a fraction of 200 s, the time between saves for which heddle promises at most 1 %.
std::string bench_save_stall(BenchOptions options);

// Every rank of the job: checks each collective of a training step on known values, then times it from 4 KiB to `most_bytes`; rank 0 prints a table:
// the slowest rank's median, bytes / time, and that rate times the share of the bytes that must cross a link. Error when a rank's result is wrong.
void bench_collectives(const BenchOptions& options);

// Times every op at the shapes of one training step of this model; prints a table: time, floor, time / floor.
// The floor is the larger of FLOPs / the fastest matmul of this model and bytes / the rate of a copy of as many bytes, which caches may hold. An op
// that is faster than that has no floor that is known: "n/a".
void bench_ops(BenchOptions options);

// Every kernel of a training step of this model on one GPU, counted in a rehearsal: FLOPs, bytes, the least time that they leave on `card`, and what
// is expected of heddle's kernels; sums to tokens/s. Error(usage) names the cards.
void bench_floors(const BenchOptions& options);

// Every kernel of a training step of this model by every candidate that takes its arguments, checked against float64 and timed with operands that no
// cache has; a table, and JSON in `json`. Error where a result is wrong, and where one is slower than in `compare`, which an earlier run wrote here.
void bench_kernels(const BenchOptions& options);

// "1.25", or "n/a" for an op that took less time than its floor.
std::string times_floor(double seconds, double floor);

struct MatmulRate {
  double mean = 0, best = 0;  // GFLOP/s: over all products, weighted by FLOPs; of the fastest
};
// Of the matmul kernel over every product of a training step of this model: forward, input gradient, weight gradient.
MatmulRate model_matmul_rate(const TransformerConfig& model, int64_t rows, DType dtype, Device device, int repeats);

double median(std::vector<double> values);

}  // namespace heddle::app
