// How many of a device's multiprocessors a grid that stays resident takes while collectives run beside it.
#pragma once

#include <algorithm>
#include <atomic>

namespace heddle::kernels {

// Multiprocessors that the collectives of this process which were begun and not yet joined may take: whoever begins them adds them, and takes them
// back. A grid over all multiprocessors would do the work of those it does not get in a second wave, while the others stand idle.
inline std::atomic<int> communication_blocks{0};

// Of `all`, of a grid launched now; no result may depend on it. Never less than half, in pairs, as clusters are.
inline int multiprocessors_beside_communication(int all) {
  return std::max(all - communication_blocks.load(std::memory_order_relaxed), std::min(all, (all + 3) / 4 * 2));
}

}  // namespace heddle::kernels
