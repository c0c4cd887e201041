// How a kernel on the device is compared with float64: inputs, guards around the outputs, derived bounds. The caller says what runs.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "kernels/api/attention.h"
#include "kernels/api/matmul.h"
#include "kernels/api/norm.h"
#include "tests/oracles/attention.h"
#include "tests/oracles/matmul.h"
#include "tests/sim/proving_kernels.h"
#include "tests/support/buffer.h"

namespace heddle::test {

// A Buffer's twin on the device, with its guards. fetch() brings it back.
class OnDevice {
 public:
  explicit OnDevice(Buffer& host) : host_(host), view_(host.view()) {
    const int64_t element = size_of(view_.dtype);
    int64_t extent = 1;
    for (int axis = 0; axis < view_.rank; ++axis) extent += (view_.shape[axis] - 1) * view_.stride[axis];
    first_ = view_.data - kGuard * element;
    bytes_ = static_cast<size_t>((extent + 2 * kGuard) * element);
    data_ = device_allocate(bytes_);
    copy_to_device(data_, first_, bytes_);
    view_.data = data_ + kGuard * element;
  }
  OnDevice(const OnDevice&) = delete;
  OnDevice& operator=(const OnDevice&) = delete;
  ~OnDevice() { device_free(data_); }

  const View& view() const { return view_; }
  void fetch() { copy_to_host(first_, data_, bytes_); }
  std::string guards() const { return host_.guards_intact() ? "" : "memory outside the result was written; "; }

 private:
  static constexpr int64_t kGuard = 64;  // elements before and after the view, as in Buffer
  Buffer& host_;
  View view_;
  std::byte* first_;
  std::byte* data_ = nullptr;
  size_t bytes_ = 0;
};

// Elements that make the next row start at a multiple of 16 bytes, and one stretch of 16 bytes that nobody may touch.
BufferOptions aligned(int64_t columns);
Buffer random_bf16(std::vector<int64_t> shape, uint32_t seed);

// What a case must give, worked out once however often it runs.
template <class Result>
using Once = std::shared_ptr<std::optional<Result>>;
template <class Result, class F>
const Result& once(const Once<Result>& memory, F compute) {
  if (!memory->has_value()) *memory = compute();
  return **memory;
}

enum class Product { forward, input_gradient, weight_gradient };

struct GemmCase {
  Product product = Product::forward;
  int64_t m = 64, n = 64, k = 64;
  bool accumulate = false;
  bool f32_out = false;  // weight gradients are f32 anyway
  // Runs on device views; args.c is the device's.
  std::function<void(const kernels::MatmulArgs&)> run;
};

struct AttentionCase {
  int64_t b = 1, t = 1, s = 1, h = 1, kv = 1, d = 64;
  int64_t window = 0;
  bool documents = false;
  std::function<void(const kernels::AttentionForwardArgs&)> run;
};

// The same shapes backward, S == T.
struct AttentionBackwardCase {
  AttentionCase shape;
  std::function<size_t(const kernels::AttentionBackwardArgs&)> scratch;
  std::function<void(const kernels::AttentionBackwardArgs&)> run;
};

struct NormCase {
  kernels::NormKind kind = kernels::NormKind::layer;
  int64_t n = 1, columns = 8;
  bool everything = false;  // residual, gain, bias; sum and mean
  std::function<void(const kernels::NormForwardArgs&)> run;
};

// "" or what is wrong.
std::string check_gemm(const GemmCase& c, const Once<oracle::MatmulResult>& memory = std::make_shared<std::optional<oracle::MatmulResult>>());
std::string check_attention(const AttentionCase& c,
                            const Once<oracle::AttentionResult>& memory = std::make_shared<std::optional<oracle::AttentionResult>>());
std::string check_attention_backward(const AttentionBackwardCase& c,
                                     const Once<oracle::AttentionResult>& memory = std::make_shared<std::optional<oracle::AttentionResult>>());
std::string check_norm(const NormCase& c);

}  // namespace heddle::test
