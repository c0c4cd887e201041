#include "data/prepare.h"

#include <omp.h>

#include <algorithm>
#include <cctype>
#include <charconv>
#include <chrono>
#include <cmath>
#include <exception>
#include <filesystem>
#include <iomanip>
#include <memory>
#include <ostream>

#include "data/bpe_trainer.h"
#include "data/file.h"
#include "data/output_folder.h"
#include "data/shard.h"
#include "data/tokenizer.h"
#include "kernels/api/check.h"
#include "kernels/api/printable.h"

namespace heddle {
namespace {

namespace fs = std::filesystem;

constexpr size_t kMostShards = 100'000;                                  // of a split: each is a file to open at every start
constexpr size_t kBatchBytes = size_t{8} << 20, kBatchDocuments = 4096;  // of text encoded at once

[[noreturn]] void refuse(const std::string& text) {
  fail("tokenize", text, ExitCode::usage);
}

// "kjv.txt.gz" -> "kjv", the folder "texts/" -> "texts", a pattern: the first file that it matches; what a shard name may not hold becomes '_'.
std::string default_name(const std::string& input, const std::string& first_file) {
  std::error_code unknown;
  std::string name =
      fs::is_directory(input, unknown) ? fs::path(fs::absolute(input, unknown) / "").parent_path().filename().string() : base_name(first_file);
  name = name.substr(0, name.find('.', 1));
  for (char& c : name) {
    if (!std::isalnum(static_cast<unsigned char>(c)) && c != '-' && c != '_') c = '_';
  }
  return name.empty() ? "text" : name;
}

void check(const PrepareOptions& options, const std::string& name) {
  if (options.inputs.empty()) refuse("no text: give --input FILE...");
  if (options.out.empty()) refuse("nowhere to write: give --out DIR");
  if (!(options.val_fraction >= 0 && options.val_fraction < 1)) refuse(concat("--val-fraction ", options.val_fraction, " is not in [0, 1)"));
  if (options.shard_tokens < 1 || options.shard_tokens > kShardMaxTokens) {
    refuse(concat("--shard-tokens ", options.shard_tokens, " is not in [1, 2^31)"));
  }
  if (options.threads < 0 || options.threads > 4096) refuse(concat("--threads ", options.threads, " is not in [0, 4096]"));
  const bool plain = std::all_of(name.begin(), name.end(), [](unsigned char c) { return std::isalnum(c) || c == '-' || c == '_'; });
  if (!plain || name.size() > 200) refuse(concat("--name '", name, "' is not made of letters, digits, '-' and '_'"));
}

// The N of "bpe:N", or 0 for another tokenizer.
int64_t bpe_vocab(const std::string& tokenizer) {
  if (tokenizer.rfind("bpe:", 0) != 0) return 0;
  const char* begin = tokenizer.data() + 4;
  const char* end = tokenizer.data() + tokenizer.size();
  int64_t vocab = 0;
  auto [at, error] = std::from_chars(begin, end, vocab);
  if (error == std::errc() && at + 1 == end && (*at == 'k' || *at == 'K') && vocab < (1 << 20)) {
    vocab *= 1024;
    ++at;
  }
  if (error != std::errc() || at != end || vocab < 257 || vocab > 1 << 24) {
    refuse(concat("--tokenizer '", tokenizer, "': N of bpe:N must be a whole number from 257 (256 bytes and end-of-text) to 2^24"));
  }
  return vocab;
}

Tokenizer make_tokenizer(const PrepareOptions& options, TextSource& source) {
  if (options.tokenizer == "bytes") return Tokenizer::bytes();
  if (const int64_t vocab = bpe_vocab(options.tokenizer)) {
    BpeTrainer trainer;
    Document document;
    for (uint64_t i = 0; source.next(document); ++i) {
      if (!is_held_out(i, options.val_fraction)) trainer.add(document.text);
    }
    source.rewind();
    return trainer.train(vocab);
  }
  if (options.tokenizer.empty()) refuse("no tokenizer: give --tokenizer bytes, bpe:N or a tokenizer.json");
  std::error_code none;
  if (!fs::exists(options.tokenizer, none))
    refuse(concat("--tokenizer '", options.tokenizer, "' is neither bytes nor bpe:N, and no such file exists"));
  return Tokenizer::load(options.tokenizer);
}

// Shards of one split.
class SplitWriter {
 public:
  SplitWriter(const PrepareOptions& options, const Tokenizer& tokenizer, std::string folder, std::string name, std::string split)
      : limit_(options.shard_tokens), tokenizer_(tokenizer), folder_(std::move(folder)), name_(std::move(name)), split_(std::move(split)) {}

