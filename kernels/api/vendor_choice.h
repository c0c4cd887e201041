// Which products a vendor's library does: all that it can, or those at which it was measured to be faster (train/gemm_choices.h).
#pragma once

#include <cstdint>
#include <optional>
#include <set>
#include <string>

#include "kernels/api/matmul.h"

namespace heddle::kernels {

// What the time of a product depends on beside the device: "64 x 48 x 32 NT bf16, bias; rows of 32, 32, 48".
std::string product_name(const MatmulArgs&);

using ProductNames = std::set<std::string, std::less<>>;

// From here on a vendor's candidate refuses all products but these; nullopt: none. Not while kernels are being launched.
void vendor_takes_only(std::optional<ProductNames> products);
bool vendor_takes(const MatmulArgs&);
// How often that has changed: answers may be kept until it does.
uint64_t vendor_choices();

}  // namespace heddle::kernels
