// The device plane of GPUs: NCCL. Source: NCCL documentation, "Creating a communicator with options" and "Fault Tolerance".
#include "parallel/nccl_communicator.h"

#include <nccl.h>
#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "core/device_cuda.h"
#include "core/queued_ops.h"
#include "kernels/api/check.h"
#include "kernels/api/multiprocessors.h"
#include "kernels/api/printable.h"
#include "parallel/nccl_ras.h"
#include "parallel/preflight.h"
#include "parallel/pulse.h"

namespace heddle {
namespace {

constexpr double kGrace = 10;    // seconds that a rank may give up later than another
constexpr double kFarewell = 5;  // seconds for what is still under way when a communicator goes

// Multiprocessors that communication may take: 16, or what the user tells NCCL, which the library heeds before what its caller says.
int most_blocks() {
  const char* const text = std::getenv("NCCL_MAX_CTAS");
  char* end = nullptr;
  const long blocks = text ? std::strtol(text, &end, 10) : 0;
  return text && end != text && *end == 0 && blocks > 0 && blocks <= 64 ? static_cast<int>(blocks) : 16;
}

// Between ranks: the multiprocessors of one communicator, which kernels launched while any of its calls is under way leave to it.
class Share {
 public:
  explicit Share(int blocks) : blocks_(blocks) {}
  void begin() {
    if (calls_++ == 0) kernels::communication_blocks += blocks_;
  }
  void end() {
    if (--calls_ == 0) kernels::communication_blocks -= blocks_;
  }

 private:
  int blocks_;
  std::atomic<int> calls_{0};
};
// Of a call, until a stream joins it, or nobody can any more.
class Taken {
 public:
  explicit Taken(std::shared_ptr<Share> share) : share_(std::move(share)) { share_->begin(); }
  ~Taken() { give_back(); }
  Taken(const Taken&) = delete;
  Taken& operator=(const Taken&) = delete;
  void give_back() {
    if (!std::exchange(given_back_, true)) share_->end();
  }

 private:
  std::shared_ptr<Share> share_;
  bool given_back_ = false;
};

// On rank 0: when nothing has gone on for `patience` seconds NCCL's own service is asked, once, and what it says is there when a report is due. A
// thread of its own: the others may wait for ever, and the report is to come in time.
class LateWatch {
 public:
  explicit LateWatch(double patience) : patience_(patience), thread_([this] { run(); }) {}
  ~LateWatch() {
    {
      const std::lock_guard lock(mutex_);
      over_ = true;
    }
    changed_.notify_all();
    thread_.join();
  }
  LateWatch(const LateWatch&) = delete;
  LateWatch& operator=(const LateWatch&) = delete;

 private:
  void run() {
    sigset_t all;  // signals are the training thread's
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, nullptr);
    const auto seconds = [] { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); };
    uint64_t marks = pulse().marks;
    double since = seconds();
    bool asked = false;
    std::unique_lock lock(mutex_);
    while (!changed_.wait_for(lock, std::chrono::duration<double>(std::min(0.5, patience_ / 8)), [this] { return over_; })) {
      if (const uint64_t now = pulse().marks; now != marks) {
        marks = now, since = seconds();
        if (std::exchange(asked, false)) note_late({});
      } else if (!asked && seconds() - since > patience_) {
        lock.unlock();
        note_late(ask_nccl());
        lock.lock();
        asked = true;
      }
    }
    if (asked) note_late({});
  }

  double patience_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool over_ = false;
  std::thread thread_;  // the last: it uses what is above
};

// Events that calls end with, lent to the handles of those calls.
class EventPool {
 public:
  explicit EventPool(Device device) : device_(device) {}

  static std::shared_ptr<Event> take(const std::shared_ptr<EventPool>& pool) {
    const std::lock_guard lock(pool->mutex_);
    if (pool->idle_.empty()) pool->idle_.push_back(std::make_unique<Event>(pool->device_));
    Event* const event = pool->idle_.back().release();
    pool->idle_.pop_back();
    return {event, [pool](Event* back) {
              const std::lock_guard returning(pool->mutex_);
              pool->idle_.emplace_back(back);
            }};
  }

 private:
  Device device_;
  std::mutex mutex_;
  std::vector<std::unique_ptr<Event>> idle_;
};

