// The streams of the simulated runtime: work, what orders it, and when it runs.
//
// Every call that a stream would carry becomes a WorkItem: a piece of work that waits for others. Order comes from four sources only: the stream's
// previous item, an event waited for, the legacy default stream (it waits for the blocking streams of its device and they for it), the edges of a
// graph. An item whose predecessors are done may run at any time, and runs when some host thread waits.
#pragma once

#include <cuda_runtime_api.h>

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "kernels/sim/cudart/cudart.h"
#include "kernels/sim/cudart/errors.h"
#include "kernels/sim/cudart/order.h"
#include "kernels/sim/cudart/site.h"

namespace heddle::sim::cudart {

// Runs a piece of work. true: done. false: it waits for another process, ask again. Throws Failure or Error: the device is lost, as after a fault on
// a GPU.
using Task = std::function<bool()>;

// What a call puts into a stream, or a graph keeps to do again and again.
struct Operation {
  cudaGraphNodeType type = cudaGraphNodeTypeEmpty;
  CallSite site;
  std::string text;                 // "copy of 64 bytes, host to device": for reports
  std::function<Task()> issue;      // called when the work enters a stream (each launch of a graph again), in program order
  bool remote = false;              // it needs other processes
  bool in_place_of_kernel = false;  // launch_on_host
  uint64_t blocks = 0;              // of a kernel's grid
  std::string shape;                // what cudaGraphExecUpdate may not change, besides the type

  std::string describe() const;  // text and call site
};
using OperationRef = std::shared_ptr<const Operation>;

struct WorkItem {
  uint64_t number = 0;  // in the order of the calls
  OperationRef operation;
  Task task;
  std::string stream;
  int waits = 0;  // predecessors that are not done
  bool done = false;
  double asked_since = 0;  // milliseconds() of its task's first false
  std::vector<std::shared_ptr<WorkItem>> next;
};
using WorkRef = std::shared_ptr<WorkItem>;

struct Capture;

}  // namespace heddle::sim::cudart

// The opaque types of the API.
struct CUstream_st {
  std::string name;
  int device = 0;
  unsigned flags = 0;
  int priority = 0;
  bool legacy = false;
  heddle::sim::cudart::WorkRef last;
  heddle::sim::cudart::Capture* capture = nullptr;  // the one it takes part in
  std::vector<CUgraphNode_st*> tails;               // its last nodes in that capture
  bool blocking() const { return !legacy && !(flags & cudaStreamNonBlocking); }
};

struct CUevent_st {
  std::string name;
  unsigned flags = 0;
  heddle::sim::cudart::WorkRef record;  // the last one; null before the first
  std::shared_ptr<double> time;         // milliseconds, written when the record runs
  uint64_t capture = 0;                 // recorded in this capture: an event of a graph, not of time
  std::vector<CUgraphNode_st*> captured;
};

struct CUgraphNode_st {
  size_t index = 0;
  heddle::sim::cudart::OperationRef operation;
  std::vector<CUgraphNode_st*> after;
};

struct CUgraph_st {
  std::vector<std::unique_ptr<CUgraphNode_st>> nodes;  // in the order of capture, so predecessors come first
};

struct CUgraphExec_st {
  struct Step {
    heddle::sim::cudart::OperationRef operation;
    std::vector<size_t> after;
  };
  std::vector<Step> steps;
  heddle::sim::cudart::WorkRef last;  // end of its last launch: launches of one graph do not overlap
};

namespace heddle::sim::cudart {

// Work being recorded by cudaStreamBeginCapture.
struct Capture {
  uint64_t id = 0;
  cudaStreamCaptureMode mode = cudaStreamCaptureModeGlobal;
  uint64_t thread = 0;
  CUstream_st* origin = nullptr;
  std::unique_ptr<CUgraph_st> graph;
  std::set<CUstream_st*> members;
  std::string invalid;  // why it can no longer become a graph
};

class Runtime {
 public:
  Runtime();
  void reset(const RuntimeOptions& options);
  void reset(std::unique_lock<std::mutex>& lock, const RuntimeOptions& options);  // once no other thread runs work

  // ---- inside a call: the lock is held ----
  CUstream_st& stream(cudaStream_t handle, const char* api);  // resolves 0, cudaStreamLegacy, cudaStreamPerThread; throws on a dead handle
  CUevent_st& event(cudaEvent_t handle, const char* api);
  CUgraph_st& graph(cudaGraph_t handle, const char* api);
  CUgraphExec_st& exec(cudaGraphExec_t handle, const char* api);

