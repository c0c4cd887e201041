// The fault word of a device: what kernels note instead of throwing (kernels/api/fault.h), and how the host hears of it.
//
// On a CPU launch() asks after each kernel that can note one. On a GPU nobody waits for it: the next copy to the host that the host waits for brings
// it along, and a training step reads it on the device, withholds its update, and reports it with its result.
#pragma once

#include <string_view>

#include "core/device.h"
#include "kernels/api/fault.h"

namespace heddle {

// In the device's memory, for the life of the process.
kernels::Fault* fault_word(Device);

// Throws Error(bad_data) with the word's text, and clears it, if it holds anything. Reads it in stream order: the host waits.
void raise_fault(Device, std::string_view op = "data");

// In two, for a copy that waits anyway: fetch_fault queues a copy of the word (false: no kernel has asked for it yet), and once the stream has come
// past it raise_fetched_fault throws.
bool fetch_fault(Device, Stream);
void raise_fetched_fault(Device, std::string_view op = "data");

}  // namespace heddle