ncclDataType_t number(std::string_view op, DType dtype) {
  switch (dtype) {
    case DType::f32: return ncclFloat32;
    case DType::f64: return ncclFloat64;
    case DType::i32: return ncclInt32;
    case DType::bf16: return ncclBfloat16;
    default: fail(op, concat("sums of ", name_of(dtype), " values; f32, bf16, f64 and i32 are supported"));
  }
}

void require_dense(std::string_view op, const View& v) {
  HEDDLE_CHECK(v.contiguous(), op, "of a strided view ", shape_text(v));
}

class NcclCommunicator final : public Communicator {
 public:
  NcclCommunicator(Control& control, Device device, double patience, const CommunicatorOptions& options)
      : rank_(control.rank()),
        size_(control.size()),
        device_(device),
        patience_(patience),
        stream_(device, StreamPriority::high),
        before_(device),
        events_(std::make_shared<EventPool>(device)),
        share_(std::make_shared<Share>(size_ > 1 ? most_blocks() : 0)) {
    if (options.time_joins) joins_ = std::make_shared<std::vector<Joined>>();
    current_stream(device_);  // makes the device this thread's
    start(control);
  }
  ~NcclCommunicator() override { leave(); }

  int rank() const override { return rank_; }
  int size() const override { return size_; }
  std::string_view name() const override { return "nccl"; }

  Work all_reduce(View data, Stream stream) override {
    require_dense("all_reduce", data);
    const ncclDataType_t type = number("all_reduce", data.dtype);
    const auto n = static_cast<size_t>(data.numel());
    if (n == 0) return {};
    return run("all_reduce", stream, [&] { return ncclAllReduce(data.data, data.data, n, type, ncclSum, comm_, native()); });
  }

  Work reduce_scatter(View in, View out, std::span<const int64_t> counts, Stream stream) override {
    constexpr const char* kOp = "reduce_scatter";
    const ncclDataType_t type = number(kOp, in.dtype);
    const std::vector<int64_t> all = part_counts(kOp, in, out, counts, rank_, size_);
    if (in.numel() == 0) return {};
    if (counts.empty()) {
      return run(kOp, stream, [&] { return ncclReduceScatter(in.data, out.data, static_cast<size_t>(out.numel()), type, ncclSum, comm_, native()); });
    }
    return run(kOp, stream, [&] {
      return each_part(all, in, [&](std::byte* part, size_t n, int root) {
        return ncclReduce(part, root == rank_ ? out.data : part, n, type, ncclSum, root, comm_, native());
      });
    });
  }

  Work all_gather(View in, View out, std::span<const int64_t> counts, Stream stream) override {
    constexpr const char* kOp = "all_gather";
    const std::vector<int64_t> all = part_counts(kOp, out, in, counts, rank_, size_);
    if (out.numel() == 0) return {};
    if (counts.empty()) {
      return run(kOp, stream, [&] { return ncclAllGather(in.data, out.data, static_cast<size_t>(in.bytes()), ncclInt8, comm_, native()); });
    }
    const auto size = static_cast<size_t>(size_of(out.dtype));
    return run(kOp, stream, [&] {
      return each_part(all, out, [&](std::byte* part, size_t n, int root) {
        return ncclBroadcast(root == rank_ ? in.data : part, part, n * size, ncclInt8, root, comm_, native());
      });
    });
  }

  Work broadcast(View data, int root, Stream stream) override {
    HEDDLE_CHECK(0 <= root && root < size_, "broadcast", "root ", root, " of ", size_, " ranks");
    require_dense("broadcast", data);
    if (data.numel() == 0) return {};
    return run("broadcast", stream,
               [&] { return ncclBroadcast(data.data, data.data, static_cast<size_t>(data.bytes()), ncclInt8, root, comm_, native()); });
  }

