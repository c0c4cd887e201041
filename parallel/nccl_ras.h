// What NCCL itself knows of a job that stands still. Source: NCCL documentation, "RAS" (since NCCL 2.24): every process has a thread that knows of
// the others', and one of a host answers on a TCP port, in lines of text.
#pragma once

#include <string>

namespace heddle {

// Its status of the job, as whole lines for a report, each indented, at most 8 KiB; one line that says why where it does not answer. Takes no longer
// than `seconds`, and half a second where nobody listens. Asks where NCCL_RAS_ADDR says, else localhost:28028.
std::string ask_nccl(double seconds = 5);

}  // namespace heddle
