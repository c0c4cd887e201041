// A library of somebody else's, loaded when it is first asked for: a program that may use it also runs where it is missing.
// kernels/vendor/library.cpp loads, kernels/sim/vendor/library.cpp has functions of its own by the same names.
#pragma once

#include <initializer_list>
#include <string>

namespace heddle::kernels {

// For the life of the process. nullptr where none of `names` ("libcublasLt.so.13") can be loaded; `why` then says what was tried.
void* open_vendor_library(std::initializer_list<const char*> names, std::string& why);

// nullptr: the library has no such function.
void* vendor_function(void* library, const char* name);

}  // namespace heddle::kernels
