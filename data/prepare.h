// From text files to a data set: what `heddle tokenize` does.
#pragma once

#include <cstdint>
#include <iosfwd>
#include <string>
#include <vector>

#include "data/dataset.h"
#include "data/text_source.h"

namespace heddle {

struct PrepareOptions {
  std::vector<std::string> inputs;  // files, folders, shell patterns: text_files()
  std::string tokenizer;            // "bytes", "bpe:N" (trained on the training documents, N tokens in all), or a tokenizer.json or folder of one
  std::string out;                  // directory, made when missing
  std::string name;                 // of the shards: {name}_{train|val}_{000000}.bin; empty: the first input's name without its extensions
  double val_fraction = 0;          // in [0, 1): document i is held out iff floor((i + 1) x) > floor(i x), in double
  DocumentSeparator separator = DocumentSeparator::file;
  TextFormat format = TextFormat::automatic;
  int64_t shard_tokens = 100'000'000;
  EotPosition eot_position = EotPosition::prepend;
  int64_t threads = 0;  // 0: as many as OpenMP has
};

struct PrepareReport {
  struct Split {
    int64_t documents = 0, bytes = 0, tokens = 0, shards = 0;  // tokens with end-of-text
  };
  Split train, val;
  DatasetInfo info;
  std::vector<std::string> warnings;  // TextSource's
  double seconds = 0;
};

// Whether document i is held out.
bool is_held_out(uint64_t i, double val_fraction);

// Reads the documents (twice when a BPE is trained), writes shards, tokenizer.json and dataset.json. Every document is its tokens and one
// end-of-text. A document that does not fit into what is left of a shard begins the next one; only a document longer than a whole shard is
// cut. The files depend on the options and the text, not on the threads. A data set that heddle wrote into `out` before is replaced when the new
// one is whole, else it stands as it was; files that heddle did not write are never touched: a shard of the same name that no dataset.json records,
// or another tokenizer.json, is Error(usage), and so is an input folder that is `out` and an input file that the new set would replace. Two runs at
// once: the second gets Error(in_use).
PrepareReport prepare(const PrepareOptions& options);

// Lines of what was written: documents, bytes, tokens, bytes a token of each split, then the files.
void print_report(const PrepareReport& report, const PrepareOptions& options, std::ostream& out);

// 1234567 as people read it: "1,234,567".
std::string grouped(int64_t value);

}  // namespace heddle
