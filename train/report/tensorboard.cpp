#include "train/report/tensorboard.h"

#include <unistd.h>

#include <atomic>
#include <bit>
#include <chrono>
#include <cstdio>

#include "core/io/crc32c.h"

namespace heddle {
namespace {

// Protocol buffer wire format: a key is (field number << 3) | wire type.
class Message {
 public:
  void varint(int field, uint64_t value) {
    key(field, 0);
    raw_varint(value);
  }
  void fixed64(int field, double value) {
    key(field, 1);
    little_endian(std::bit_cast<uint64_t>(value), 8);
  }
  void fixed32(int field, float value) {
    key(field, 5);
    little_endian(std::bit_cast<uint32_t>(value), 4);
  }
  void bytes(int field, std::string_view value) {
    key(field, 2);
    raw_varint(value.size());
    out_ += value;
  }
  void message(int field, const Message& value) { bytes(field, value.out_); }
  std::string take() && { return std::move(out_); }

  void little_endian(uint64_t value, int size) {
    for (int i = 0; i < size; ++i) out_ += static_cast<char>(value >> (8 * i));
  }

 private:
  void key(int field, int wire_type) { raw_varint(static_cast<uint64_t>(field) << 3 | static_cast<uint64_t>(wire_type)); }
  void raw_varint(uint64_t value) {
    for (; value >= 0x80; value >>= 7) out_ += static_cast<char>(value | 0x80);
    out_ += static_cast<char>(value);
  }

  std::string out_;
};

// Field numbers of event.proto, summary.proto and tensor.proto.
constexpr int kWallTime = 1, kStep = 2, kFileVersion = 3, kSummary = 5, kSessionLog = 7;
constexpr int kSummaryValue = 1, kValueTag = 1, kValueSimple = 2, kValueTensor = 8, kValueMetadata = 9;
constexpr uint64_t kStringType = 7;  // DT_STRING

Message event(double wall_time, int64_t step) {
  Message e;
  e.fixed64(kWallTime, wall_time);
  if (step != 0) e.varint(kStep, static_cast<uint64_t>(step));  // proto3 leaves zeros out
  return e;
}

std::string with_value(double wall_time, int64_t step, const Message& value) {
  Message summary;
  summary.message(kSummaryValue, value);
  Message e = event(wall_time, step);
  e.message(kSummary, summary);
  return std::move(e).take();
}

uint32_t masked_crc(std::string_view data) {
  const uint32_t crc = crc32c(data.data(), data.size());
  return ((crc >> 15) | (crc << 17)) + 0xa282ead8u;
}

double now() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

std::string new_file_name() {
  static std::atomic<int> count{0};
  char host[256] = "localhost";
  ::gethostname(host, sizeof host - 1);
  char name[400];
  std::snprintf(name, sizeof name, "events.out.tfevents.%010lld.%s.%ld.%d", static_cast<long long>(now()), host, static_cast<long>(::getpid()),
                count++);
  return name;
}

std::string little_endian(uint64_t value, int size) {
  Message m;
  m.little_endian(value, size);
  return std::move(m).take();
}

}  // namespace

std::string tensorboard_version_event(double wall_time) {
  Message e = event(wall_time, 0);
  e.bytes(kFileVersion, "brain.Event:2");
  return std::move(e).take();
}

std::string tensorboard_scalar_event(double wall_time, int64_t step, std::string_view tag, float value) {
  Message v;
  v.bytes(kValueTag, tag);
  v.fixed32(kValueSimple, value);
  return with_value(wall_time, step, v);
}

std::string tensorboard_text_event(double wall_time, int64_t step, std::string_view tag, std::string_view text) {
  Message plugin, metadata, dimension, shape, tensor, v;
  plugin.bytes(1, "text");
  metadata.message(1, plugin);
  dimension.varint(1, 1);
  shape.message(2, dimension);
  tensor.varint(1, kStringType);
  tensor.message(2, shape);
  tensor.bytes(8, text);
  v.bytes(kValueTag, tag);
  v.message(kValueMetadata, metadata);  // before the tensor, as protoc writes it
  v.message(kValueTensor, tensor);
  return with_value(wall_time, step, v);
}

std::string tensorboard_restart_event(double wall_time, int64_t step) {
  Message log;
  log.varint(1, 1);  // SessionLog.status = START
  Message e = event(wall_time, step);
  e.message(kSessionLog, log);
  return std::move(e).take();
}

std::string tensorboard_record(std::string_view message) {
  const std::string length = little_endian(message.size(), 8);
  std::string out = length + little_endian(masked_crc(length), 4);
  out += message;
  return out + little_endian(masked_crc(message), 4);
}

TensorBoardLog::TensorBoardLog(const std::filesystem::path& directory, std::optional<uint64_t> resumed_step)
    : log_((directory / new_file_name()).string(), AppendLog::Open::create_new) {
  log_.append(tensorboard_record(tensorboard_version_event(now())));
  if (resumed_step) restart(*resumed_step + 1);
}

void TensorBoardLog::scalar(uint64_t step, std::string_view tag, double value) {
  append(tensorboard_scalar_event(now(), static_cast<int64_t>(step), tag, static_cast<float>(value)));
}

void TensorBoardLog::text(uint64_t step, std::string_view tag, std::string_view markdown) {
  append(tensorboard_text_event(now(), static_cast<int64_t>(step), tag, markdown));
}

void TensorBoardLog::restart(uint64_t first_step) {
  append(tensorboard_restart_event(now(), static_cast<int64_t>(first_step)));
}

void TensorBoardLog::append(std::string_view message) {
  // A file that a full disk kept empty still begins with its version.
  if (log_.size() == 0 && !log_.append(tensorboard_record(tensorboard_version_event(now())))) return;
  log_.append(tensorboard_record(message));
}

}  // namespace heddle
