// How a table of names writes its rows: a function's type, a value, a type's size and alignment.
#pragma once

#include <string>
#include <typeinfo>

#define F(x) \
  { #x, typeid(&x).name() }
#define V(x) \
  { #x, std::to_string(static_cast <long long>(x)) }
#define S(type) \
  { #type, std::to_string(sizeof(type)) + " " + std::to_string(alignof(type)) }
