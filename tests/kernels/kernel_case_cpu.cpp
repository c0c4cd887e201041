#include <omp.h>

#include "tests/kernels/kernel_case.h"

namespace heddle::test {

void register_kernels() {
  kernels::register_cpu_kernels();
}

void finish_kernels() {}

void in_another_order(int n, const std::function<void()>& f) {
  const int before = omp_get_max_threads();
  omp_set_num_threads(n + 1);
  f();
  omp_set_num_threads(before);
}

}  // namespace heddle::test
