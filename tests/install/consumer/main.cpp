// The smallest program outside heddle: a View over its own memory, and heddle's error when a kernel slot is empty.
#include <iostream>

#include "kernels/api/check.h"
#include "kernels/api/kernel.h"

int main() {
  float weights[8] = {};
  const heddle::View view = heddle::make_view(weights, {2, 4});  // (2, 4)
  heddle::kernels::Kernel<int> empty("example");
  try {
    empty.choose(heddle::DeviceType::cpu, 0);
  } catch (const heddle::Error& e) {
    std::cout << "heddle speaks: " << heddle::shape_text(view) << "; " << e.what() << '\n';
    return 0;
  }
  return 1;
}
