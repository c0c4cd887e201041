// wgmma: descriptors, operand layouts, the product; setmaxnreg.
// Source: PTX ISA, "Asynchronous Warpgroup Level Matrix Instructions": register fragments, shared memory matrix layout, strides, matrix descriptor.
#include <algorithm>
#include <array>
#include <memory>
#include <unordered_map>
#include <vector>

#include "kernels/sim/core/machine_internal.h"
#include "kernels/sim/ptx/ptx_internal.h"

namespace heddle::ptx {

using sim::Agent;
using sim::Site;
using sim::Warp;

namespace {

constexpr int kM = 64, kK = 16, kMaxN = 256;
constexpr int kLanes = 128;

// A decoded matrix descriptor. An operand is rows of m (or n) by 16 of k; memory holds it in chunks of 16 bytes: 8 k of one row (K-major) or 8 rows
// of one k (MN-major).
struct SharedOperand {
  uint32_t start, leading, stride;  // bytes
  uint32_t base_offset;
  Swizzle swizzle;
  Major major;

  SharedOperand() = default;
  SharedOperand(uint64_t descriptor, Major which)
      : start(static_cast<uint32_t>(descriptor & 0x3FFF) << 4),
        leading(static_cast<uint32_t>(descriptor >> 16 & 0x3FFF) << 4),
        stride(static_cast<uint32_t>(descriptor >> 32 & 0x3FFF) << 4),
        base_offset(static_cast<uint32_t>(descriptor >> 49 & 7)),
        swizzle(static_cast<Swizzle>(descriptor >> 62)),
        major(which) {}

  // The shared address of a chunk: K-major (row, k / 8); MN-major (row / 8, k).
  uint32_t chunk(uint32_t row_or_chunk, uint32_t k) const {
    const uint32_t width = swizzle_bytes(swizzle);
    uint32_t address = start;
    if (major == Major::k) {
      if (swizzle == Swizzle::none) {
        address += row_or_chunk / 8 * stride + row_or_chunk % 8 * 16 + k * leading;
      } else {
        address += row_or_chunk / 8 * stride + row_or_chunk % 8 * width + k * 16;
      }
    } else {
      if (swizzle == Swizzle::none) {
        address += row_or_chunk * stride + k / 8 * leading + k % 8 * 16;
      } else {
        const uint32_t per_row = width / 16;
        address += row_or_chunk / per_row * leading + row_or_chunk % per_row * 16 + k / 8 * stride + k % 8 * width;
      }
    }
    // The pattern is a function of the address; base_offset says in which of its 128-byte lines it starts where that is not a multiple of its period.
    const uint32_t mask = width / 16 - 1;
    return address ^ (((address >> 7) - base_offset) & mask) << 4;
  }

