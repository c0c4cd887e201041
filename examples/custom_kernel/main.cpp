// A kernel of your own, tested without a GPU: run it on the simulated machine, compare it with a plain loop, see a forgotten barrier found.
#include <algorithm>
#include <cmath>
#include <iostream>
#include <string>
#include <vector>

#include "examples/custom_kernel/smooth.h"
#include "kernels/api/check.h"

namespace {

// What the kernel should do, as plainly as it can be said, in double.
double smoothed(const std::vector<float>& x, int i) {
  const int last = static_cast<int>(x.size()) - 1;
  return (static_cast<double>(x[static_cast<size_t>(std::max(i - 1, 0))]) + x[static_cast<size_t>(i)] +
          x[static_cast<size_t>(std::min(i + 1, last))]) /
         3;
}

// Lengths around the block size: whole blocks, one more, one less, a single element.
int wrong_elements() {
  int wrong = 0;
  for (int n : {1, 127, 128, 129, 1000}) {
    std::vector<float> x(static_cast<size_t>(n)), y(x.size(), NAN);
    for (size_t i = 0; i < x.size(); ++i) x[i] = std::sin(static_cast<float>(i));
    smooth(x.data(), y.data(), n);
    for (int i = 0; i < n; ++i) wrong += !(std::abs(y[static_cast<size_t>(i)] - smoothed(x, i)) <= 1e-6);  // so written that NaN counts
  }
  return wrong;
}

// The machine's report on the kernel without its barrier.
std::string report_without_barrier() {
  std::vector<float> x(256, 1.0f), y(256);
  try {
    smooth_without_barrier(x.data(), y.data(), 256);
  } catch (const heddle::Error& error) {
    return error.what();
  }
  return "";
}

}  // namespace

int main() {
  const int wrong = wrong_elements();
  std::cout << "with its barrier: " << wrong << " wrong elements\n";
  // The results may well be right here: on this machine, today. What the check flavour reports is that no barrier makes them so.
  const std::string report = report_without_barrier();
  std::cout << "without: " << (report.empty() ? "nothing found" : report) << '\n';
  return wrong == 0 && report.find("smooth.cu:") != std::string::npos ? 0 : 1;
}
