// Libraries that are loaded when they are needed.
#include "kernels/api/vendor_library.h"

#include "tests/kernels/kernel_case.h"

namespace heddle::kernels {
namespace {

TEST_CASE("vendor library: the first that can be loaded, or what was tried") {
  std::string why;
  CHECK(open_vendor_library({"libnobody_has_this.so.1", "libnor_that.so.2"}, why) == nullptr);
  CHECK(test::contains(why, "libnobody_has_this.so.1: "));
  CHECK(test::contains(why, "; libnor_that.so.2: "));
  void* const library = open_vendor_library({"libnobody_has_this.so.1", "libm.so.6"}, why);
  REQUIRE(library);
  const auto cosine = reinterpret_cast<double (*)(double)>(vendor_function(library, "cos"));
  REQUIRE(cosine);
  CHECK(cosine(0) == 1);
  CHECK(vendor_function(library, "no_such_function") == nullptr);
}

}  // namespace
}  // namespace heddle::kernels
