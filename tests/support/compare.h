// difference.h for tests written with Catch2:
//
//   CHECK_CLOSE(got_view, want, magnitude, Bound{DType::f32, K});
#pragma once

#include "tests/support/catch.h"
#include "tests/support/difference.h"

#define CHECK_CLOSE(...) CHECK(::heddle::test::difference(__VA_ARGS__) == "")
#define REQUIRE_CLOSE(...) REQUIRE(::heddle::test::difference(__VA_ARGS__) == "")
