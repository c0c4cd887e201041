// <immintrin.h> where there is one; included before the header of any library that includes it too.
//
// g++ 12 warns of its own _mm512_undefined_ps(), which leaves a register uninitialised on purpose, in every function that inlines it (GCC
// bug 105593): 270 times in Eigen's matrix product. The warning bears a line of g++'s header, so it is off for those lines and for no others.
#pragma once

#if defined(__x86_64__)
#if !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>
#if !defined(__clang__)
#pragma GCC diagnostic pop
#endif
#endif
