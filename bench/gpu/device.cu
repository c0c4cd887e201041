#include "bench/gpu/device.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <thread>

#include "kernels/arch/platform.h"
#include "tests/sim/proving_kernels.h"

namespace heddle::bench {
namespace {

constexpr size_t kGuard = 4096;  // bytes before and after a tensor
constexpr int kGuardByte = 0xA5, kPoison = 0xFF;
constexpr unsigned kThreads = 256;

unsigned blocks_for(int64_t n) {
  return static_cast<unsigned>(std::clamp<int64_t>((n + kThreads - 1) / kThreads, 1, int64_t{16} * multiprocessors()));
}

// The finaliser of SplitMix64.
HEDDLE_HOST_DEVICE uint64_t mixed(uint64_t x) {
  x += 0x9E3779B97F4A7C15u;
  x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9u;
  x = (x ^ x >> 27) * 0x94D049BB133111EBu;
  return x ^ x >> 31;
}

// Near a normal distribution: the sum of eight bytes, which is exact in f32.
__global__ void fill_normal(View view, int64_t n, uint64_t seed, float mean, float stddev) {
  for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < n; i += int64_t{gridDim.x} * blockDim.x) {
    uint64_t random = mixed(mixed(seed) + static_cast<uint64_t>(i));
    int sum = 0;
    for (int byte = 0; byte < 8; ++byte, random >>= 8) sum += static_cast<int>(random & 255);
    const float value = mean + stddev * (static_cast<float>(sum - 1020) * (1.0f / 209.0f));
    if (view.dtype == DType::bf16) {
      reinterpret_cast<bf16*>(view.data)[i] = bf16(value);
    } else {
      reinterpret_cast<float*>(view.data)[i] = value;
    }
  }
}
__global__ void fill_below(View view, int64_t n, uint64_t seed, int64_t limit) {
  for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < n; i += int64_t{gridDim.x} * blockDim.x) {
    const uint64_t value = (mixed(mixed(seed) + static_cast<uint64_t>(i)) >> 16) % static_cast<uint64_t>(limit);
    if (view.dtype == DType::u8) {
      reinterpret_cast<uint8_t*>(view.data)[i] = static_cast<uint8_t>(value);
    } else {
      reinterpret_cast<int32_t*>(view.data)[i] = static_cast<int32_t>(value);
    }
  }
}
__global__ void fill_constant(View view, int64_t n, float value) {
  for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < n; i += int64_t{gridDim.x} * blockDim.x) {
    if (view.dtype == DType::bf16) {
      reinterpret_cast<bf16*>(view.data)[i] = bf16(value);
    } else {
      reinterpret_cast<float*>(view.data)[i] = value;
    }
  }
}

// A sum of mixed words: the order of the additions is of no account.
template <class Word>
__global__ void digest_words(View view, int64_t n, unsigned long long* out) {
  unsigned long long hash = 0, unwritten = 0;
  for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < n; i += int64_t{gridDim.x} * blockDim.x) {
    int64_t at = 0, rest = i;
    for (int axis = view.rank - 1; axis >= 0; --axis) {
      at += rest % view.shape[axis] * view.stride[axis];
      rest /= view.shape[axis];
    }
    const Word word = reinterpret_cast<const Word*>(view.data)[at];
    hash += mixed(static_cast<uint64_t>(i) << 32 ^ word);
    unwritten += word == static_cast<Word>(~Word{0}) ? 1 : 0;
  }
  atomicAdd(out, hash);
  if (unwritten != 0) atomicAdd(out + 1, unwritten);
}

void fill_by(View view, const std::function<void(View, int64_t, unsigned)>& launch) {
  if (view.numel() > 0) launch(view, view.numel(), blocks_for(view.numel()));
}

}  // namespace

struct Memory::Tensor {
  std::byte* block = nullptr;  // with guards
  View view;
  enum { kRead, kOutput, kAdded, kInPlace } kind = kRead;
  std::byte* original = nullptr;  // kInPlace
};

Memory::Memory(Plan plan) : plan_(plan) {}
Memory::~Memory() {
  for (const auto& tensor : tensors_) {
    cudaFree(tensor->block);
    cudaFree(tensor->original);
  }
}

Memory::Tensor& Memory::add(DType dtype, std::initializer_list<int64_t> shape) {
  auto tensor = std::make_unique<Tensor>();
  tensor->view = make_view(nullptr, dtype, shape);
  const auto bytes = static_cast<size_t>(tensor->view.bytes());
  const size_t padded = (bytes + 255) / 256 * 256;
  if (planned()) {
    tensor->view.data = reinterpret_cast<std::byte*>((tensors_.size() + 1) << 40);  // far apart, aligned
  } else {
    tensor->block = test::device_allocate(padded + 2 * kGuard);
    check_cuda(cudaMemset(tensor->block, kGuardByte, padded + 2 * kGuard), "cudaMemset");
    tensor->view.data = tensor->block + kGuard;
  }
  tensors_.push_back(std::move(tensor));
  return *tensors_.back();
}

