// How this folder's files get into the lists of candidates. A family's file defines, in kernels::cpu, for each of its slots
//
//   Refusal refuses(const Args&);    // why arguments cannot be run
//   size_t scratch(const Args&);     // bytes that run() needs; where Args has `scratch`
//   void run(const Args&, Stream);
//
// and register.cpp, which declares them from the list of slots, adds them. matmul.cpp and attention.cpp add their own, several a slot.
#pragma once

#include "kernels/api/kernel.h"

namespace heddle::kernels::cpu {

void register_cpu_matmul();
void register_cpu_attention();

}  // namespace heddle::kernels::cpu
