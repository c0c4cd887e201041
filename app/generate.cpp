#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "app/command.h"
#include "app/model_commands.h"
#include "data/file.h"
#include "infer/generate.h"
#include "infer/load.h"
#include "kernels/api/check.h"
#include "kernels/api/printable.h"
#include "train/config/shape.h"
#include "train/threads.h"
#include "train/vendor_kernels.h"

namespace heddle::app {
namespace {

constexpr CommandHelp kHelp = {"generate", "RUN|DIR [--prompt TEXT | --prompt-ids 1,2,... | --prompts FILE] [flags]",
                               "Continues a prompt, or begins a document, with a trained model. [x] is the default.",
                               "  heddle generate run --prompt 'In the beginning' --max-new-tokens 64 --greedy\n"
                               "  heddle generate run --prompt 'In the beginning' --temperature 0.8 --top-k 50 --seed 7\n"
                               "  heddle generate run --prompts questions.txt --batch 16 --json\n"
                               "  heddle generate run --prompt-ids 50256,818 --print-ids --logprobs"};

std::vector<std::string> lines_of(const std::string& path) {
  constexpr size_t kMost = size_t{1} << 30;  // all of it is in memory, and each line's tokens
  const std::string all = read_small_file(path, kMost);
  std::vector<std::string> lines;
  for (size_t begin = 0; begin < all.size();) {
    const size_t end = std::min(all.find('\n', begin), all.size());
    lines.push_back(all.substr(begin, end - begin));
    if (!lines.back().empty() && lines.back().back() == '\r') lines.back().pop_back();
    begin = end + 1;
  }
  if (lines.empty()) fail("generate", concat("--prompts: ", path, " has no line"), ExitCode::bad_data);
  return lines;
}

// What is continued.
struct Prompt {
  std::string text;          // as it was given; empty: by ids, or a document begins
  std::vector<int32_t> ids;  // with the token that a document begins with
};

std::vector<Prompt> prompts_of(const GenerateOptions& options, const Tokenizer* tokenizer, int64_t vocab) {
  std::vector<Prompt> prompts;
  if (options.prompt.empty() && options.prompts.empty()) {
    prompts.push_back({.text = {}, .ids = options.prompt_tokens()});
  } else {
    if (!tokenizer) {
      fail("generate", concat(options.path, " has no tokenizer.json: give --prompt-ids, or put the tokenizer into the run directory"),
           ExitCode::usage);
    }
    for (const std::string& text : options.prompts.empty() ? std::vector{options.prompt} : lines_of(options.prompts))
      prompts.push_back({.text = text, .ids = tokenizer->encode_with_special(text)});
  }
  for (auto& [text, ids] : prompts) {
    if (tokenizer && (ids.empty() || ids[0] != tokenizer->eot())) ids.insert(ids.begin(), tokenizer->eot());  // documents begin with it
    for (const int32_t id : ids) {
      if (id < vocab) continue;
      fail("generate",
           concat("--prompt-ids: the ", tokenizer ? "tokenizer" : "model", " has no token ", id, ", but ", counted(vocab, "token"), ", 0 to ",
                  vocab - 1),
           ExitCode::usage);
    }
    if (ids.empty()) fail("generate", concat(options.path, " has no tokenizer.json to begin a document with: give --prompt-ids"), ExitCode::usage);
  }
  return prompts;
}

// Prints texts in the order of their prompts: the only one piece by piece, of several each when it and those before it have ended.
class Printer {
 public:
  Printer(const GenerateOptions& options, const Tokenizer* tokenizer, const std::vector<Prompt>& prompts)
      : options_(options), tokenizer_(tokenizer), prompts_(prompts), texts_(prompts.size() * static_cast<size_t>(options.samples)) {
    if (texts_.size() == 1) begin(0);
  }

  void add(size_t text, int32_t token, const Tensor& logits) {
    Text& of = texts_[text];
    of.ids.push_back(token);
    if (options_.logprobs) of.log_probabilities.push_back(log_probability(logits.to_vector(), token));
    if (texts_.size() > 1 || options_.json) return;
    piece(of, of.ids.size() - 1);
    std::fflush(stdout);
  }
  void end(size_t text) {
    texts_[text].ended = true;
    for (; printed_ < texts_.size() && texts_[printed_].ended; ++printed_) {
      if (options_.json) {
        print_json(printed_);
        continue;
      }
      Text& of = texts_[printed_];
      if (texts_.size() > 1) {
        begin(printed_);
        for (size_t i = 0; i < of.ids.size(); ++i) piece(of, i);
      }
      if (!options_.logprobs) std::puts("");
      of = {.ended = true};
    }
    std::fflush(stdout);
  }

