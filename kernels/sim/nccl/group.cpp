// The calls: checked when made, put into streams when their group ends.
#include <algorithm>

#include "kernels/sim/cudart/memory.h"
#include "kernels/sim/cudart/runtime.h"
#include "kernels/sim/nccl/nccl_internal.h"

namespace heddle::sim::nccl {
namespace {

using cudart::WorkRef;

struct Queued {
  CommRef comm;
  CollectiveCall call;
  cudaStream_t stream;
};

struct Group {
  int depth = 0;
  std::vector<Queued> calls;
};
thread_local Group group;

// The calls of one group on all its communicators, at once.
class GroupExchange {
 public:
  void add(CommRef comm, std::vector<CollectiveCall> calls) {
    comms_.push_back(comm);
    exchanges_.push_back(start_exchange(std::move(comm), std::move(calls)));
  }

  bool advance() {
    bool all = true;
    for (size_t i = 0; i < exchanges_.size(); ++i) {
      if (!exchanges_[i]) continue;
      try {
        if (exchanges_[i]->advance())
          exchanges_[i].reset();
        else
          all = false;
      } catch (const Problem& p) {
        comms_[i]->error = p.code;
        comms_[i]->report = p.text;
        throw cudart::Failure{cudaErrorLaunchFailure, concat("[nccl] ", ncclGetErrorString(p.code), ": ", p.text)};
      }
    }
    return all;
  }

 private:
  std::vector<CommRef> comms_;
  std::vector<std::unique_ptr<Exchange>> exchanges_;
};

cudart::Operation operation_of(const std::vector<Queued>& calls) {
  cudart::Operation operation;
  operation.type = cudaGraphNodeTypeKernel;  // as NCCL's own
  operation.site = calls.front().call.site;
  operation.text = calls.front().call.text();
  if (calls.size() > 1) operation.text += concat(" and ", calls.size() - 1, " more calls of its group");
  operation.remote = std::ranges::any_of(calls, [](const Queued& q) { return q.comm->size > 1; });
  operation.issue = [calls] {
    std::vector<std::pair<CommRef, std::vector<CollectiveCall>>> by_comm;
    for (const Queued& q : calls) {
      auto entry = std::ranges::find(by_comm, q.comm, [](const auto& e) { return e.first; });
      if (entry == by_comm.end()) entry = by_comm.insert(by_comm.end(), {q.comm, {}});
      entry->second.push_back(q.call);
    }
    auto exchange = std::make_shared<GroupExchange>();
    for (auto& [comm, its_calls] : by_comm) exchange->add(comm, std::move(its_calls));
    return cudart::Task([exchange] { return exchange->advance(); });
  };
  return operation;
}

// One piece of work; every stream of the group waits for it, and it for all of them.
cudaError_t enqueue(const std::vector<Queued>& calls) {
  const CallSite& site = calls.front().call.site;
  return cudart::guarded(site.api, site.frames[0], [&](cudart::Call& call) {
    std::vector<CUstream_st*> streams;
    for (const Queued& q : calls) {
      CUstream_st& stream = call.rt.stream(q.stream, site.api);
      if (std::ranges::find(streams, &stream) == streams.end()) streams.push_back(&stream);
    }
    cudart::Operation operation = operation_of(calls);
    if (streams.size() == 1) {
      call.rt.submit(*streams.front(), std::move(operation));
      return;
    }
    std::vector<WorkRef> before;
    for (CUstream_st* s : streams) {
      if (s->capture) call.rt.invalidate(*s->capture, cudaErrorStreamCaptureUnsupported, "a captured NCCL group must use one stream");
      before.push_back(s->last);
    }
    const WorkRef work = call.rt.append(*streams.front(), std::make_shared<const cudart::Operation>(std::move(operation)), before);
    for (size_t i = 1; i < streams.size(); ++i) {
      cudart::Operation wait;
      wait.site = site;
      wait.text = "wait for an NCCL group";
      call.rt.append(*streams[i], std::make_shared<const cudart::Operation>(std::move(wait)), {work});
    }
  });
}

void enqueue_or_refuse(const std::vector<Queued>& calls) {
  if (const cudaError_t status = enqueue(calls); status != cudaSuccess) refuse(ncclUnhandledCudaError, cudaGetErrorString(status));
}

ncclResult_t flush() {
  std::vector<Queued> calls;
  calls.swap(group.calls);
  if (calls.empty()) return ncclSuccess;
  const CommRef first = calls.front().comm;
  try {
    std::vector<CommRef> comms;
    for (const Queued& q : calls) {
      if (q.comm->blocking != first->blocking) refuse(ncclInvalidArgument, "blocking and non-blocking communicators in one group");
      if (std::ranges::find(comms, q.comm) == comms.end()) comms.push_back(q.comm);
    }
    if (first->blocking) {
      enqueue_or_refuse(calls);
      return ncclSuccess;
    }
    const std::string what = concat(calls.front().call.text(), calls.size() > 1 ? concat(" and ", calls.size() - 1, " more") : "");
    launch_later(comms, what, [calls] { enqueue_or_refuse(calls); });
    return ncclInProgress;
  } catch (const Problem& p) {
    return remember(p, first.get());
  }
}

void check_buffer(const CollectiveCall& call, const void* pointer, size_t bytes, const char* role) {
  if (bytes == 0) return;
  if (!pointer) refuse(ncclInvalidArgument, call.text(), ": ", role, " is null, ", call.site.text());
  try {
    const std::string what = concat(call.text(), ": ", role);
    if (cudart::memory().place_of(pointer, bytes, what.c_str(), cudaErrorInvalidValue) == cudart::Place::pageable)
      refuse(ncclInvalidArgument, what, " is ", cudart::memory().describe(pointer), ", which no device can reach");
  } catch (const cudart::Failure& f) {
    refuse(ncclInvalidArgument, f.text);
  }
}

void check(const CommState& comm, const CollectiveCall& call) {
  const size_t element = bytes_of(call.type);
  require_ready(comm, call.text());
  if (comm.error != ncclSuccess) refuse(comm.error, comm.report);
  if (comm.finalized) refuse(ncclInvalidUsage, call.text(), " after ncclCommFinalize, ", call.site.text());
  if (element == 0) refuse(ncclInvalidArgument, call.text(), ": unsupported data type ", static_cast<int>(call.type));
  if (call.peer < 0 || call.peer >= comm.size) refuse(ncclInvalidArgument, call.text(), ": rank ", call.peer, " of ", comm.size);
  if (call.op < ncclSum || call.op > ncclAvg) refuse(ncclInvalidArgument, call.text(), ": operation ", static_cast<int>(call.op));
  const bool reduces = call.kind == Kind::all_reduce || call.kind == Kind::reduce_scatter || call.kind == Kind::reduce;
  if (reduces && call.type == ncclFloat16) refuse(ncclInvalidArgument, call.text(), ": the simulated NCCL reduces no float16");
  const size_t bytes = call.count * element, all = bytes * static_cast<size_t>(comm.size);
  const bool is_root = call.peer == comm.rank;
  if (call.kind != Kind::recv && (call.kind != Kind::broadcast || is_root))
    check_buffer(call, call.from, call.kind == Kind::reduce_scatter ? all : bytes, "sendbuff");
  if (call.kind != Kind::send && (call.kind != Kind::reduce || is_root))
    check_buffer(call, call.to, call.kind == Kind::all_gather ? all : bytes, "recvbuff");
}

ncclResult_t submit(ncclComm_t comm, CollectiveCall call, cudaStream_t stream) {
  CommState* const state = comm ? comm->state.get() : nullptr;
  try {
    if (!state) refuse(ncclInvalidArgument, name_of(call.kind), ": the communicator is null");
    check(*state, call);
    group.calls.push_back({comm->state, call, stream});
    return group.depth == 0 ? flush() : ncclSuccess;
  } catch (const Problem& p) {
    return remember(p, state);
  }
}

CollectiveCall make(Kind kind, const void* from, void* to, size_t count, ncclDataType_t type, ncclRedOp_t op, int peer, void* address) {
  return {kind, from, to, count, type, op, peer, cudart::call_site(name_of(kind), address)};
}

}  // namespace
}  // namespace heddle::sim::nccl