  // f(address, row, k) for every chunk of `rows` rows: row and k of its first element.
  template <class F>
  void each_chunk(int rows, F f) const {
    if (major == Major::k) {
      for (int row = 0; row < rows; ++row) {
        for (int half = 0; half < kK / 8; ++half) f(chunk(static_cast<uint32_t>(row), static_cast<uint32_t>(half)), row, half * 8);
      }
    } else {
      for (int k = 0; k < kK; ++k) {
        for (int group = 0; group < rows / 8; ++group) f(chunk(static_cast<uint32_t>(group), static_cast<uint32_t>(k)), group * 8, k);
      }
    }
  }
};

// One issued wgmma, self-contained.
struct Product {
  int n;
  bool accumulate, a_in_registers;
  SharedOperand a, b;
  const std::byte* window;                                  // what shared address 0 of this block would point to
  std::array<float*, kLanes> d;                             // accumulators of each thread
  std::array<std::array<uint32_t, 4>, kLanes> a_registers;  // their values when issued
};

// D of a thread is register 4 j + 2 h + c: row g + 8 h of its warp's 16, column 8 j + 2 t + c. So that a thread's accumulators can be summed where
// they are, B is laid out once for each t in the same order, [k][4 j + 2 h + c] (both h alike), and a pair of A's rows as [k][2 h + c] (both c alike,
// twice).
struct Workspace {
  alignas(64) uint16_t a_bits[kM][kK], b_bits[kMaxN][kK];
  alignas(64) Floats8 a[kLanes / 4][kK];  // the pairs of rows, each held by four threads
  alignas(64) float b[4][kK][kMaxN / 2];
};

// A shared operand as [row][k].
void read_operand(Agent& agent, const SharedOperand& operand, const std::byte* window, int rows, uint16_t (*bits)[kK]) {
  if (sim::checking) {
    std::array<uint32_t, kMaxN * kK / 8> chunks;
    size_t count = 0;
    operand.each_chunk(rows, [&](uint32_t address, int, int) { chunks[count++] = address; });
    sim::note_read_chunks(agent, window, {chunks.data(), count});
  }
  const bool k_major = operand.major == Major::k;
  operand.each_chunk(rows, [&](uint32_t address, int row, int k) {
    if (k_major) {
      std::memcpy(&bits[row][k], window + address, 16);
    } else {
      const auto values = load<std::array<uint16_t, 8>>(window + address);
      for (int i = 0; i < 8; ++i) bits[row + i][k] = values[i];
    }
  });
}

void lay_out_a(Agent& agent, const Product& p, Workspace& w) {
  if (p.a_in_registers) {
    for (int lane = 0; lane < kLanes; ++lane) {
      const int g = lane % 32 / 4, t = lane % 4, top = lane / 32 * 16;
      for (int i = 0; i < 4; ++i) std::memcpy(&w.a_bits[top + g + 8 * (i % 2)][2 * t + 8 * (i / 2)], &p.a_registers[lane][i], 4);
    }
  } else {
    read_operand(agent, p.a, p.window, kM, w.a_bits);
  }
  for (int pair = 0; pair < kLanes / 4; ++pair) {
    const uint16_t* row = w.a_bits[pair / 8 * 16 + pair % 8];
    for (int k = 0; k < kK; ++k) {
      const float x = bf16_value(row[k]), y = bf16_value(row[8 * kK + k]);
      w.a[pair][k] = Floats8{x, x, y, y, x, x, y, y};
    }
  }
}

void lay_out_b(Agent& agent, const Product& p, Workspace& w) {
  read_operand(agent, p.b, p.window, p.n, w.b_bits);
  for (int j = 0; j < p.n / 8; ++j) {
    for (int t = 0; t < 4; ++t) {
      const uint16_t *even = w.b_bits[8 * j + 2 * t], *odd = w.b_bits[8 * j + 2 * t + 1];
      for (int k = 0; k < kK; ++k) {
        const float c[2] = {bf16_value(even[k]), bf16_value(odd[k])};
        std::memcpy(&w.b[t][k][4 * j], c, sizeof c);
        std::memcpy(&w.b[t][k][4 * j + 2], c, sizeof c);
      }
    }
  }
}

// The columns [first, first + 8 kVectors) of one thread's accumulators. Several sums together hide the latency of each one's chain.
template <int kVectors>
void sum_products(float* d, const Floats8 (&a)[kK], const float (&b)[kK][kMaxN / 2], int first) {
  Floats8 sum[kVectors];
  for (int v = 0; v < kVectors; ++v) sum[v] = load<Floats8>(d + first + 8 * v);
  for (int k = 0; k < kK; ++k) {
    for (int v = 0; v < kVectors; ++v) sum[v] += a[k] * load<Floats8>(&b[k][first + 8 * v]);
  }
  for (int v = 0; v < kVectors; ++v) std::memcpy(d + first + 8 * v, &sum[v], sizeof sum[v]);
}

// Adds to `count` accumulators of one thread, k ascending.
void add_products(float* d, int count, const Floats8 (&a)[kK], const float (&b)[kK][kMaxN / 2]) {
  int i = 0;
  for (; i + 64 <= count; i += 64) sum_products<8>(d, a, b, i);
  for (; i + 8 <= count; i += 8) sum_products<1>(d, a, b, i);
  for (; i < count; ++i) {
    for (int k = 0; k < kK; ++k) d[i] += a[k][i % 4] * b[k][i];
  }
}

void multiply(Agent& agent, const Product& p) {
  static thread_local Workspace w;
  lay_out_a(agent, p, w);
  lay_out_b(agent, p, w);
  for (int t = 0; t < 4; ++t) {
    for (int pair = 0; pair < kLanes / 4; ++pair) {
      float* d = p.d[4 * pair + t];
      if (!p.accumulate) std::fill(d, d + p.n / 2, 0.0f);
      add_products(d, p.n / 2, w.a[pair], w.b[t]);
    }
  }
}

// ---- issue ----

struct WgmmaArgument {
  detail::Wgmma operands;
  Site site;
};

// Faults unless every chunk of a shared operand lies in this block's shared memory; returns what its shared address 0 would point to.
const std::byte* window_of(const SharedOperand& operand, int rows, const Site& site) {
  uint32_t low = ~0u, high = 0;
  operand.each_chunk(rows, [&](uint32_t address, int, int) {
    low = std::min(low, address);
    high = std::max(high, address);
  });
  const uint32_t rank = sim::this_block().cluster_rank << sim::kSharedRankShift;
  sim::shared_pointer(rank | high, 16, site);
  return sim::shared_pointer(rank | low, 16, site) - low;
}

void require_same(bool same, const char* operand, const Site& site) {
  if (!same) sim::fault("wgmma operands differ", std::string(operand) + " must be the same in all 128 threads", site);
}

// What wgmma.fence has to be seen for. Hardware takes accumulators from registers that may still be on their way, unless a fence stands before the
// first wgmma and after every write to them; here the values are always there, so the rule is checked by itself: the first wgmma by a flag, later
// ones (check flavour) by comparing what the accumulators hold with what the last wgmma left in them.
struct Left {
  uint32_t issued = 0, done = 0;  // products on these accumulators
  std::vector<float> values;      // of all threads, once all are done
};
struct Fences {
  uint32_t launch = 0;
  uint64_t block = 0;
  bool executed = false;
  std::unordered_map<const float*, std::shared_ptr<Left>> since;  // by the first thread's accumulators: products issued since the last fence
};
thread_local std::unordered_map<const Warp*, Fences> fences;

Fences& fences_of(const Warp& first) {
  const auto& block = static_cast<const sim::BlockState&>(*first.block);
  Fences& f = fences[&first];
  if (f.launch != block.group->shared->id || f.block != block.linear) f = {block.group->shared->id, block.linear, false, {}};
  return f;
}

void leave(Left& left, const Product& p) {
  if (++left.done != left.issued) return;
  const auto count = static_cast<size_t>(p.n / 2);
  left.values.clear();
  left.values.reserve(kLanes * count);
  for (const float* d : p.d) left.values.insert(left.values.end(), d, d + count);
}

bool still_there(const Left& left, const Product& p) {
  const auto count = static_cast<size_t>(p.n / 2);
  if (left.values.size() != kLanes * count) return false;
  for (size_t lane = 0; lane < kLanes; ++lane)  // by bits: a NaN equals itself
    if (std::memcmp(p.d[lane], left.values.data() + lane * count, count * sizeof(float)) != 0) return false;
  return true;
}

// Returns where the product has to leave its accumulators, null where nobody will look.
std::shared_ptr<Left> check_fence(const Warp& first, const Product& p, const Site& site) {
  Fences& f = fences_of(first);
  if (!f.executed) sim::fault("wgmma without fence", "the first wgmma of a warpgroup must follow wgmma_fence", site);
  if (!sim::checking) return nullptr;
  std::shared_ptr<Left>& left = f.since[p.d[0]];
  if (left == nullptr) left = std::make_shared<Left>();
  if (left->issued != 0 && left->done == left->issued && p.accumulate && !still_there(*left, p)) {
    sim::fault("wgmma without fence", "its accumulators were written after the last wgmma on them: wgmma_fence must stand between", site);
  }
  ++left->issued;
  return left;
}

void wgmma_op(Warp& first, void* const* args) {
  const auto& own = *static_cast<const WgmmaArgument*>(args[0]);
  const detail::Wgmma& x = own.operands;
  const auto p = std::make_shared<Product>();
  p->n = x.n;
  p->accumulate = x.accumulate;
  p->a_in_registers = x.registers != nullptr;
  for (int lane = 0; lane < kLanes; ++lane) {
    const detail::Wgmma& other = static_cast<const WgmmaArgument*>(args[lane])->operands;
    require_same(other.n == x.n && other.major_a == x.major_a && other.major_b == x.major_b, "shape and majors", own.site);
    require_same(other.a == x.a, "the descriptor of A", own.site);
    require_same(other.b == x.b, "the descriptor of B", own.site);
    require_same(other.accumulate == x.accumulate, "accumulate", own.site);
    p->d[lane] = other.d;
    if (p->a_in_registers) std::copy_n(other.registers, 4, p->a_registers[lane].begin());
  }
  if (!p->a_in_registers) {
    p->a = SharedOperand(x.a, x.major_a);
    p->window = window_of(p->a, kM, own.site);
  }
  p->b = SharedOperand(x.b, x.major_b);
  p->window = window_of(p->b, x.n, own.site);
  const std::shared_ptr<Left> left = check_fence(first, *p, own.site);
  const auto task = [p, left](Agent& agent) {
    multiply(agent, *p);
    if (left != nullptr) leave(*left, *p);
  };
  sim::issue_wgmma(first, task, own.site);
}

}  // namespace

void detail::wgmma(const Wgmma& operands, Where at) {
  const Site site = at.op("wgmma.mma_async");
  WgmmaArgument arg{operands, site};
  sim::collect_warpgroup(wgmma_op, &arg, site);
}

void wgmma_fence(Where at) {
  const Site site = at.op("wgmma.fence");
  const sim::Mutation mutation = sim::mutation_at(site, sim::kMayDrop);
  const auto op = [](Warp& first, void* const*) {
    Fences& f = fences_of(first);
    f.executed = true;
    f.since.clear();
  };
  sim::collect_warpgroup(mutation == sim::Mutation::drop ? nullptr : static_cast<sim::WarpgroupOp>(op), nullptr, site);
}
void wgmma_commit(Where at) {
  Site site = at.op("wgmma.commit_group");
  sim::collect_warpgroup([](Warp& first, void* const* args) { sim::wgmma_commit(first, *static_cast<const Site*>(args[0])); }, &site, site);
}

namespace {
struct WaitArgument {
  uint32_t pending;
  Site site;
};
}  // namespace

void detail::wgmma_wait(uint32_t pending, Where at) {
  const Site site = at.op("wgmma.wait_group");
  WaitArgument arg{pending, site};
  const auto op = [](Warp& first, void* const* args) {
    const auto& wait = *static_cast<const WaitArgument*>(args[0]);
    sim::wgmma_wait(first, wait.pending, wait.site);
  };
  sim::collect_warpgroup(op, &arg, site);
}

// Registers are not counted here: what a kernel starts with is the compiler's decision. Convergence and the immediate are checked.
void detail::setmaxnreg(uint32_t, bool raise, Where at) {
  sim::collect_warpgroup(nullptr, nullptr, at.op(raise ? "setmaxnreg.inc" : "setmaxnreg.dec"));
}

}  // namespace heddle::ptx