  void add(std::span<const int32_t> document, int64_t bytes) {
    const int64_t size = static_cast<int64_t>(document.size());
    if (writer_ && size > limit_ - writer_->tokens()) finish();
    if (size <= limit_) return append(document, bytes, 1);
    for (int64_t at = 0; at < size; at += limit_) {
      const auto part = document.subspan(static_cast<size_t>(at), static_cast<size_t>(std::min(limit_, size - at)));
      int64_t part_bytes = 0;
      for (const int32_t token : part) part_bytes += static_cast<int64_t>(tokenizer_.bytes_of(token).size());
      if (writer_) finish();
      append(part, part_bytes, at == 0 ? 1 : 0);
    }
  }
  void finish() {
    if (!writer_) return;
    current_.tokens = writer_->tokens();
    current_.sha256 = writer_->finish();
    total.tokens += current_.tokens;
    total.bytes += current_.bytes;
    total.documents += current_.documents;
    ++total.shards;
    shards.push_back(current_);
    writer_.reset();
  }

  PrepareReport::Split total;
  std::vector<DatasetInfo::Shard> shards;

 private:
  void append(std::span<const int32_t> tokens, int64_t bytes, int64_t documents) {
    if (!writer_) {
      if (shards.size() == kMostShards) {
        refuse(concat("more than ", kMostShards, " shards of ", limit_, " tokens: raise --shard-tokens"));
      }
      current_ = {};
      current_.split = split_;
      current_.file = shard_name(name_, split_, shards.size());
      writer_ = std::make_unique<ShardWriter>(folder_ + "/" + current_.file, tokenizer_.vocab_size());
    }
    writer_->append(tokens);
    current_.bytes += bytes;
    current_.documents += documents;
  }

  int64_t limit_;
  const Tokenizer& tokenizer_;
  std::string folder_, name_, split_;
  std::unique_ptr<ShardWriter> writer_;
  DatasetInfo::Shard current_;
};

// Encodes documents, each on one thread, end-of-text included.
class ParallelEncoder {
 public:
  ParallelEncoder(const Tokenizer& tokenizer, const PrepareOptions& options)
      : tokenizer_(tokenizer),
        prepend_(options.eot_position == EotPosition::prepend),
        threads_(options.threads ? static_cast<int>(options.threads) : omp_get_max_threads()) {
    for (int i = 0; i < threads_; ++i) encoders_.emplace_back(tokenizer);
  }
  void encode(const std::vector<Document>& documents, std::vector<std::vector<int32_t>>& tokens) {
    tokens.resize(documents.size());
    std::exception_ptr error;
#pragma omp parallel for schedule(dynamic) num_threads(threads_)
    for (size_t i = 0; i < documents.size(); ++i) {
      try {
        std::vector<int32_t>& ids = tokens[i];
        ids.clear();
        if (prepend_) ids.push_back(tokenizer_.eot());
        encoders_[static_cast<size_t>(omp_get_thread_num())].encode(documents[i].text, ids);
        if (!prepend_) ids.push_back(tokenizer_.eot());
      } catch (...) {
#pragma omp critical(heddle_prepare_error)
        error = std::current_exception();
      }
    }
    if (error) std::rethrow_exception(error);
  }

