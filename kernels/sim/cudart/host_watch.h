// Host memory that work in a stream will read or write: what the host must leave alone until then.
//
// A copy from host memory reads its source when the stream gets there, from pageable memory perhaps earlier ("API synchronization behavior" in the
// CUDA Runtime API reference: an asynchronous copy of pageable memory may be staged, or not). So the source's content is remembered at the call and
// compared when the copy runs. A copy to host memory fills its destination with kPoison at the call, for hosts that read too early, and finds out
// whether the host has written it meanwhile.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace heddle::sim::cudart {

inline constexpr unsigned char kPoison = 0xfb;

// height rows of width bytes, pitch apart.
struct Rows {
  std::byte* data = nullptr;
  size_t pitch = 0, width = 0, height = 1;
  size_t extent() const { return height == 0 ? 0 : (height - 1) * pitch + width; }
  std::byte* row(size_t i) const { return data + i * pitch; }
};

// A pending use of host memory. Registered while it lives.
class HostUse {
 public:
  enum class Kind : uint8_t { reads, writes };
  HostUse(Kind kind, const Rows& rows);
  ~HostUse();
  HostUse(const HostUse&) = delete;
  HostUse& operator=(const HostUse&) = delete;

  // When the work runs: empty, or what the host did to the memory since the call: "byte 12 changed".
  std::string disturbed() const;
  const Rows& rows() const { return rows_; }

 private:
  Rows rows_;
  bool poisoned_ = false;
  std::vector<uint64_t> blocks_;  // hashes of the content at the call
  uint64_t since_ = 0;            // number of device writes to host memory before the call
};

// Work of a stream has written host memory, so a changed source is no fault of the host.
void note_stream_wrote(const Rows& rows);
// A host function has run: it may have written anything. Pending ones may read anything, so nothing is poisoned under them.
void note_host_function_ran();
void host_function_pending(int change);

// memcpy from and to memory that the host may have unmapped meanwhile; false when it has.
bool read_host(std::byte* to, const std::byte* from, size_t bytes);
bool write_host(std::byte* to, const std::byte* from, size_t bytes);

}  // namespace heddle::sim::cudart
