// Stream capture and graphs: CUDA C++ Programming Guide, "CUDA Graphs".
#include <algorithm>

#include "kernels/sim/cudart/runtime.h"

namespace heddle::sim::cudart {

// ---- captures ----

// Marks a capture as lost; cudaStreamEndCapture will say so too.
void Runtime::invalidate(Capture& capture, cudaError_t code, const std::string& why) {
  if (capture.invalid.empty()) capture.invalid = why;
  throw Failure{code, why};
}

void Runtime::forbid_during_capture(const CallSite& site) {
  const ThreadState& thread = thread_state();
  if (thread.capture_mode == cudaStreamCaptureModeRelaxed) return;
  for (const auto& capture : captures) {
    const bool own = capture->thread == thread.id && capture->mode != cudaStreamCaptureModeRelaxed;
    const bool global = capture->mode == cudaStreamCaptureModeGlobal && thread.capture_mode == cudaStreamCaptureModeGlobal;
    if (own || global)
      invalidate(*capture, cudaErrorStreamCaptureUnsupported, concat(site.text(), " while ", capture->origin->name, " is capturing"));
  }
}

CUgraphNode_st* Runtime::capture_node(CUstream_st& stream, OperationRef operation) {
  Capture& capture = *stream.capture;
  if (!capture.invalid.empty()) refuse(cudaErrorStreamCaptureInvalidated, operation->describe(), ": ", capture.invalid);
  auto node = std::make_unique<CUgraphNode_st>();
  node->index = capture.graph->nodes.size();
  node->operation = std::move(operation);
  node->after = stream.tails;
  stream.tails = {node.get()};
  capture.graph->nodes.push_back(std::move(node));
  return stream.tails.front();
}

void Runtime::end_membership(Capture& capture) {
  for (CUstream_st* member : capture.members) member->capture = nullptr, member->tails.clear();
  for (CUevent_st* e : events) {
    // A captured event stays one until it is recorded again, but its nodes are the graph's now.
    if (e->capture == capture.id) e->captured.clear();
  }
}

namespace {

// Work of other streams that no wait of the origin leads back: its stream's name, or nothing.
std::string unjoined(const Capture& capture) {
  std::set<const CUgraphNode_st*> reached;
  std::vector<const CUgraphNode_st*> open(capture.origin->tails.begin(), capture.origin->tails.end());
  while (!open.empty()) {
    const CUgraphNode_st* node = open.back();
    open.pop_back();
    if (reached.insert(node).second) open.insert(open.end(), node->after.begin(), node->after.end());
  }
  for (const CUstream_st* member : capture.members) {
    for (const CUgraphNode_st* tail : member->tails) {
      if (!reached.count(tail)) return concat(tail->operation->describe(), " of ", member->name);
    }
  }
  return {};
}

struct UpdateProblem {
  cudaGraphExecUpdateResult result;
  CUgraphNode_st* node;
  std::string why;
};

UpdateProblem compare(const CUgraphExec_st& exec, const CUgraph_st& graph) {
  if (exec.steps.size() != graph.nodes.size())
    return {cudaGraphExecUpdateErrorTopologyChanged, nullptr, concat("the graph has ", graph.nodes.size(), " nodes, it had ", exec.steps.size())};
  for (size_t i = 0; i < graph.nodes.size(); ++i) {
    CUgraphNode_st* const node = graph.nodes[i].get();
    const CUgraphExec_st::Step& step = exec.steps[i];
    const Operation &now = *node->operation, &before = *step.operation;
    if (now.type != before.type)
      return {cudaGraphExecUpdateErrorNodeTypeChanged, node, concat("node ", i, " is ", now.describe(), ", it was ", before.describe())};
    std::vector<size_t> after;
    for (const CUgraphNode_st* p : node->after) after.push_back(p->index);
    if (after != step.after)
      return {cudaGraphExecUpdateErrorTopologyChanged, node, concat("node ", i, ", ", now.describe(), ", has other predecessors")};
    if (now.shape != before.shape)
      return {cudaGraphExecUpdateErrorParametersChanged, node, concat("node ", i, " is ", now.describe(), ", it was ", before.describe())};
  }
  return {cudaGraphExecUpdateSuccess, nullptr, {}};
}

std::vector<CUgraphExec_st::Step> steps_of(const CUgraph_st& graph) {
  std::vector<CUgraphExec_st::Step> steps;
  for (const auto& node : graph.nodes) {
    CUgraphExec_st::Step step{node->operation, {}};
    for (const CUgraphNode_st* p : node->after) step.after.push_back(p->index);
    steps.push_back(std::move(step));
  }
  return steps;
}

OperationRef marker(const CallSite& site, const char* text) {
  Operation operation;
  operation.site = site;
  operation.text = text;
  return std::make_shared<const Operation>(std::move(operation));
}

}  // namespace
}  // namespace heddle::sim::cudart

