// The host functions of kernels/cuda that decide how a kernel is launched: pure functions of shapes.
#include <algorithm>
#include <array>
#include <vector>

#include "kernels/api/matmul.h"
#include "kernels/cuda/attention_bwd_sm80_config.h"
#include "kernels/cuda/attention_fwd_sm80_config.h"
#include "kernels/cuda/gemm_simt_config.h"
#include "kernels/cuda/gemm_sm80_config.h"
#include "kernels/cuda/gemm_sm90_config.h"
#include "kernels/cuda/group_rows_config.h"
#include "kernels/cuda/register.h"
#include "kernels/cuda/rows_config.h"
#include "kernels/cuda/tile_raster.h"
#include "tests/support/catch.h"

namespace heddle::test {
namespace {

using namespace kernels::cuda;  // NOLINT: a test's own source

TEST_CASE("tile raster visits every tile once and keeps neighbours together", "[proving]") {
  for (const auto& [tiles_m, tiles_n, group] : {std::array{1, 1, 8}, {8, 3, 8}, {13, 5, 8}, {3, 20, 8}, {17, 2, 4}}) {
    std::vector<int> visits(static_cast<size_t>(tiles_m * tiles_n));
    for (int id = 0; id < tiles_m * tiles_n; ++id) {
      const TileAt at = tile_at(id, tiles_m, tiles_n, group);
      REQUIRE((at.m >= 0 && at.m < tiles_m && at.n >= 0 && at.n < tiles_n));
      ++visits[static_cast<size_t>(at.m * tiles_n + at.n)];
    }
    CHECK(visits == std::vector<int>(visits.size(), 1));
  }
  CHECK(tile_at(9, 16, 4, 8).m == 1);  // down the group first
  CHECK(tile_at(9, 16, 4, 8).n == 1);
}

TEST_CASE("configurations fit their machines", "[proving]") {
  for (const GemmSm80Config& c : kGemmSm80Tiles) CHECK(c.shared_bytes() <= kMaxSharedSm80);
  for (const GemmSm90Config& c : kGemmSm90Tiles) {
    CHECK(c.shared_bytes() <= kMaxSharedSm90);
    CHECK(128 * (c.producer_registers() + c.consumers * c.consumer_registers()) <= 65536);
  }
  CHECK(kAttentionFwd64.shared_bytes() <= 164 * 1024 / 2);  // two blocks on a multiprocessor of A100
  CHECK(kAttentionFwd96.shared_bytes() <= 164 * 1024 / 2);
  CHECK(kAttentionFwd128.shared_bytes() <= 164 * 1024 / 2);
  CHECK(kAttentionBwdKeys64.shared_bytes() <= 164 * 1024 / 2);
  CHECK(kAttentionBwdQueries64.shared_bytes() <= 164 * 1024 / 2);
  for (const AttentionBwdSm80Config& c : {kAttentionBwdKeys96, kAttentionBwdKeys128, kAttentionBwdQueries96, kAttentionBwdQueries128})
    CHECK(c.shared_bytes() <= kMaxSharedSm80);
  const auto each_is_chosen = [](const auto& built) {  // for its longest row, and for the first that the one before cannot hold
    for (const int bytes : {2, 4}) {
      int64_t shorter = 0;
      for (const RowsConfig& config : built) {
        const int64_t longest = config.vectors > 0 ? config.longest_row(bytes) : int64_t{1} << 30;
        CHECK(rows_config(built, shorter + 1, bytes) == config);
        CHECK(rows_config(built, longest, bytes) == config);
        shorter = longest;
      }
    }
  };
  each_is_chosen(kNormRows);
  each_is_chosen(kNormBackwardRows);
  each_is_chosen(kSoftmaxRows);
  CHECK(choose_gemm_sm90(8192, 8192, 132, 1) == 0);
  CHECK(choose_gemm_sm90(1024, 1024, 132, 1) == 2);  // 64 small tiles in one wave instead of 32 large ones
  CHECK(choose_gemm_sm90(384, 8192, 132, 1) == 1);   // an odd number of rows of tiles: no pairs
  CHECK(choose_gemm_sm80(8192, 8192, 108, 1) == 0);
  CHECK(choose_gemm_sm80(512, 512, 108, 1) == 1);
}

TEST_CASE("a sort of row numbers takes the passes that the rows' bits need, and strips of whole warps", "[proving]") {
  for (const auto& [rows, passes] : {std::pair{1, 1}, {511, 1}, {512, 2}, {(1 << 18) - 1, 2}, {1 << 18, 3}})
    CHECK(GroupPlan{.n = 5, .rows = rows}.passes() == passes);
  for (const auto& [n, blocks, strip] : {std::array{0, 0, 0}, {1, 1, 32}, {1024, 1, 128}, {1025, 2, 96}, {64 * 1024 + 1, 64, 160}}) {
    const GroupPlan plan{.n = n, .rows = 7};
    INFO(n << " numbers");
    CHECK(plan.blocks() == blocks);
    CHECK(plan.strip() == strip);
    CHECK(plan.bytes() == static_cast<size_t>(16 * n + 4 * (512 * blocks + 8)));
  }
}

// GPT-2's weight gradients at 64k tokens: what tiles alone leave idle, parts of K fill. Nothing of it asks what the device is.
TEST_CASE("a product is cut along K where its tiles do not fill a machine", "[proving]") {
  for (const int64_t c : {768, 1024, 1280, 1600}) {
    for (const auto& [m, n] : {std::pair{3 * c, c}, {c, c}, {4 * c, c}, {c, 4 * c}}) {
      const auto fills = [&, m = m, n = n](int64_t block_n, int splits) {
        const int64_t units = (m + 127) / 128 * ((n + block_n - 1) / block_n) * splits;
        INFO(m << " x " << n << ", " << units);
        CHECK(static_cast<double>(units) >= 0.93 * static_cast<double>((units + 127) / 128 * 128));
      };
      fills(128, gemm_sm80_splits(m, n, 65536));
      fills(256, gemm_sm90_splits(m, n, 65536));
    }
  }
  CHECK(gemm_sm80_splits(65536, 3072, 768) == 1);
  CHECK(gemm_sm80_splits(4096, 4096, 4096) == 1);
  CHECK(gemm_sm80_splits(64, 64, 256) == 1);
  CHECK(gemm_sm90_splits(65536, 3072, 768) == 1);
  CHECK(gemm_sm90_splits(4096, 4096, 4096) == 1);
  CHECK(gemm_sm90_splits(64, 64, 512) == 1);
  CHECK(gemm_simt_splits(64, 64, 0) == 1);
  CHECK(gemm_simt_splits(1, 64, 4096) > 1);
  CHECK((choose_gemm_simt(32) == 1 && choose_gemm_simt(33) == 0));
  for (const auto& [m, n, k] : {std::array{128, 1000, 1024}, {512, 512, 512}, {32, 3000, 1024}, {33, 3000, 512}}) {
    const SplitCost large{128, 128, 8, 128 * 128 * 8 / 128 * 1400}, few{32, 128, 16, 32 * 128 * 16 / 128 * 1400};
    CHECK(gemm_simt_splits(m, n, k) == matmul_splits(m, n, k, m <= 32 ? few : large));
  }
}

TEST_CASE("a product's scratch is that of its parts of K", "[proving]") {
  kernels::register_cuda_kernels();
  constexpr int64_t m = 32, n = 3000, shorter = 512, longer = 8192;
  REQUIRE((gemm_simt_splits(m, n, shorter) != gemm_simt_splits(n, m, shorter) && gemm_sm90_splits(m, n, longer) != gemm_sm90_splits(n, m, longer)));
  const auto of = [](std::initializer_list<int64_t> shape) { return make_view(reinterpret_cast<void*>(4096), DType::bf16, shape); };
  for (const int64_t k : {shorter, longer}) {
    const kernels::MatmulArgs args{.a = of({m, k}), .b = of({n, k}), .trans_b = true, .c = {of({m, n})}};
    for (const auto& candidate : kernels::matmul.candidates(DeviceType::cuda)) {
      const int splits = candidate.name == "simt"       ? gemm_simt_splits(m, n, k)
                         : candidate.name == "mma_sm80" ? gemm_sm80_splits(m, n, k)
                                                        : gemm_sm90_splits(m, n, k);
      INFO(candidate.name << ", K = " << k);
      CHECK(candidate.scratch(args) == (splits > 1 ? sizeof(float) * static_cast<size_t>(splits * m * n) : 0));
    }
  }
}

// Among all numbers of parts that leave none empty and none short, the one that ends soonest, and the least such; scratch stays within 256 MiB.
TEST_CASE("as many parts of K as end a product soonest", "[proving]") {
  constexpr int64_t kMultiprocessors = 128, kScratch = int64_t{256} << 20;
  const auto up = [](int64_t a, int64_t b) { return (a + b - 1) / b; };
  const SplitCost cost{128, 128, 32, 128 * 128 * 32 / 1024 * 1400, 16, 14};
  int cut = 0, whole = 0, full = 0;
  for (const int64_t m : {1, 100, 768, 1280, 3072, 8192}) {
    for (const int64_t n : {64, 768, 1000, 4096, 6656, 16384}) {
      for (const int64_t k : {0, 32, 500, 4096, 65536, 1 << 20}) {
        const int splits = matmul_splits(m, n, k, cost);
        INFO(m << " x " << n << " x " << k << ": " << splits);
        const int64_t steps = up(k, 32);
        const auto steps_until_done = [&](int64_t parts) {  // of the busiest multiprocessor, in steps of its main loop
          const int64_t waves = up(up(m, 128) * up(n, 128) * parts, kMultiprocessors), blocks = waves * (up(steps, parts) + cost.block_steps);
          const int64_t moved = parts * m * n * 8;  // each sum of each part written and read
          return parts == 1 ? blocks : blocks + moved / cost.bytes_per_step + cost.launch_steps;
        };
        const auto allowed = [&](int64_t parts) {
          return parts == 1 || (up(steps, parts) >= 8 && up(steps, up(steps, parts)) == parts && parts * m * n * 4 <= kScratch);
        };
        int64_t best = 1;
        for (int64_t parts = 2; parts <= 16; ++parts) {
          if (allowed(parts) && steps_until_done(parts) < steps_until_done(best)) best = parts;
          full += up(steps, parts) >= 8 && parts * m * n * 4 > kScratch;
        }
        CHECK(splits == best);
        ++(splits > 1 ? cut : whole);
      }
    }
  }
  CHECK((cut > 10 && whole > 10 && full > 10));
}

// Visible keys counted one by one.
TEST_CASE("attention's key tiles hold every visible key, and the unmasked ones only visible keys", "[proving]") {
  constexpr int kBlock = 16;
  for (int keys : {40, 64, 100}) {
    for (int queries : {1, 20, 40}) {
      for (int window : {1, 5, 17, 1000}) {
        for (int t0 = 0; t0 < queries; t0 += 8) {
          const int rows = std::min(8, queries - t0), position = keys - queries + t0;
          const auto first_key = [&](int i) { return std::max(0, position + i - window + 1); };
          const KeyTiles tiles = key_tiles(position, rows, keys, first_key(0), first_key(rows - 1), kBlock);
          for (int key = 0; key < keys; ++key) {
            int seen = 0;
            for (int i = 0; i < rows; ++i) seen += key >= first_key(i) && key <= position + i;
            const int tile = key / kBlock;
            if (seen > 0) CHECK((tile >= tiles.first && tile < tiles.last));
            if (tile >= tiles.unmasked_first && tile < tiles.unmasked_last) CHECK(seen == rows);
          }
          for (int tile = tiles.first; tile < tiles.last; ++tile) {  // no mask is worked out for a tile that every query sees whole
            const int first = tile * kBlock, last = first + kBlock - 1;
            if (first >= first_key(rows - 1) && last <= position) CHECK((tile >= tiles.unmasked_first && tile < tiles.unmasked_last));
          }
          CHECK((tiles.unmasked_first >= tiles.first && tiles.unmasked_last <= tiles.last));
        }
      }
    }
  }
}

}  // namespace
}  // namespace heddle::test
