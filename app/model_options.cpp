// Option tables of the commands that use a trained model.
#include <algorithm>
#include <array>

#include "app/model_commands.h"
#include "kernels/api/check.h"
#include "train/config/values.h"

namespace heddle::app {
namespace {

using std::string_view;
constexpr auto kDevice = std::to_array<string_view>({"auto", "cpu", "cuda"});
constexpr auto kGraphs = std::to_array<string_view>({"auto", "off"});
constexpr auto kGemm = std::to_array<string_view>({"auto", "heddle", "vendor"});
constexpr string_view kGemmHelp = "matrix products on cuda; vendor: cuBLASLt's where it has them; auto: heddle's";
constexpr auto kPrecision = std::to_array<string_view>({"auto", "bf16", "fp32"});

template <class T>
class Table {
 public:
  string_view group;
  std::vector<Option<T>> rows;

  Option<T>& add(string_view name, typename Option<T>::Member field, string_view value, string_view help) {
    return rows.emplace_back(make_option<T>(name, field, group, value, help));
  }
};

Table<GenerateOptions> make_generate_table() {
  using G = GenerateOptions;
  Table<G> t;
  t.group = "Arguments";
  t.add("PATH", &G::path, "", "run directory or one of its checkpoints").optional().argument();
  t.group = "Prompt";
  t.add("prompt", &G::prompt, "TEXT", "text to continue; without a prompt a document begins").optional();
  t.add("prompt-ids", &G::prompt_ids, "1,2,...", "token ids to continue").optional();
  t.add("prompts", &G::prompts, "FILE", "texts to continue together, one a line; text i is drawn with seed + i").optional();
  t.add("samples", &G::samples, "N", "texts for each prompt, each drawn with a seed of its own").between(1, 1 << 20);
  t.group = "Sampling";
  t.add("max-new-tokens", &G::max_new_tokens, "N", "stop after this many, or at the end-of-text token").between(0, 1 << 24);
  t.add("greedy", &G::greedy, "", "take the most likely token each time");
  t.add("temperature", &G::temperature, "X", "divides the logits; below 1 is safer, above 1 wilder").between(0, 1e3);
  t.add("top-k", &G::top_k, "N", "sample among the N most likely tokens; 0: all").between(0, 1 << 24);
  t.add("top-p", &G::top_p, "X", "sample among the most likely tokens that sum to X").between(0, 1);
  t.add("seed", &G::seed, "N", "seed of sampling");
  t.group = "Output";
  t.add("print-ids", &G::print_ids, "", "print token ids instead of text");
  t.add("logprobs", &G::logprobs, "", "print a line for each new token: its id, log-probability and quoted text");
  t.add("json", &G::json, "", "print a JSON object a text: its prompt, what came after it, ids and, if asked for, logprobs");
  t.group = "Machine";
  t.add("device", choice<&G::device>(kDevice), "auto|cpu|cuda", "where to run");
  t.add("batch", &G::batch, "N", "texts at a time, at most; each takes a KV cache of the model's whole context").between(1, 1 << 16);
  t.add("graphs", choice<&G::graphs>(kGraphs), "auto|off", "auto: on cuda, a token's step is recorded once and launched as a graph");
  t.add("gemm", choice<&G::gemm>(kGemm), "auto|heddle|vendor", kGemmHelp);
  t.add("threads", &G::threads, "N", "CPU threads").optional().between(0, 4096);
  return t;
}

Table<EvalOptions> make_eval_table() {
  using E = EvalOptions;
  Table<E> t;
  t.group = "Arguments";
  t.add("PATH", &E::path, "", "run directory or one of its checkpoints").optional().argument();
  t.group = "Data";
  t.add("data", &E::data, "GLOB...", "token shards").optional();
  t.add("tokens", &E::tokens, "N", "score the first this many, or all when there are fewer; default: all").optional();
  t.add("tokenizer", &E::tokenizer, "FILE", "tokenizer.json of shards that no dataset.json records").optional();
  t.add("stride", &E::stride, "N", "tokens each window scores, the rest of it being context; default: half the sequence length").optional();
  t.add("batch", &E::batch, "N", "sequences at a time, at most").between(1, 1 << 16);
  t.group = "Output";
  t.add("json", &E::json, "", "print one JSON object");
  t.group = "Machine";
  t.add("device", choice<&E::device>(kDevice), "auto|cpu|cuda", "where to run");
  t.add("gemm", choice<&E::gemm>(kGemm), "auto|heddle|vendor", kGemmHelp);
  t.add("precision", choice<&E::precision>(kPrecision), "auto|bf16|fp32", "of weights and activations");
  t.add("graphs", choice<&E::graphs>(kGraphs), "auto|off", "auto: on cuda, a batch's work is recorded once and launched as a graph");
  t.add("threads", &E::threads, "N", "CPU threads").optional().between(0, 4096);
  return t;
}

[[noreturn]] void refuse(string_view op, const std::string& text) {
  fail_usage(op, text);
}

}  // namespace

std::span<const Option<GenerateOptions>> GenerateOptions::options() {
  static const Table<GenerateOptions> table = make_generate_table();
  return table.rows;
}

void GenerateOptions::validate() const {
  if (path.empty()) refuse("generate", "no model: give a run directory, as in heddle generate run --prompt TEXT");
  if (!prompt.empty() && !prompt_ids.empty()) refuse("generate", "give either --prompt TEXT or --prompt-ids 1,2,..., or neither to begin a document");
  if (!prompts.empty() && (!prompt.empty() || !prompt_ids.empty())) {
    refuse("generate", "--prompts FILE has the prompts: it goes with neither --prompt nor --prompt-ids");
  }
  if (greedy && samples > 1) refuse("generate", "--greedy gives the same text each time: it goes without --samples");
  if (json && print_ids) refuse("generate", "--json has the ids: give it without --print-ids");
  if (logprobs && !json && (samples > 1 || !prompts.empty())) refuse("generate", "--logprobs of several texts goes with --json");
  if (greedy && (temperature != 1 || top_k != 0 || top_p != 1)) {
    refuse("generate", "--greedy takes the most likely token: it goes with none of --temperature, --top-k, --top-p");
  }
  if (temperature == 0) refuse("generate", "--temperature 0 divides by zero: say --greedy");
  if (top_p == 0) refuse("generate", "--top-p 0 leaves no token: say --greedy, or a value above 0");
  prompt_tokens();
}

std::vector<int32_t> GenerateOptions::prompt_tokens() const {
  std::vector<int32_t> ids;
  for (const std::string& list : prompt_ids) {
    size_t begin = 0;
    while (begin <= list.size()) {
      const size_t comma = std::min(list.find(',', begin), list.size());
      const int64_t id = parse_count(std::string_view(list).substr(begin, comma - begin), "--prompt-ids");
      if (id > INT32_MAX) refuse("generate", concat("--prompt-ids: ", id, " is no token id"));
      ids.push_back(static_cast<int32_t>(id));
      begin = comma + 1;
    }
  }
  return ids;
}

std::span<const Option<EvalOptions>> EvalOptions::options() {
  static const Table<EvalOptions> table = make_eval_table();
  return table.rows;
}

void EvalOptions::validate() const {
  if (path.empty()) refuse("eval", "no model: give a run directory, as in heddle eval run --data 'shards/val_*.bin'");
  if (data.empty()) refuse("eval", "no data: give --data GLOB (shards made by heddle tokenize)");
}

}  // namespace heddle::app
