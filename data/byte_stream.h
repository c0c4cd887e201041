// A file read from its beginning, decompressed when it is gzip or zstd. Internal to text_source.
#pragma once

#include <memory>
#include <string>

namespace heddle {

class ByteStream {
 public:
  virtual ~ByteStream() = default;
  virtual size_t read(char* to, size_t bytes) = 0;  // 0 at the end; Error(bad_data) names the file and the offset in it
};

std::unique_ptr<ByteStream> open_byte_stream(const std::string& path);

}  // namespace heddle