  Work grouped(std::span<const Transfer> transfers, Stream stream) override {
    const char* op = "grouped";
    bool any = false;
    for (const Transfer& t : transfers) {
      op = t.send ? "send" : "recv";
      HEDDLE_CHECK(0 <= t.peer && t.peer < size_, op, t.send ? "to" : "from", " rank ", t.peer, ": there are ", size_, ", and this is rank ", rank_);
      require_dense(op, t.data);
      any = any || t.data.numel() > 0;
    }
    if (!any) return {};
    return run(transfers.size() == 1 ? op : "grouped", stream, [&] {
      for (const Transfer& t : transfers) {
        const auto bytes = static_cast<size_t>(t.data.bytes());
        if (bytes == 0) continue;
        const ncclResult_t code = t.send ? ncclSend(t.data.data, bytes, ncclInt8, t.peer, comm_, native())
                                         : ncclRecv(t.data.data, bytes, ncclInt8, t.peer, comm_, native());
        if (code != ncclSuccess) return code;
      }
      return ncclSuccess;
    });
  }

  double take_waited() override {
    double seconds = 0;
    if (joins_) {
      for (const Joined& join : *joins_) seconds += join.end.seconds_since(join.begin);
      joins_->clear();
    }
    return seconds;
  }
  void abort() override { give_up(); }

 private:
  void give_up() {
    const std::lock_guard lock(mutex_);
    if (comm_) ncclCommAbort(comm_);
    comm_ = nullptr;
  }
  cudaStream_t native() const { return static_cast<cudaStream_t>(static_cast<Stream>(stream_).native); }

  // Ranks meet here. All of them learn what became of each, so that none is left waiting for one that has failed.
  void start(Control& control) {
    ncclUniqueId id{};
    std::string mine;
    if (rank_ == 0) {
      if (const ncclResult_t code = ncclGetUniqueId(&id); code != ncclSuccess) fail_with("nccl", code);
      mine.assign(reinterpret_cast<const char*>(&id), sizeof id);
    }
    const std::string from_first = control.gather_text(mine, patience_).front();
    HEDDLE_CHECK(from_first.size() == sizeof id, "nccl", "rank 0 sent no id");
    std::memcpy(&id, from_first.data(), sizeof id);
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    config.maxCTAs = most_blocks();
    std::string failure;
    try {
      settle("nccl", ncclCommInitRankConfig(&comm_, size_, id, rank_, &config));
    } catch (const Error& e) {
      failure = e.what();
      give_up();
    }
    std::string failures;
    try {
      const std::vector<std::string> all = control.gather_text(failure, patience_ + kGrace);
      for (size_t r = 0; r < all.size(); ++r) {
        if (!all[r].empty()) failures += concat(failures.empty() ? "" : "; ", "rank ", r, ": ", all[r]);
      }
    } catch (...) {
      give_up();
      throw;
    }
    if (failures.empty()) {
      watch_ = std::make_unique<WaitWatch>([this] { raise_failure(); });
      if (rank_ == 0 && size_ > 1) late_ = std::make_unique<LateWatch>(patience_);
      return;
    }
    give_up();
    fail("nccl", concat("the ", size_, " ranks found no way to each other: ", failures));
  }

  // With a failure under way nothing is waited for: the other ranks may be gone.
  void leave() {
    watch_ = nullptr, late_ = nullptr;
    try {
      if (comm_ && std::uncaught_exceptions() == 0) {
        patience_ = kFarewell;
        settle("nccl", ncclCommFinalize(comm_));
        ncclCommDestroy(comm_);
        comm_ = nullptr;
      }
    } catch (const Error&) {  // aborted then
    }
    give_up();
  }

  // The calls of one collective as work of the stream of communication: after what is in `stream`, and its event after them.
  template <class Calls>
  Work run(const char* op, Stream stream, Calls calls) {
    queued_ops.add(op);
    note_collective(op);
    current_stream(device_);
    before_.record(stream);
    before_.wait(stream_);
    ncclResult_t code = ncclSuccess;
    {
      const std::lock_guard lock(mutex_);
      if (!comm_) fail(op, concat("on rank ", rank_, " of ", size_, ": the communicator was aborted"));
      last_op_ = op;
      ++calls_;
      ncclGroupStart();
      code = calls();
      const ncclResult_t end = ncclGroupEnd();
      if (code == ncclSuccess || code == ncclInProgress) code = end;
    }
    settle(op, code);
    std::shared_ptr<Event> done = EventPool::take(events_);
    done->record(stream_);
    return Work([done = std::move(done), taken = std::make_shared<Taken>(share_), joins = joins_, device = device_](Stream stream) {
      taken->give_back();
      if (!joins || runtime(device.type).capturing(stream)) return done->wait(stream);  // recorded events measure nothing
      Joined& join = joins->emplace_back(Joined{CudaMoment(device), CudaMoment(device)});
      join.begin.record(stream);
      done->wait(stream);
      join.end.record(stream);
    });
  }

