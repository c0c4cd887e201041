// Devices at run time: memory, streams, events. The one place that knows how a device type does them.
//
// cpu runs everything at once, in order; a Stream there carries no handle and an Event is always complete. A CUDA build adds its Runtime.
#pragma once

#include <cstddef>
#include <memory>

#include "kernels/api/types.h"

namespace heddle {

class Runtime {
 public:
  virtual ~Runtime() = default;
  virtual int device_count() const = 0;
  virtual void* allocate(int device, size_t bytes) = 0;  // nullptr: out of memory
  virtual void release(int device, void* memory, size_t bytes) = 0;
  virtual size_t memory_limit(int device) const = 0;  // bytes the device has
  virtual void copy(void* to, Device to_device, const void* from, Device from_device, size_t bytes, Stream) = 0;
  virtual Stream default_stream(int device) = 0;
  virtual void synchronize(Stream) = 0;
  virtual void* create_event() = 0;
  virtual void destroy_event(void*) = 0;
  virtual void record(void* event, Stream) = 0;
  virtual void wait(Stream, void* event) = 0;  // work queued later on the stream starts after the event
  virtual void synchronize_event(void* event) = 0;
};

// Throws Error(no_device) when this build or machine has none of the type.
Runtime& runtime(DeviceType);
bool has_device(Device);

// The stream ops of this thread run on; a StreamGuard changes it for a scope.
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

// A point in a stream's work.
class Event {
 public:
  explicit Event(DeviceType type = DeviceType::cpu);
  ~Event();
  Event(Event&&) noexcept;
  Event& operator=(Event&&) noexcept;

  void record(Stream);
  void wait(Stream) const;   // the stream waits, the host does not
  void synchronize() const;  // the host waits

 private:
  DeviceType type_;
  void* native_ = nullptr;
};

// Copies bytes between devices or within one, in stream order.
void copy_bytes(void* to, Device to_device, const void* from, Device from_device, size_t bytes);
void synchronize(Device);

}  // namespace heddle
