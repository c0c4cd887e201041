// What runtimes share whose work is done when its call returns: the CPU's, and a rehearsal's. Streams carry no order, an event is always reached.
#pragma once

#include "core/device.h"
#include "kernels/api/check.h"

namespace heddle {

class ImmediateRuntime : public Runtime {
 public:
  Stream default_stream(int) override { return {}; }
  Stream create_stream(int, StreamPriority) override { return {}; }
  void release_stream(Stream, StreamPriority) override {}
  void* create_event(int) override { return nullptr; }
  void destroy_event(void*) override {}
  void record(void*, Stream) override {}
  void wait(Stream, void*) override {}
  bool reached(void*) override { return true; }

  void begin_capture(Stream) override { no_capture(); }
  bool capturing(Stream) override { return false; }
  void* end_capture(Stream) override { no_capture(); }
  void launch_graph(void*, Stream) override { no_capture(); }
  void destroy_graph(void*) override {}

 private:
  [[noreturn]] static void no_capture() { fail("graph", "the CPU runs work at once and records none; graphs are for CUDA devices"); }
  void wait_on_host(Stream) override {}
  void wait_on_host(void*) override {}
  void wait_on_host(int) override {}
};

}  // namespace heddle
