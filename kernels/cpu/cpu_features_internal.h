// The instruction sets of x86-64 that compilers use by themselves, or for intrinsics that compute, once -march allows them.
#pragma once

#include <cstdint>

// X(name: __name__ is the macro of g++ and clang; leaf, register and bit of cpuid; registers that the system must save; n of the first x86-64-vn that
// has it, 9: none). Left out are instructions that no compiler chooses: those of systems, of transactions, of caches and of AMX's tiles. The test
// cpu_features names them and finds what is missing here.
#define HEDDLE_CPU_FEATURES(X)                 \
  X(SSE3, leaf1, ecx, 0, none, 2)              \
  X(SSSE3, leaf1, ecx, 9, none, 2)             \
  X(SSE4_1, leaf1, ecx, 19, none, 2)           \
  X(SSE4_2, leaf1, ecx, 20, none, 2)           \
  X(POPCNT, leaf1, ecx, 23, none, 2)           \
  X(LAHF_SAHF, extended1, ecx, 0, none, 2)     \
  X(AVX, leaf1, ecx, 28, ymm, 3)               \
  X(AVX2, leaf7, ebx, 5, ymm, 3)               \
  X(FMA, leaf1, ecx, 12, ymm, 3)               \
  X(F16C, leaf1, ecx, 29, ymm, 3)              \
  X(BMI, leaf7, ebx, 3, none, 3)               \
  X(BMI2, leaf7, ebx, 8, none, 3)              \
  X(LZCNT, extended1, ecx, 5, none, 3)         \
  X(MOVBE, leaf1, ecx, 22, none, 3)            \
  X(AVX512F, leaf7, ebx, 16, zmm, 4)           \
  X(AVX512BW, leaf7, ebx, 30, zmm, 4)          \
  X(AVX512CD, leaf7, ebx, 28, zmm, 4)          \
  X(AVX512DQ, leaf7, ebx, 17, zmm, 4)          \
  X(AVX512VL, leaf7, ebx, 31, zmm, 4)          \
  X(AVX512IFMA, leaf7, ebx, 21, zmm, 9)        \
  X(AVX512ER, leaf7, ebx, 27, zmm, 9)          \
  X(AVX512PF, leaf7, ebx, 26, zmm, 9)          \
  X(AVX512VBMI, leaf7, ecx, 1, zmm, 9)         \
  X(AVX512VBMI2, leaf7, ecx, 6, zmm, 9)        \
  X(AVX512VNNI, leaf7, ecx, 11, zmm, 9)        \
  X(AVX512BITALG, leaf7, ecx, 12, zmm, 9)      \
  X(AVX512VPOPCNTDQ, leaf7, ecx, 14, zmm, 9)   \
  X(AVX512VP2INTERSECT, leaf7, edx, 8, zmm, 9) \
  X(AVX512FP16, leaf7, edx, 23, zmm, 9)        \
  X(AVX512BF16, leaf7_1, eax, 5, zmm, 9)       \
  X(AVXVNNI, leaf7_1, eax, 4, ymm, 9)          \
  X(AVXIFMA, leaf7_1, eax, 23, ymm, 9)         \
  X(AVXVNNIINT8, leaf7_1, edx, 4, ymm, 9)      \
  X(AVXVNNIINT16, leaf7_1, edx, 10, ymm, 9)    \
  X(AVXNECONVERT, leaf7_1, edx, 5, ymm, 9)     \
  X(AES, leaf1, ecx, 25, none, 9)              \
  X(PCLMUL, leaf1, ecx, 1, none, 9)            \
  X(VAES, leaf7, ecx, 9, ymm, 9)               \
  X(VPCLMULQDQ, leaf7, ecx, 10, ymm, 9)        \
  X(GFNI, leaf7, ecx, 8, none, 9)              \
  X(SHA, leaf7, ebx, 29, none, 9)              \
  X(SHA512, leaf7_1, eax, 0, ymm, 9)           \
  X(SM3, leaf7_1, eax, 1, ymm, 9)              \
  X(SM4, leaf7_1, eax, 2, ymm, 9)              \
  X(ADX, leaf7, ebx, 19, none, 9)              \
  X(CMPCCXADD, leaf7_1, eax, 7, none, 9)       \
  X(SSE4A, extended1, ecx, 6, none, 9)         \
  X(XOP, extended1, ecx, 11, ymm, 9)           \
  X(FMA4, extended1, ecx, 16, ymm, 9)          \
  X(TBM, extended1, ecx, 21, none, 9)

// Bit i: the i-th of them may be used by the code of this program.
extern "C" const uint64_t heddle_cpu_built_for;
