#include "data/byte_stream.h"

#include <zlib.h>
#if HEDDLE_HAVE_ZSTD
#include <zstd.h>
#endif

#include <cstring>
#include <vector>

#include "data/file.h"
#include "kernels/api/check.h"

namespace heddle {
namespace {

constexpr size_t kBuffer = size_t{1} << 18;

// The file's bytes as they are, with a look at what comes next.
class Input {
 public:
  explicit Input(const std::string& path) : path_(path), file_(path), buffer_(kBuffer) {}

  // Makes at least one byte visible unless the file has ended.
  bool fill() {
    if (begin_ < end_) return true;
    offset_ += end_;
    begin_ = 0;
    end_ = file_.read(buffer_.data(), buffer_.size());
    return end_ > 0;
  }
  char* data() { return buffer_.data() + begin_; }
  size_t size() const { return end_ - begin_; }
  void take(size_t bytes) { begin_ += bytes; }
  uint64_t offset() const { return offset_ + begin_; }
  [[noreturn]] void bad(const std::string& text) const { fail("text", concat(path_, ": ", text, " at offset ", offset()), ExitCode::bad_data); }

 private:
  std::string path_;
  FileReader file_;
  std::vector<char> buffer_;
  size_t begin_ = 0, end_ = 0;
  uint64_t offset_ = 0;
};

class PlainStream : public ByteStream {
 public:
  explicit PlainStream(std::unique_ptr<Input> input) : input_(std::move(input)) {}
  size_t read(char* to, size_t bytes) override {
    if (!input_->fill()) return 0;
    const size_t count = std::min(bytes, input_->size());
    std::memcpy(to, input_->data(), count);
    input_->take(count);
    return count;
  }

 private:
  std::unique_ptr<Input> input_;
};

// Several gzip members after one another are one stream, as gzip(1) has it.
class GzipStream : public ByteStream {
 public:
  explicit GzipStream(std::unique_ptr<Input> input) : input_(std::move(input)) {
    HEDDLE_CHECK(inflateInit2(&state_, 16 + MAX_WBITS) == Z_OK, "text", "zlib cannot start");
  }
  ~GzipStream() override { inflateEnd(&state_); }

  size_t read(char* to, size_t bytes) override {
    state_.next_out = reinterpret_cast<Bytef*>(to);
    state_.avail_out = static_cast<uInt>(std::min(bytes, kBuffer));
    const size_t wanted = state_.avail_out;
    while (state_.avail_out == wanted) {
      if (!input_->fill()) {
        if (inside_) input_->bad("the gzip data end in the middle of a member; the file is cut short");
        return 0;
      }
      if (!inside_) {
        inflateReset(&state_);
        inside_ = true;
      }
      state_.next_in = reinterpret_cast<Bytef*>(input_->data());
      state_.avail_in = static_cast<uInt>(input_->size());
      const int result = inflate(&state_, Z_NO_FLUSH);
      input_->take(input_->size() - state_.avail_in);
      if (result == Z_STREAM_END) {
        inside_ = false;
      } else if (result != Z_OK && result != Z_BUF_ERROR) {
        input_->bad(concat("damaged gzip data (", state_.msg ? state_.msg : "no detail", ")"));
      }
    }
    return wanted - state_.avail_out;
  }

 private:
  std::unique_ptr<Input> input_;
  z_stream state_{};
  bool inside_ = true;
};

#if HEDDLE_HAVE_ZSTD
class ZstdStream : public ByteStream {
 public:
  explicit ZstdStream(std::unique_ptr<Input> input) : input_(std::move(input)), state_(ZSTD_createDStream()) {
    HEDDLE_CHECK(state_ != nullptr, "text", "zstd cannot start");
    ZSTD_initDStream(state_);
  }
  ~ZstdStream() override { ZSTD_freeDStream(state_); }

  size_t read(char* to, size_t bytes) override {
    ZSTD_outBuffer out{to, bytes, 0};
    while (out.pos == 0) {
      const bool more = input_->fill();
      if (!more && !inside_) return 0;
      ZSTD_inBuffer in{more ? input_->data() : nullptr, more ? input_->size() : 0, 0};
      const size_t result = ZSTD_decompressStream(state_, &out, &in);
      if (ZSTD_isError(result)) input_->bad(concat("damaged zstd data (", ZSTD_getErrorName(result), ")"));
      input_->take(in.pos);
      inside_ = result != 0;
      if (!more && out.pos == 0 && inside_) input_->bad("the zstd data end in the middle of a frame; the file is cut short");
    }
    return out.pos;
  }

 private:
  std::unique_ptr<Input> input_;
  ZSTD_DStream* state_;
  bool inside_ = true;
};
#endif

}  // namespace

std::unique_ptr<ByteStream> open_byte_stream(const std::string& path) {
  auto input = std::make_unique<Input>(path);
  input->fill();
  const auto begins = [&](std::string_view magic) {
    return input->size() >= magic.size() && std::memcmp(input->data(), magic.data(), magic.size()) == 0;
  };
  if (begins("\x1F\x8B")) return std::make_unique<GzipStream>(std::move(input));
  // Zstd data may begin with skippable frames, as pzstd's do: 50 2A 4D 18 to 5F 2A 4D 18.
  const bool skippable = input->size() >= 4 && (input->data()[0] & '\xF0') == 'P' && std::memcmp(input->data() + 1, "\x2A\x4D\x18", 3) == 0;
  if (skippable || begins("\x28\xB5\x2F\xFD")) {
#if HEDDLE_HAVE_ZSTD
    return std::make_unique<ZstdStream>(std::move(input));
#else
    fail("text", concat(path, ": compressed with zstd, which this build cannot read; decompress it, or build with libzstd-dev"), ExitCode::usage);
#endif
  }
  return std::make_unique<PlainStream>(std::move(input));
}

}  // namespace heddle
