// The CUDA half of core/device.h: core/device_cuda.cpp, or core/device_none.cpp where the program is built without it.
#pragma once

#include <functional>
#include <list>
#include <string>

#include "core/device.h"

namespace heddle {

// The first call of either finds the devices and, if there is one, fills the CUDA lists of the Kernel slots.
Runtime& cuda_runtime();  // throws Error(no_device) saying what is missing
int cuda_device_count();  // 0 where cuda_runtime() throws

// "GPU-8932f937-d72c-4106-c12f-20bd9faed9f6", as nvidia-smi -L names it: the same for every process that uses the device. Builds with CUDA alone.
std::string cuda_device_uuid(int device);

// A moment of a stream, to measure by. Builds with CUDA alone.
class CudaMoment {
 public:
  explicit CudaMoment(Device);
  ~CudaMoment();
  CudaMoment(CudaMoment&&) noexcept;
  CudaMoment& operator=(CudaMoment&&) = delete;

  void record(Stream);
  double seconds_since(const CudaMoment& earlier) const;  // both recorded; waits for them

 private:
  int device_;
  void* event_ = nullptr;
};

// Asked again and again, while this lives, by threads of the host that wait for a CUDA device; what it throws ends the wait. Communication can fail
// so that its kernels, and with them the device, wait for ever: only the library that does it knows. Builds with CUDA alone.
class WaitWatch {
 public:
  explicit WaitWatch(std::function<void()> ask);
  ~WaitWatch();
  WaitWatch(const WaitWatch&) = delete;
  WaitWatch& operator=(const WaitWatch&) = delete;

 private:
  std::list<std::function<void()>>::iterator place_;
};

}  // namespace heddle
