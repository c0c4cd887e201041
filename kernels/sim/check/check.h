// The check flavour: what it finds, and what a test can ask of it.
//
// Kernel code compiled with -fsanitize=thread reports every load and store; linked with this in place of libtsan, each is checked against everything
// that the other threads and async ops of the launch have done. The verdict does not depend on the order in which the simulator happened to run them:
// two accesses are in order only if barriers, fences, waits or atomics of the kernel put them in order (vector clocks: Lamport 1978, Mattern 1989;
// epochs: Flanagan and Freund, "FastTrack", PLDI 2009). Errors end the launch:
//
// - race: two threads, or a thread and an async op, touch the same bytes, one writes, nothing orders them; shared and global memory
// - missing proxy fence: generic writes, then TMA or wgmma on the same bytes without fence.proxy.async between
// - uninitialised read: of shared memory, or of registered global memory
// - out of bounds: exact for shared memory, __shared__ variables and registered global memory
// - misaligned access: the instructions of ptx.h always; scalars and members by -fsanitize=alignment; whole structs (a float4) under g++ alone, since
//   clang asks nothing there
//
// What orders two threads: __syncthreads and named barriers, cluster and grid barriers, mbarrier arrive -> wait, __syncwarp between lanes, atomics
// with release and acquire (or fences around relaxed ones) of wide enough scope, and the end of a launch. Shuffles, votes and lockstep do not: CUDA
// promises no order of memory there. What completes an async op: its wait_group by the issuing thread(s), or the mbarrier phase that carries it.
//
// Runs on one OS thread. Counters: accesses of a warp as the hardware would serve them, per source line.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace heddle::sim {

// One source line's accesses by whole warps: the k-th execution by each lane counts as one access of the warp.
struct AccessCount {
  std::string file;
  int line = 0;
  bool shared = false;  // else global
  bool write = false;
  uint64_t warp_accesses = 0;
  uint64_t transactions = 0;  // shared: wavefronts of 128 bytes (bank conflicts make more); global: distinct 32-byte sectors
  uint64_t ideal = 0;         // transactions that the number of bytes needs
  uint64_t extra() const { return transactions - ideal; }
};

// Starts (forgetting what was counted) or stops counting; slows the check flavour down several times. No effect in other flavours. cp.async counts as
// its thread's load and store, of TMA the global rows of a box; wgmma does not count: every layout that it can be told of is free of conflicts. Where
// global memory is registered, nothing else is global (a kernel's arguments, its threads' stacks). Count in eager mode. Compilers may take
// a load or store of a float2 or float4 apart, and then count it as several; those of ptx.h (ld128_shared, st64_shared) count as the one they are.
void count_accesses(bool on);
// By file and line. Bank model: 32 banks of 4 bytes, 128 bytes per wavefront, lanes served in order in groups that fill it (8 lanes of 16 bytes).
std::vector<AccessCount> access_counts();

}  // namespace heddle::sim
