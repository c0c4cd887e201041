#include "app/tokenize.h"

#include <array>
#include <iostream>

#include "train/threads.h"

namespace heddle::app {
namespace {

using std::string_view;

constexpr auto kSeparators = std::to_array<string_view>({"file", "blank-line"});  // in the order of DocumentSeparator
constexpr auto kFormats = std::to_array<string_view>({"auto", "text", "jsonl"});  // of TextFormat
constexpr auto kPositions = std::to_array<string_view>({"prepend", "append"});    // of EotPosition

constexpr double kFewestShardTokens = 256;  // of a shard of some use: a mistyped 1 would make a file of every token

constexpr CommandHelp kHelp = {
    "tokenize", "--input FILE... --tokenizer bytes|bpe:N|FILE --out DIR [flags]",
    "Turns text into token shards: DIR/{name}_{train,val}_000000.bin (the .bin files of llm.c), tokenizer.json and dataset.json, which records "
    "vocabulary, end-of-text token, and tokens, bytes, documents and SHA-256 of every shard. Input is plain text or JSON lines with a \"text\" "
    "field, also gzip or zstd. [x] is the default.",
    "  heddle tokenize --input a.txt --document-separator blank-line --val-fraction 0.05 --tokenizer bytes --out a\n"
    "  heddle tokenize --input a.txt --document-separator blank-line --tokenizer bpe:4096 --out a-bpe\n"
    "  heddle tokenize --input web-*.jsonl.zst --tokenizer gpt2/tokenizer.json --val-fraction 0.001 --out data/web\n"
    "  heddle tokenize --input books/ --tokenizer bytes --out data/books"};

std::vector<Option<PrepareOptions>> make_table() {
  using P = PrepareOptions;
  std::vector<Option<P>> rows;
  string_view group = "Input";
  const auto add = [&](string_view name, Option<P>::Member field, string_view value, string_view help) -> Option<P>& {
    return rows.emplace_back(make_option<P>(name, field, group, value, help));
  };
  add("input", &P::inputs, "FILE...", "text files, folders of them, quoted patterns; in this order").optional();
  add("format", choice<&P::format>(kFormats), "auto|text|jsonl", "auto: .jsonl and .ndjson are JSON lines, all else is text; text: whatever it is");
  add("document-separator", choice<&P::separator>(kSeparators), "file|blank-line", "what ends a document of plain text");
  add("val-fraction", &P::val_fraction, "X", "hold out this part of the documents, evenly spread: every 20th at 0.05").between(0, 1);
  group = "Tokens";
  add("tokenizer", &P::tokenizer, "bytes|bpe:N|FILE", "bytes; a BPE of N tokens trained on the training documents; or a tokenizer.json").optional();
  add("eot-position", choice<&P::eot_position>(kPositions), "prepend|append", "where the end-of-text token of a document stands");
  group = "Output";
  add("out", &P::out, "DIR", "where to write; an earlier data set of heddle there is replaced; no input may be one of its files").optional();
  add("name", &P::name, "NAME", "of the shard files; default: the first input's name").optional();
  add("shard-tokens", &P::shard_tokens, "N", "tokens a shard holds at most").between(kFewestShardTokens, 0x7FFFFFFF);
  group = "Machine";
  add("threads", &P::threads, "N", "CPU threads").optional().between(0, 4096);
  return rows;
}

}  // namespace

bool parse_tokenize(Args args, PrepareOptions& options) {
  static const std::vector<Option<PrepareOptions>> table = make_table();
  return parse_arguments(kHelp, bind_options(std::span<const Option<PrepareOptions>>(table), options), args);
}

int run_tokenize(const PrepareOptions& options, std::ostream& out) {
  use_threads(options.threads);
  const PrepareReport report = prepare(options);
  for (const std::string& warning : report.warnings) std::cerr << "heddle: warning: " << warning << "\n";
  print_report(report, options, out);
  return 0;
}

int tokenize_command(Args args) {
  PrepareOptions options;
  return parse_tokenize(args, options) ? run_tokenize(options, std::cout) : 0;
}

}  // namespace heddle::app