View Memory::normal(DType dtype, std::initializer_list<int64_t> shape, double mean, double stddev) {
  const View view = add(dtype, shape).view;
  if (!planned()) {
    fill_by(view, [&](View v, int64_t n, unsigned blocks) {
      HEDDLE_LAUNCH(fill_normal, blocks, kThreads, 0, Stream{}, v, n, uint64_t{tensors_.size()}, static_cast<float>(mean),
                    static_cast<float>(stddev));
    });
  }
  return view;
}
View Memory::below(DType dtype, std::initializer_list<int64_t> shape, int64_t limit) {
  const View view = add(dtype, shape).view;
  if (!planned()) {
    fill_by(view, [&](View v, int64_t n, unsigned blocks) {
      HEDDLE_LAUNCH(fill_below, blocks, kThreads, 0, Stream{}, v, n, uint64_t{tensors_.size()}, limit);
    });
  }
  return view;
}
View Memory::zeros(DType dtype, std::initializer_list<int64_t> shape) {
  const View view = add(dtype, shape).view;
  if (!planned() && view.bytes() > 0) check_cuda(cudaMemset(view.data, 0, static_cast<size_t>(view.bytes())), "cudaMemset");
  return view;
}
View Memory::listed(std::initializer_list<int64_t> shape, const std::vector<int32_t>& values) {
  const View view = add(DType::i32, shape).view;
  if (!planned()) test::copy_to_device(view.data, reinterpret_cast<const std::byte*>(values.data()), values.size() * sizeof(int32_t));
  return view;
}
View Memory::output(DType dtype, std::initializer_list<int64_t> shape) {
  Tensor& tensor = add(dtype, shape);
  tensor.kind = Tensor::kOutput;
  return tensor.view;
}
Sink Memory::added(DType dtype, std::initializer_list<int64_t> shape) {
  Tensor& tensor = add(dtype, shape);
  tensor.kind = Tensor::kAdded;
  return {tensor.view, true};
}
View Memory::in_place(DType dtype, std::initializer_list<int64_t> shape, double mean, double stddev) {
  const View view = normal(dtype, shape, mean, stddev);
  Tensor& tensor = *tensors_.back();
  tensor.kind = Tensor::kInPlace;
  if (!planned()) {
    tensor.original = test::device_allocate(static_cast<size_t>(view.bytes()));
    check_cuda(cudaMemcpy(tensor.original, view.data, static_cast<size_t>(view.bytes()), cudaMemcpyDeviceToDevice), "cudaMemcpy");
  }
  return view;
}
std::byte* Memory::bytes(const void* value, size_t size) {
  Tensor& tensor = add(DType::u8, {static_cast<int64_t>(size)});
  tensor.kind = Tensor::kInPlace;
  if (!planned()) {
    tensor.original = test::device_allocate(size);
    test::copy_to_device(tensor.original, static_cast<const std::byte*>(value), size);
  }
  return tensor.view.data;
}
std::byte* Memory::raw(size_t bytes) {
  return output(DType::u8, {static_cast<int64_t>(bytes)}).data;
}
View Memory::before(const View& in_place) const {
  View view = in_place;
  for (const auto& tensor : tensors_) {
    if (tensor->original != nullptr && tensor->view.data == in_place.data) view.data = tensor->original;
  }
  return view;
}

void Memory::reset() {
  for (const auto& tensor : tensors_) {
    const View& view = tensor->view;
    const auto bytes = static_cast<size_t>(view.bytes());
    if (bytes == 0 || tensor->kind == Tensor::kRead) continue;
    if (tensor->kind == Tensor::kOutput) {
      check_cuda(cudaMemsetAsync(view.data, kPoison, bytes), "cudaMemsetAsync");
    } else if (tensor->kind == Tensor::kInPlace) {
      check_cuda(cudaMemcpyAsync(view.data, tensor->original, bytes, cudaMemcpyDeviceToDevice), "cudaMemcpyAsync");
    } else {
      HEDDLE_LAUNCH(fill_constant, blocks_for(view.numel()), kThreads, 0, Stream{}, view, view.numel(), static_cast<float>(kStart));
    }
  }
}

std::string Memory::guards() const {
  std::vector<std::byte> here(kGuard), whole(kGuard, std::byte{kGuardByte});
  for (size_t i = 0; i < tensors_.size(); ++i) {
    const Tensor& tensor = *tensors_[i];
    const auto bytes = static_cast<size_t>(tensor.view.bytes());
    for (const size_t at : {size_t{0}, kGuard + bytes}) {
      test::copy_to_host(here.data(), tensor.block + at, kGuard);
      if (here != whole) return concat("memory ", at == 0 ? "before" : "behind", " tensor ", i + 1, ", ", shape_text(tensor.view), ", was written; ");
    }
  }
  return "";
}

