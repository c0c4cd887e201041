// The CUDA half of core/device.h: core/device_cuda.cpp, or core/device_none.cpp where the program is built without it.
#pragma once

#include "core/device.h"

namespace heddle {

// The first call of either finds the devices and, if there is one, fills the CUDA lists of the Kernel slots.
Runtime& cuda_runtime();  // throws Error(no_device) saying what is missing
int cuda_device_count();  // 0 where cuda_runtime() throws

}  // namespace heddle
