// The CUDA candidates as the rest of heddle meets them: through register_cuda_kernels(), Kernel::choose and Candidate::run, on the simulated machine.
#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "kernels/api/embedding.h"
#include "kernels/api/multiprocessors.h"
#include "kernels/api/pointwise.h"
#include "kernels/api/random.h"
#include "kernels/api/reduce.h"
#include "kernels/api/swiglu_matmul.h"
#include "kernels/cuda/attention_decode_config.h"
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/gemm_sm80_config.h"
#include "kernels/cuda/gemm_sm90_config.h"
#include "kernels/cuda/register.h"
#include "kernels/sim/cudart/cudart.h"
#include "kernels/sim/cudart/order.h"
#include "tests/sim/proving_checks.h"
#include "tests/sim/proving_kernels.h"
#include "tests/support/catch.h"

namespace heddle::test {
namespace {

using namespace kernels;  // NOLINT: a test's own source

// A device of this capability with two multiprocessors, so that small shapes already meet every choice of tile, or more; forgotten at the end.
class SmallDevice {
 public:
  explicit SmallDevice(int capability = 90, int multiprocessors = 2) {
    sim::RuntimeOptions options = before_;
    options.multiprocessors = multiprocessors;
    options.capability = capability;
    sim::reset_runtime(options);
    cuda::known_device_facts = nullptr;
    register_cuda_kernels();
  }
  ~SmallDevice() {
    sim::reset_runtime(before_);
    cuda::known_device_facts = nullptr;
  }
  SmallDevice(const SmallDevice&) = delete;
  SmallDevice& operator=(const SmallDevice&) = delete;