  template <class Call>
  ncclResult_t each_part(const std::vector<int64_t>& counts, const View& whole, Call call) const {
    std::byte* at = whole.data;
    for (int root = 0; root < size_; ++root) {
      const int64_t n = counts[static_cast<size_t>(root)];
      if (n == 0) continue;
      if (const ncclResult_t code = call(at, static_cast<size_t>(n), root); code != ncclSuccess) return code;
      at += n * size_of(whole.dtype);
    }
    return ncclSuccess;
  }

  // A stream's wait for a collective.
  struct Joined {
    CudaMoment begin, end;
  };

  // Until the library has done what a call began: met the others, or put its kernels into the stream. Not until they have run.
  void settle(const char* op, ncclResult_t code) {
    using Clock = std::chrono::steady_clock;
    const auto begin = Clock::now();
    const Waiting waiting;
    while (code == ncclInProgress) {
      {
        const std::lock_guard lock(mutex_);
        if (!comm_) fail(op, concat("on rank ", rank_, " of ", size_, ": the communicator was aborted"));
        if (const ncclResult_t asked = ncclCommGetAsyncError(comm_, &code); asked != ncclSuccess) code = asked;
      }
      if (code != ncclInProgress) break;
      const double seconds = std::chrono::duration<double>(Clock::now() - begin).count();
      if (seconds > patience_) {
        give_up();
        const std::string more = late_ ? concat("\n", ask_nccl()) : "";
        fail(op, concat("NCCL on rank ", rank_, " of ", size_, ": not begun within ", patience_, " s: a rank does not come to it", more),
             ExitCode::hung);
      }
      if (seconds < 1e-3) {
        std::this_thread::yield();
      } else {
        std::this_thread::sleep_for(std::chrono::microseconds(50));
      }
    }
    if (code != ncclSuccess) fail_with(op, code);
  }

  // Asked while a thread waits for the device, whose kernels wait for other ranks.
  void raise_failure() {
    ncclResult_t code = ncclSuccess;
    {
      const std::lock_guard lock(mutex_);
      if (!comm_) return;
      if (ncclCommGetAsyncError(comm_, &code) != ncclSuccess || code == ncclSuccess || code == ncclInProgress) return;
    }
    const std::string text = text_of(code);
    give_up();
    fail("nccl", concat(text, "; the last of the ", counted(static_cast<int64_t>(calls_), "call"), " that this rank made is ", last_op_));
  }

  std::string text_of(ncclResult_t code) const {
    const char* const more = ncclGetLastError(comm_);
    return concat("NCCL on rank ", rank_, " of ", size_, ": ", ncclGetErrorString(code), more && *more ? ": " : "", more ? more : "");
  }
  [[noreturn]] void fail_with(const char* op, ncclResult_t code) const { fail(op, text_of(code)); }

  int rank_, size_;
  Device device_;
  double patience_;
  OwnStream stream_;
  Event before_;  // what a call comes after
  std::shared_ptr<EventPool> events_;
  std::shared_ptr<Share> share_;
  std::mutex mutex_;  // abort() may come from another thread
  ncclComm_t comm_ = nullptr;
  const char* last_op_ = "none";
  uint64_t calls_ = 0;
  std::shared_ptr<std::vector<Joined>> joins_;  // where joins are timed
  std::unique_ptr<WaitWatch> watch_;
  std::unique_ptr<LateWatch> late_;
};

}  // namespace

void require_own_gpus(Control& world, Device device, double patience) {
  require_own_devices(world, cuda_device_uuid(device.index), device, patience);
}

std::unique_ptr<Communicator> nccl_communicator(Control& control, Device device, double patience, const CommunicatorOptions& options) {
  require_own_gpus(control, device, patience);
  auto comm = std::make_unique<NcclCommunicator>(control, device, patience, options);
  preflight(*comm, control, device, patience);
  comm->take_waited();
  return comm;
}

}  // namespace heddle
