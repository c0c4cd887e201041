// TensorBoard event files, written without protobuf.
//
// A file is a sequence of records: u64 length, u32 masked CRC-32C of the length, data, u32 masked CRC-32C of the data (the TFRecord framing of
// tensorflow/core/lib/io/record_writer). Data is an Event message (tensorflow/core/util/event.proto).
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

#include "core/io/own_file.h"

namespace heddle {

// Messages, as bytes. wall_time: seconds since 1970.
std::string tensorboard_version_event(double wall_time);
std::string tensorboard_scalar_event(double wall_time, int64_t step, std::string_view tag, float value);
std::string tensorboard_text_event(double wall_time, int64_t step, std::string_view tag, std::string_view text);  // text: Markdown
// A restart: readers drop what an earlier file of the directory says about this step and later ones.
std::string tensorboard_restart_event(double wall_time, int64_t step);

// The record around a message.
std::string tensorboard_record(std::string_view message);

// One new file per process and start, `events.out.tfevents.<seconds>.<host>.<pid>.<n>`, of whole records (core/io/own_file.h): a reader stops for
// ever at a torn one.
class TensorBoardLog {
 public:
  // Throws Error(io) when the file cannot be made. A run resumed after `resumed_step` announces the restart.
  TensorBoardLog(const std::filesystem::path& directory, std::optional<uint64_t> resumed_step);

  void scalar(uint64_t step, std::string_view tag, double value);
  void text(uint64_t step, std::string_view tag, std::string_view markdown);
  void restart(uint64_t first_step);  // after a roll-back: steps from here on are told anew

  std::filesystem::path file() const { return log_.path(); }

 private:
  void append(std::string_view message);

  AppendLog log_;
};

}  // namespace heddle