Digest digest(const View& view) {
  static unsigned long long* const out = reinterpret_cast<unsigned long long*>(test::device_allocate(16));
  check_cuda(cudaMemset(out, 0, 16), "cudaMemset");
  const int64_t n = view.numel(), size = size_of(view.dtype);
  if (n > 0) {
    if (size == 1) HEDDLE_LAUNCH(digest_words<uint8_t>, blocks_for(n), kThreads, 0, Stream{}, view, n, out);
    if (size == 2) HEDDLE_LAUNCH(digest_words<uint16_t>, blocks_for(n), kThreads, 0, Stream{}, view, n, out);
    if (size == 4) HEDDLE_LAUNCH(digest_words<uint32_t>, blocks_for(n), kThreads, 0, Stream{}, view, n, out);
    if (size == 8) HEDDLE_LAUNCH(digest_words<uint64_t>, blocks_for(n), kThreads, 0, Stream{}, view, n, out);
  }
  Digest result;
  unsigned long long words[2];
  test::copy_to_host(reinterpret_cast<std::byte*>(words), reinterpret_cast<const std::byte*>(out), sizeof words);
  result.hash = words[0];
  result.unwritten = words[1];
  return result;
}

void blot(const View& view, int64_t first, int64_t count) {
  const int64_t end = std::min(first + count, view.numel());
  if (first < end)
    check_cuda(cudaMemset(view.data + first * size_of(view.dtype), 0, static_cast<size_t>((end - first) * size_of(view.dtype))), "cudaMemset");
}
void dawdle(double seconds) {
  auto* duration = new std::chrono::duration<double>(seconds);
  const auto sleep = [](void* data) {
    const std::unique_ptr<std::chrono::duration<double>> owned(static_cast<std::chrono::duration<double>*>(data));
    std::this_thread::sleep_for(*owned);
  };
  check_cuda(cudaLaunchHostFunc(nullptr, sleep, duration), "cudaLaunchHostFunc");
}

namespace {

class Event {
 public:
  Event() { check_cuda(cudaEventCreate(&event_), "cudaEventCreate"); }
  ~Event() { cudaEventDestroy(event_); }
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;
  void record() { check_cuda(cudaEventRecord(event_, nullptr), "cudaEventRecord"); }
  double since(const Event& begin) const {  // milliseconds
    float ms = 0;
    check_cuda(cudaEventElapsedTime(&ms, begin.event_, event_), "cudaEventElapsedTime");
    return ms;
  }

 private:
  cudaEvent_t event_ = nullptr;
};

}  // namespace

std::vector<std::vector<double>> time_in_turn(const std::vector<std::function<void()>>& work, int rounds, bool flush) {
  // Twice the largest L2 there is. Filling it also keeps the device busy while the host queues what is timed.
  constexpr size_t kFlushed = size_t{128} << 20;
  static std::byte* const flushed = flush ? test::device_allocate(kFlushed) : nullptr;
  for (const auto& each : work) each();
  std::vector<std::unique_ptr<Event[]>> events;
  for (size_t w = 0; w < work.size(); ++w) events.push_back(std::make_unique<Event[]>(static_cast<size_t>(2 * rounds)));
  for (int round = 0; round < rounds; ++round) {
    for (size_t w = 0; w < work.size(); ++w) {
      Event* pair = &events[w][static_cast<size_t>(2 * round)];
      if (flush) check_cuda(cudaMemsetAsync(flushed, round, kFlushed), "cudaMemsetAsync");
      pair[0].record();
      work[w]();
      pair[1].record();
    }
  }
  synchronise();
  std::vector<std::vector<double>> times(work.size());
  for (size_t w = 0; w < work.size(); ++w) {
    for (int round = 0; round < rounds; ++round) {
      const Event* pair = &events[w][static_cast<size_t>(2 * round)];
      times[w].push_back(pair[1].since(pair[0]));
    }
    std::sort(times[w].begin(), times[w].end());
  }
  return times;
}
double median(const std::vector<double>& sorted) {
  return sorted[sorted.size() / 2];
}

double copy_rate() {
  static const double rate = [] {
    constexpr size_t kBytes = size_t{256} << 20;
    std::byte *from = test::device_allocate(kBytes), *to = test::device_allocate(kBytes);
    check_cuda(cudaMemset(from, 1, kBytes), "cudaMemset");
    const auto copy = [=] { check_cuda(cudaMemcpyAsync(to, from, kBytes, cudaMemcpyDeviceToDevice), "cudaMemcpyAsync"); };
    const double ms = median(time_in_turn({copy}, 9, true)[0]);
    test::device_free(from);
    test::device_free(to);
    return 2e3 * static_cast<double>(kBytes) / ms;
  }();
  return rate;
}

std::string device_name() {
  cudaDeviceProp properties{};
  check_cuda(cudaGetDeviceProperties(&properties, 0), "cudaGetDeviceProperties");
  return properties.name;
}
int multiprocessors() {
  int count = 0;
  check_cuda(cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, 0), "cudaDeviceGetAttribute");
  return count;
}
void synchronise() {
  check_cuda(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
}

}  // namespace heddle::bench
