// What is found out about a device plane before a run relies on it. Collective.
#pragma once

#include <string>

#include "parallel/communicator.h"
#include "parallel/control.h"

namespace heddle {

// Error(usage), on every rank, naming two ranks that use the same device. `uuid`: this rank's, which tells devices of all hosts apart.
void require_own_devices(Control& control, const std::string& uuid, Device device, double seconds);

// One all_reduce of known numbers. An Error names the ranks whose numbers arrive wrong, and where; Error(hung) when it is not done within `seconds`,
// or names the rank that did not come. The communicator is aborted then.
void preflight(Communicator& comm, Control& control, Device device, double seconds);

}  // namespace heddle
