#include "kernels/sim/cudart/runtime.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <string_view>
#include <thread>
#include <utility>

#include "kernels/sim/core/machine.h"
#include "kernels/sim/cudart/device.h"
#include "kernels/sim/cudart/memory.h"

namespace heddle::sim::cudart {
namespace {

constexpr double kHold = 300;         // milliseconds for which what needs other processes goes first
constexpr size_t kQueueLimit = 4096;  // pieces of work; then a call runs some, as a full launch queue blocks on a GPU

std::atomic<uint64_t> next_thread{1};

// Takes over kernel launches: they become work in streams.
void launch_into_stream(Launch launch, void* native_stream);

}  // namespace

std::string Operation::describe() const {
  return concat(text, " (", site.text(), ")");
}

Runtime& runtime() {
  static Runtime* const instance = new Runtime;  // never destroyed: handles are released by destructors of static objects too
  return *instance;
}

Runtime::Runtime() {
  reset(from_environment());
  set_launcher(launch_into_stream);
}

void Runtime::reset(const RuntimeOptions& fresh) {
  for (const std::vector<WorkRef>& items : {ready_, std::vector<WorkRef>(waiting_.begin(), waiting_.end())}) {
    for (const WorkRef& item : items) item->next.clear(), item->task = nullptr;
  }
  ready_.clear(), waiting_.clear(), captures.clear(), peers.clear(), orphans.clear();
  for (CUstream_st* s : streams) delete s;
  for (CUevent_st* e : events) delete e;
  for (CUgraph_st* g : graphs) delete g;
  for (CUgraphExec_st* e : execs) delete e;
  streams.clear(), events.clear(), graphs.clear(), execs.clear(), legacy.clear();
  options = fresh;
  counters = {};
  remote_pending = 0;
  recording = false, forgotten_wait = -1, waits = 0;
  recorded.clear();
  sticky = {cudaSuccess, {}};
  ++generation;
  next_stream = next_event = next_item_ = 1;
  seed(fresh.seed);
  memory().configure(fresh);
  for (int device = 0; device < fresh.devices; ++device) {
    legacy.push_back(std::make_unique<CUstream_st>());
    legacy.back()->name = "the default stream";
    legacy.back()->device = device;
    legacy.back()->legacy = true;
  }
}

void Runtime::reset(std::unique_lock<std::mutex>& lock, const RuntimeOptions& fresh) {
  while (running_) ran_.wait(lock);
  reset(fresh);
}

uint64_t Runtime::random() {  // splitmix64
  uint64_t z = random_state_ += 0x9e3779b97f4a7c15ull;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
  return z ^ (z >> 31);
}

double Runtime::milliseconds() const {
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// ---- handles ----

ThreadState& thread_state() {
  thread_local ThreadState state;
  if (state.id == 0) state.id = next_thread++;
  return state;
}

CUstream_st& legacy_stream() {
  Runtime& rt = runtime();
  const auto device = static_cast<size_t>(thread_state().device);
  if (device >= rt.legacy.size()) refuse(cudaErrorNoDevice, "no simulated device (HEDDLE_SIM_DEVICES=", rt.options.devices, ")");
  return *rt.legacy[device];
}

CUstream_st& Runtime::stream(cudaStream_t handle, const char* api) {
  if (handle == nullptr || handle == cudaStreamLegacy) return legacy_stream();
  if (handle == cudaStreamPerThread) {
    ThreadState& thread = thread_state();
    CUstream_st*& own = thread.own_streams.at(static_cast<size_t>(thread.device));
    if (!own) {
      own = new CUstream_st;
      own->name = concat("the default stream of thread ", thread.id);
      own->device = thread.device;
      streams.insert(own);
    }
    return *own;
  }
  if (!streams.count(handle)) refuse(cudaErrorInvalidResourceHandle, api, ": ", static_cast<void*>(handle), " is no stream, or was destroyed");
  return *handle;
}

CUevent_st& Runtime::event(cudaEvent_t handle, const char* api) {
  if (!events.count(handle)) refuse(cudaErrorInvalidResourceHandle, api, ": ", static_cast<void*>(handle), " is no event, or was destroyed");
  return *handle;
}

CUgraph_st& Runtime::graph(cudaGraph_t handle, const char* api) {
  if (!graphs.count(handle)) refuse(cudaErrorInvalidValue, api, ": ", static_cast<void*>(handle), " is no graph, or was destroyed");
  return *handle;
}

CUgraphExec_st& Runtime::exec(cudaGraphExec_t handle, const char* api) {
  if (!execs.count(handle)) refuse(cudaErrorInvalidValue, api, ": ", static_cast<void*>(handle), " is no executable graph, or was destroyed");
  return *handle;
}

// ---- putting work in ----

WorkRef Runtime::make(OperationRef operation, const std::string& stream) {
  auto item = std::make_shared<WorkItem>();
  item->number = next_item_++;
  item->task = operation->issue ? operation->issue() : Task([] { return true; });
  item->operation = std::move(operation);
  item->stream = stream;
  if (recording) recorded.push_back({item->number, stream, item->operation->text, item->operation->blocks, 0, {}});
  remote_pending += item->operation->remote;
  ++counters.enqueued;
  ++counters.pending;
  return item;
}

void Runtime::after(const WorkRef& item, const WorkRef& predecessor) {
  if (!predecessor) return;
  if (recording) recorded.back().after.push_back(predecessor->number);
  if (predecessor->done) return;
  predecessor->next.push_back(item);
  ++item->waits;
}

void Runtime::release(const WorkRef& item) {
  if (item->waits == 0)
    ready_.push_back(item);
  else
    waiting_.insert(item);
}

WorkRef Runtime::push(OperationRef operation, const std::string& stream, const std::vector<WorkRef>& predecessors) {
  WorkRef item = make(std::move(operation), stream);
  for (const WorkRef& p : predecessors) after(item, p);
  release(item);
  return item;
}

WorkRef Runtime::append(CUstream_st& stream, OperationRef operation, const std::vector<WorkRef>& also_after) {
  if (stream.legacy) {
    for (const auto& capture : captures) {
      for (const CUstream_st* member : capture->members) {
        if (member->blocking() && member->device == stream.device)
          invalidate(*capture, cudaErrorStreamCaptureImplicit,
                     concat(operation->describe(), " in the default stream would wait for ", member->name, ", which is capturing"));
      }
    }
  }
  std::vector<WorkRef> predecessors = also_after;
  predecessors.push_back(stream.last);
  CUstream_st& default_stream = *legacy[static_cast<size_t>(stream.device)];
  if (stream.legacy) {
    for (CUstream_st* other : streams) {
      if (other->device == stream.device && other->blocking()) predecessors.push_back(other->last);
    }
  } else if (stream.blocking()) {
    predecessors.push_back(default_stream.last);
  }
  return stream.last = push(std::move(operation), stream.name, predecessors);
}

WorkRef Runtime::submit(CUstream_st& stream, Operation operation) {
  auto shared = std::make_shared<const Operation>(std::move(operation));
  if (stream.capture) {
    capture_node(stream, std::move(shared));
    return nullptr;
  }
  return append(stream, std::move(shared));
}

// ---- running it ----

// Random order prefers the newest work: nothing but a real dependency keeps it from overtaking. What waits for other processes takes long, and all
// that is queued beside it would mostly be over before they answer, as if it had waited for that: of three seeds one asks it first and one last.
size_t Runtime::choose() {
  const auto number = [](const WorkRef& item) { return item->number; };
  if (options.order != StreamOrder::random) return static_cast<size_t>(std::ranges::min_element(ready_, {}, number) - ready_.begin());
  if (remote_ != Remote::any) {
    std::vector<size_t> apart;
    for (size_t i = 0; i < ready_.size(); ++i) {
      const WorkItem& item = *ready_[i];
      if (item.operation->remote && item.asked_since > 0 && milliseconds() - item.asked_since > kHold) continue;  // it may need what it holds up
      // Waits and records, which take no time, go first with it: what it comes after has just been done.
      const bool goes_first = item.operation->remote || item.operation->type == cudaGraphNodeTypeEmpty;
      if (remote_ == Remote::first ? goes_first : !item.operation->remote) apart.push_back(i);
    }
    if (!apart.empty()) return apart[random() % apart.size()];
  }
  if (random() % 2 == 0) return static_cast<size_t>(std::ranges::max_element(ready_, {}, number) - ready_.begin());
  return random() % ready_.size();
}

// Runs one piece of work without the lock. False when there is none.
bool Runtime::step(std::unique_lock<std::mutex>& lock) {
  if (ready_.empty()) return false;
  const size_t at = choose();
  const WorkRef item = ready_[at];
  ready_.erase(ready_.begin() + static_cast<std::ptrdiff_t>(at));
  running_ = true;
  lock.unlock();
  bool done = false;
  Failure failure = {cudaSuccess, {}};
  ThreadState& thread = thread_state();
  thread.in_task = true;
  memory().open();
  try {
    done = item->task();
  } catch (const Failure& f) {
    failure = {f.code, concat(f.text, "; in ", item->operation->describe(), " on ", item->stream)};
  } catch (const std::exception& e) {
    failure = {cudaErrorLaunchFailure, concat(e.what(), "; launched on ", item->stream, " (", item->operation->site.text(), ")")};
  }
  memory().close();
  thread.in_task = false;
  lock.lock();
  running_ = false;
  if (failure.code != cudaSuccess) {
    item->done = true;
    lose(failure);
  } else if (sticky.code != cudaSuccess) {
    item->done = true;  // a reset or a fault took the rest away meanwhile
  } else if (done) {
    fruitless_ = 0;
    item->done = true;
    item->task = nullptr;
    ++counters.executed;
    --counters.pending;
    counters.kernels += item->operation->type == cudaGraphNodeTypeKernel;
    counters.host_kernels += item->operation->in_place_of_kernel;
    remote_pending -= item->operation->remote;
    for (const WorkRef& next : std::exchange(item->next, {})) {
      if (--next->waits == 0) waiting_.erase(next), ready_.push_back(next);
    }
  } else {
    ready_.push_back(item);
    if (item->asked_since == 0) item->asked_since = milliseconds();
    if (++fruitless_ >= 2 * ready_.size()) {  // everything waits for other processes
      fruitless_ = 0;
      lock.unlock();
      std::this_thread::sleep_for(std::chrono::microseconds(50));
      lock.lock();
    }
  }
  ran_.notify_all();
  return true;
}

void Runtime::run_until(std::unique_lock<std::mutex>& lock, const std::function<bool()>& reached) {
  while (!reached()) {
    last_call = milliseconds();
    if (sticky.code != cudaSuccess) throw sticky;
    if (running_) {
      ran_.wait(lock);
    } else if (!step(lock)) {
      refuse(cudaErrorUnknown, "the simulated runtime waits for work that nothing will start");
    }
  }
}

void Runtime::wait(std::unique_lock<std::mutex>& lock, const WorkRef& item) {
  if (item) run_until(lock, [item] { return item->done; });
  if (sticky.code != cudaSuccess) throw sticky;
}

void Runtime::wait_stream(std::unique_lock<std::mutex>& lock, CUstream_st& stream) {
  wait(lock, stream.last);
}

void Runtime::wait_device(std::unique_lock<std::mutex>& lock, int device) {
  std::vector<WorkRef> last = {legacy.at(static_cast<size_t>(device))->last};
  for (CUstream_st* s : streams) {
    if (s->device == device) last.push_back(s->last);
  }
  for (const auto& [its_device, item] : orphans) {
    if (its_device == device) last.push_back(item);
  }
  for (const WorkRef& item : last) wait(lock, item);
  std::erase_if(orphans, [](const auto& orphan) { return !orphan.second || orphan.second->done; });
}

void Runtime::progress(std::unique_lock<std::mutex>& lock) {
  for (uint64_t n = random() % 3; n > 0 && !running_ && sticky.code == cudaSuccess; --n) {
    if (!step(lock)) break;
  }
  if (sticky.code != cudaSuccess) throw sticky;
}

bool Runtime::advance(std::unique_lock<std::mutex>& lock) {
  return sticky.code == cudaSuccess && !running_ && step(lock);
}

void Runtime::keep_moving(std::unique_lock<std::mutex>& lock) {
  const bool at_once = options.order == StreamOrder::immediate;
  while (sticky.code == cudaSuccess && !running_ && (at_once || counters.pending > kQueueLimit)) {
    if (!step(lock)) break;
  }
  if (sticky.code != cudaSuccess) throw Failure(sticky);
}

void Runtime::lose(const Failure& failure) {
  if (sticky.code == cudaSuccess) sticky = failure;
  const auto drop = [](const WorkRef& item) {
    item->next.clear();
    item->task = nullptr;
    item->done = true;  // nobody waits for it any more, should the device come back
  };
  for (const WorkRef& item : ready_) drop(item);
  for (const WorkRef& item : waiting_) drop(item);
  ready_.clear(), waiting_.clear();
  counters.pending = remote_pending = 0;
}

// ---- calls ----

cudaError_t guarded(const char* api, void* address, const std::function<void(Call&)>& body) {
  Failure failure = {cudaSuccess, {}};
  try {
    Runtime& rt = runtime();
    if (thread_state().in_task) refuse(cudaErrorNotPermitted, api, " inside a host function of a stream: ", call_site(api, address).text());
    Call call{call_site(api, address), std::unique_lock(rt.mutex), rt};
    if (rt.sticky.code != cudaSuccess) throw Failure(rt.sticky);
    if (ThreadState& thread = thread_state(); thread.generation != rt.generation) {  // the first call of this thread since a reset
      thread.generation = rt.generation;
      thread.device = 0;
      thread.capture_mode = cudaStreamCaptureModeGlobal;
      thread.own_streams.assign(rt.legacy.size(), nullptr);
    }
    rt.last_call = rt.milliseconds();
    ++rt.counters.calls;
    body(call);
    rt.keep_moving(call.lock);
    rt.last_call = rt.milliseconds();
  } catch (const Failure& f) {
    failure = f;
  } catch (const std::bad_alloc&) {
    failure = {cudaErrorMemoryAllocation, concat(api, ": the host has no memory left")};
  } catch (const std::exception& e) {
    failure = {cudaErrorInitializationError, e.what()};
  }
  if (failure.code != cudaSuccess) set_last_error(failure);
  return failure.code;
}

namespace {

void launch_into_stream(Launch launch, void* native_stream) {
  const char* const kernel = launch.kernel;
  // The first frame is the machine's own submit(), the next ones are the launch.
  CallSite launch_site = call_site_deep("launch", return_address());
  std::rotate(launch_site.frames.begin(), launch_site.frames.begin() + 1, launch_site.frames.end());
  launch_site.frames.back() = nullptr;
  const cudaError_t status = guarded(kernel, launch_site.frames[0], [&](Call& call) {
    CUstream_st& stream = call.rt.stream(static_cast<cudaStream_t>(native_stream), kernel);
    try {
      validate(launch);
    } catch (const Error& e) {
      throw Failure{cudaErrorInvalidConfiguration, e.what()};
    }
    const uint64_t blocks = launch.geometry.grid.volume();
    const auto resident =
        static_cast<uint64_t>(call.rt.options.multiprocessors) * blocks_per_multiprocessor(launch.geometry.block.volume(), launch.dynamic_shared);
    if (launch.cooperative && blocks > resident)
      refuse(cudaErrorCooperativeLaunchTooLarge, "cooperative launch of ", kernel, ": ", blocks, " blocks, but only ", resident, " fit on ",
             call.rt.options.multiprocessors, " multiprocessors (HEDDLE_SIM_SMS)");
    Operation operation;
    operation.type = cudaGraphNodeTypeKernel;
    operation.site = launch_site;
    operation.blocks = blocks;
    operation.text = concat("kernel ", kernel);
    operation.issue = [shared = std::make_shared<const Launch>(std::move(launch))] {
      return Task([shared] {
        set_running(shared->kernel);
        struct Stopped {
          ~Stopped() { set_running(nullptr); }
        } stopped;
        run(*shared);
        return true;
      });
    };
    call.rt.submit(stream, std::move(operation));
  });
  if (status != cudaSuccess) fail("cuda", concat("launch of ", kernel, ": ", cudaGetErrorString(status)));
}

}  // namespace
}  // namespace heddle::sim::cudart
