// Signals that arrive in the middle of matrix products, of the libraries' own code above all.
#include <pthread.h>

#include <atomic>
#include <csignal>
#include <thread>
#include <vector>

#include "core/ops/ops.h"
#include "kernels/api/kernel.h"
#include "tests/support/catch.h"
#include "tests/support/program.h"
#include "train/config/shape.h"
#include "train/signals.h"
#include "train/threads.h"

namespace heddle {
namespace {

TEST_CASE("no product is disturbed by the signals that ask to stop") {
  kernels::register_cpu_kernels();
  use_threads(1);
  // Odd widths: a library copies such operands into buffers of its own.
  std::vector<Tensor> a, b, want;
  for (const auto& [rows, inner, columns] : {std::array<int64_t, 3>{64, 23, 92}, {64, 92, 23}, {23, 64, 60}, {7, 33, 129}, {400, 23, 64}}) {
    std::vector<double> left, right;
    for (int64_t i = 0; i < rows * inner; ++i) left.push_back(static_cast<double>(i % 17) - 8);
    for (int64_t i = 0; i < columns * inner; ++i) right.push_back(static_cast<double>(i % 13) - 6);
    a.push_back(Tensor::from(left, {rows, inner}, DType::f32));
    b.push_back(Tensor::from(right, {columns, inner}, DType::f32));
    want.push_back(matmul(a.back(), b.back(), false, true));
  }
  const StopSignals signals(0, false);
  const pthread_t here = ::pthread_self();
  std::atomic<bool> over{false};
  std::thread storm([&] {
    // Within a second of the first each is taken for the same request; a storm that the machine delays beyond it ends early.
    const test::Clock::time_point begin = test::Clock::now();
    const timespec pause{0, 20'000};
    while (test::seconds_since(begin) < 0.5) ::pthread_kill(here, SIGUSR1), ::nanosleep(&pause, nullptr);
    over = true;
  });
  int64_t products = 0, wrong = 0;
  while (!over) {
    for (size_t i = 0; i < a.size(); ++i) {
      const Tensor got = matmul(a[i], b[i], false, true);
      wrong += got.to_vector() != want[i].to_vector();
      ++products;
    }
  }
  storm.join();
  CHECK(products > 100);
  CHECK(wrong == 0);
}

}  // namespace
}  // namespace heddle