 private:
  struct Text {
    std::vector<int32_t> ids;
    std::vector<double> log_probabilities;
    bool ended = false;
  };

  const Prompt& prompt_of(size_t text) const { return prompts_[text / static_cast<size_t>(options_.samples)]; }
  void begin(size_t text) const {
    if (options_.print_ids || options_.logprobs || options_.json) return;
    if (texts_.size() > 1) std::printf("== %zu of %zu ==\n", text + 1, texts_.size());
    std::fputs(prompt_of(text).text.c_str(), stdout);
  }
  void piece(const Text& of, size_t i) const {
    const int32_t token = of.ids[i];
    if (options_.logprobs) {
      std::printf("%d\t%.6f\t%s\n", token, of.log_probabilities[i], tokenizer_ ? quote_text(tokenizer_->text_of(token)).c_str() : "");
    } else if (options_.print_ids) {
      std::printf("%s%d", i == 0 ? "" : ",", token);
    } else if (token != tokenizer_->eot()) {
      const std::string_view bytes = tokenizer_->bytes_of(token);
      std::fwrite(bytes.data(), 1, bytes.size(), stdout);
    }
  }
  void print_json(size_t text) const {
    const Text& of = texts_[text];
    nlohmann::ordered_json line;
    line["text"] = text;
    line["seed"] = options_.seed + static_cast<int64_t>(text);
    if (tokenizer_) {
      std::string continuation;
      for (const int32_t id : of.ids) {
        if (id != tokenizer_->eot()) continuation += tokenizer_->bytes_of(id);
      }
      line["prompt"] = prompt_of(text).text;
      line["continuation"] = continuation;
    }
    line["prompt_ids"] = prompt_of(text).ids;
    line["ids"] = of.ids;
    if (options_.logprobs) line["logprobs"] = of.log_probabilities;
    // A token may be a part of a character: what is no UTF-8 is shown as U+FFFD, as it is in the text of other tools.
    std::puts(line.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace).c_str());
  }

  const GenerateOptions& options_;
  const Tokenizer* tokenizer_;
  const std::vector<Prompt>& prompts_;
  std::vector<Text> texts_;
  size_t printed_ = 0;
};

}  // namespace

int generate(const GenerateOptions& options) {
  options.validate();
  use_threads(options.threads);
  const Device device = choose_device(options.device);
  const VendorKernels vendor(options.gemm, device);
  vendor.warn();
  const TrainedModel trained = load_trained_model(options.path, device, compute_dtype(PrecisionChoice::automatic, device));
  const Tokenizer* tokenizer = trained.tokenizer ? &*trained.tokenizer : nullptr;
  // The model's vocabulary may be padded beyond the tokenizer's: what lies there was never trained and means nothing.
  const int64_t vocab = tokenizer ? tokenizer->vocab_size() : trained.model->config().vocab;
  const std::vector<Prompt> prompts = prompts_of(options, tokenizer, vocab);
  if (!options.print_ids && !options.logprobs && !options.json && !tokenizer) {
    fail("generate", concat(options.path, " has no tokenizer.json to print text with: use --print-ids"), ExitCode::usage);
  }
  std::vector<std::vector<int32_t>> texts;
  for (const Prompt& prompt : prompts) texts.insert(texts.end(), static_cast<size_t>(options.samples), prompt.ids);
  GenerationOptions generation;
  generation.sampling = {.greedy = options.greedy,
                         .temperature = options.temperature,
                         .top_k = options.top_k,
                         .top_p = options.top_p,
                         .seed = static_cast<uint64_t>(options.seed),
                         .vocab = tokenizer ? tokenizer->vocab_size() : 0};
  generation.batch = options.batch;
  generation.graphs = options.graphs == GraphsChoice::automatic;
  generation.tell = [](const std::string& line) { std::fprintf(stderr, "heddle: %s\n", line.c_str()); };
  Printer printer(options, tokenizer, prompts);
  std::vector<int64_t> made(texts.size());
  generate_texts(*trained.model, texts, options.max_new_tokens, generation, [&](size_t text, int32_t token, const Tensor& logits) {
    printer.add(text, token, logits);
    const bool ended = (tokenizer && token == tokenizer->eot()) || ++made[text] == options.max_new_tokens;
    if (ended) printer.end(text);
    return !ended;
  });
  if (options.max_new_tokens == 0) {
    for (size_t text = 0; text < texts.size(); ++text) printer.end(text);
  }
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
