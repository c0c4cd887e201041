// Which of its host's devices a rank takes.
#pragma once

namespace heddle {

// Of the `devices` that this process is shown: that of the rank's own number on the host, or the only one, where a launcher shows each rank its own.
// Error(usage) when the host has more ranks than devices, or when two variables that speak of this rank differ in its number.
int device_of_rank(int devices);

}  // namespace heddle
