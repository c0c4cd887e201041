#include "infer/evaluator.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "infer/identity.h"

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

constexpr std::string_view kBatch = "a batch of evaluation";

WindowOptions shared(WindowOptions windows, int64_t tokens, Control& control) {
  windows.tokens = tokens;
  windows.reading = shared_reading(control);
  return windows;
}

int64_t even_batch(uint64_t rows, int64_t most, int ranks) {
  const auto all = static_cast<uint64_t>(most) * static_cast<uint64_t>(ranks);
  const uint64_t rounds = (rows + all - 1) / all, shares = rounds * static_cast<uint64_t>(ranks);
  return static_cast<int64_t>((rows + shares - 1) / shares);
}

}  // namespace

Evaluator::Evaluator(const WindowOptions& windows, int64_t batch, int64_t tokens, const Tokenizer* tokenizer, Device device, Control& control)
    : windows_(shared(windows, tokens, control)),
      control_(control),
      device_(device),
      seq_(windows.seq),
      rows_(windows_.rows()),
      batch_work_(device, false, kBatch) {
  batch_ = even_batch(rows_, batch, control.size());
  if (tokenizer) {
    double counts[2] = {};  // whole numbers below 2^53; one rank reads for all
    if (control.rank() == 0) {
      counts[0] = static_cast<double>(windows_.scored_bytes(0, rows_, *tokenizer));
      counts[1] = static_cast<double>(windows_.scored_words(0, rows_, *tokenizer));
    }
    const std::vector<double> all = control.sum_in_rank_order(counts);
    bytes_ = static_cast<uint64_t>(all[0]);
    words_ = static_cast<uint64_t>(all[1]);
  }
  const Shape shape{batch_, seq_};
  tokens_ = Tensor::zeros(shape, DType::i32, device);
  targets_ = Tensor::zeros(shape, DType::i32, device);
  document_start_ = Tensor::zeros(shape, DType::i32, device);
  staging_.resize(static_cast<size_t>(3 * shape.numel()));
}

void Evaluator::record_batches(std::function<void(const std::string&)> tell) {
  batch_work_ = Recorded(device_, true, kBatch, std::move(tell));
}

std::optional<EvalResult> Evaluator::run(const TokenLosses& losses, const std::function<bool()>& stop,
                                         const std::function<void(const Error&)>& failed) {
  const int64_t n = batch_ * seq_;
  double nats = 0;
  const uint64_t per_round = static_cast<uint64_t>(batch_) * static_cast<uint64_t>(control_.size());
  for (uint64_t round = 0; round < rows_; round += per_round) {
    const uint64_t first = round + static_cast<uint64_t>(control_.rank()) * static_cast<uint64_t>(batch_);
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
    Tensor direct;
    if (round == 0) {
      batch_work_.run_directly([&] { direct = losses(tokens_, targets_, document_start_); });
    } else {
      batch_work_.run([&] { batch_losses_ = losses(tokens_, targets_, document_start_); });
    }
    for (double loss : (round == 0 ? direct : batch_losses_).to_vector()) nats += loss;
  }
  return EvalResult{control_.sum_in_rank_order(nats), windows_.scored_tokens(0, rows_), bytes_, words_};
}

}  // namespace heddle
