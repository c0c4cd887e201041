// How much memory training takes, and whether this machine has it: asked before anything large is allocated. A machine that promises more memory than
// it has ends the process without a word once the pages are touched.
#pragma once

#include <string_view>

#include "core/device.h"
#include "core/layout.h"
#include "models/transformer.h"
#include "train/config/run_config.h"

namespace heddle {

// Bytes of one rank. A little less than what is used: temporaries of single ops are not counted.
struct MemoryPlan {
  double parameters = 0, masters = 0, gradients = 0, optimizer = 0;
  double activations = 0;  // saved for backward in one micro-step
  double snapshot = 0;     // of the state, from which checkpoints are written; host memory
  double checkpoint = 0;   // on the disk, what all ranks write
  double total() const { return parameters + masters + gradients + optimizer + activations + snapshot; }
};

// `shape` as model_config() gives it, `layout` that of its model for all ranks (make_layout); of several the plan is of the one that keeps most. Of
// `config` only the batch and what shares it, sequence length, optimizer, `zero`, `grad_reduce` and `deterministic` count here.
MemoryPlan plan_memory(const RunConfig& config, const TransformerConfig& shape, const Layout& layout, DType dtype);

// Bytes that this process may still take: what the system calls available, with swap, within the limits of its control groups and of ulimit -v.
// Infinity where nothing says.
double available_memory();

// Error(out_of_memory) when the plan of a run on the CPU is more than this machine has for the ranks that a launcher started on it; the message names
// what would make it fit. `saves`: the run writes checkpoints. On a GPU nothing is checked: its allocator knows, and says so.
void require_memory(std::string_view op, const RunConfig& config, const Transformer& model, DType dtype, Device device, bool saves);

// The same of weights, gradients, moments and the snapshot alone, where nobody knows the activations.
void require_state_memory(std::string_view op, const RunConfig& config, const Layout& layout, DType dtype, Device device);

// The same of a batch without backward, of which one block's activations live at a time; the model is in memory already.
void require_batch_memory(std::string_view op, const TransformerConfig& shape, int64_t batch, int64_t seq, DType dtype, Device device);

}  // namespace heddle
