// How many threads the kernels of this process share their work over.
#pragma once

#include <cstdint>

namespace heddle {

// Sets the number of OpenMP threads; 0: as OMP_NUM_THREADS says, else one a logical CPU. Error(usage) when this process cannot have so many: OpenMP
// itself would end it inside the first kernel.
void use_threads(int64_t threads);

}  // namespace heddle
