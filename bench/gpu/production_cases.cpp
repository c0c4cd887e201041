// The list of production cases, and its matrix products. An entry says how a call is made in device memory; the registry says who takes it.
#include <algorithm>
#include <array>

#include "bench/gpu/production_list.h"
#include "kernels/cuda/gemm_sm80_config.h"
#include "kernels/cuda/gemm_sm90_config.h"
#include "tests/sim/proving_kernels.h"

namespace heddle::bench {

using namespace kernels;  // NOLINT: a program's own source

std::string Equipment::faults() const {
  std::string text;
  std::vector<std::byte> workspace(zeroed.size());
  if (!workspace.empty()) test::copy_to_host(workspace.data(), zeroed.data(), workspace.size());
  if (std::any_of(workspace.begin(), workspace.end(), [](std::byte b) { return b != std::byte{}; }))
    text += "the zeroed workspace was not left zero; ";
  Fault found;
  if (fault != nullptr) test::copy_to_host(reinterpret_cast<std::byte*>(&found), reinterpret_cast<const std::byte*>(fault), sizeof found);
  if (found.kind != FaultKind::none) text += concat("a fault was noted: ", fault_text(found), "; ");
  return text;
}

namespace {

// ---- matrix products ----

enum class Product { forward, input_gradient, weight_gradient };
constexpr std::array kProducts = {Product::forward, Product::input_gradient, Product::weight_gradient};
constexpr const char* kProductNames[] = {"forward", "input_gradient", "weight_gradient"};

struct MatmulShapeOf {
  Product product;
  int64_t m, n, k;
};
struct Linear {
  int64_t rows, out, in;
};
constexpr Linear kLinear[] = {{4096, 4096, 4096}, {8192, 8192, 8192},                                        // square
                              {8192, 2304, 768},  {8192, 768, 768},   {8192, 3072, 768}, {8192, 768, 3072},  // a block of 124M parameters
                              {4096, 50304, 768},                                                            // its head
                              {4000, 4104, 1032}};                                                           // no side a whole number of tiles
constexpr Linear kSmallLinear[] = {{136, 120, 72}};

MatmulShapeOf shape_for(Product product, const Linear& l) {
  switch (product) {
    case Product::forward: return {product, l.rows, l.out, l.in};
    case Product::input_gradient: return {product, l.rows, l.in, l.out};
    default: return {product, l.out, l.in, l.rows};
  }
}

// The kernels choose a tile by shape and number of multiprocessors: where the shapes above do not lead to one that is built, one of these does.
constexpr int64_t kRows[] = {4096, 4224, 2048, 2176, 1024, 1152}, kColumns[] = {4096, 3072, 2304, 1536, 1024, 8192};
constexpr int64_t kSmallRows[] = {72, 104, 136}, kSmallColumns[] = {72, 136, 264, 500};

struct TileChoice {
  const char* kernel;
  int capability, tiles;
  int (*choose)(int64_t m, int64_t n, int64_t k, int sms);
};
const TileChoice kTileChoices[] = {
    {"gemm_sm80", 80, static_cast<int>(cuda::kGemmSm80Tiles.size()),
     [](int64_t m, int64_t n, int64_t k, int sms) { return cuda::choose_gemm_sm80(m, n, sms, cuda::gemm_sm80_splits(m, n, k)); }},
    {"gemm_sm90", 90, static_cast<int>(cuda::kGemmSm90Tiles.size()),
     [](int64_t m, int64_t n, int64_t k, int sms) { return cuda::choose_gemm_sm90(m, n, sms, cuda::gemm_sm90_splits(m, n, k)); }}};

// Calls unmet(kernel, product, tile) for every tile that no shape leads to.
template <class Unmet>
std::vector<MatmulShapeOf> matmul_shapes(Sizes sizes, const Unmet& unmet) {
  const bool small = sizes == Sizes::small;
  const int sms = multiprocessors();
  std::vector<MatmulShapeOf> shapes;
  for (const Product product : kProducts) {
    const auto begin = shapes.size();
    for (const Linear& l :
         small ? std::vector<Linear>(std::begin(kSmallLinear), std::end(kSmallLinear)) : std::vector<Linear>(std::begin(kLinear), std::end(kLinear)))
      shapes.push_back(shape_for(product, l));
    const std::vector<int64_t> rows =
        small ? std::vector<int64_t>(std::begin(kSmallRows), std::end(kSmallRows)) : std::vector<int64_t>(std::begin(kRows), std::end(kRows));
    const std::vector<int64_t> columns = small ? std::vector<int64_t>(std::begin(kSmallColumns), std::end(kSmallColumns))
                                               : std::vector<int64_t>(std::begin(kColumns), std::end(kColumns));
    for (const TileChoice& choice : kTileChoices) {
      if (choice.capability > test::device_capability()) continue;
      for (int tile = 0; tile < choice.tiles; ++tile) {
        const auto met = [&](const MatmulShapeOf& s) { return choice.choose(s.m, s.n, s.k, sms) == tile; };
        bool found = std::any_of(shapes.begin() + static_cast<ptrdiff_t>(begin), shapes.end(), met);
        for (size_t i = 0; i < rows.size() * columns.size() && !found; ++i) {
          const MatmulShapeOf shape{product, rows[i / columns.size()], columns[i % columns.size()], small ? 72 : 4096};
          found = met(shape);
          if (found) shapes.push_back(shape);
        }
        if (!found) unmet(choice.kernel, product, tile);
      }
    }
  }
  return shapes;
}

enum class With { nothing, bias, activation, derivative };

void add_product(Entries& entries, const MatmulShapeOf& s, DType dtype, With with = With::nothing) {
  const bool weight = s.product == Product::weight_gradient;
  const std::string shape = concat(kProductNames[static_cast<int>(s.product)], dtype == DType::f32 ? " f32 " : " ", s.m, " x ", s.n, " x ", s.k,
                                   with == With::bias         ? " bias"
                                   : with == With::activation ? " bias gelu preact"
                                   : with == With::derivative ? " gelu_backward column_sum"
                                                              : "");
  entries.add<MatmulArgs>(matmul, shape, [=](Memory& memory) {
    Problem<MatmulArgs> p;
    MatmulArgs& args = p.args;
    args.trans_a = weight;
    args.trans_b = s.product == Product::forward;
    args.a = args.trans_a ? memory.normal(dtype, {s.k, s.m}) : memory.normal(dtype, {s.m, s.k});
    args.b = args.trans_b ? memory.normal(dtype, {s.n, s.k}) : memory.normal(dtype, {s.k, s.n});
    args.c = weight ? memory.added(DType::f32, {s.m, s.n}) : Sink{memory.output(dtype, {s.m, s.n})};
    if (with == With::bias || with == With::activation) args.bias = memory.normal(dtype, {s.n});
    if (with == With::activation) {
      args.preact = memory.output(dtype, {s.m, s.n});
      args.epilogue = Epilogue::gelu;
    }
    if (with == With::derivative) {
      args.preact = memory.normal(dtype, {s.m, s.n});
      args.epilogue = Epilogue::gelu_backward;
      args.column_sum = memory.added(DType::f32, {s.n});
    }
    const auto m = static_cast<double>(s.m), n = static_cast<double>(s.n), k = static_cast<double>(s.k);
    p.flops = 2 * m * n * k;
    p.bytes = static_cast<double>(size_of(dtype)) * (m * k + n * k) + static_cast<double>(args.c.to.bytes()) * (args.c.accumulate ? 2 : 1) +
              static_cast<double>(args.preact ? args.preact.bytes() : 0);
    if (with == With::nothing)
      p.torch = concat("matmul ", kProductNames[static_cast<int>(s.product)], " ", name_of(dtype), " ", s.m, " ", s.n, " ", s.k);
    return p;
  });
}

}  // namespace

std::string tiles_not_met(Sizes sizes) {
  std::string text;
  matmul_shapes(sizes, [&](const char* kernel, Product product, int tile) {
    text += concat("tile ", tile, " of ", kernel, " is chosen for no ", kProductNames[static_cast<int>(product)], " on ", multiprocessors(),
                   " multiprocessors; ");
  });
  return text;
}

void add_matmul(Entries& entries) {
  const bool small = entries.sizes() == Sizes::small;
  for (const MatmulShapeOf& s : matmul_shapes(entries.sizes(), [](auto&&...) {})) add_product(entries, s, DType::bf16);
  const Linear block = small ? Linear{70, 136, 72} : Linear{8192, 3072, 768};
  add_product(entries, shape_for(Product::forward, block), DType::bf16, With::bias);
  add_product(entries, shape_for(Product::forward, block), DType::bf16, With::activation);
  add_product(entries, shape_for(Product::input_gradient, {block.rows, block.in, block.out}), DType::bf16, With::derivative);
  const Linear simple = small ? Linear{70, 72, 40} : Linear{4096, 1024, 1024};
  for (const Product product : kProducts) add_product(entries, shape_for(product, simple), DType::f32);
}

ProductionList production_list(Sizes sizes) {
  register_cuda_kernels();
  Entries entries(sizes);
  add_matmul(entries);
  add_attention(entries);
  add_rows(entries);
  add_elements(entries);
  add_optimizer(entries);
  return entries.take();
}

}  // namespace heddle::bench
