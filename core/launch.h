// How an op runs a kernel: check its arguments, choose a candidate, give it what its arguments have room for (scratch, the
// device's fault word, the stream's zeroed workspace), run it on the current stream.
//
// What a family's contract can be checked for (check() in kernels/api) is checked here, before anything is queued: on a device nothing can be refused
// later, and what does not fit reads outside its memory.
#pragma once

#include <type_traits>

#include "core/fault.h"
#include "core/queued_ops.h"
#include "core/storage.h"
#include "core/workspace.h"
#include "kernels/api/kernel.h"

namespace heddle {

template <class Args>
void launch(const kernels::Kernel<Args>& kernel, std::type_identity_t<Args> args, Device device) {
  if constexpr (requires { check(args); }) check(args);
  const kernels::Candidate<Args>& candidate = kernel.choose(device.type, args);
  const Stream stream = current_stream(device);
  if (device.type == DeviceType::cuda) queued_ops.add(kernel.op());
  if constexpr (requires { args.fault; }) args.fault = fault_word(device);
  if constexpr (requires { args.zeroed; }) args.zeroed = zeroed_workspace(stream);
  if constexpr (requires { args.scratch; }) {
    const size_t bytes = candidate.scratch ? candidate.scratch(args) : 0;
    std::shared_ptr<Storage> scratch;
    if (bytes) {
      scratch = allocate(device, bytes, MemoryTag::workspace, stream);
      args.scratch = {scratch->data(), bytes};
    }
    candidate.run(args, stream);  // the block returns to this stream's pool: later work on it comes after the kernel
  } else {
    candidate.run(args, stream);
  }
  if constexpr (requires { args.fault; }) {
    if (device.type == DeviceType::cpu) raise_fault(device, kernel.op());
  }
}

}  // namespace heddle
