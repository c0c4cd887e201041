// A manifest. The first byte chooses: even, the rest is a body that gets a right self-hash, so that the parser behind it is reached; odd, it is taken
// as it is. Accepted: every piece lies in its shard, pieces share no byte, each tensor is whole, and it is written again to the same manifest.
#include <algorithm>

#include "checkpoint/manifest.h"
#include "tests/fuzz/target.h"

namespace heddle::fuzz {
namespace {

constexpr Rules kRules = {{ExitCode::bad_data}};

void check_pieces(const Manifest& m) {
  struct Extent {
    uint64_t shard, begin, end;
    bool operator<(const Extent& other) const { return shard != other.shard ? shard < other.shard : begin < other.begin; }
  };
  std::vector<Extent> extents;
  for (const SavedTensor& t : m.tensors) {
    require(m.find(t.name) == &t, "tensor ", t.name, " is not found by its name");
    int64_t elements = 0;
    for (const SavedPiece& p : t.pieces) {
      const int64_t n = volume(p.box);
      require(n >= 0 && is_inside(p.box, t.global) && p.shard < m.shards.size(), "a piece of ", t.name, " leaves its tensor or has no shard");
      const auto bytes = static_cast<uint64_t>(n * size_of(t.dtype));
      require(p.offset <= m.shards[p.shard].bytes && bytes <= m.shards[p.shard].bytes - p.offset, "a piece of ", t.name, " leaves its shard");
      if (bytes > 0) extents.push_back({p.shard, p.offset, p.offset + bytes});
      elements += n;
      Box common;
      for (const SavedPiece& other : t.pieces) {
        // Without axes there is one element, which intersect() finds in common.
        const bool empty = n == 0 || volume(other.box) == 0;
        require(&other == &p || empty || !intersect(p.box, other.box, common), "pieces of ", t.name, " overlap");
        if (t.pieces.size() > 64) break;  // quadratic
      }
    }
    require(elements == volume(whole_box(t.global)), "the pieces of ", t.name, " hold ", elements, " elements");
  }
  std::sort(extents.begin(), extents.end());
  for (size_t i = 1; i < extents.size(); ++i) {
    require(extents[i].shard != extents[i - 1].shard || extents[i].begin >= extents[i - 1].end, "two pieces lie on one byte");
  }
}

std::string written(const Manifest& m) {
  std::string tensors;
  for (const SavedTensor& t : m.tensors) {
    if (!tensors.empty()) tensors += ',';
    append_tensor(tensors, t);
  }
  const ManifestParts parts{m.step, m.incarnation, m.fold, m.environment, m.config, m.scalars, &m.shards, tensors};
  Sha256 hash;
  std::string text;
  write_manifest(parts, hash, text);
  require(text.size() <= manifest_capacity(parts), "the manifest is longer than manifest_capacity() says");
  return text;
}

void require_same(const Manifest& a, const Manifest& b) {
  require(a.step == b.step && a.incarnation == b.incarnation && a.fold == b.fold, "a number changed");
  require(a.environment == b.environment && a.config == b.config && a.scalars == b.scalars, "a text changed");
  require(a.shards.size() == b.shards.size() && a.tensors.size() == b.tensors.size(), "shards or tensors were lost");
  for (size_t i = 0; i < a.shards.size(); ++i) {
    const SavedShard &x = a.shards[i], &y = b.shards[i];
    require(x.bytes == y.bytes && x.sha256 == y.sha256 && x.crc32c == y.crc32c, "shard ", i, " changed");
  }
  for (size_t i = 0; i < a.tensors.size(); ++i) {
    const SavedTensor &x = a.tensors[i], &y = b.tensors[i];
    require(x.name == y.name && x.dtype == y.dtype && x.global == y.global && x.pieces.size() == y.pieces.size(), "tensor ", x.name, " changed");
    for (size_t p = 0; p < x.pieces.size(); ++p) {
      const bool same = x.pieces[p].shard == y.pieces[p].shard && x.pieces[p].offset == y.pieces[p].offset && x.pieces[p].box == y.pieces[p].box;
      require(same, "piece ", p, " of ", x.name, " changed");
    }
  }
}

}  // namespace

void run_target(std::string_view input) {
  if (input.empty()) return;
  std::string text(input.substr(1));
  if (input[0] % 2 == 0) text += "sha256 " + hex(sha256(text)) + "\n";
  const auto manifest = parse_input(kRules, input.size(), [&] { return parse_manifest(text, "input"); });
  if (!manifest) return;
  check_pieces(*manifest);
  const std::string again = written(*manifest);
  if (again.size() > kMostManifestBytes) return;  // escapes may be longer than they were
  const Manifest second = parse_manifest(again, "written");
  require_same(*manifest, second);
  require(written(second) == again, "writing what was written gives other bytes");
}

}  // namespace heddle::fuzz
