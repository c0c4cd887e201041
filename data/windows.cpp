#include "data/windows.h"

#include <algorithm>
#include <span>
#include <utility>
#include <vector>

#include "data/shard_set.h"
#include "kernels/api/check.h"

namespace heddle {
namespace {

LoaderOptions loader_options(const WindowOptions& options) {
  LoaderOptions loader;
  loader.shards = options.shards;
  loader.tokenizer = options.tokenizer;
  loader.vocab = options.vocab;
  loader.eot = options.eot;
  loader.eot_position = options.eot_position;
  loader.format = options.format;
  loader.verify = options.verify;
  loader.reading = options.reading;
  return loader;
}

// One window: inputs s[begin, begin + length) of a document, targets s[begin + 1, begin + length], of which those from `scored` on count.
struct Window {
  uint32_t shard;
  int32_t length, scored;
  int64_t text;  // place in the shard of s[0], which may be one before what the shard holds (the eot is supplied)
  int64_t begin;
};

}  // namespace

struct Windows::Impl {
  ShardSet set;
  int64_t seq, stride, left;  // left: targets that may still be scored
  bool limited, pack;
  std::vector<Window> windows;
  std::vector<uint64_t> first_window;   // of each row, and their number at the end
  std::vector<uint64_t> scored_before;  // targets that count before each row, and their number at the end

  explicit Impl(const WindowOptions& options)
      : set(loader_options(options)),
        seq(options.seq),
        stride(options.stride == 0 ? options.seq : options.stride),
        left(options.tokens > 0 ? options.tokens : INT64_MAX),
        limited(options.tokens > 0),
        pack(options.pack) {
    if (seq < 1 || seq > INT32_MAX - 1) fail("windows", concat("sequence length ", seq, " is not in [1, 2^31 - 2]"), ExitCode::usage);
    if (stride < 1 || stride > seq) fail("windows", concat("stride ", stride, " is not in [1, ", seq, "], the sequence length"), ExitCode::usage);
    const std::vector<std::string> ends = ends_of_text(options);
    for (size_t s = 0; s < set.shards().size(); ++s) add_shard(static_cast<uint32_t>(s), ends[s]);
    if (windows.empty())
      fail("windows", concat("the shards (", set.shards()[0].path(), " is one of ", set.shards().size(), ") hold no token to score"),
           ExitCode::bad_data);
    make_rows();
  }

  // Of each shard the places of its end-of-text tokens, as distances from one to the next.
  std::vector<std::string> ends_of_text(const WindowOptions& options) {
    std::string places;
    int64_t before = 0;
    ShardSet::Survey survey;
    if (set.eot()) {
      survey.begin = [&](size_t) { before = 0; };
      survey.look = [&, eot = static_cast<uint32_t>(*set.eot())](int64_t first, std::span<const uint32_t> tokens) {
        for (size_t i = 0; i < tokens.size(); ++i) {
          if (tokens[i] != eot) continue;
          append_number(places, static_cast<uint64_t>(first + static_cast<int64_t>(i) - before));
          before = first + static_cast<int64_t>(i);
        }
      };
      survey.end = [&] { return std::exchange(places, {}); };
    }
    return set.read_all(loader_options(options), false, survey);
  }

  void add_shard(uint32_t shard, std::string_view ends) {
    const int64_t tokens = set.shards()[shard].tokens();
    if (!set.eot()) {
      if (tokens > 1) add_document(shard, 0, tokens - 1);
      return;
    }
    int64_t before = -1, at = 0;  // the places of the last end-of-text and of the next
    while (before < tokens) {
      at = ends.empty() ? tokens : at + static_cast<int64_t>(take_number(ends));
      if (at > before + 1) add_document(shard, before, at - before - 1);
      before = at;
    }
  }

  void add_document(uint32_t shard, int64_t text, int64_t targets) {
    targets = std::min(targets, left);
    left -= targets;
    for (int64_t done = 0; done < targets;) {
      const int64_t begin = done == 0 ? 0 : done - (seq - stride);
      const int64_t length = std::min(seq, targets - begin);
      windows.push_back({shard, static_cast<int32_t>(length), static_cast<int32_t>(done - begin), text, begin});
      done = begin + length;
    }
  }

  void make_rows() {
    int64_t used = seq;
    uint64_t scored = 0;
    for (size_t i = 0; i < windows.size(); ++i) {
      if (!pack || windows[i].length > seq - used) {
        first_window.push_back(i);
        scored_before.push_back(scored);
        used = 0;
      }
      used += windows[i].length;
      scored += static_cast<uint64_t>(windows[i].length - windows[i].scored);
    }
    first_window.push_back(windows.size());
    scored_before.push_back(scored);
  }

  uint64_t rows() const { return first_window.size() - 1; }
  uint64_t clamp(uint64_t first, uint64_t count) const { return first >= rows() ? rows() : first + std::min(count, rows() - first); }

