#include "train/evaluate.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>

#include "core/device.h"
#include "kernels/api/check.h"
#include "kernels/api/printable.h"
#include "train/identity.h"
#include "train/memory_plan.h"
#include "train/model.h"

namespace heddle {

double EvalResult::loss() const {
  return nats / static_cast<double>(tokens);
}
double EvalResult::bits_per_byte() const {
  return bytes ? nats / std::log(2.0) / static_cast<double>(bytes) : std::numeric_limits<double>::quiet_NaN();
}
double EvalResult::bits_per_word() const {
  return words ? nats / std::log(2.0) / static_cast<double>(words) : std::numeric_limits<double>::quiet_NaN();
}

namespace {

WindowOptions shared(WindowOptions windows, int64_t tokens, Communicator& comm) {
  windows.tokens = tokens;
  windows.reading = shared_reading(comm);
  return windows;
}

int64_t even_batch(uint64_t rows, int64_t most, int ranks) {
  const auto all = static_cast<uint64_t>(most) * static_cast<uint64_t>(ranks);
  const uint64_t rounds = (rows + all - 1) / all, shares = rounds * static_cast<uint64_t>(ranks);
  return static_cast<int64_t>((rows + shares - 1) / shares);
}

}  // namespace

Evaluator::Evaluator(const WindowOptions& windows, int64_t batch, int64_t tokens, const Tokenizer* tokenizer, Device device, Communicator& comm)
    : windows_(shared(windows, tokens, comm)), comm_(comm), device_(device), seq_(windows.seq), rows_(windows_.rows()) {
  batch_ = even_batch(rows_, batch, comm.size());
  if (tokenizer) {
    double counts[2] = {};  // whole numbers below 2^53; one rank reads for all
    if (comm.rank() == 0) {
      counts[0] = static_cast<double>(windows_.scored_bytes(0, rows_, *tokenizer));
      counts[1] = static_cast<double>(windows_.scored_words(0, rows_, *tokenizer));
    }
    comm.all_reduce(make_view(counts, {2}), Stream{});
    bytes_ = static_cast<uint64_t>(counts[0]);
    words_ = static_cast<uint64_t>(counts[1]);
  }
  const Shape shape{batch_, seq_};
  tokens_ = Tensor::zeros(shape, DType::i32, device);
  targets_ = Tensor::zeros(shape, DType::i32, device);
  document_start_ = Tensor::zeros(shape, DType::i32, device);
  staging_.resize(static_cast<size_t>(3 * shape.numel()));
}

std::optional<EvalResult> Evaluator::run(const Transformer& model, const std::function<bool()>& stop,
                                         const std::function<void(const Error&)>& failed) {
  const int64_t n = batch_ * seq_;
  double nats = 0;
  const uint64_t per_round = static_cast<uint64_t>(batch_) * static_cast<uint64_t>(comm_.size());
  for (uint64_t round = 0; round < rows_; round += per_round) {
    const uint64_t first = round + static_cast<uint64_t>(comm_.rank()) * static_cast<uint64_t>(batch_);
    const BatchView batch{batch_, seq_, staging_.data(), staging_.data() + n, staging_.data() + 2 * n};
    try {
      windows_.fill(first, batch);
    } catch (const Error& e) {
      if (!failed) throw;
      failed(e);
    }
    if (stop && stop()) return std::nullopt;
    int64_t at = 0;
    for (const Tensor* t : {&tokens_, &targets_, &document_start_}) {
      copy_bytes(t->impl().data, device_, staging_.data() + at++ * n, Device{}, static_cast<size_t>(n) * sizeof(int32_t));
    }
    for (double loss : model.token_losses(tokens_, targets_, document_start_).to_vector()) nats += loss;
  }
  comm_.all_reduce(make_view(&nats, {1}), Stream{});
  return EvalResult{nats, windows_.scored_tokens(0, rows_), bytes_, words_};
}

int evaluate(const EvalOptions& options) {
  options.validate();
  use_threads(options.threads);
  const Device device = choose_device(options.device);
  TrainedModel trained = load_trained_model(options.path, device, compute_dtype(options.precision, device));
  const std::unique_ptr<Communicator> comm = world_communicator();
  WindowOptions windows;
  windows.shards = options.data;
  windows.seq = trained.config.seq;
  windows.stride = options.stride > 0 ? options.stride : std::max<int64_t>(1, trained.config.seq / 2);
  windows.pack = trained.config.doc_mask;
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
  require_batch_memory("eval", trained.model->config(), evaluator.batch(), trained.config.seq, trained.arena->values().dtype(), device);
  const EvalResult result = *evaluator.run(*trained.model);
  if (!std::isfinite(result.loss())) {
    fail("eval",
         concat("the loss of ", options.path, " (step ", trained.step, ") is ", result.loss(), ": its training diverged; use an earlier checkpoint"));
  }
  if (comm->rank() != 0) return 0;
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

}  // namespace heddle