using namespace heddle::sim::cudart;

extern "C" {

cudaError_t cudaStreamBeginCapture(cudaStream_t handle, enum cudaStreamCaptureMode mode) {
  return api_call("cudaStreamBeginCapture", [&](Call& call) {
    CUstream_st& stream = call.rt.stream(handle, call.site.api);
    if (stream.legacy) refuse(cudaErrorStreamCaptureUnsupported, "the default stream cannot be captured");
    if (stream.capture) refuse(cudaErrorIllegalState, stream.name, " is capturing already");
    if (mode < cudaStreamCaptureModeGlobal || mode > cudaStreamCaptureModeRelaxed) refuse(cudaErrorInvalidValue);
    auto capture = std::make_unique<Capture>();
    capture->id = call.rt.next_capture++;
    capture->mode = mode;
    capture->thread = thread_state().id;
    capture->origin = &stream;
    capture->graph = std::make_unique<CUgraph_st>();
    capture->members = {&stream};
    stream.capture = capture.get();
    stream.tails.clear();
    call.rt.captures.push_back(std::move(capture));
  });
}

cudaError_t cudaStreamEndCapture(cudaStream_t handle, cudaGraph_t* pGraph) {
  return api_call("cudaStreamEndCapture", [&](Call& call) {
    if (pGraph) *pGraph = nullptr;
    CUstream_st& stream = call.rt.stream(handle, call.site.api);
    if (!stream.capture) refuse(cudaErrorIllegalState, stream.name, " is not capturing");
    if (stream.capture->origin != &stream)
      refuse(cudaErrorStreamCaptureUnmatched, "the capture began in ", stream.capture->origin->name, ", not in ", stream.name);
    if (stream.capture->mode != cudaStreamCaptureModeRelaxed && stream.capture->thread != thread_state().id)
      refuse(cudaErrorStreamCaptureWrongThread);
    const auto entry = std::ranges::find_if(call.rt.captures, [&](const auto& c) { return c.get() == stream.capture; });
    const std::unique_ptr<Capture> capture = std::move(*entry);
    call.rt.captures.erase(entry);
    const std::string left = capture->invalid.empty() ? unjoined(*capture) : std::string();
    call.rt.end_membership(*capture);
    if (!capture->invalid.empty()) refuse(cudaErrorStreamCaptureInvalidated, "the capture of ", stream.name, " failed: ", capture->invalid);
    if (!left.empty()) refuse(cudaErrorStreamCaptureUnjoined, "no event leads ", left, " back to ", stream.name);
    if (!pGraph) refuse(cudaErrorInvalidValue);
    *pGraph = capture->graph.release();
    call.rt.graphs.insert(*pGraph);
  });
}

cudaError_t cudaStreamIsCapturing(cudaStream_t handle, enum cudaStreamCaptureStatus* pCaptureStatus) {
  return api_call("cudaStreamIsCapturing", [&](Call& call) {
    const CUstream_st& stream = call.rt.stream(handle, call.site.api);
    *pCaptureStatus = !stream.capture                   ? cudaStreamCaptureStatusNone
                      : stream.capture->invalid.empty() ? cudaStreamCaptureStatusActive
                                                        : cudaStreamCaptureStatusInvalidated;
  });
}

cudaError_t cudaThreadExchangeStreamCaptureMode(enum cudaStreamCaptureMode* mode) {
  return api_call("cudaThreadExchangeStreamCaptureMode", [&](Call&) { std::swap(*mode, thread_state().capture_mode); });
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t* pGraphExec, cudaGraph_t handle, unsigned long long) {
  return api_call("cudaGraphInstantiate", [&](Call& call) {
    auto exec = std::make_unique<CUgraphExec_st>();
    exec->steps = steps_of(call.rt.graph(handle, call.site.api));
    *pGraphExec = exec.release();
    call.rt.execs.insert(*pGraphExec);
  });
}

cudaError_t cudaGraphExecUpdate(cudaGraphExec_t hGraphExec, cudaGraph_t hGraph, cudaGraphExecUpdateResultInfo* resultInfo) {
  return api_call("cudaGraphExecUpdate", [&](Call& call) {
    CUgraphExec_st& exec = call.rt.exec(hGraphExec, call.site.api);
    const CUgraph_st& graph = call.rt.graph(hGraph, call.site.api);
    const UpdateProblem problem = compare(exec, graph);
    if (resultInfo) *resultInfo = {problem.result, problem.node, nullptr};
    if (problem.result != cudaGraphExecUpdateSuccess) refuse(cudaErrorGraphExecUpdateFailure, problem.why);
    exec.steps = steps_of(graph);
  });
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t graphExec, cudaStream_t handle) {
  return api_call("cudaGraphLaunch", [&](Call& call) {
    CUgraphExec_st& exec = call.rt.exec(graphExec, call.site.api);
    CUstream_st& stream = call.rt.stream(handle, call.site.api);
    if (stream.capture)
      call.rt.invalidate(*stream.capture, cudaErrorStreamCaptureUnsupported, "the simulated runtime records no graph inside a graph");
    const WorkRef begin = call.rt.append(stream, marker(call.site, "start of a graph"), {exec.last});
    std::vector<WorkRef> items;
    for (const CUgraphExec_st::Step& step : exec.steps) {
      std::vector<WorkRef> after = {begin};
      for (size_t index : step.after) after.push_back(items[index]);
      items.push_back(call.rt.push(step.operation, heddle::concat("a graph launched on ", stream.name), after));
    }
    exec.last = call.rt.append(stream, marker(call.site, "end of a graph"), items);
  });
}

cudaError_t cudaGraphUpload(cudaGraphExec_t graphExec, cudaStream_t handle) {
  return api_call("cudaGraphUpload", [&](Call& call) {
    call.rt.exec(graphExec, call.site.api);
    call.rt.append(call.rt.stream(handle, call.site.api), marker(call.site, "upload of a graph"));
  });
}

cudaError_t cudaGraphGetNodes(cudaGraph_t handle, cudaGraphNode_t* nodes, size_t* numNodes) {
  return api_call("cudaGraphGetNodes", [&](Call& call) {
    const CUgraph_st& graph = call.rt.graph(handle, call.site.api);
    for (size_t i = 0; nodes && i < *numNodes; ++i) nodes[i] = i < graph.nodes.size() ? graph.nodes[i].get() : nullptr;
    *numNodes = nodes ? std::min(*numNodes, graph.nodes.size()) : graph.nodes.size();
  });
}

cudaError_t cudaGraphNodeGetType(cudaGraphNode_t node, enum cudaGraphNodeType* pType) {
  return api_call("cudaGraphNodeGetType", [&](Call&) {
    if (!node || !pType) refuse(cudaErrorInvalidValue);
    *pType = node->operation->type;
  });
}

cudaError_t cudaGraphDestroy(cudaGraph_t handle) {
  return api_call("cudaGraphDestroy", [&](Call& call) {
    CUgraph_st& graph = call.rt.graph(handle, call.site.api);
    call.rt.graphs.erase(&graph);
    delete &graph;
  });
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t handle) {
  return api_call("cudaGraphExecDestroy", [&](Call& call) {
    CUgraphExec_st& exec = call.rt.exec(handle, call.site.api);
    call.rt.execs.erase(&exec);
    delete &exec;
  });
}

}  // extern "C"
