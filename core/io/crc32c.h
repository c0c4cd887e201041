// CRC-32C (Castagnoli, reflected polynomial 0x82F63B78), as iSCSI (RFC 3720, B.4), ext4 and TensorBoard use it.
#pragma once

#include <cstddef>
#include <cstdint>

namespace heddle {

// crc32c("123456789") == 0xE3069283. To continue a stream, pass the previous result as `crc`.
uint32_t crc32c(const void* data, size_t bytes, uint32_t crc = 0);

namespace detail {
uint32_t crc32c_table(const void* data, size_t bytes, uint32_t crc);  // every machine; the tests compare the two
}

}  // namespace heddle