 private:
  const Tokenizer& tokenizer_;
  bool prepend_;
  int threads_;
  std::vector<Encoder> encoders_;
};

PrepareReport write_dataset(const PrepareOptions& options, const std::string& name, TextSource& source) {
  OutputFolder out(options.out, name);
  const Tokenizer tokenizer = make_tokenizer(options, source);
  out.check_tokenizer(tokenizer);
  SplitWriter train(options, tokenizer, out.work(), name, "train"), val(options, tokenizer, out.work(), name, "val");
  ParallelEncoder encoder(tokenizer, options);

  std::vector<Document> documents;
  std::vector<std::vector<int32_t>> tokens;
  uint64_t done = 0;
  for (bool more = true; more;) {
    documents.clear();
    for (size_t bytes = 0; bytes < kBatchBytes && documents.size() < kBatchDocuments;) {
      Document document;
      more = source.next(document);
      if (!more) break;
      bytes += document.text.size();
      documents.push_back(std::move(document));
    }
    encoder.encode(documents, tokens);
    for (size_t i = 0; i < documents.size(); ++i, ++done) {
      (is_held_out(done, options.val_fraction) ? val : train).add(tokens[i], static_cast<int64_t>(documents[i].text.size()));
    }
  }
  train.finish();
  val.finish();
  if (done == 0) fail("tokenize", concat(options.inputs[0], ": no text in the input"), ExitCode::bad_data);
  if (train.total.documents == 0) refuse(concat(done == 1 ? "" : "all ", counted(done, "document"), " would be held out; lower --val-fraction"));
  if (options.val_fraction > 0 && val.total.documents == 0) {
    const bool whole = options.separator == DocumentSeparator::file;
    refuse(concat("--val-fraction ", options.val_fraction, " holds out none of ", counted(done, "document"),
                  done == 1 ? "" : concat("; it takes ", 1.0 / static_cast<double>(done)),
                  whole ? "; --document-separator blank-line makes more" : ""));
  }

  PrepareReport report;
  report.train = train.total;
  report.val = val.total;
  DatasetInfo& info = report.info;
  info.tokenizer = "tokenizer.json";
  info.tokenizer_fingerprint = tokenizer.fingerprint();
  info.vocab = tokenizer.vocab_size();
  info.eot = tokenizer.eot();
  info.eot_position = options.eot_position;
  info.shards = train.shards;
  info.shards.insert(info.shards.end(), val.shards.begin(), val.shards.end());

  report.warnings = source.warnings();
  out.commit(info, tokenizer);
  return report;
}

}  // namespace

std::string grouped(int64_t value) {
  const std::string digits = std::to_string(value);
  std::string text;
  for (size_t i = 0; i < digits.size(); ++i) {
    if (i > 0 && (digits.size() - i) % 3 == 0) text += ',';
    text += digits[i];
  }
  return text;
}

bool is_held_out(uint64_t i, double val_fraction) {
  return std::floor(static_cast<double>(i + 1) * val_fraction) > std::floor(static_cast<double>(i) * val_fraction);
}

PrepareReport prepare(const PrepareOptions& options) {
  const auto begin = std::chrono::steady_clock::now();
  try {
    const std::vector<std::string> inputs = text_files(options.inputs, options.out);
    const std::string name = options.name.empty() && !inputs.empty() ? default_name(options.inputs[0], inputs[0]) : options.name;
    check(options, name);
    bpe_vocab(options.tokenizer);  // a typing error is told before any work
    require_no_input_there(options.out, inputs);
    TextSource source({inputs, options.separator, options.format});
    PrepareReport report = write_dataset(options, name, source);
    report.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    return report;
  } catch (const fs::filesystem_error& error) {
    fail("tokenize", error.what(), ExitCode::io);
  }
}

void print_report(const PrepareReport& report, const PrepareOptions& options, std::ostream& out) {
  const std::string folder = printable(options.out);
  out << "tokenizer  " << printable(options.tokenizer) << ": " << grouped(report.info.vocab) << " tokens, end-of-text " << report.info.eot << " ("
      << name_of(report.info.eot_position) << "), fingerprint " << report.info.tokenizer_fingerprint.substr(0, 12) << "\n";
  const auto number = [](int64_t n, const char* what) { return concat(grouped(n), " ", plural(n, what)); };
  const auto line = [&](const char* split, const PrepareReport::Split& total) {
    if (total.documents == 0) return;
    const int64_t text_tokens = total.tokens - total.documents;
    out << std::left << std::setw(11) << split << std::right << number(total.documents, "document") << ", " << number(total.bytes, "byte") << ", "
        << number(total.tokens, "token") << " (" << std::fixed << std::setprecision(3)
        << static_cast<double>(total.bytes) / static_cast<double>(std::max<int64_t>(text_tokens, 1)) << " bytes a token), "
        << number(total.shards, "shard") << "\n";
  };
  line("train", report.train);
  line("val", report.val);
  const std::string first = report.info.shards.empty() ? "" : report.info.shards[0].file;
  const size_t shown = 8;
  for (size_t i = 0; i < std::min(shown, report.info.shards.size()); ++i) out << "wrote      " << folder << "/" << report.info.shards[i].file << "\n";
  if (report.info.shards.size() > shown) out << "           ... and " << report.info.shards.size() - shown << " more\n";
  out << "wrote      " << folder << "/tokenizer.json, dataset.json\n";
  const double megabytes = static_cast<double>(report.train.bytes + report.val.bytes) / 1e6;
  out << "took       " << std::setprecision(2) << report.seconds << " s (" << std::setprecision(1) << megabytes / std::max(report.seconds, 1e-9)
      << " MB/s)\n";
  const std::string stem = first.substr(0, first.rfind("_train_"));
  out << "next       heddle pretrain --data '" << folder << "/" << stem << "_train_*.bin'";
  if (report.val.documents > 0) out << " --val '" << folder << "/" << stem << "_val_*.bin'";
  out << " --tokenizer " << folder << "/tokenizer.json --out RUN ...\n";
  out.unsetf(std::ios::floatfield);
  out.precision(6);
}

}  // namespace heddle
