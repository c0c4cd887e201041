#include "train/report/utilisation.h"

namespace heddle {

double peak_flops(std::string_view gpu) {
  // Names contain one another: the first that fits counts. Figures "with sparsity" are halved.
  struct Card {
    std::string_view part;
    double teraflops;
  };
  constexpr Card kCards[] = {{"GB200", 2500},    {"B200", 2250},    {"H200 NVL", 835}, {"H200", 989},   {"GH200", 989},
                             {"H100 PCIe", 756}, {"H100 NVL", 835}, {"H100", 989},     {"H800", 989},   {"H20", 148},
                             {"A100", 312},      {"A800", 312},     {"A40", 150},      {"A10", 125},    {"L40S", 362},
                             {"L40", 181},       {"L4", 121},       {"RTX 4090", 165}, {"RTX 3090", 71}};
  const auto is_digit_or_letter = [](char c) { return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z'); };
  for (const Card& card : kCards) {
    const size_t at = gpu.find(card.part), end = at + card.part.size();
    if (at == std::string_view::npos || (at > 0 && is_digit_or_letter(gpu[at - 1]))) continue;
    // "A10" is no "A100", "A40" no "A4000"; "A10G" is a card of its own.
    if (end < gpu.size() && is_digit_or_letter(gpu[end])) continue;
    return card.teraflops * 1e12;
  }
  return 0;
}

}  // namespace heddle
