// Running a kernel the way the rest of heddle does: choose a candidate, give it the scratch it asks for, run it.
#pragma once

#include <omp.h>

#include <initializer_list>
#include <string>
#include <vector>

#include "kernels/api/fault.h"
#include "kernels/api/kernel.h"
#include "tests/support/buffer.h"
#include "tests/support/catch.h"
#include "tests/support/compare.h"

namespace heddle::test {

inline constexpr DType kFloating[] = {DType::f32, DType::bf16, DType::f64};

// Scratch is exactly as large as asked for and full of NaN: reading what was not written, or beyond, shows.
template <class Args>
void run(const kernels::Kernel<Args>& kernel, Args args) {
  kernels::register_cpu_kernels();
  const kernels::Candidate<Args>& candidate = kernel.choose(DeviceType::cpu, args);
  const std::vector<std::byte> poison(candidate.scratch ? candidate.scratch(args) : 0, std::byte{0xFF});
  std::vector<std::byte> scratch = poison;
  if constexpr (requires { args.scratch; }) args.scratch = scratch;
  if constexpr (requires { args.fault; }) {
    kernels::Fault fault;
    args.fault = &fault;
    candidate.run(args, Stream{});
    if (fault.kind != kernels::FaultKind::none) fail(kernel.op(), kernels::fault_text(fault), ExitCode::bad_data);
  } else {
    candidate.run(args, Stream{});
  }
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

// Whether make() -> Buffer(s) gives the same bits on 1, 2 and 3 threads.
template <class Make>
bool same_on_any_thread_count(const Make& make) {
  const int before = omp_get_max_threads();
  omp_set_num_threads(1);
  const auto one = make();
  bool same = true;
  for (int threads : {2, 3}) {
    omp_set_num_threads(threads);
    same = same && make() == one;
  }
  omp_set_num_threads(before);
  return same;
}

}  // namespace heddle::test
