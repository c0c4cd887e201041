// What a draw works out, the same on every device: weights as whole numbers, so that their sums have no order, by an exponential of its own, each of
// whose operations is rounded as IEEE 754 says (no compiler has anything left to fuse).
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

#include "kernels/api/types.h"

namespace heddle::kernels {

struct SampleRules {
  double temperature = 1;
  int bits = 0;  // the most likely token weighs 2^bits

  // With as many bits as let the weights of `ids` tokens sum up below 2^62; beyond 52 a double has no more.
  static constexpr SampleRules of(double temperature, int64_t ids) {
    const int spare = 62 - static_cast<int>(std::bit_width(static_cast<uint64_t>(ids)));
    return {temperature, spare < 52 ? spare : 52};
  }

  // exp((logit - best) / temperature) in units of 2^-bits, to the nearest: 0 of what no draw can hit, whose uniform number has 24 bits.
  HEDDLE_HOST_DEVICE uint64_t weight(double logit, double best) const {
    const double z = (logit - best) / temperature;
    if (!(z > -64)) return 0;  // -inf too: a small temperature
    // 2^n exp(r), |r| <= log(2) / 2; the series' rest is below 2^-57 of it.
    constexpr double kLog2E = 0x1.71547652b82fep+0, kLn2 = 0x1.62e42fefa39efp-1, kLn2Rest = 0x1.abc9e3b39803fp-56;
    constexpr double kInverseFactorials[] = {1.0 / 6227020800, 1.0 / 479001600, 1.0 / 39916800, 1.0 / 3628800, 1.0 / 362880, 1.0 / 40320, 1.0 / 5040,
                                             1.0 / 720,        1.0 / 120,       1.0 / 24,       1.0 / 6,       1.0 / 2,      1.0,         1.0};
    const double n = std::floor(std::fma(z, kLog2E, 0.5));
    const double r = std::fma(-n, kLn2Rest, std::fma(-n, kLn2, z));
    double e = 0;
    for (const double coefficient : kInverseFactorials) e = std::fma(e, r, coefficient);
    const double unit = std::bit_cast<double>(static_cast<uint64_t>(1023 + bits + static_cast<int>(n)) << 52);
    return static_cast<uint64_t>(std::fma(e, unit, 0.5));
  }

  // The least running sum that is top_p of the total.
  HEDDLE_HOST_DEVICE static uint64_t kept(uint64_t total, double top_p) {
    if (!(top_p < 1)) return total;
    const double least = std::ceil(top_p * static_cast<double>(total));
    return least < 1 ? 1 : least < static_cast<double>(total) ? static_cast<uint64_t>(least) : total;
  }

  // The unit that a random word hits: floor(sum word / 2^24) of its upper 24 bits, as Philox::uniform takes them.
  HEDDLE_HOST_DEVICE static uint64_t drawn(uint64_t sum, uint32_t word) {
    const uint64_t of = word >> 8;
    return of * (sum >> 24) + (of * (sum & 0xFFFFFFu) >> 24);
  }
};

}  // namespace heddle::kernels
