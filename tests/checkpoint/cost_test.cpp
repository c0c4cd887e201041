// What a checkpoint costs to read is in proportion to what it holds.
#include "tests/support/cost.h"

#include "checkpoint/manifest.h"
#include "core/io/boxes.h"
#include "core/io/sha256.h"
#include "kernels/api/check.h"

namespace heddle::test {
namespace {

SavedShard shard_of(uint64_t bytes) {
  return {bytes, {}, std::vector<uint32_t>(block_count(bytes), 0)};
}

std::string manifest(const std::vector<SavedShard>& shards, const std::vector<SavedTensor>& tensors, const std::string& config = {}) {
  std::string table;
  for (size_t i = 0; i < tensors.size(); ++i) {
    if (i > 0) table += ",\n";
    append_tensor(table, tensors[i]);
  }
  ManifestParts parts;
  parts.config = config;
  parts.shards = &shards;
  parts.tensors = table;
  Sha256 hash;
  std::string text;
  write_manifest(parts, hash, text);
  return text;
}

std::string numbered(size_t i) {
  const std::string digits = std::to_string(i);
  return concat("model.t", std::string(8 - digits.size(), '0'), digits);
}

// n tensors of `pieces` pieces of 4 bytes, in shards of their own.
std::string wide_manifest(size_t n, size_t pieces) {
  std::vector<SavedShard> shards;
  for (size_t p = 0; p < pieces; ++p) shards.push_back(shard_of(4 * n));
  std::vector<SavedTensor> tensors;
  for (size_t i = 0; i < n; ++i) {
    SavedTensor t{numbered(i), DType::f32, {static_cast<int64_t>(pieces)}, {}};
    for (size_t p = 0; p < pieces; ++p) t.pieces.push_back({p, 4 * i, {{static_cast<int64_t>(p), static_cast<int64_t>(p + 1)}}});
    tensors.push_back(std::move(t));
  }
  return manifest(shards, tensors);
}

}  // namespace

TEST_CASE("manifest: tensors, pieces, shards, blocks and text, in time proportional to them") {
  const auto parse = [](const std::string& name, size_t n, const std::function<std::string(size_t)>& text) {
    check_cost("manifest: " + name, n, [&](size_t size) { return [made = text(size)] { parse_manifest(made, "MANIFEST"); }; });
  };
  parse("tensors", 200, [](size_t n) { return wide_manifest(n, 1); });
  parse("tensors in eight shards", 50, [](size_t n) { return wide_manifest(n, 8); });
  parse("pieces of one tensor", 200, [](size_t n) { return wide_manifest(1, n); });
  parse("blocks of one shard", 2000, [](size_t n) { return manifest({shard_of(n * kBlockBytes)}, {}); });
  parse("a configuration", 20000, [](size_t n) { return manifest({shard_of(1)}, {}, std::string(n, 'x')); });
  parse("empty tensors", 200, [](size_t n) {
    std::vector<SavedTensor> tensors;
    for (size_t i = 0; i < n; ++i) tensors.push_back({numbered(i), DType::f32, {0, int64_t{1} << 40}, {{0, 0, {{0, 0}, {0, int64_t{1} << 40}}}}});
    return manifest({shard_of(1)}, tensors);
  });
}

}  // namespace heddle::test
