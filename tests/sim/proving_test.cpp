// Whole kernels of kernels/cuda on the simulated machine: right in float64 terms, whatever the order of threads and asynchronous operations, and free
// of races, uninitialised reads and accesses out of bounds (check flavour).
#include <algorithm>
#include <array>
#include <string>
#include <vector>

#include "kernels/cuda/attention_bwd_sm80_config.h"
#include "kernels/cuda/attention_fwd_sm80_config.h"
#include "kernels/cuda/gemm_simt_config.h"
#include "kernels/cuda/gemm_sm80_config.h"
#include "kernels/cuda/gemm_sm90_config.h"
#include "kernels/cuda/rows_config.h"
#include "kernels/cuda/tile_raster.h"
#include "kernels/sim/check/check.h"
#include "kernels/sim/core/machine.h"
#include "tests/sim/proving_cases.h"
#include "tests/support/catch.h"

namespace heddle::test {
namespace {

void in_mode(sim::AsyncMode mode, uint64_t seed, const std::vector<ProvingCase>& cases, const std::string& only) {
  const sim::Options before = sim::options();
  sim::Options options = before;
  options.mode = mode;
  options.seed = seed;
  sim::set_options(options);
  for (const ProvingCase& c : cases) {
    if (c.name.find(only) != 0) continue;
    INFO(c.name << ", mode " << static_cast<int>(mode) << ", seed " << seed);
    CHECK(c.run() == "");
  }
  sim::set_options(before);
}

void proven(const std::string& only) {
  const std::vector<ProvingCase> cases = proving_cases();
  in_mode(sim::AsyncMode::eager, 1, cases, only);
  in_mode(sim::AsyncMode::lazy, 1, cases, only);
  in_mode(sim::AsyncMode::random, 1, cases, only);
}

TEST_CASE("gemm_simt against float64", "[proving]") {
  proven("gemm_simt");
}
TEST_CASE("gemm_sm80 against float64", "[proving]") {
  proven("gemm_sm80");
}
TEST_CASE("gemm_sm90 against float64", "[proving]") {
  proven("gemm_sm90");
}
TEST_CASE("attention_fwd_sm80 against float64", "[proving]") {
  proven("attention_fwd_sm80");
}
TEST_CASE("attention_bwd_sm80 against float64", "[proving]") {
  proven("attention_bwd_sm80");
}
TEST_CASE("norm_forward against float64", "[proving]") {
  proven("norm_forward");
}
TEST_CASE("sum against float64", "[proving]") {
  proven("sum of");
}

TEST_CASE("no order of threads changes a result, of 50", "[proving]") {
  const std::vector<ProvingCase> cases = short_proving_cases();
  for (uint64_t seed = 1; seed <= 50; ++seed) in_mode(sim::AsyncMode::random, seed, cases, "");
}

// What heddle-mutate runs once per synchronisation: every kernel, in each mode once.
TEST_CASE("short cases in every mode", "[.mutate]") {
  const std::vector<ProvingCase> cases = short_proving_cases();
  for (const sim::AsyncMode mode : {sim::AsyncMode::eager, sim::AsyncMode::lazy, sim::AsyncMode::random}) in_mode(mode, 1, cases, "");
}

// Wavefronts beyond what the number of bytes needs, in the kernels of one source.
std::string bank_conflicts(const std::string& source) {
  std::string text;
  for (const sim::AccessCount& count : sim::access_counts()) {
    if (count.shared && count.extra() > 0 && count.file.find(source) != std::string::npos)
      text +=
          count.file + ":" + std::to_string(count.line) + " " + std::to_string(count.extra()) + " of " + std::to_string(count.transactions) + "; ";
  }
  return text;
}

TEST_CASE("swizzled shared memory meets no bank conflict", "[proving]") {
  if (!sim::checking) return;  // only the check flavour counts
  sim::count_accesses(true);
  for (const ProvingCase& c : layout_proving_cases()) CHECK(c.run() == "");
  sim::count_accesses(false);
  CHECK(bank_conflicts("epilogue.cuh") == "");
  CHECK(bank_conflicts("gemm_simt.cuh") == "");
  CHECK(bank_conflicts("gemm_sm80.cuh") == "");
  CHECK(bank_conflicts("tile.cuh") == "");
  CHECK(bank_conflicts("attention_mma.cuh") == "");
  CHECK(bank_conflicts("attention_fwd_sm80.cuh") == "");
  CHECK(bank_conflicts("attention_bwd_sm80.cuh") == "");
  CHECK(bank_conflicts("gemm_sm90.cuh") == "");
}

// ---- the pure host functions ----
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
  CHECK(choose_gemm_sm90(8192, 8192, 132) == 0);
  CHECK(choose_gemm_sm90(1024, 1024, 132) == 2);  // 64 small tiles in one wave instead of 32 large ones
  CHECK(choose_gemm_sm90(384, 8192, 132) == 1);   // an odd number of rows of tiles: no pairs
  CHECK(choose_gemm_sm80(8192, 8192, 108) == 0);
  CHECK(choose_gemm_sm80(512, 512, 108) == 1);
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
          CHECK((tiles.unmasked_first >= tiles.first && tiles.unmasked_last <= tiles.last));
        }
      }
    }
  }
}

}  // namespace
}  // namespace heddle::test
