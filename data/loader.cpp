#include "data/loader.h"

#include <algorithm>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "data/permutation.h"
#include "data/shard_set.h"
#include "kernels/api/check.h"

namespace heddle {

struct Loader::Impl {
  LoaderOptions options;
  ShardSet set;
  std::vector<uint64_t> first_sample;  // of each shard, and their total at the end
  std::vector<uint32_t> valid;         // targets that count, of each sample; empty without the mask
  std::string shard_list;
  LeftOut left_out;

  // The prefetch slot. `state` moves idle -> wanted -> ready -> idle; the buffers belong to the thread only while it is `wanted`.
  enum class Slot { idle, wanted, ready };
  std::mutex mutex;
  std::condition_variable changed;
  Slot slot = Slot::idle;
  bool stop = false;
  uint64_t slot_first = 0;
  int64_t slot_batch = 0;
  std::exception_ptr slot_error;
  std::vector<int32_t> tokens, targets, document_start;
  std::thread thread;

  explicit Impl(LoaderOptions given);
  ~Impl();
  uint64_t samples() const { return first_sample.back(); }
  uint64_t sample_at(uint64_t position) const;
  std::pair<size_t, int64_t> locate(uint64_t sample) const;  // shard, first token
  void read_shards();
  void check_row(const ShardReader& shard, int64_t first, const int32_t* tokens) const;
  void fill_row(uint64_t position, int32_t* x, int32_t* y, int32_t* start) const;
  void fill_rows(uint64_t first, const BatchView& out) const;
  bool take_prefetched(uint64_t first, const BatchView& out);
  void work();
};

Loader::Impl::Impl(LoaderOptions given) : options(std::move(given)), set(options) {
  const int64_t seq = options.seq;
  if (seq < 1 || seq > INT32_MAX - 1) fail("loader", concat("sequence length ", seq, " is not in [1, 2^31 - 2]"), ExitCode::usage);
  if (options.document_mask && !set.eot()) {
    fail("loader", concat("the document mask needs the end-of-text token of ", set.shards()[0].path(), "; give the tokenizer, or --no-doc-mask"),
         ExitCode::usage);
  }
  if (options.prefetch_batch < 0) fail("loader", concat("prefetch batch ", options.prefetch_batch, " is negative"), ExitCode::usage);
  first_sample.push_back(0);
  for (const ShardReader& shard : set.shards()) {
    const int64_t samples = shard.tokens() > 0 ? (shard.tokens() - 1) / seq : 0;
    first_sample.push_back(first_sample.back() + static_cast<uint64_t>(samples));
    const auto unused = static_cast<uint64_t>(samples > 0 ? shard.tokens() - (samples * seq + 1) : shard.tokens());
    left_out.tokens += unused;
    if (samples > 0 || unused == 0) continue;
    if (left_out.short_shards++ == 0) left_out.first_short = shard.path();
    left_out.short_tokens += unused;
  }
  if (samples() == 0) {
    fail("loader",
         concat("no shard (", set.shards()[0].path(), " is one of ", set.shards().size(), ") holds the ", seq + 1,
                " tokens that one sample of sequence length ", seq, " takes; lower --seq or give more text"),
         ExitCode::usage);
  }
  read_shards();
  if (options.prefetch_batch > 0) {
    const size_t size = static_cast<size_t>(options.prefetch_batch) * static_cast<size_t>(seq);
    tokens.resize(size);
    targets.resize(size);
    document_start.resize(size);
    thread = std::thread([this] { work(); });
  }
}

Loader::Impl::~Impl() {
  if (!thread.joinable()) return;
  {
    const std::lock_guard lock(mutex);
    stop = true;
  }
  changed.notify_all();
  thread.join();
}

// A target is ignored when it lies across a boundary: prepend - the target is the end-of-text token; append - the input is. So the ignored ones of
// sample j are the end-of-text tokens in [jT + shift, (j + 1) T + shift).
void Loader::Impl::read_shards() {
  const int64_t shift = set.eot_position() == EotPosition::prepend ? 1 : 0;
  const auto samples_of = [this](size_t shard) { return first_sample[shard + 1] - first_sample[shard]; };
  std::vector<uint32_t> ignored;  // of each sample of the shard that is read
  ShardSet::Survey survey;
  if (options.document_mask) {
    const uint32_t eot = static_cast<uint32_t>(*set.eot());
    survey.begin = [&](size_t shard) { ignored.assign(samples_of(shard), 0); };
    survey.look = [&, eot](int64_t first, std::span<const uint32_t> tokens) {
      for (size_t i = 0; i < tokens.size(); ++i) {
        if (tokens[i] != eot) continue;
        const int64_t at = first + static_cast<int64_t>(i) - shift;
        if (at < 0) continue;
        const auto sample = static_cast<uint64_t>(at / options.seq);
        if (sample < ignored.size()) ++ignored[sample];
      }
    };
    survey.end = [&] {
      std::string text;
      for (const uint32_t count : ignored) append_number(text, count);
      return text;
    };
  }
  const std::vector<std::string> counts = set.read_all(options, true, survey);
  shard_list = set.content_lines();
  if (!options.document_mask) return;
  valid.reserve(samples());
  uint64_t total = 0;
  for (size_t shard = 0; shard < counts.size(); ++shard) {
    std::string_view text = counts[shard];
    for (uint64_t sample = 0; sample < samples_of(shard); ++sample) {
      valid.push_back(static_cast<uint32_t>(options.seq) - static_cast<uint32_t>(take_number(text)));
      total += valid.back();
    }
  }
  if (total == 0) {
    fail("loader",
         concat("none of the ", samples() * static_cast<uint64_t>(options.seq), " targets in the shards (", set.shards()[0].path(), " is one of ",
                set.shards().size(), ") counts: each lies across a boundary of documents, next to end-of-text token ", *set.eot(),
                "; give documents of two tokens and more, the right tokenizer, or --no-doc-mask"),
         ExitCode::bad_data);
  }
}

uint64_t Loader::Impl::sample_at(uint64_t position) const {
  const uint64_t epoch = position / samples(), index = position % samples();
  return options.order == SampleOrder::sequential ? index : Permutation(samples(), options.seed, epoch)(index);
}

std::pair<size_t, int64_t> Loader::Impl::locate(uint64_t sample) const {
  const size_t shard = static_cast<size_t>(std::upper_bound(first_sample.begin(), first_sample.end(), sample) - first_sample.begin()) - 1;
  return {shard, static_cast<int64_t>(sample - first_sample[shard]) * options.seq};
}

// They were below the vocabulary size on opening: a file that was overwritten since is found here, and not as an index outside a table.
void Loader::Impl::check_row(const ShardReader& shard, int64_t first, const int32_t* tokens) const {
  uint32_t largest = 0;
  for (int64_t t = 0; t < options.seq; ++t) largest = std::max(largest, static_cast<uint32_t>(tokens[t]));
  if (largest < set.vocab()) return;
  for (int64_t t = 0; t < options.seq; ++t) shard.check_token(static_cast<uint32_t>(tokens[t]), first + t, set.token_limit());
}

void Loader::Impl::fill_row(uint64_t position, int32_t* x, int32_t* y, int32_t* start) const {
  const auto [shard, first] = locate(sample_at(position));
  const ShardReader& reader = set.shards()[shard];
  const int64_t seq = options.seq;
  reader.read(first, {x, static_cast<size_t>(seq)});
  reader.read(first + 1, {y, static_cast<size_t>(seq)});
  check_row(reader, first, x);
  check_row(reader, first + 1, y);
  if (!options.document_mask) {
    std::fill(start, start + seq, 0);
    return;
  }
  const int32_t eot = *set.eot();
  int32_t begin = 0;
  if (set.eot_position() == EotPosition::prepend) {
    for (int64_t t = 0; t < seq; ++t) {
      if (x[t] == eot) begin = static_cast<int32_t>(t);
      if (y[t] == eot) y[t] = -1;
      start[t] = begin;
    }
  } else {
    for (int64_t t = 0; t < seq; ++t) {
      start[t] = begin;
      if (x[t] != eot) continue;
      begin = static_cast<int32_t>(t + 1);
      y[t] = -1;
    }
  }
}

void Loader::Impl::fill_rows(uint64_t first, const BatchView& out) const {
  for (int64_t b = 0; b < out.batch; ++b) {
    const int64_t row = b * options.seq;
    fill_row(first + static_cast<uint64_t>(b), out.tokens + row, out.targets + row, out.document_start + row);
  }
}

bool Loader::Impl::take_prefetched(uint64_t first, const BatchView& out) {
  if (!thread.joinable()) return false;
  std::unique_lock lock(mutex);
  if (slot == Slot::idle || slot_first != first || slot_batch != out.batch) return false;
  changed.wait(lock, [&] { return slot == Slot::ready; });
  slot = Slot::idle;
  if (slot_error) std::rethrow_exception(std::exchange(slot_error, nullptr));
  const size_t size = static_cast<size_t>(out.batch * options.seq);
  std::copy_n(tokens.data(), size, out.tokens);
  std::copy_n(targets.data(), size, out.targets);
  std::copy_n(document_start.data(), size, out.document_start);
  return true;
}

void Loader::Impl::work() {
  std::unique_lock lock(mutex);
  for (;;) {
    changed.wait(lock, [&] { return stop || slot == Slot::wanted; });
    if (stop) return;
    const uint64_t first = slot_first;
    const BatchView view{slot_batch, options.seq, tokens.data(), targets.data(), document_start.data()};
    lock.unlock();
    std::exception_ptr error;
    try {
      fill_rows(first, view);
    } catch (...) {
      error = std::current_exception();
    }
    lock.lock();
    slot_error = error;
    slot = Slot::ready;
    changed.notify_all();
  }
}

Loader::Loader(LoaderOptions options) : impl_(std::make_unique<Impl>(std::move(options))) {}
Loader::~Loader() = default;

int64_t Loader::seq() const {
  return impl_->options.seq;
}
int64_t Loader::vocab() const {
  return impl_->set.vocab();
}
std::optional<int32_t> Loader::eot() const {
  return impl_->set.eot();
}
uint64_t Loader::samples_per_epoch() const {
  return impl_->samples();
}
uint64_t Loader::tokens() const {
  return impl_->set.tokens();
}
const std::optional<TokenizerIdentity>& Loader::tokenizer() const {
  return impl_->set.tokenizer();
}
const std::string& Loader::unidentified() const {
  return impl_->set.unidentified();
}
const Loader::LeftOut& Loader::left_out() const {
  return impl_->left_out;
}

void Loader::fill(uint64_t first, const BatchView& out) {
  HEDDLE_CHECK(out.batch >= 1 && out.seq == impl_->options.seq, "loader", "batch (", out.batch, ", ", out.seq,
               ") asked of a loader of sequence length ", impl_->options.seq);
  HEDDLE_CHECK(out.tokens && out.targets && out.document_start, "loader", "a batch without memory");
  if (!impl_->take_prefetched(first, out)) impl_->fill_rows(first, out);
}

int64_t Loader::valid_targets(uint64_t first, uint64_t count) const {
  if (!impl_->options.document_mask) return static_cast<int64_t>(count) * impl_->options.seq;
  int64_t total = 0;
  for (uint64_t i = 0; i < count; ++i) total += impl_->valid[impl_->sample_at(first + i)];
  return total;
}

void Loader::prefetch(uint64_t first, int64_t batch) {
  HEDDLE_CHECK(batch >= 1 && batch <= impl_->options.prefetch_batch, "loader", "prefetch of ", batch, " samples, the loader was made for at most ",
               impl_->options.prefetch_batch);
  {
    std::unique_lock lock(impl_->mutex);
    impl_->changed.wait(lock, [&] { return impl_->slot != Impl::Slot::wanted; });
    impl_->slot_first = first;
    impl_->slot_batch = batch;
    impl_->slot_error = nullptr;
    impl_->slot = Impl::Slot::wanted;
  }
  impl_->changed.notify_all();
}

Loader::Place Loader::place(uint64_t position) const {
  const auto [shard, offset] = impl_->locate(impl_->sample_at(position));
  return {impl_->set.shards()[shard].path(), shard, static_cast<uint64_t>(offset)};
}

const std::string& Loader::shard_list() const {
  return impl_->shard_list;
}

std::string Loader::fingerprint_of(const std::string& shard_list) {
  return sha256_hex("heddle-data-1\n" + shard_list);
}

std::string Loader::fingerprint() const {
  return fingerprint_of(shard_list());
}

}  // namespace heddle