 private:
  sim::RuntimeOptions before_ = sim::runtime_options();
};

template <class Args>
std::vector<std::string> names(const Kernel<Args>& kernel) {
  std::vector<std::string> result;
  for (const auto& candidate : kernel.candidates(DeviceType::cuda)) result.emplace_back(candidate.name);
  return result;
}
template <class Args>
std::string refusal(const Kernel<Args>& kernel, const std::string& candidate, const Args& args) {
  refusals_in_words = true;
  std::string text = "no such candidate";
  for (const auto& each : kernel.candidates(DeviceType::cuda))
    if (each.name == candidate) text = each.refuses(args).value_or("");
  refusals_in_words = false;
  return text;
}
template <class Args>
std::string chosen(const Kernel<Args>& kernel, const Args& args) {
  return std::string(kernel.choose(DeviceType::cuda, args).name);
}
template <class Args>
auto through(Kernel<Args>& kernel) {
  return [&kernel](const Args& args) { kernel.choose(DeviceType::cuda, args).run(args, Stream{}); };
}

// Views whose data is an address that nobody follows.
View at(uintptr_t address, DType dtype, std::initializer_list<int64_t> shape) {
  return make_view(reinterpret_cast<void*>(address), dtype, shape);
}
MatmulArgs some_matmul(DType out = DType::bf16) {
  return {.a = at(4096, DType::bf16, {64, 64}), .b = at(8192, DType::bf16, {64, 64}), .trans_b = true, .c = {at(12288, out, {64, 64})}};
}

TEST_CASE("registry: the CUDA candidates, the newest first, once", "[registry]") {
  register_cuda_kernels();
  register_cuda_kernels();
  CHECK(names(matmul) == std::vector<std::string>{"wgmma_sm90", "mma_sm80", "simt"});
  CHECK(names(attention_forward) == std::vector<std::string>{"decode", "flash2_sm80", "simt"});
  CHECK(names(attention_backward) == std::vector<std::string>{"flash2_sm80", "simt"});
  CHECK(names(norm_forward) == std::vector<std::string>{"rows"});
  CHECK(names(dropout) == std::vector<std::string>{"philox"});
  CHECK(names(axpby) == std::vector<std::string>{"units"});
}

TEST_CASE("registry: what both tensor-core products refuse, and simt takes", "[registry]") {
  const SmallDevice device;
  const auto both_refuse = [](const MatmulArgs& args, const std::string& why) {
    for (const char* candidate : {"wgmma_sm90", "mma_sm80"}) {
      INFO(candidate << ": " << refusal(matmul, candidate, args));
      CHECK(refusal(matmul, candidate, args).find(why) != std::string::npos);
    }
    CHECK(refusal(matmul, "simt", args) == "");
    CHECK(chosen(matmul, args) == "simt");
  };
  CHECK(refusal(matmul, "wgmma_sm90", some_matmul()) == "");
  CHECK(refusal(matmul, "mma_sm80", some_matmul()) == "");
  MatmulArgs args = some_matmul();
  args.a = at(4096, DType::f32, {64, 64});
  both_refuse(args, "bf16 operands only");
  args = some_matmul();
  args.trans_a = true;
  both_refuse(args, "not both operands transposed");
  for (View MatmulArgs::*view : {&MatmulArgs::a, &MatmulArgs::b}) {
    args = some_matmul();
    (args.*view).data += 8;
    both_refuse(args, "multiples of 16 bytes");
    args = some_matmul();
    (args.*view).stride[0] = 65;
    both_refuse(args, "multiples of 16 bytes");
  }
  args = some_matmul();
  args.a.shape[1] = args.b.shape[1] = 0;
  both_refuse(args, "K is 0");
  args = some_matmul();
  args.a.shape[0] = args.c.to.shape[0] = int64_t{1} << 31;
  CHECK(refusal(matmul, "mma_sm80", args).find("longer than 2^30") != std::string::npos);
  CHECK(refusal(matmul, "simt", args).find("longer than 2^30") != std::string::npos);
  CHECK_THROWS_AS(matmul.choose(DeviceType::cuda, args), Error);
}

TEST_CASE("registry: the Hopper product takes every result, the Ampere one where there is no Hopper", "[registry]") {
  MatmulArgs weights = some_matmul(DType::f32);
  weights.trans_a = true;
  weights.trans_b = false;
  std::vector<MatmulArgs> all{some_matmul(), some_matmul(DType::f32), weights};
  const auto with = [&](auto&& change) {
    for (const MatmulArgs& plain : {some_matmul(), weights}) change(all.emplace_back(plain));
  };
  with([](MatmulArgs& args) { args.c.to.dtype = args.c.to.dtype == DType::f32 ? DType::bf16 : DType::f32; });
  with([](MatmulArgs& args) { args.c.accumulate = true; });
  with([](MatmulArgs& args) { args.bias = at(16384, DType::bf16, {64}); });
  with([](MatmulArgs& args) { args.epilogue = Epilogue::gelu; });
  with([](MatmulArgs& args) { args.preact = at(16384, DType::bf16, {64, 64}); });
  with([](MatmulArgs& args) { args.column_sum = {at(16384, DType::f32, {64})}; });
  with([](MatmulArgs& args) { args.c.to.data += 2; });
  with([](MatmulArgs& args) { args.c.to.stride[0] = 65; });
  for (const int capability : {90, 80, 86}) {
    const SmallDevice device(capability);
    for (const MatmulArgs& args : all) {
      INFO(refusal(matmul, "wgmma_sm90", args));
      CHECK(chosen(matmul, args) == (capability == 90 ? "wgmma_sm90" : "mma_sm80"));
      if (capability != 90) CHECK(refusal(matmul, "wgmma_sm90", args).find(concat("not compute capability ", capability)) != std::string::npos);
    }
    matmul.force("mma_sm80");
    CHECK(chosen(matmul, some_matmul()) == "mma_sm80");
    matmul.force("");
  }
}

// Each tile of both lists by a shape for which it is the choice, in the three products; float64 decides.
TEST_CASE("registry: matrix products against float64", "[registry]") {
  struct Shape {
    int64_t m, n;
    int sm80, sm90;  // the tile chosen on two multiprocessors
  };
  constexpr Shape kShapes[] = {{130, 500, 0, 0}, {100, 500, 0, 1}, {70, 72, 1, 2}};
  bool met_sm80[cuda::kGemmSm80Tiles.size()] = {}, met_sm90[cuda::kGemmSm90Tiles.size()] = {};
  for (const int capability : {90, 80}) {
    const SmallDevice device(capability);
    for (const Shape& shape : kShapes) {
      REQUIRE(cuda::choose_gemm_sm80(shape.m, shape.n, 2, 1) == shape.sm80);
      REQUIRE(cuda::choose_gemm_sm90(shape.m, shape.n, 2, 1) == shape.sm90);
      met_sm80[shape.sm80] = met_sm90[shape.sm90] = true;
      for (const Product product : {Product::forward, Product::input_gradient, Product::weight_gradient}) {
        INFO(shape.m << " x " << shape.n << ", product " << static_cast<int>(product) << ", capability " << capability);
        CHECK(check_gemm({product, shape.m, shape.n, 72, false, false, through(matmul)}) == "");
        if (product == Product::weight_gradient) CHECK(check_gemm({product, shape.m, shape.n, 72, true, false, through(matmul)}) == "");
      }
      CHECK(check_gemm({Product::forward, shape.m, shape.n, 40, false, true, through(matmul)}) == "");
      CHECK(check_gemm({Product::input_gradient, shape.m, shape.n, 40, true, true, through(matmul)}) == "");
    }
  }
  for (const bool met : met_sm80) CHECK(met);
  for (const bool met : met_sm90) CHECK(met);
}

TEST_CASE("registry: grids that stay resident leave multiprocessors to communication, and no bit depends on how many", "[registry]") {
  struct Ran {
    std::vector<std::byte> bytes;
    std::vector<uint64_t> blocks;
  };
  constexpr int64_t kRows = 2600, kColumns = 784, kInner = 72;
  const auto run = [&](int multiprocessors, bool beside) {
    const SmallDevice device(90, multiprocessors);
    if (beside) communication_blocks += 16;
    Buffer a = random_bf16({kRows, kInner}, 1), b = random_bf16({kColumns, kInner}, 2), c(DType::bf16, {kRows, kColumns});
    Buffer gated(DType::bf16, {kRows, kColumns / 2}), y(DType::bf16, {kRows, kColumns}), s(DType::bf16, {kRows, kColumns}), rstd(DType::f32, {kRows});
    Ran ran;
    {
      OnDevice on_a(a), on_b(b), on_c(c), on_gated(gated), on_y(y), on_s(s), on_rstd(rstd);
      sim::record_work(true);
      through(matmul)({.a = on_a.view(), .b = on_b.view(), .trans_b = true, .c = {on_c.view()}});
      through(swiglu_matmul)({.x = on_a.view(), .w = on_b.view(), .out = on_gated.view()});
      through(norm_forward)({.kind = NormKind::rms, .x = on_c.view(), .y = on_y.view(), .rstd = on_rstd.view()});
      through(softmax)({.x = on_c.view(), .out = on_s.view()});
      sim::record_work(false);
      for (const sim::RecordedWork& work : sim::recorded_work()) {
        if (work.blocks > 0) ran.blocks.push_back(work.blocks);
      }
      for (OnDevice* out : {&on_c, &on_gated, &on_y, &on_s, &on_rstd}) out->fetch();
    }
    for (Buffer* out : {&c, &gated, &y, &s, &rstd}) {
      const View v = out->view();
      ran.bytes.insert(ran.bytes.end(), v.data, v.data + v.bytes());
    }
    if (beside) communication_blocks -= 16;
    return ran;
  };
  const Ran alone = run(40, false);
  REQUIRE(alone.blocks.size() == 4);
  for (const auto& [multiprocessors, left] : {std::pair{40, 24}, {23, 12}, {8, 4}, {2, 2}}) {
    CAPTURE(multiprocessors);
    const Ran whole = run(multiprocessors, false), part = run(multiprocessors, true);
    CHECK((whole.bytes == alone.bytes));
    CHECK((part.bytes == alone.bytes));
    REQUIRE(part.blocks.size() == 4);
    for (size_t i = 0; i < part.blocks.size(); ++i) {
      CAPTURE(i, whole.blocks[i]);
      const uint64_t each = std::max<uint64_t>(1, whole.blocks[i] / static_cast<uint64_t>(multiprocessors));  // blocks of a multiprocessor
      CHECK(part.blocks[i] <= each * static_cast<uint64_t>(left));
      if (left < multiprocessors) CHECK(part.blocks[i] < whole.blocks[i]);
    }
  }
}

TEST_CASE("registry: attention forward", "[registry]") {
  const SmallDevice device;
  const View tokens = at(4096, DType::bf16, {1, 8, 2, 64});
  AttentionForwardArgs good{.q = tokens, .k = tokens, .v = tokens, .out = tokens};
  good.scale = 0.125f;
  good.lse = at(4096, DType::f32, {1, 2, 8});
  good.document_start = at(4096, DType::i32, {1, 8});
  const auto refuses = [&](auto&& change, const std::string& why) {
    AttentionForwardArgs args = good;
    change(args);
    INFO(refusal(attention_forward, "flash2_sm80", args));
    CHECK(refusal(attention_forward, "flash2_sm80", args).find(why) != std::string::npos);
  };
  for (int64_t d = 8; d <= 256; d += 8) {  // rows of whole pieces: only the head dimension decides
    AttentionForwardArgs args = good;
    args.q.shape[3] = d;
    const bool built = d == 64 || d == 96 || d == 128;
    INFO(d);
    CHECK(refusal(attention_forward, "flash2_sm80", args) == (built ? "" : concat("head dimensions 64, 96 and 128 only, not ", d)));
  }
  refuses([](auto& args) { args.q.dtype = DType::f32; }, "bf16 only");
  refuses([](auto& args) { args.scale = 0; }, "scale must be positive");
  refuses([](auto& args) { args.q.data += 2; }, "multiples of 16 bytes");
  refuses([](auto& args) { args.k.stride[1] = 129; }, "multiples of 16 bytes");
  refuses([](auto& args) { args.v.stride[2] = 65; }, "multiples of 16 bytes");
  refuses([](auto& args) { args.out.data += 8; }, "multiples of 16 bytes");
  refuses([](auto& args) { args.k.shape[1] = (int64_t{1} << 30) + 1; }, "more than 2^30 keys");
  refuses([](auto& args) { args.q.shape[0] = int64_t{1} << 30; }, "more than 65535 sequences or heads");

  // Each limit itself is within it.
  const auto limit = [&](const char* candidate, auto&& make, int64_t most, const std::string& why) {
    AttentionForwardArgs args = good;
    make(args, most);
    CHECK(refusal(attention_forward, candidate, args) == "");
    make(args, most + 1);
    CHECK(refusal(attention_forward, candidate, args).find(why) != std::string::npos);
  };
  const auto keys = [](auto& args, int64_t n) { args.k.shape[1] = args.v.shape[1] = n; };
  const auto sequences = [](auto& args, int64_t n) { args.q.shape = {n, 1, 1, 64}; };
  const auto heads = [](auto& args, int64_t n) { args.q.shape = {1, 1, n, 64}; };
  for (const char* candidate : {"flash2_sm80", "simt"}) limit(candidate, keys, (int64_t{1} << 30) - 1, "more than 2^30 keys");
  limit("flash2_sm80", sequences, 65535, "more than 65535 sequences or heads");
  limit("flash2_sm80", heads, 65535, "more than 65535 sequences or heads");
  limit("simt", sequences, (int64_t{1} << 31) - 1, "2^31 rows and more");
  limit("simt", heads, (int64_t{1} << 31) - 1, "2^31 rows and more");

  const auto decode_refuses = [&](auto&& change, const std::string& why) {
    AttentionForwardArgs args = good;
    change(args);
    INFO(refusal(attention_forward, "decode", args));
    CHECK(refusal(attention_forward, "decode", args).find(why) != std::string::npos);
  };
  CHECK(chosen(attention_forward, good) == "decode");
  decode_refuses([](auto& args) { args.q.shape[1] = 9; }, "more than 8 queries");
  decode_refuses([](auto& args) { args.q.shape[3] = 256; }, "head size 256 is above 128");
  decode_refuses([](auto& args) { args.q.dtype = DType::f64; }, "f32 and bf16 only");
  decode_refuses([](auto& args) { args.q.shape[3] = args.k.shape[3] = args.v.shape[3] = 20; }, "whole pieces of 16 bytes");
  decode_refuses([](auto& args) { args.k.data += 8; }, "whole pieces of 16 bytes");
  decode_refuses([](auto& args) { args.v.stride[1] = 132; }, "whole pieces of 16 bytes");
  decode_refuses([](auto& args) { args.k.shape[1] = (int64_t{1} << 30) + 1; }, "more than 2^30 keys");
  good.out.data += 2;  // written an element at a time
  CHECK(refusal(attention_forward, "decode", good) == "");

  CHECK(check_attention({.b = 2, .t = 70, .s = 70, .h = 4, .kv = 2, .d = 64, .documents = true, .run = through(attention_forward)}) == "");
  CHECK(check_attention({.t = 40, .s = 100, .h = 2, .kv = 1, .d = 128, .window = 30, .run = through(attention_forward)}) == "");
}

TEST_CASE("registry: a KV cache is cut by the shape alone, in parts that leave none of it out", "[registry]") {
  register_cuda_kernels();
  for (const int64_t batches : {1, 3, 64}) {
    for (const int64_t group : {1, 4, 7, 12}) {
      for (const int64_t queries : {1, 3, 8}) {
        for (const int64_t keys : {8, 127, 128, 129, 1000, 32768, 1 << 20}) {
          for (const int64_t window : {0, 1, 200, 1 << 30}) {
            const cuda::DecodePlan plan = cuda::DecodePlan::of(batches, 2, group, queries, keys, window);
            const int64_t first = window > 0 ? std::max<int64_t>(0, keys - queries - window + 1) : 0;  // the first query's first key
            INFO(batches << " " << group << " " << queries << " " << keys << " " << window);
            CHECK(plan.first_key == first);
            CHECK(plan.first_key + int64_t{plan.keys_per_split} * plan.splits >= keys);
            CHECK(plan.first_key + int64_t{plan.keys_per_split} * (plan.splits - 1) < keys);
            CHECK(plan.keys_per_split >= cuda::DecodePlan::kLeastKeys);
            CHECK(int64_t{plan.tiles} * cuda::decode_rows(plan.rows) >= queries * group);
            CHECK(plan.splits <= cuda::DecodePlan::kBlocks);
            AttentionForwardArgs args{.q = at(4096, DType::f32, {batches, queries, 2 * group, 64}),
                                      .k = at(4096, DType::f32, {batches, keys, 2, 64})};
            args.window = window;
            const auto& decode = attention_forward.candidates(DeviceType::cuda)[0];
            REQUIRE(decode.name == "decode");
            CHECK(decode.scratch(args) == plan.bytes(batches * queries * 2 * group, 64));
          }
        }
      }
    }
  }
}

TEST_CASE("registry: attention backward", "[registry]") {
  const SmallDevice device;
  const View tokens = at(4096, DType::bf16, {1, 8, 2, 64});
  AttentionBackwardArgs good{.q = tokens, .k = tokens, .v = tokens, .out = tokens, .lse = at(4096, DType::f32, {1, 2, 8}), .d_out = tokens};
  good.dq = good.dk = good.dv = tokens;
  good.document_start = at(4096, DType::i32, {1, 8});
  const auto refuses = [&](auto&& change, const std::string& why) {
    AttentionBackwardArgs args = good;
    change(args);
    INFO(refusal(attention_backward, "flash2_sm80", args));
    CHECK(refusal(attention_backward, "flash2_sm80", args).find(why) != std::string::npos);
  };
  CHECK(refusal(attention_backward, "flash2_sm80", good) == "");
  CHECK(chosen(attention_backward, good) == "flash2_sm80");
  refuses([](auto& args) { args.q.dtype = DType::f32; }, "bf16 only");
  for (int64_t d = 8; d <= 256; d += 8) {
    AttentionBackwardArgs args = good;
    args.q.shape[3] = d;
    const bool built = d == 64 || d == 96 || d == 128;
    INFO(d);
    CHECK(refusal(attention_backward, "flash2_sm80", args) == (built ? "" : concat("head dimensions 64, 96 and 128 only, not ", d)));
  }
  refuses([](auto& args) { args.k.shape[1] = (int64_t{1} << 30) + 1; }, "more than 2^30 keys");
  refuses([](auto& args) { args.q.shape[0] = int64_t{1} << 30; }, "more than 65535 sequences or heads");
  for (View AttentionBackwardArgs::*view :
       {&AttentionBackwardArgs::q, &AttentionBackwardArgs::k, &AttentionBackwardArgs::v, &AttentionBackwardArgs::d_out, &AttentionBackwardArgs::dq,
        &AttentionBackwardArgs::dk, &AttentionBackwardArgs::dv}) {
    refuses([&](auto& args) { (args.*view).data += 2; }, "multiples of 16 bytes");
    refuses([&](auto& args) { (args.*view).stride[1] = 129; }, "multiples of 16 bytes");
  }
  AttentionBackwardArgs args = good;
  args.dq.data += 2;
  CHECK(chosen(attention_backward, args) == "simt");
  args.out.data += 2;
  args.dq = tokens;
  CHECK(chosen(attention_backward, args) == "flash2_sm80");  // out is read by delta alone
}

TEST_CASE("registry: norm forward", "[registry]") {
  const SmallDevice device;
  const View rows = at(4096, DType::bf16, {4, 64});
  NormForwardArgs args{.x = rows, .gain = at(4096, DType::bf16, {64}), .y = rows};
  args.mean = args.rstd = at(4096, DType::f32, {4});
  CHECK(refusal(norm_forward, "rows", args) == "");
  args.gain.shape[0] = 63;
  CHECK(refusal(norm_forward, "rows", args).find("gain bf16 (63) must have shape (64)") != std::string::npos);
  args.gain = {};
  args.x.dtype = args.y.dtype = DType::f64;
  args.mean.dtype = args.rstd.dtype = DType::f64;
  CHECK(refusal(norm_forward, "rows", args).find("f32 and bf16 only") != std::string::npos);

  for (const NormKind kind : {NormKind::layer, NormKind::rms})
    for (const int64_t columns : {8, 264, 768, 1032, 4104, 8192, 8200}) {
      INFO("columns " << columns);
      CHECK(check_norm({kind, 3, columns, true, through(norm_forward)}) == "");
    }
}

// f64 is the CPU's, for gradient checks: no candidate of a GPU takes it, whoever is asked last.
TEST_CASE("registry: numbers of f64 are refused by every candidate", "[registry]") {
  const SmallDevice device;
  const auto all_refuse = [](auto& kernel, const auto& args, const auto& taken) {
    for (const auto& candidate : kernel.candidates(DeviceType::cuda)) {
      INFO(kernel.op() << " by " << candidate.name);
      CHECK(refusal(kernel, std::string(candidate.name), args) != "");
    }
    CHECK_THROWS_AS(kernel.choose(DeviceType::cuda, args), Error);
    CHECK_NOTHROW(kernel.choose(DeviceType::cuda, taken));
  };
  const auto both = [&](auto& kernel, const auto& make) { all_refuse(kernel, make(DType::f64), make(DType::f32)); };
  both(matmul, [](DType t) {
    return MatmulArgs{.a = at(4096, t, {64, 64}), .b = at(8192, t, {64, 64}), .trans_b = true, .c = {at(12288, t, {64, 64})}};
  });
  both(attention_forward, [](DType t) {
    const View heads = at(4096, t, {1, 8, 2, 64});
    AttentionForwardArgs args{.q = heads, .k = heads, .v = heads, .out = heads};
    args.scale = 1;
    return args;
  });
  both(attention_backward, [](DType t) {
    const View heads = at(4096, t, {1, 8, 2, 64});
    AttentionBackwardArgs args{.q = heads, .k = heads, .v = heads, .out = heads, .lse = at(4096, t, {1, 2, 8}), .d_out = heads};
    args.dq = args.dk = args.dv = heads;
    args.scale = 1;
    return args;
  });
  both(norm_backward, [](DType t) {
    const View rows = at(4096, t, {4, 64});
    NormBackwardArgs args{.kind = NormKind::rms, .x = rows};
    args.rstd = at(4096, t, {4});
    args.dy = rows;
    args.dx = {rows};
    return args;
  });
  both(embedding_backward, [](DType t) {
    EmbeddingBackwardArgs args{};
    args.tokens = at(4096, DType::i32, {2, 8});
    args.d_out = at(4096, t, {2, 8, 64});
    args.d_weight = {at(4096, t, {100, 64})};
    return args;
  });
  both(softmax, [](DType t) {
    SoftmaxArgs args{};
    args.x = args.out = at(4096, t, {4, 64});
    return args;
  });
}

TEST_CASE("registry: dropout", "[registry]") {
  const SmallDevice device;
  constexpr int64_t kCount = 1003;
  constexpr uint64_t kFirst = 6;
  constexpr float kDropped = 0.25f;
  Buffer x = random_bf16({kCount}, 1), y(DType::bf16, {kCount});
  const RngKey key{9, RngPurpose::dropout, 2, 77};
  DropoutArgs args{x.view(), {y.view()}, key, kFirst, kDropped};
  const auto refuses = [&](auto&& change, const std::string& why) {
    DropoutArgs changed = args;
    change(changed);
    CHECK(refusal(dropout, "philox", changed).find(why) != std::string::npos);
  };
  refuses([](auto& a) { a.x.dtype = a.out.to.dtype = DType::f64; }, "f32 and bf16 only");
  refuses([](auto& a) { a.out.to.dtype = DType::u16; }, "must have the dtype of x");
  refuses([](auto& a) { a.x.stride[0] = 2; }, "the last stride is not 1");
  refuses([](auto& a) { a.out.to.stride[0] = 2; }, "the last stride is not 1");

  OnDevice device_x(x), device_y(y);
  args.x = device_x.view();
  args.out = {device_y.view()};
  through(dropout)(args);
  device_y.fetch();
  CHECK(device_y.guards() == "");
  int64_t wrong = 0;
  for (int64_t i = 0; i < kCount; ++i) {
    const uint64_t e = kFirst + static_cast<uint64_t>(i);
    const bool kept = Philox::uniform(Philox::draw(key, e / 4)[e % 4]) >= kDropped;
    const double want = kept ? element(x.view(), i) / (1.0 - static_cast<double>(kDropped)) : 0;
    wrong += std::abs(element(y.view(), i) - want) > std::abs(want) * (unit_roundoff(DType::bf16) + 0x1p-22);
  }
  CHECK(wrong == 0);
}

}  // namespace
}  // namespace heddle::test
