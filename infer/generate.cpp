#include "infer/generate.h"

#include <algorithm>
#include <limits>
#include <optional>

#include "core/recorded.h"
#include "core/staging.h"
#include "kernels/api/check.h"

namespace heddle {
namespace {

using Emit = std::function<bool(size_t, int32_t, const Tensor&)>;

class Generation {
 public:
  Generation(const Transformer& model, std::span<const std::vector<int32_t>> prompts, int64_t max_new, const GenerationOptions& options,
             const Emit& emit)
      : model_(model),
        prompts_(prompts),
        max_new_(max_new),
        sampling_(options.sampling),
        emit_(emit),
        capacity_(model.config().seq),
        places_(static_cast<size_t>(std::min(options.batch, static_cast<int64_t>(prompts.size())))),
        device_(model.head().tensor().device()),
        cache_(model.make_cache(count(), capacity_)),
        tokens_(Tensor::zeros({count()}, DType::i32, device_)),
        said_(Tensor::zeros({kSaid, count()}, DType::i32, device_)),
        to_say_(device_, static_cast<size_t>(kSaid * count()) * sizeof(int32_t)),
        step_(device_, options.graphs, "a decoding step", options.tell) {}

  void run() {
    while (true) {
      bool any = false;
      for (size_t i = 0; i < places_.size(); ++i) any |= make_ready(i);
      if (!any) return;
      step();
    }
  }

 private:
  // Where one text at a time is continued.
  struct Place {
    std::optional<size_t> text;
    std::vector<int32_t> tokens;  // its prompt and what came after it
    int64_t cached = 0, drawn = 0;
  };
  // What the host says of each place before a step: rows of said_.
  enum Said : int64_t { position, row, draw, text, kSaid };

  int64_t count() const { return static_cast<int64_t>(places_.size()); }
  Tensor said(Said what) const { return reshape(slice(said_, 0, what, what + 1), {count()}); }

  // A token more fits into the place's cache, or its text has ended and there is no other: false.
  bool make_ready(size_t i) {
    Place& at = places_[i];
    while (true) {
      if (!at.text) {
        if (next_ == prompts_.size()) return false;
        at = {.text = next_, .tokens = prompts_[next_]};
        ++next_;
        read(i, capacity_);
      } else if (at.cached == capacity_) {
        read(i, (capacity_ + 1) / 2);
      } else {
        return true;
      }
    }
  }

  // Fills the place's cache anew with the last of its tokens, `most` of them, and draws the next one.
  void read(size_t i, int64_t most) {
    Place& at = places_[i];
    const auto length = std::min(static_cast<int64_t>(at.tokens.size()), most);
    const std::span<const int32_t> last(at.tokens.data() + at.tokens.size() - static_cast<size_t>(length), static_cast<size_t>(length));
    Transformer::Cache own = cache_.of_text(static_cast<int64_t>(i));
    const Tensor logits = model_.next_logits(Tensor::from(last, {1, length}, device_), own);  // (1, V)
    at.cached = length;
    const Tensor token = slice(tokens_, 0, static_cast<int64_t>(i), static_cast<int64_t>(i) + 1);
    const auto one = [&](int64_t value) { return Tensor::from(std::vector<int32_t>{static_cast<int32_t>(value)}, {1}, device_); };
    sample_tokens(logits, sampling_, one(at.drawn), one(static_cast<int64_t>(*at.text)), token);
    take(at, static_cast<int32_t>(token.item()), logits);
  }

  // The next token of each text, all of which have room. Places without a text repeat a token of no use.
  void step() {
    const auto out = reinterpret_cast<int32_t*>(to_say_.next().data());
    const int64_t n = count();
    for (int64_t i = 0; i < n; ++i) {
      const Place& at = places_[static_cast<size_t>(i)];
      const int64_t stands = at.text ? at.cached : 0;
      out[position * n + i] = static_cast<int32_t>(stands);
      out[row * n + i] = static_cast<int32_t>(i * capacity_ + stands);
      out[draw * n + i] = static_cast<int32_t>(at.drawn);
      out[text * n + i] = static_cast<int32_t>(at.text.value_or(0));
    }
    to_say_.send(said_.impl().data, current_stream(device_));
    step_.run([&] {
      logits_ = model_.decode_logits(tokens_, said(position), said(row), cache_);
      sample_tokens(logits_, sampling_, said(draw), said(text), tokens_);
    });
    const std::vector<double> drawn = tokens_.to_vector();
    for (int64_t i = 0; i < n; ++i) {
      Place& at = places_[static_cast<size_t>(i)];
      if (!at.text) continue;
      ++at.cached;
      take(at, static_cast<int32_t>(drawn[static_cast<size_t>(i)]), slice(logits_, 0, i, i + 1));
    }
  }

  void take(Place& at, int32_t drawn, const Tensor& logits) {
    const int32_t token = checked_token(drawn, logits);
    at.tokens.push_back(token);
    ++at.drawn;
    if (!emit_(*at.text, token, logits) || at.drawn == max_new_) at.text.reset();
  }

  const Transformer& model_;
  std::span<const std::vector<int32_t>> prompts_;
  int64_t max_new_;
  SamplingOptions sampling_;
  const Emit& emit_;
  int64_t capacity_;
  std::vector<Place> places_;
  size_t next_ = 0;  // prompt
  Device device_;
  Transformer::Cache cache_;
  Tensor tokens_;  // (places) i32: each text's last, where it was drawn
  Tensor said_;    // (kSaid, places) i32
  Staging to_say_;
  Recorded step_;
  Tensor logits_;  // (places, V), of the last step
};

}  // namespace

void generate_texts(const Transformer& model, std::span<const std::vector<int32_t>> prompts, int64_t max_new, const GenerationOptions& options,
                    const Emit& emit) {
  HEDDLE_CHECK(options.batch > 0, "generate", "a batch of ", options.batch);
  const int64_t rows = options.batch * model.config().seq;
  constexpr int64_t kMost = std::numeric_limits<int32_t>::max();
  HEDDLE_CHECK(max_new <= kMost && rows <= kMost && static_cast<int64_t>(prompts.size()) <= kMost, "generate", "more than 2^31 tokens or texts");
  for (const auto& prompt : prompts) HEDDLE_CHECK(!prompt.empty(), "generate", "an empty prompt");
  if (!prompts.empty() && max_new > 0) Generation(model, prompts, max_new, options, emit).run();
}

void generate_tokens(const Transformer& model, std::span<const int32_t> prompt, int64_t max_new, const SamplingOptions& options,
                     const std::function<bool(int32_t, const Tensor&)>& emit) {
  const std::vector<std::vector<int32_t>> prompts{{prompt.begin(), prompt.end()}};
  generate_texts(model, prompts, max_new, {.sampling = options, .batch = 1, .graphs = false},
                 [&](size_t, int32_t token, const Tensor& logits) { return emit(token, logits); });
}

}  // namespace heddle
