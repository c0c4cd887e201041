#include <cmath>
#include <cstdio>
#include <string>

#include "app/command.h"
#include "app/model_commands.h"
#include "infer/evaluator.h"
#include "infer/identity.h"
#include "infer/load.h"
#include "kernels/api/check.h"
#include "kernels/api/printable.h"
#include "train/config/shape.h"
#include "train/memory_plan.h"
#include "train/threads.h"
#include "train/vendor_kernels.h"

namespace heddle::app {
namespace {

constexpr CommandHelp kHelp = {"eval", "RUN|DIR --data GLOB... [flags]",
                               "Loss, perplexity and bits per byte of a trained model on token shards. [x] is the default.",
                               "  heddle eval run --data 'shards/val_*.bin'\n"
                               "  heddle eval run --data 'shards/val_*.bin' --tokens 1M --json"};

}  // namespace

int evaluate(const EvalOptions& options) {
  options.validate();
  use_threads(options.threads);
  const Device device = choose_device(options.device);
  const VendorKernels vendor(options.gemm, device);
  TrainedModel trained = load_trained_model(options.path, device, compute_dtype(options.precision, device));
  const std::unique_ptr<Control> comm = world_control();
  WindowOptions windows;
  windows.shards = options.data;
  windows.seq = trained.model->config().seq;
  windows.stride = options.stride > 0 ? options.stride : std::max<int64_t>(1, trained.model->config().seq / 2);
  windows.pack = trained.document_mask;
  windows.vocab = trained.model->config().vocab;  // a token the model does not know is an error that names file and offset
  if (!options.tokenizer.empty()) {
    Tokenizer named = Tokenizer::load(options.tokenizer);
    const TokenizerIdentity identity = identity_of(named, options.tokenizer);
    if (trained.identity) require_same_tokenizer(identity, *trained.identity);
    if (!trained.identity) trained.identity = identity;
    if (!trained.tokenizer) trained.tokenizer = std::move(named);
  }
  windows.tokenizer = trained.identity;
  if (trained.tokenizer) windows.eot = trained.tokenizer->eot();
  Evaluator evaluator(windows, options.batch, options.tokens, trained.tokenizer ? &*trained.tokenizer : nullptr, device, *comm);
  if (options.graphs == GraphsChoice::automatic)
    evaluator.record_batches([](const std::string& line) { std::fprintf(stderr, "heddle: %s\n", line.c_str()); });
  require_batch_memory("eval", trained.model->config(), evaluator.batch(), trained.model->config().seq, trained.arena->values().dtype(), device);
  const EvalResult result = *evaluator.run(*trained.model);
  if (!std::isfinite(result.loss())) {
    fail("eval",
         concat("the loss of ", options.path, " (step ", trained.step, ") is ", result.loss(), ": its training diverged; use an earlier checkpoint"));
  }
  if (comm->rank() != 0) return 0;
  vendor.warn();
  if (options.tokenizer.empty() && !evaluator.unidentified().empty()) {
    std::fprintf(stderr, "heddle: warning: %s\n",
                 unidentified_text(evaluator.unidentified(), trained.identity ? trained.identity->name : "").c_str());
  }
  if (!trained.tokenizer)
    std::fprintf(stderr, "heddle: %s has no tokenizer.json: bits per byte and per word are not measured\n", printable(options.path).c_str());
  const auto number = [](double value, const char* format) {
    char text[64];
    std::snprintf(text, sizeof text, format, value);
    return std::string(text);
  };
  const auto or_null = [&](double value, const char* format) { return std::isnan(value) ? std::string("null") : number(value, format); };
  if (options.json) {
    std::printf("{\"step\": %llu, \"tokens\": %llu, \"bytes\": %llu, \"words\": %llu, \"loss\": %.6f, \"perplexity\": %.4f, ",
                static_cast<unsigned long long>(trained.step), static_cast<unsigned long long>(result.tokens),
                static_cast<unsigned long long>(result.bytes), static_cast<unsigned long long>(result.words), result.loss(), std::exp(result.loss()));
    std::printf("\"bits_per_byte\": %s, \"bits_per_word\": %s, \"window\": %lld, \"stride\": %lld}\n",
                or_null(result.bits_per_byte(), "%.5f").c_str(), or_null(result.bits_per_word(), "%.4f").c_str(), static_cast<long long>(windows.seq),
                static_cast<long long>(windows.stride));
    return 0;
  }
  std::printf("step %llu | %s", static_cast<unsigned long long>(trained.step), counted(result.tokens, "token").c_str());
  if (result.bytes) std::printf(", %s, %s", counted(result.bytes, "byte").c_str(), counted(result.words, "word").c_str());
  std::printf(" | loss %.4f | perplexity %.3f", result.loss(), std::exp(result.loss()));
  if (result.bytes) std::printf(" | bits per byte %.4f | bits per word %.3f", result.bits_per_byte(), result.bits_per_word());
  std::printf(" | window %lld, stride %lld\n", static_cast<long long>(windows.seq), static_cast<long long>(windows.stride));
  return 0;
}

bool parse_eval(Args args, EvalOptions& options) {
  if (!parse_arguments(kHelp, bind_options(EvalOptions::options(), options), args)) return false;
  options.validate();
  return true;
}

int eval_command(Args args) {
  EvalOptions options;
  return parse_eval(args, options) ? evaluate(options) : 0;
}

}  // namespace heddle::app
