// A manifest body, sealed with a right self-hash so that the parser behind it is reached: refused with Error(bad_data), or accepted with every piece
// inside its shard and written again to the same manifest. The first byte odd: the input is taken as it is, hash and all.
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "kernels/api/check.h"
#include "train/checkpoint/manifest.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace heddle;
  if (size == 0) return 0;
  std::string text(reinterpret_cast<const char*>(data) + 1, size - 1);
  if (data[0] % 2 == 0) text += "sha256 " + hex(sha256(text)) + "\n";
  try {
    const Manifest m = parse_manifest(text, "input");
    std::string tensors;
    for (const SavedTensor& t : m.tensors) {
      for (const SavedPiece& p : t.pieces) {
        const auto bytes = static_cast<uint64_t>(volume(p.box) * size_of(t.dtype));
        if (p.shard >= m.shards.size() || p.offset + bytes > m.shards[p.shard].bytes) std::abort();  // a reader would leave the file
      }
      if (!tensors.empty()) tensors += ',';
      append_tensor(tensors, t);
    }
    ManifestParts parts{m.step, m.incarnation, m.fold, m.environment, m.config, m.scalars, &m.shards, tensors};
    Sha256 hash;
    std::string again;
    write_manifest(parts, hash, again);
    if (again.size() > kMostManifestBytes) return 0;
    const Manifest m2 = parse_manifest(again, "written");
    if (m2.step != m.step || m2.incarnation != m.incarnation || m2.config != m.config || m2.scalars != m.scalars ||
        m2.tensors.size() != m.tensors.size()) {
      std::abort();
    }
  } catch (const Error& e) {
    if (e.code() != ExitCode::bad_data) std::abort();
  }
  return 0;
}
