// Source places in 32 bits, and their text.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/sim/core/machine.h"

namespace heddle::sim {

uint32_t place_of(const void* pc);  // an instrumented access: its return address
uint32_t place_of(const Site& site);
std::string place_text(uint32_t place);                 // "kernels/cuda/norm.cu:31", with the operation's name if it has one
Site place_site(uint32_t place);                        // symbolised; file lives for ever
void know_places(const std::vector<uint32_t>& places);  // symbolises many at the price of one

}  // namespace heddle::sim
