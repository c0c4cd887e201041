// Tensors: values in and out, geometry, and what handles share.
#include "core/tensor.h"

#include "core/autograd/node.h"
#include "core/ops/ops.h"
#include "kernels/api/check.h"
#include "tests/support/devices.h"
#include "tests/support/gradcheck.h"

namespace heddle {
namespace {

using Catch::Matchers::Contains;

TEST_CASE("values go to a device and back in every dtype") {
  kernels::register_cpu_kernels();
  const std::vector<double> values{0, 1, 2.5, 3, 200, 7};
  for (Device device : test::devices()) {
    for (DType dtype : {DType::f32, DType::bf16, DType::f64, DType::i32, DType::u16, DType::u8}) {
      if (dtype == DType::f64 && device.type == DeviceType::cuda) continue;
      const Tensor t = Tensor::from(values, {2, 3}, dtype, device);
      std::vector<double> want = values;
      if (!is_floating(dtype)) want[2] = 2;
      CHECK(t.to_vector() == want);
      CHECK(t.device() == device);
    }
  }
  CHECK(Tensor::from(std::vector<double>{1.00390625}, {1}, DType::bf16).item() == 1);  // a tie: to even
  CHECK(Tensor::full({2, 2}, -1.5, DType::bf16).to_vector() == std::vector<double>(4, -1.5));
  CHECK(Tensor::zeros({3}, DType::f64).to_vector() == std::vector<double>(3, 0));
  CHECK(Tensor::full({}, 4, DType::f32).item() == 4);
}

TEST_CASE("views share storage, know their strides, and read in their own order") {
  kernels::register_cpu_kernels();
  const Tensor t = Tensor::from(std::vector<double>{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}, {3, 4}, DType::f32);
  const Tensor right = slice(t, 1, 2, 4), row = slice(t, 0, 1, 2), flat = reshape(t, {12});
  CHECK(right.to_vector() == std::vector<double>{2, 3, 6, 7, 10, 11});
  CHECK_FALSE(right.is_contiguous());
  CHECK(row.is_contiguous());
  CHECK(row.storage() == t.storage());
  CHECK(flat.impl().data == t.impl().data);
  CHECK(contiguous(right).is_contiguous());
  CHECK(contiguous(t).same(t));
  CHECK(transpose(t, 0, 1).to_vector() == std::vector<double>{0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11});
  CHECK(slice(t, -1, 0, 0).numel() == 0);
  CHECK_THROWS_WITH(right.bytes(), Contains("strided"));
  CHECK_THROWS_WITH(reshape(right, {6}), Contains("contiguous()"));
}

TEST_CASE("shapes: rank at most 4, no negative sizes, -1 is the last axis") {
  const Shape s{2, 3, 4};
  CHECK(s[-1] == 4);
  CHECK(s.numel() == 24);
  CHECK(dense_strides(s) == Shape{12, 4, 1});
  CHECK(shape_text(s) == "(2, 3, 4)");
  CHECK_FALSE(s == Shape{2, 3});
  CHECK_THROWS_WITH((Shape{1, 1, 1, 1, 1}), Contains("rank 5"));
  CHECK_THROWS_WITH((Shape{2, -1}), Contains("-1"));
}

TEST_CASE("a borrowed tensor reads memory it does not own") {
  kernels::register_cpu_kernels();
  std::vector<float> memory{1, 2, 3, 4};
  const Tensor t = Tensor::borrow(make_view(memory.data(), {2, 2}));
  CHECK(scale(t, 2).to_vector() == std::vector<double>{2, 4, 6, 8});
  memory[0] = 9;
  CHECK(t.to_vector()[0] == 9);
}

TEST_CASE("gradients are wanted of floating leaves only") {
  kernels::register_cpu_kernels();
  Tensor x = Tensor::zeros({2}, DType::f32);
  CHECK_FALSE(x.requires_grad());
  x.set_requires_grad(true);
  Tensor y = gelu(x);
  CHECK((y.requires_grad() && !y.is_leaf()));
  CHECK_THROWS_WITH(y.set_requires_grad(false), Contains("made by map"));
  CHECK_FALSE(y.detach().requires_grad());
  CHECK(y.detach().storage() == y.storage());
  Tensor i = Tensor::zeros({2}, DType::i32);
  CHECK_THROWS_WITH(i.set_requires_grad(true), Contains("i32"));
  CHECK_FALSE(Tensor().requires_grad());
}

TEST_CASE("wrong sizes are errors") {
  kernels::register_cpu_kernels();
  CHECK_THROWS_WITH(Tensor::from(std::vector<double>{1, 2}, {3}, DType::f32), Contains("2 values") && Contains("(3)"));
  CHECK_THROWS_WITH(Tensor::zeros({2}, DType::f32).item(), Contains("(2)"));
}

}  // namespace
}  // namespace heddle
