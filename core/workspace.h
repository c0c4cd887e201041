// Zeroed memory for kernels: tickets, arrival counters, flags that blocks of one launch agree by.
//
// Every stream has one block of it, for as long as the process lives. Kernels of a stream follow each other, so they share it; each finds it zero and
// leaves it zero. launch() hands it to kernels whose arguments have a member `zeroed`.
#pragma once

#include <cstddef>
#include <span>

#include "core/device.h"

namespace heddle {

inline constexpr size_t kZeroedBytes = size_t{64} << 10;

// Error while the stream is being captured and has none yet: what a graph does is first done once outside.
std::span<std::byte> zeroed_workspace(Stream);

}  // namespace heddle
