#include "app/bench.h"

#include <cstdio>

#include "app/arguments.h"
#include "app/command.h"
#include "kernels/api/check.h"
#include "kernels/api/forced_kernels.h"
#include "kernels/api/printable.h"
#include "parallel/launch.h"
#include "train/config/resolve.h"
#include "train/config/shape.h"
#include "train/vendor_kernels.h"

namespace heddle::app {
namespace {

constexpr char kDefaultVocab[] = "50304";

constexpr CommandHelp kHelp = {
    "bench", "train-step|ops|kernels|floors|save-stall|collectives [model flags]",
    "Measures this machine, with the model, batch, optimizer and machine flags of heddle pretrain. Without a model it is "
    "gpt-10m; a model of --depth or --layers has the vocabulary 50304 unless --vocab says another.\n"
    "train-step: whole optimizer steps on random tokens, one JSON line. gflops is the rate of a step, counting only the "
    "model's arithmetic; matmul_gflops that of the step's matrix products run by themselves; matmul_fraction is gflops / "
    "matmul_gflops, 1 for a step that does nothing else. Under mpirun or srun the ranks step together: tokens_per_s is that of all, step_ms that of "
    "the slowest; exposed_comm_ms is what the rank that waits least waits for communication in a step, waited_ms_max the one that waits most, for "
    "slower ranks as well.\n"
    "ops: every op at this model's shapes in a table beside its floor: its arithmetic at the rate of the fastest of those "
    "products, or a copy of as many bytes, whichever takes longer. n/a: the op was faster, so that is no floor.\n"
    "kernels: every kernel of a step by every candidate that takes its arguments, checked beside float64, then timed with operands that no cache "
    "has. --json keeps the table, --compare ends with 1 where one is slower than it was by a tenth and by more than either run varies.\n"
    "floors: every kernel of a step on one GPU of --card, which need not be here, counted in a rehearsal: FLOPs, bytes, the time that they take at "
    "least, and what is expected of heddle's kernels.\n"
    "save-stall: what writing a checkpoint in the background costs the steps beside it, one JSON line; under mpirun the ranks save one together.\n"
    "collectives: under mpirun or srun, what the ranks of a training step say to each other, checked, then timed from 4 KiB to --most-bytes, in a "
    "table. "
    "bus GB/s is what crosses a rank's link: it does not depend on the number of ranks when the links are full.",
    "  heddle bench train-step --model gpt-10m --seq 256 --batch 8 --threads 2\n"
    "  heddle bench train-step --model gpt2-124m --seq 256 --batch 4 --precision bf16\n"
    "  heddle bench ops --depth 6 --seq 512\n"
    "  heddle bench kernels --depth 6 --op matmul --json before.json\n"
    "  heddle bench floors --model gpt2-124m --seq 1024 --batch 16 --card h100\n"
    "  heddle bench save-stall --save-dir runs --repeats 5\n"
    "  mpirun -np 2 heddle bench collectives --most-bytes 16M"};

}  // namespace

int bench_command(Args args) {
  BenchOptions bench;
  RunConfig& config = bench.config;
  std::string what;
  std::vector<BoundOption> options;
  options.push_back({{"WHAT", "", "Arguments", "train-step, ops, kernels, floors, save-stall or collectives", true, false, false, ""},
                     [&](std::string_view text, const std::string&) { what = text; }});
  options.push_back({{"repeats", "N", "Bench", "measured repetitions", false, false, false, "20"},
                     [&](std::string_view text, const std::string& place) { bench.repeats = parse_count(text, place); }});
  options.push_back({{"warmup-steps", "N", "Bench", "steps before measuring", false, false, false, "3"},
                     [&](std::string_view text, const std::string& place) { bench.warmup = parse_count(text, place); }});
  options.push_back({{"save-dir", "DIR", "Bench", "save-stall: where to write; default: the working directory", false, false, false, ""},
                     [&](std::string_view text, const std::string&) { bench.save_dir = text; }});
  options.push_back({{"op", "NAME", "Bench", "kernels: this op alone", false, false, false, ""},
                     [&](std::string_view text, const std::string&) { bench.op = text; }});
  options.push_back({{"json", "FILE", "Bench", "kernels: where the table is written as JSON", false, false, false, ""},
                     [&](std::string_view text, const std::string&) { bench.json = text; }});
  options.push_back({{"compare", "FILE", "Bench", "kernels: what an earlier run wrote by --json", false, false, false, ""},
                     [&](std::string_view text, const std::string&) { bench.compare = text; }});
  options.push_back({{"card", "NAME", "Bench", "floors: a100, h100 or h200", false, false, false, "h200"},
                     [&](std::string_view text, const std::string&) { bench.card = text; }});
  options.push_back({{"micro-steps", "N", "Bench", "floors: micro-steps of the step, each of --batch sequences", false, false, false, "1"},
                     [&](std::string_view text, const std::string& place) { bench.micro_steps = parse_count(text, place); }});
  options.push_back({{"most-bytes", "N", "Bench", "collectives: the largest message", false, false, false, "64M"},
                     [&](std::string_view text, const std::string& place) { bench.most_bytes = parse_count(text, place); }});
  for (const auto& option : RunConfig::options()) {
    const std::string_view group = option.group;
    if (group != "Model" && group != "Optimizer" && group != "Machine" && option.name != "batch" && option.name != "seed") continue;
    options.push_back(
        {option.info(), [&config, &option](std::string_view text, const std::string& place) { config.set(option.name, text, Source::flag, place); }});
  }
  if (!parse_arguments(kHelp, options, args)) return 0;
  constexpr int64_t kMost = 1'000'000;
  if (what.empty()) fail("bench", "say what to measure: train-step, ops, kernels, floors, save-stall or collectives", ExitCode::usage);
  if (bench.repeats < 1 || bench.repeats > kMost) fail("bench", concat("--repeats is from 1 to ", kMost), ExitCode::usage);
  constexpr int64_t kMostBytes = int64_t{1} << 34;
  if (bench.most_bytes < 4096 || bench.most_bytes > kMostBytes) fail("bench", concat("--most-bytes is from 4096 to ", kMostBytes), ExitCode::usage);
  if (bench.micro_steps < 1 || bench.micro_steps > 4096) fail("bench", "--micro-steps is from 1 to 4096", ExitCode::usage);
  if (bench.warmup < 0 || bench.warmup > kMost) fail("bench", concat("--warmup-steps is from 0 to ", kMost), ExitCode::usage);
  if (config.model.empty() && config.depth == 0 && config.layers == 0) config.set("model", "gpt-10m", Source::flag, "bench");
  if (!config.is_set("seq")) config.seq = 256;
  if (!config.is_set("vocab") && config.model.empty()) config.set("vocab", kDefaultVocab, Source::flag, "bench");
  const Launch launch = launch_of_this_process();
  bench.shape = resolve(config, {.ranks = what == "train-step" ? launch.ranks : 1, .vocab = config.vocab});
  if (launch.ranks > 1 && what != "train-step" && what != "save-stall" && what != "collectives") {
    fail("bench",
         concat(what, " is the work of one process, but was started as ", counted(launch.ranks, "rank"), " (", launch.variable,
                "): start it without mpirun or srun"),
         ExitCode::usage);
  }
  const kernels::ForcedKernels forced(config.kernel);
  const VendorKernels vendor(config.gemm, config.gemm == GemmChoice::vendor ? choose_device(config.device) : Device{});
  if (launch.rank == 0) vendor.warn();
  if (what == "train-step") {
    const std::string line = bench_train_step(bench);
    if (launch.rank == 0) std::printf("%s\n", line.c_str());
  } else if (what == "ops") {
    bench_ops(bench);
  } else if (what == "kernels") {
    bench_kernels(bench);
  } else if (what == "floors") {
    bench_floors(bench);
  } else if (what == "collectives") {
    bench_collectives(bench);
  } else if (what == "save-stall") {
    const std::string line = bench_save_stall(bench);
    if (launch.rank == 0) std::printf("%s\n", line.c_str());
  } else {
    fail("bench", concat("\"", what, "\" is not train-step, ops, kernels, floors, save-stall or collectives"), ExitCode::usage);
  }
  return 0;
}

}  // namespace heddle::app
