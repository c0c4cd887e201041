// Ranks for the cases that every Communicator has to pass: their world, and buffers on its device. Of one source of a program.
#pragma once

#include <chrono>
#include <cmath>
#include <cstdlib>
#include <functional>
#include <map>
#include <memory>
#include <thread>

#include "core/device.h"
#include "kernels/api/check.h"
#include "parallel/local_device.h"
#include "parallel/mesh.h"
#include "tests/support/buffer.h"
#include "tests/support/catch.h"
#include "tests/support/compare.h"

namespace heddle {
namespace {

#ifdef HEDDLE_TEST_NCCL
constexpr bool kNccl = true;
#else
constexpr bool kNccl = false;
#endif

Control& control() {
  static const std::unique_ptr<Control> world = world_control();
  return *world;
}
Device device() {
  if (!kNccl) return {};
  static const Device own{DeviceType::cuda, device_of_rank(runtime(DeviceType::cuda).device_count())};
  return own;
}
Stream stream() {
  return current_stream(device());
}
// Twice: messages of any size, and a limit so low that everything goes in pieces.
Communicator& world(int64_t most_bytes = int64_t{1} << 30) {
  static std::map<int64_t, std::unique_ptr<Communicator>> all;
  std::unique_ptr<Communicator>& comm = all[most_bytes];
  if (!comm) comm = control().communicator(device(), {.most_bytes = most_bytes});
  return *comm;
}

// A test::Buffer, guards and all, in memory of the device.
class Buffer {
 public:
  Buffer(DType dtype, std::vector<int64_t> shape, test::BufferOptions options = {}) : host_(dtype, std::move(shape), options) {
    if (kNccl)
      memory_.reset(static_cast<std::byte*>(runtime(device().type).allocate(device().index, bytes())),
                    [n = bytes()](std::byte* memory) { runtime(device().type).release(device().index, memory, n); });
    upload();
  }
  View view() const {
    View v = host_.view();
    if (kNccl) v.data = memory_.get() + kGuard * size_of(v.dtype);
    return v;
  }
  void fill(const std::function<double(int64_t)>& value) { host_.fill(value), upload(); }
  void normal(uint32_t seed) { host_.normal(seed), upload(); }
  bool guards_intact() {
    if (kNccl) copy_bytes(first(), Device{}, memory_.get(), device(), bytes());
    return host_.guards_intact();
  }

 private:
  static constexpr int64_t kGuard = 64;  // elements before and behind a test::Buffer's
  std::byte* first() const { return host_.view().data - kGuard * size_of(host_.view().dtype); }
  size_t bytes() const {
    const View v = host_.view();
    return static_cast<size_t>((std::max<int64_t>(v.rank > 0 ? v.shape[0] * v.stride[0] : 1, 1) + 2 * kGuard) * size_of(v.dtype));
  }
  void upload() {
    if (kNccl) copy_bytes(memory_.get(), device(), first(), Device{}, bytes());
  }

  test::Buffer host_;
  std::shared_ptr<std::byte> memory_;
};
std::vector<double> values(View v) {
  std::vector<std::byte> here(static_cast<size_t>(v.bytes()));
  copy_bytes(here.data(), Device{}, v.data, device(), here.size());
  v.data = here.data();
  return test::values(v);
}
double element(const View& v, int64_t i) {
  return values(v)[static_cast<size_t>(i)];
}

// Element i as rank r holds it: small integers, so that sums are exact in any order and dtype.
double at(int rank, int64_t i) {
  return static_cast<double>((rank + 1) * 10 + i % 7);
}
double sum_at(int64_t i) {
  double sum = 0;
  for (int r = 0; r < world().size(); ++r) sum += at(r, i);
  return sum;
}
std::vector<double> expected(int64_t n, double (*value)(int64_t)) {
  std::vector<double> all;
  for (int64_t i = 0; i < n; ++i) all.push_back(value(i));
  return all;
}
Buffer mine(DType type, int64_t n) {
  Buffer data(type, {n});
  data.fill([](int64_t i) { return at(world().rank(), i); });
  return data;
}
std::string message(const std::function<void()>& call) {
  try {
    call();
  } catch (const Error& e) {
    return e.what();
  }
  return "no error";
}
bool has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

}  // namespace
}  // namespace heddle
