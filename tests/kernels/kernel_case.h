// Running a kernel the way the rest of heddle does: choose a candidate, give it the scratch it asks for, run it.
//
// The tests of this folder are compiled twice: for the CPU's candidates, and with HEDDLE_TEST_CUDA for those of kernels/cuda on the simulated
// machine, where device memory is the Buffers' own. What concerns the CPU alone (f64, its threads, its libraries) is tagged [cpu].
#pragma once

#if !defined(HEDDLE_TEST_CUDA)
#include <omp.h>
#endif

#include <algorithm>
#include <functional>
#include <initializer_list>
#include <span>
#include <string>
#include <vector>

#include "kernels/api/fault.h"
#include "kernels/api/kernel.h"
#include "tests/support/buffer.h"
#include "tests/support/catch.h"
#include "tests/support/compare.h"

namespace heddle::test {

#if defined(HEDDLE_TEST_CUDA)
inline constexpr DeviceType kDevice = DeviceType::cuda;
inline constexpr DType kFloating[] = {DType::f32, DType::bf16};
#else
inline constexpr DeviceType kDevice = DeviceType::cpu;
inline constexpr DType kFloating[] = {DType::f32, DType::bf16, DType::f64};
#endif

// register: fills the device's lists. finish: waits for what was launched; Error with the report of whatever went wrong in it. in_another_order: f()
// with the work divided in another way, n = 0, 1, 2...: on n + 1 threads of a CPU, which must still be so afterwards; in another order of a GPU's
// threads. on_few_multiprocessors: f() on a GPU of two, whose choice of tile is the largest for small shapes already.
#if defined(HEDDLE_TEST_CUDA)
void register_kernels();  // kernel_case_cuda.cpp
void finish_kernels();
void in_another_order(int n, const std::function<void()>& f);
void on_few_multiprocessors(const std::function<void()>& f);
#else
inline void register_kernels() {
  kernels::register_cpu_kernels();
}
inline void finish_kernels() {}
inline void in_another_order(int n, const std::function<void()>& f) {
  const int before = omp_get_max_threads();
  omp_set_num_threads(n + 1);
  f();
  const int left = omp_get_max_threads();
  omp_set_num_threads(before);
  if (left != n + 1) fail("test", concat("a kernel has set the number of threads to ", left, ", it was ", n + 1));
}
inline void on_few_multiprocessors(const std::function<void()>& f) {
  f();
}
#endif

// Scratch is exactly as large as asked for and full of what is NaN and the greatest i32: reading what was not written, or beyond, shows. The zeroed
// workspace must be zero again.
template <class Args>
void run(const kernels::Kernel<Args>& kernel, Args args) {
  register_kernels();
  const kernels::Candidate<Args>& candidate = kernel.choose(kDevice, args);
  const size_t scratch_bytes = candidate.scratch ? candidate.scratch(args) : 0;
  const Buffer scratch(DType::u8, {static_cast<int64_t>(scratch_bytes)});
  for (size_t i = 3; i < scratch_bytes; i += 4) scratch.view().data[i] = std::byte{0x7F};
  if constexpr (requires { args.scratch; }) args.scratch = std::span<std::byte>(scratch.view().data, scratch_bytes);
  std::vector<std::byte, WatchedMemory<std::byte>> zeroed;
  if constexpr (requires { args.zeroed; }) args.zeroed = zeroed = decltype(zeroed)(size_t{64} << 10);
  kernels::Fault fault;
  if constexpr (requires { args.fault; }) args.fault = &fault;
  candidate.run(args, Stream{Device{kDevice, 0}});
  finish_kernels();
  if (!scratch.guards_intact()) fail(kernel.op(), "wrote beyond the scratch it asked for");
  if (std::any_of(zeroed.begin(), zeroed.end(), [](std::byte b) { return b != std::byte{}; }))
    fail(kernel.op(), "left the workspace that is not zero");
  if (fault.kind != kernels::FaultKind::none) fail(kernel.op(), kernels::fault_text(fault), ExitCode::bad_data);
}

// The text of the Error that running these arguments throws; "" when it throws none.
template <class Args>
std::string error_of(const kernels::Kernel<Args>& kernel, const Args& args) {
  try {
    run(kernel, args);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

inline bool contains(const std::string& text, std::string_view part) {
  return text.find(part) != std::string::npos;
}

// Whether make() -> Buffer(s) gives the same bits on 1, 2 and 3 threads of a CPU, in three orders of a GPU's threads.
template <class Make>
bool same_on_any_thread_count(const Make& make) {
  decltype(make()) first, other;
  in_another_order(0, [&] { first = make(); });
  bool same = true;
  for (int n : {1, 2}) {
    in_another_order(n, [&] { other = make(); });
    same = same && other == first;
  }
  return same;
}

}  // namespace heddle::test
