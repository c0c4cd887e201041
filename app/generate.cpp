#include <cstdio>
#include <string>
#include <string_view>
#include <vector>

#include "app/command.h"
#include "app/model_commands.h"
#include "infer/load.h"
#include "infer/sampling.h"
#include "kernels/api/check.h"
#include "kernels/api/printable.h"
#include "train/config/shape.h"
#include "train/threads.h"

namespace heddle::app {
namespace {

constexpr CommandHelp kHelp = {"generate", "RUN|DIR [--prompt TEXT | --prompt-ids 1,2,...] [flags]",
                               "Continues a prompt, or begins a document, with a trained model. [x] is the default.",
                               "  heddle generate run --prompt 'In the beginning' --max-new-tokens 64 --greedy\n"
                               "  heddle generate run --prompt 'In the beginning' --temperature 0.8 --top-k 50 --seed 7\n"
                               "  heddle generate run --prompt-ids 50256,818 --print-ids --logprobs"};

}  // namespace

int generate(const GenerateOptions& options) {
  options.validate();
  use_threads(options.threads);
  const Device device = choose_device(options.device);
  const TrainedModel trained = load_trained_model(options.path, device, compute_dtype(PrecisionChoice::automatic, device));
  const Tokenizer* tokenizer = trained.tokenizer ? &*trained.tokenizer : nullptr;
  std::vector<int32_t> prompt = options.prompt_tokens();
  if (!options.prompt.empty()) {
    if (!tokenizer) {
      fail("generate", concat(options.path, " has no tokenizer.json: give --prompt-ids, or put the tokenizer into the run directory"),
           ExitCode::usage);
    }
    prompt = tokenizer->encode_with_special(options.prompt);
  }
  if (tokenizer && (prompt.empty() || prompt[0] != tokenizer->eot())) prompt.insert(prompt.begin(), tokenizer->eot());  // documents begin with it
  // The model's vocabulary may be padded beyond the tokenizer's: what lies there was never trained and means nothing.
  const int64_t vocab = tokenizer ? tokenizer->vocab_size() : trained.model->config().vocab;
  for (int32_t id : prompt) {
    if (id < vocab) continue;
    fail("generate",
         concat("--prompt-ids: the ", tokenizer ? "tokenizer" : "model", " has no token ", id, ", but ", counted(vocab, "token"), ", 0 to ",
                vocab - 1),
         ExitCode::usage);
  }
  if (prompt.empty()) fail("generate", concat(options.path, " has no tokenizer.json to begin a document with: give --prompt-ids"), ExitCode::usage);
  if (!options.print_ids && !options.logprobs && !tokenizer) {
    fail("generate", concat(options.path, " has no tokenizer.json to print text with: use --print-ids"), ExitCode::usage);
  }
  if (!options.print_ids && !options.logprobs) std::fputs(options.prompt.c_str(), stdout);
  bool first = true;
  const SamplingOptions sampling{.greedy = options.greedy,
                                 .temperature = options.temperature,
                                 .top_k = options.top_k,
                                 .top_p = options.top_p,
                                 .seed = static_cast<uint64_t>(options.seed),
                                 .vocab = tokenizer ? tokenizer->vocab_size() : 0};
  generate_tokens(*trained.model, prompt, options.max_new_tokens, sampling, [&](int32_t token, const Tensor& logits) {
    if (options.logprobs) {
      std::printf("%d\t%.6f\t%s\n", token, log_probability(logits.to_vector(), token),
                  tokenizer ? quote_text(tokenizer->text_of(token)).c_str() : "");
    } else if (options.print_ids) {
      std::printf("%s%d", first ? "" : ",", token);
    } else if (tokenizer && token != tokenizer->eot()) {
      const std::string_view piece = tokenizer->bytes_of(token);
      std::fwrite(piece.data(), 1, piece.size(), stdout);
      std::fflush(stdout);
    }
    first = false;
    return !(tokenizer && token == tokenizer->eot());
  });
  if (!options.logprobs) std::puts("");
  return 0;
}

bool parse_generate(Args args, GenerateOptions& options) {
  if (!parse_arguments(kHelp, bind_options(GenerateOptions::options(), options), args)) return false;
  options.validate();
  return true;
}

int generate_command(Args args) {
  GenerateOptions options;
  return parse_generate(args, options) ? generate(options) : 0;
}

}  // namespace heddle::app
