// Which norm a layer uses; apart from the layers, so that a configuration needs no tensors.
#pragma once

#include <cstdint>

namespace heddle {

enum class NormType : uint8_t { layer, rms };

}  // namespace heddle
