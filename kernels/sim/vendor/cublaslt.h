// What a test decides about the simulated cuBLASLt, and what it did.
#pragma once

#include <cstdint>
#include <string_view>

namespace heddle::sim::cublaslt {

// The n-th call of this function from now on ("cublasLtMatmul"; 1: the next) does nothing and returns `status`, a cublasStatus_t.
void fail_call(std::string_view function, uint64_t nth, int status);

// Programs do not find the library, or this function in it.
void hide_library();
void hide_function(std::string_view function);

// Calls of this function since the last reset().
uint64_t calls(std::string_view function);

// Nothing fails, nothing is hidden, nothing was called.
void reset();

// For library.cpp: nullptr where it is hidden or there is no such function.
void* find(std::string_view function);
bool is_hidden();

}  // namespace heddle::sim::cublaslt
