// Devices at run time: memory, streams, events. The one place that knows how a device type does them.
//
// cpu runs everything at once, in order; a Stream there carries no handle and an Event is always complete. cuda is core/device_cuda.cpp, in builds
// that have it. What waits on the host is counted, so that a test can say that a step does not.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "kernels/api/types.h"

namespace heddle {

enum class StreamPriority : uint8_t { normal, high };  // high: communication, whose kernels go first where both could run

// One device type. Handles (events, graphs) are void*; Event, PinnedMemory and Graph (core/graph.h) own them. Every function that works on a stream
// throws Error with the name of the call that failed; the ones that release something do not throw.
class Runtime {
 public:
  virtual ~Runtime() = default;

  virtual int device_count() const = 0;
  virtual size_t memory_limit(int device) const = 0;   // bytes the device has
  virtual std::string describe(int device) const = 0;  // "NVIDIA H100 80GB HBM3, sm_90, 132 multiprocessors, 79.1 GiB"
  virtual bool simulated() const { return false; }
  virtual void make_current([[maybe_unused]] int device) {}  // of this thread: where its kernels are launched
  virtual void* allocate(int device, size_t bytes) = 0;      // nullptr: out of memory. Allowed in a capture
  virtual void release(int device, void* memory, size_t bytes) = 0;
  virtual void* allocate_pinned(size_t bytes) = 0;  // host memory that copies read and write in stream order; nullptr: out of memory
  virtual void release_pinned(void* memory) = 0;

  // In stream order; memory of the host stays as it is until the stream has come past. Pageable memory may be read sooner.
  virtual void copy(void* to, Device to_device, const void* from, Device from_device, size_t bytes, Stream) = 0;
  virtual void fill(void* memory, unsigned char value, size_t bytes, Stream) = 0;

  virtual Stream default_stream(int device) = 0;
  // A stream that waits for no other. A handle is never destroyed: a released one serves the next caller, after what it still has to do, so memory
  // that was used on it keeps its order.
  virtual Stream create_stream(int device, StreamPriority) = 0;
  virtual void release_stream(Stream, StreamPriority) = 0;

  virtual void* create_event(int device) = 0;
  virtual void destroy_event(void*) = 0;
  virtual void record(void* event, Stream) = 0;
  virtual void wait(Stream, void* event) = 0;  // work queued later on the stream starts after the event
  virtual bool reached(void* event) = 0;       // asks, does not wait; not while this thread captures

  // Capture of this thread: what it queues on the stream, and on streams that events join to it, is recorded and does not run.
  virtual void begin_capture(Stream) = 0;
  virtual bool capturing(Stream) = 0;
  virtual void* end_capture(Stream) = 0;  // ends it in any case, and gives what launch_graph and destroy_graph take
  virtual void launch_graph(void* executable, Stream) = 0;
  virtual void destroy_graph(void* executable) = 0;  // its launches are done

  // ---- the host waits: counted ----
  void synchronize(Stream stream) { ++host_waits_, wait_on_host(stream); }
  void synchronize_event(void* event) { ++host_waits_, wait_on_host(event); }
  void synchronize_device(int device) { ++host_waits_, wait_on_host(device); }
  uint64_t host_synchronisations() const { return host_waits_; }

 private:
  virtual void wait_on_host(Stream) = 0;
  virtual void wait_on_host(void* event) = 0;
  virtual void wait_on_host(int device) = 0;

  std::atomic<uint64_t> host_waits_{0};
};

// Throws Error(no_device) saying what is missing: the build, the driver, or the device.
Runtime& runtime(DeviceType);
bool has_device(Device);

// The stream ops of this thread run on, its device's default stream until a StreamGuard changes it for a scope. Makes the device this thread's
// current one.
Stream current_stream(Device);

class StreamGuard {
 public:
  explicit StreamGuard(Stream);
  ~StreamGuard();
  StreamGuard(const StreamGuard&) = delete;
  StreamGuard& operator=(const StreamGuard&) = delete;

 private:
  Stream previous_;
};

// A stream of its own.
class OwnStream {
 public:
  explicit OwnStream(Device, StreamPriority = StreamPriority::normal);
  ~OwnStream();
  OwnStream(const OwnStream&) = delete;
  OwnStream& operator=(const OwnStream&) = delete;
  operator Stream() const { return stream_; }

 private:
  Stream stream_;
  StreamPriority priority_;
};

// A point in the work of a device's streams. Before its first record it counts as reached.
class Event {
 public:
  explicit Event(Device = {});
  ~Event();
  Event(Event&&) noexcept;
  Event& operator=(Event&&) noexcept;

  void record(Stream);
  void wait(Stream) const;   // the stream waits, the host does not
  bool reached() const;      // asks
  void synchronize() const;  // the host waits

 private:
  Device device_;
  void* native_ = nullptr;
};

// Host memory that copies from and to a device pass through without the host's waiting.
class PinnedMemory {
 public:
  PinnedMemory() = default;
  PinnedMemory(Device, size_t bytes);  // for copies with this device. Throws Error(out_of_memory)
  ~PinnedMemory();
  PinnedMemory(PinnedMemory&&) noexcept;
  PinnedMemory& operator=(PinnedMemory&&) noexcept;

  std::byte* data() const { return data_; }
  size_t bytes() const { return bytes_; }

 private:
  Device device_;
  std::byte* data_ = nullptr;
  size_t bytes_ = 0;
};

// Copies bytes between devices or within one, on the current stream, after what is queued there. Where one side is the host and the other is not, the
// host waits until it is done, and hears of a fault (core/fault.h); copy_async does not: the host's bytes then stay untouched until the stream has
// come past (PinnedMemory, an Event).
void copy_bytes(void* to, Device to_device, const void* from, Device from_device, size_t bytes);
void copy_async(void* to, Device to_device, const void* from, Device from_device, size_t bytes, Stream);
void synchronize(Device);  // the host waits for the current stream

}  // namespace heddle