  // s[begin .. begin + length] of the window, its inputs and its last target.
  void read(const Window& window, std::vector<int32_t>& tokens) const {
    tokens.resize(static_cast<size_t>(window.length) + 1);
    const bool supplied = window.begin == 0 && set.eot();
    if (supplied) tokens[0] = *set.eot();
    const std::span<int32_t> rest = std::span(tokens).subspan(supplied ? 1 : 0);
    const ShardReader& shard = set.shards()[window.shard];
    const int64_t first = window.text + window.begin + (supplied ? 1 : 0);
    shard.read(first, rest);
    for (size_t i = 0; i < rest.size(); ++i) shard.check_token(static_cast<uint32_t>(rest[i]), first + static_cast<int64_t>(i), set.token_limit());
  }

  void fill_row(uint64_t row, int32_t* x, int32_t* y, int32_t* start) const {
    int64_t at = 0;
    std::vector<int32_t> tokens;
    const size_t first = row < rows() ? first_window[row] : windows.size(), last = row < rows() ? first_window[row + 1] : windows.size();
    for (size_t w = first; w < last; ++w) {
      const Window& window = windows[w];
      read(window, tokens);
      for (int64_t i = 0; i < window.length; ++i) {
        x[at + i] = tokens[static_cast<size_t>(i)];
        y[at + i] = i < window.scored ? -1 : tokens[static_cast<size_t>(i) + 1];
        start[at + i] = static_cast<int32_t>(at);
      }
      at += window.length;
    }
    for (const int64_t padding = at; at < seq; ++at) {
      x[at] = set.eot().value_or(0);
      y[at] = -1;
      start[at] = static_cast<int32_t>(padding);
    }
  }
};

Windows::Windows(const WindowOptions& options) : impl_(std::make_unique<Impl>(options)) {}
Windows::~Windows() = default;

const std::string& Windows::unidentified() const {
  return impl_->set.unidentified();
}

uint64_t Windows::rows() const {
  return impl_->rows();
}
uint64_t Windows::scored_tokens() const {
  return impl_->scored_before.back();
}

uint64_t Windows::scored_tokens(uint64_t first_row, uint64_t count) const {
  if (first_row >= rows()) return 0;
  return impl_->scored_before[impl_->clamp(first_row, count)] - impl_->scored_before[first_row];
}

uint64_t Windows::scored_bytes(uint64_t first_row, uint64_t count, const Tokenizer& tokenizer) const {
  if (first_row >= rows()) return 0;
  uint64_t bytes = 0;
  std::vector<int32_t> tokens;
  for (uint64_t w = impl_->first_window[first_row]; w < impl_->first_window[impl_->clamp(first_row, count)]; ++w) {
    const Window& window = impl_->windows[w];
    impl_->read(window, tokens);
    for (size_t i = static_cast<size_t>(window.scored) + 1; i < tokens.size(); ++i) bytes += tokenizer.bytes_of(tokens[i]).size();
  }
  return bytes;
}

uint64_t Windows::scored_words(uint64_t first_row, uint64_t count, const Tokenizer& tokenizer) const {
  if (first_row >= rows()) return 0;
  uint64_t words = 0;
  bool inside = false;
  std::vector<int32_t> tokens;
  for (uint64_t w = impl_->first_window[first_row]; w < impl_->first_window[impl_->clamp(first_row, count)]; ++w) {
    const Window& window = impl_->windows[w];
    // Within a document scored targets follow one another from window to window, and so do words.
    if (window.begin == 0) inside = false;
    impl_->read(window, tokens);
    for (size_t i = static_cast<size_t>(window.scored) + 1; i < tokens.size(); ++i) {
      for (const char c : tokenizer.bytes_of(tokens[i])) {
        const bool space = c == ' ' || (c >= '\t' && c <= '\r');
        words += !space && !inside;
        inside = !space;
      }
    }
  }
  return words;
}

std::optional<uint64_t> Windows::text_bytes() const {
  return impl_->set.eot() && !impl_->limited ? impl_->set.text_bytes() : std::nullopt;
}

void Windows::fill(uint64_t first_row, const BatchView& out) const {
  HEDDLE_CHECK(out.batch >= 1 && out.seq == impl_->seq, "windows", "batch (", out.batch, ", ", out.seq, ") asked of windows of ", impl_->seq,
               " tokens");
  HEDDLE_CHECK(out.tokens && out.targets && out.document_start, "windows", "a batch without memory");
  for (int64_t b = 0; b < out.batch; ++b) {
    const int64_t row = b * impl_->seq;
    impl_->fill_row(first_row + static_cast<uint64_t>(b), out.tokens + row, out.targets + row, out.document_start + row);
  }
}

}  // namespace heddle