  // Puts work into a stream, or into the graph that the stream is recording (then null).
  WorkRef submit(CUstream_st& stream, Operation operation);
  // Work in a stream that also waits for others: events, graphs.
  WorkRef append(CUstream_st& stream, OperationRef operation, const std::vector<WorkRef>& also_after = {});
  // Work outside the stream's order: nodes of a graph.
  WorkRef push(OperationRef operation, const std::string& stream, const std::vector<WorkRef>& after);

  void wait(std::unique_lock<std::mutex>& lock, const WorkRef& item);
  void wait_stream(std::unique_lock<std::mutex>& lock, CUstream_st& stream);
  void wait_device(std::unique_lock<std::mutex>& lock, int device);
  void progress(std::unique_lock<std::mutex>& lock);     // of a query: runs a little, perhaps nothing
  bool advance(std::unique_lock<std::mutex>& lock);      // runs one piece of work if there is one and nobody else does
  void keep_moving(std::unique_lock<std::mutex>& lock);  // after each call: StreamOrder::immediate, and full queues

  // ---- captures ----
  // For calls that CUDA calls unsafe during a capture; throws and invalidates when one is on that this thread must respect.
  void forbid_during_capture(const CallSite& site);
  [[noreturn]] void invalidate(Capture& capture, cudaError_t code, const std::string& why);
  bool capturing(const CUstream_st& stream) const { return stream.capture != nullptr; }
  CUgraphNode_st* capture_node(CUstream_st& stream, OperationRef operation);
  void end_membership(Capture& capture);

  void lose(const Failure& failure);  // the sticky error
  Failure sticky = {cudaSuccess, {}};

  std::mutex mutex;
  RuntimeOptions options;
  RuntimeCounters counters;
  std::set<CUstream_st*> streams;
  std::set<CUevent_st*> events;
  std::set<CUgraph_st*> graphs;
  std::set<CUgraphExec_st*> execs;
  std::vector<std::unique_ptr<CUstream_st>> legacy;  // by device
  std::vector<std::unique_ptr<Capture>> captures;
  std::set<std::pair<int, int>> peers;           // (device, peer) enabled
  std::vector<std::pair<int, WorkRef>> orphans;  // last work of destroyed streams, by device
  uint64_t remote_pending = 0;                   // pieces of work that need other processes
  double last_call = 0;                          // milliseconds(): when a host thread last called or waited
  uint64_t generation = 1;                       // of resets: per-thread streams of before are dead
  uint64_t next_stream = 1, next_event = 1, next_capture = 1;
  double milliseconds() const;  // of a clock that only goes forward

  // ---- order.h ----
  void seed(uint64_t seed) {
    random_state_ = seed * 0x9e3779b97f4a7c15ull + 0x1234567;
    remote_ = seed % 3 == 2 ? Remote::first : seed % 3 == 0 ? Remote::last : Remote::any;
  }
  bool recording = false;
  std::vector<RecordedWork> recorded;
  int64_t forgotten_wait = -1;
  uint64_t waits = 0;  // calls of cudaStreamWaitEvent

 private:
  WorkRef make(OperationRef operation, const std::string& stream);
  void after(const WorkRef& item, const WorkRef& predecessor);
  void release(const WorkRef& item);
  size_t choose();
  bool step(std::unique_lock<std::mutex>& lock);
  void run_until(std::unique_lock<std::mutex>& lock, const std::function<bool()>& reached);
  uint64_t random();

  std::vector<WorkRef> ready_;
  std::set<WorkRef> waiting_;
  enum class Remote : uint8_t { any, first, last } remote_ = Remote::any;
  bool running_ = false;
  size_t fruitless_ = 0;  // items asked in a row that wait for other processes
  std::condition_variable ran_;
  uint64_t random_state_ = 1, next_item_ = 1;
};

Runtime& runtime();
RuntimeOptions from_environment();  // options.cpp

// Kept by each host thread.
struct ThreadState {
  int device = 0;
  cudaStreamCaptureMode capture_mode = cudaStreamCaptureModeGlobal;
  uint64_t id = 0;
  bool in_task = false;  // inside a host function: no CUDA calls
  uint64_t generation = 0;
  std::vector<CUstream_st*> own_streams;  // cudaStreamPerThread, by device
};
ThreadState& thread_state();
CUstream_st& legacy_stream();  // of the current device

// One CUDA call, from the lock to the error code.
struct Call {
  CallSite site;
  std::unique_lock<std::mutex> lock;
  Runtime& rt;
};

// Runs body(call) under the runtime's lock and turns what it throws into an error code.
cudaError_t guarded(const char* api, void* return_address, const std::function<void(Call&)>& body);

template <class Body>
[[gnu::always_inline]] inline cudaError_t api_call(const char* api, Body&& body) {
  return guarded(api, return_address(), std::forward<Body>(body));
}

}  // namespace heddle::sim::cudart
