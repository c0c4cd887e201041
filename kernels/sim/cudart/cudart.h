// The simulated CUDA runtime: the real symbols of cuda_runtime_api.h on host memory. Host code is compiled unchanged and linked with this in place
// of libcudart. Here are the controls that the real runtime has not.
//
// Streams are deferred: a call puts its work into a graph of dependencies, and the work runs when the host waits for it, in an order that is random
// but for what streams, events and the default stream promise (CUDA C++ Programming Guide, "Streams"). Code that forgot an event, or reads a buffer
// before its copy is done, therefore fails in most runs. Like hardware, nothing else is promised: not that work starts early, nor that it waits.
//
// Faults of the host program are reported by name. A call that is wrong by itself returns the error that CUDA documents; what only shows when the
// work runs (a kernel's fault, memory freed too early, a changed copy source) is sticky: every later call returns it, as after a failed launch on a
// GPU. cudaGetErrorString then gives the whole report, not only CUDA's words.
//
// Environment, read at the first call:
//   HEDDLE_SIM_DEVICES   number of devices (1)
//   HEDDLE_SIM_FIRST_DEVICE  number of the first of them on its host (0), by which its UUID is made: processes that are shown a device each
//   HEDDLE_SIM_MEMORY    bytes of one device, with K, M or G (2G)
//   HEDDLE_SIM_SMS       multiprocessors of one device (8)
//   HEDDLE_SIM_CAPABILITY  80 or 90 (90): what a device says it is, for host code that chooses by it; the machine can do the same either way
//   HEDDLE_SIM_STREAMS   immediate: each call runs its work at once; fifo: in the order of the calls; random[:seed] (random:1)
//   HEDDLE_SIM_HOST_KERNELS  heddle's ops by the CPU's kernels in place of CUDA kernels: also (default), where there is no other; only; never
//   HEDDLE_SIM_PROTECT   1: device memory is unmapped while the host runs, so that a host access is reported; slow for large memory
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>

namespace heddle::sim {

enum class StreamOrder : uint8_t { immediate, fifo, random };
enum class HostKernels : uint8_t { also, only, never };

struct RuntimeOptions {
  int devices = 1;
  int first_device = 0;             // what the machine calls the first of them: devices of two processes with one number are the same
  size_t memory = size_t{2} << 30;  // bytes per device
  int multiprocessors = 8;
  int capability = 90;
  StreamOrder order = StreamOrder::random;
  uint64_t seed = 1;
  HostKernels host_kernels = HostKernels::also;
  bool protect = false;
};

RuntimeOptions runtime_options();

// Back to a fresh process: pending work is dropped, memory, streams, events and graphs are released, errors forgotten. Handles of before are invalid
// afterwards. For tests, which loop over seeds with it.
void reset_runtime(const RuntimeOptions& options);

// The report behind the last error of this thread, or behind the sticky one; empty after none. cudaGetErrorString gives it too.
std::string runtime_report();

// Puts what a CUDA kernel would do, done by the host, into a stream: for operations that have no kernel yet. Like a kernel it runs in the stream's
// order, may be captured, and touches device memory alone (a function of cudaLaunchHostFunc may touch all of the host's). An exception loses the
// device.
void launch_on_host(const char* name, std::function<void()> work, void* native_stream);

struct RuntimeCounters {
  uint64_t enqueued = 0, executed = 0, pending = 0;  // pieces of work: kernels, copies, events, collectives
  uint64_t kernels = 0, host_kernels = 0;            // of those executed: kernels, and what launch_on_host did in place of one
  uint64_t live_allocations = 0;                     // of device memory
  uint64_t calls = 0;                                // of the runtime by the program, launches included: what a step costs the host
};
RuntimeCounters runtime_counters();

}  // namespace heddle::sim
