// Which element of a matrix a register of a lane holds, and where swizzled shared memory keeps it: the maps of the tensor-core instructions as
// constexpr functions. Kernels index with them, hosts test with them. Rows and columns are zero based; "register" is a 32-bit register with two
// 16-bit elements (the low half is the lower column or k) unless it is said to hold one fp32. Source: PTX ISA 8.x, sections 9.7.14 (mma, ldmatrix,
// stmatrix) and 9.7.15 (wgmma); section names are given because the numbers move between editions.
#pragma once

#include <cstdint>

namespace heddle {

struct Element {
  int row = 0;
  int column = 0;
  friend constexpr bool operator==(const Element& a, const Element& b) { return a.row == b.row && a.column == b.column; }
};

// mma.sync.m16n8k16 with 16-bit operands ("Matrix Fragments for mma.m16n8k16 with floating point type"). A lane is group = lane / 4, t = lane % 4.
namespace mma_m16n8k16 {
// A (m 16, k 16), row-major: 4 registers of two elements; half 0 is the low half. -> (m, k)
constexpr Element a(int lane, int reg, int half) {
  return {lane / 4 + 8 * (reg % 2), lane % 4 * 2 + half + 8 * (reg / 2)};
}
// B (k 16, n 8), column-major: 2 registers of two elements. -> (k, n)
constexpr Element b(int lane, int reg, int half) {
  return {lane % 4 * 2 + half + 8 * reg, lane / 4};
}
// C and D (m 16, n 8): 4 fp32. -> (m, n)
constexpr Element d(int lane, int reg) {
  return {lane / 4 + 8 * (reg / 2), lane % 4 * 2 + reg % 2};
}
}  // namespace mma_m16n8k16

// mma.sync.m16n8k8 with tf32 operands: one element a register; C and D as in m16n8k16.
namespace mma_m16n8k8_tf32 {
constexpr Element a(int lane, int reg) {  // (m 16, k 8): 4 registers -> (m, k)
  return {lane / 4 + 8 * (reg % 2), lane % 4 + 4 * (reg / 2)};
}
constexpr Element b(int lane, int reg) {  // (k 8, n 8): 2 registers -> (k, n)
  return {lane % 4 + 4 * reg, lane / 4};
}
constexpr Element d(int lane, int reg) {
  return mma_m16n8k16::d(lane, reg);
}
}  // namespace mma_m16n8k8_tf32

// ldmatrix and stmatrix move 8x8 matrices of 16-bit elements. Lane l gives the address of row l % 8 of matrix l / 8 (16 bytes, 16-byte aligned);
// register r of a lane then holds of matrix r these two elements.
namespace matrix_8x8 {
struct Source {
  int matrix = 0;
  int row = 0;
};
constexpr Source source(int lane) {
  return {lane / 8, lane % 8};
}
constexpr Element held(int lane, int half) {  // -> (row, column) as stored
  return {lane / 4, lane % 4 * 2 + half};
}
constexpr Element held_transposed(int lane, int half) {  // with .trans
  return {lane % 4 * 2 + half, lane / 4};
}

// Where lane l points so that one ldmatrix.x4 fills mma operands: (row, column of the first of 8 elements) in a tile stored as said.
constexpr Element address_a(int lane) {  // A m16 k16 from [m][k], plain
  return {lane % 16, lane / 16 * 8};
}
constexpr Element address_a_transposed(int lane) {  // A m16 k16 from [k][m], .trans
  return {lane / 16 * 8 + lane % 8, lane / 8 % 2 * 8};
}
constexpr Element address_b_pair(int lane) {  // B of two n8 groups from [n][k], plain: registers 0, 1 are the first group's, 2, 3 the second's
  return {lane / 16 * 8 + lane % 8, lane / 8 % 2 * 8};
}
constexpr Element address_b_pair_transposed(int lane) {  // the same from [k][n], .trans
  return {lane % 16, lane / 16 * 8};
}
}  // namespace matrix_8x8

// wgmma.m64nNk16 ("Register Fragments and Shared Memory Matrix Layouts"). lane is 0..127, the thread of the warpgroup; warp lane / 32 holds rows 16 *
// warp..+15.
namespace wgmma_m64 {
// D (m 64, n N): N / 2 fp32. -> (m, n)
constexpr Element d(int lane, int reg) {
  return {lane / 32 * 16 + lane % 32 / 4 + 8 * (reg / 2 % 2), reg / 4 * 8 + lane % 4 * 2 + reg % 2};
}
// A (m 64, k 16) held in registers: 4 registers of two elements, per warp as in mma.m16n8k16. -> (m, k)
constexpr Element a(int lane, int reg, int half) {
  const Element in_warp = mma_m16n8k16::a(lane % 32, reg, half);
  return {lane / 32 * 16 + in_warp.row, in_warp.column};
}
}  // namespace wgmma_m64

// How shared memory permutes its 16-byte chunks. The values are the layout types of the wgmma matrix descriptor (bits 62-63).
enum class Swizzle : uint8_t { none = 0, bytes128 = 1, bytes64 = 2, bytes32 = 3 };

constexpr uint32_t swizzle_bytes(Swizzle swizzle) {  // the length of a row of the pattern; 16 where nothing is permuted
  switch (swizzle) {
    case Swizzle::bytes128: return 128;
    case Swizzle::bytes64: return 64;
    case Swizzle::bytes32: return 32;
    default: return 16;
  }
}

// Where the byte at a shared address lies after swizzling: address bits [6:4] ^= [9:7] (128), [5:4] ^= [8:7] (64), [4] ^= [7] (32). Acts on absolute
// shared addresses: a buffer aligned to 8 * swizzle_bytes may be indexed by offsets instead.
constexpr uint32_t swizzled(uint32_t address, Swizzle swizzle) {
  const uint32_t chunk_mask = swizzle_bytes(swizzle) / 16 - 1;  // 7, 3, 1, 0
  return address ^ ((address >> 7 & chunk_mask) << 4);
}

// The chunk (16 bytes) of row r of a tile with 128-byte rows that holds its logical chunk c under the 128-byte swizzle; its own inverse.
constexpr int swizzled_chunk_128(int row, int chunk) {
  return chunk ^ (row & 7);
}
// The same for tiles with 64-byte rows (32 16-bit elements), 64-byte swizzle.
constexpr int swizzled_chunk_64(int row, int chunk) {
  return chunk ^ (row >> 1 & 3);
}

// Which axis of an operand is contiguous in shared memory: k (the values are the immediate operands tnspA, tnspB of wgmma) or m (for A), n (for B).
enum class Major : uint8_t { k = 0, mn = 1 };

// The 64-bit shared-memory matrix descriptor of wgmma ("Matrix Descriptor"): start address, leading and stride byte offsets in units of 16 bytes (14
// bits each), base offset, layout type.
//   K-major, swizzled:  stride_bytes = from 8 rows (m or n) to the next 8; leading_bytes ignored (pass 16).
//   MN-major, swizzled: stride_bytes = from 8 k to the next 8 k; leading_bytes = from one swizzle row's worth of m or n to the next.
//   K-major, none:      8x8 matrices of 128 contiguous bytes; leading_bytes = between the two along k, stride_bytes = between those along m or n.
//   MN-major, none:     the same matrices with m or n contiguous; leading_bytes = between those along k, stride_bytes = between those along m or n.
// base_offset is 0 where the pattern starts at a multiple of 8 * swizzle_bytes, else (pattern start >> 7) & 7.
constexpr uint64_t wgmma_descriptor(uint32_t smem, uint32_t leading_bytes, uint32_t stride_bytes, Swizzle swizzle, uint32_t base_offset = 0) {
  return static_cast<uint64_t>(smem >> 4 & 0x3FFF) | static_cast<uint64_t>(leading_bytes >> 4 & 0x3FFF) << 16 |
         static_cast<uint64_t>(stride_bytes >> 4 & 0x3FFF) << 32 | static_cast<uint64_t>(base_offset & 7) << 49 |
         static_cast<uint64_t>(swizzle) << 62;
}

// The descriptor `bytes` further on: only the start address moves, so a kernel builds one descriptor per buffer and adds.
constexpr uint64_t advanced(uint64_t descriptor, uint32_t bytes) {
  return descriptor + (bytes >> 4);
}

}  // namespace heddle