using namespace heddle::sim::nccl;
using heddle::sim::cudart::return_address;

extern "C" {

ncclResult_t ncclAllReduce(const void* sendbuff, void* recvbuff, size_t count, ncclDataType_t datatype, ncclRedOp_t op, ncclComm_t comm,
                           cudaStream_t stream) {
  return submit(comm, make(Kind::all_reduce, sendbuff, recvbuff, count, datatype, op, 0, return_address()), stream);
}

ncclResult_t ncclReduceScatter(const void* sendbuff, void* recvbuff, size_t recvcount, ncclDataType_t datatype, ncclRedOp_t op, ncclComm_t comm,
                               cudaStream_t stream) {
  return submit(comm, make(Kind::reduce_scatter, sendbuff, recvbuff, recvcount, datatype, op, 0, return_address()), stream);
}

ncclResult_t ncclAllGather(const void* sendbuff, void* recvbuff, size_t sendcount, ncclDataType_t datatype, ncclComm_t comm, cudaStream_t stream) {
  return submit(comm, make(Kind::all_gather, sendbuff, recvbuff, sendcount, datatype, ncclSum, 0, return_address()), stream);
}

ncclResult_t ncclBroadcast(const void* sendbuff, void* recvbuff, size_t count, ncclDataType_t datatype, int root, ncclComm_t comm,
                           cudaStream_t stream) {
  return submit(comm, make(Kind::broadcast, sendbuff, recvbuff, count, datatype, ncclSum, root, return_address()), stream);
}

ncclResult_t ncclReduce(const void* sendbuff, void* recvbuff, size_t count, ncclDataType_t datatype, ncclRedOp_t op, int root, ncclComm_t comm,
                        cudaStream_t stream) {
  return submit(comm, make(Kind::reduce, sendbuff, recvbuff, count, datatype, op, root, return_address()), stream);
}

ncclResult_t ncclSend(const void* sendbuff, size_t count, ncclDataType_t datatype, int peer, ncclComm_t comm, cudaStream_t stream) {
  return submit(comm, make(Kind::send, sendbuff, nullptr, count, datatype, ncclSum, peer, return_address()), stream);
}

ncclResult_t ncclRecv(void* recvbuff, size_t count, ncclDataType_t datatype, int peer, ncclComm_t comm, cudaStream_t stream) {
  return submit(comm, make(Kind::recv, nullptr, recvbuff, count, datatype, ncclSum, peer, return_address()), stream);
}

ncclResult_t ncclGroupStart() {
  ++group.depth;
  return ncclSuccess;
}

ncclResult_t ncclGroupEnd() {
  if (group.depth == 0) return remember({ncclInvalidUsage, "ncclGroupEnd without ncclGroupStart"}, nullptr);
  return --group.depth == 0 ? flush() : ncclSuccess;
}

}  // extern "C"
