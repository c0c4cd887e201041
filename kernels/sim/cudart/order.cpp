#include "kernels/sim/cudart/order.h"

#include "kernels/sim/cudart/runtime.h"

namespace heddle::sim {

void record_work(bool on) {
  cudart::Runtime& rt = cudart::runtime();
  const std::unique_lock lock(rt.mutex);
  rt.recording = on;
  if (on) rt.recorded.clear();
}

std::vector<RecordedWork> recorded_work() {
  cudart::Runtime& rt = cudart::runtime();
  const std::unique_lock lock(rt.mutex);
  return rt.recorded;
}

void forget_wait(int64_t n) {
  cudart::Runtime& rt = cudart::runtime();
  const std::unique_lock lock(rt.mutex);
  rt.forgotten_wait = n;
  rt.waits = 0;
}

uint64_t waits_counted() {
  cudart::Runtime& rt = cudart::runtime();
  const std::unique_lock lock(rt.mutex);
  return rt.waits;
}

void reorder_streams(uint64_t seed) {
  cudart::Runtime& rt = cudart::runtime();
  const std::unique_lock lock(rt.mutex);
  rt.seed(seed);
}

}  // namespace heddle::sim
