#include "checkpoint/manifest.h"

#include <algorithm>
#include <charconv>

#include "core/io/json_reader.h"
#include "core/io/safetensors.h"

namespace heddle {
namespace {

constexpr size_t kMostTensors = 1'000'000;
constexpr size_t kMostRank = 8;
constexpr uint64_t kMostSize = uint64_t{1} << 62;
constexpr std::string_view kFormat = "heddle-checkpoint";
constexpr uint64_t kVersion = 1;

void append(std::string& out, uint64_t value) {
  char digits[20];
  const auto end = std::to_chars(digits, digits + sizeof digits, value).ptr;
  out.append(digits, static_cast<size_t>(end - digits));
}

void append_hex(std::string& out, uint64_t value, int digits) {
  constexpr char kDigits[] = "0123456789abcdef";
  for (int i = digits - 1; i >= 0; --i) out += kDigits[value >> (4 * i) & 15];
}

// Exactly `digits` lower-case hexadecimal digits.
bool parse_digits(std::string_view text, uint64_t& value) {
  value = 0;
  for (const char c : text) {
    const int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
    if (digit < 0) return false;
    value = value << 4 | static_cast<uint64_t>(digit);
  }
  return true;
}

SavedShard read_shard(JsonReader& json) {
  SavedShard shard;
  std::string key;
  unsigned seen = 0;
  json.begin_object();
  while (json.next_key(key)) {
    if (key == "bytes" && !(seen & 1)) {
      shard.bytes = json.u64();
      if (shard.bytes > kMostSize) json.fail_here("a shard of more than 2^62 bytes");
      seen |= 1;
    } else if (key == "sha256" && !(seen & 2)) {
      if (!parse_hex(json.plain_string(), shard.sha256)) json.fail_here("sha256 must be 64 lower-case hexadecimal digits");
      seen |= 2;
    } else if (key == "crc32c" && !(seen & 4)) {
      const std::string_view digits = json.plain_string();
      if (digits.size() % 8 != 0) json.fail_here("crc32c must be 8 digits a block");
      shard.crc32c.resize(digits.size() / 8);
      for (size_t i = 0; i < shard.crc32c.size(); ++i) {
        uint64_t value = 0;
        if (!parse_digits(digits.substr(8 * i, 8), value)) json.fail_here("crc32c must be lower-case hexadecimal digits");
        shard.crc32c[i] = static_cast<uint32_t>(value);
      }
      seen |= 4;
    } else {
      json.fail_here(concat("unknown or repeated key \"", key, "\" of a shard"));
    }
  }
  if (seen != 7) json.fail_here("a shard lacks bytes, sha256 or crc32c");
  if (shard.crc32c.size() != block_count(shard.bytes)) {
    json.fail_here(concat(shard.crc32c.size(), " block checksums for ", shard.bytes, " bytes, which are ", block_count(shard.bytes), " blocks"));
  }
  return shard;
}

SavedPiece read_piece(JsonReader& json, size_t rank) {
  SavedPiece piece;
  std::string key;
  unsigned seen = 0;
  json.begin_object();
  while (json.next_key(key)) {
    if (key == "shard" && !(seen & 1)) {
      piece.shard = json.u64();
      seen |= 1;
    } else if (key == "offset" && !(seen & 2)) {
      piece.offset = json.u64();
      seen |= 2;
    } else if (key == "box" && !(seen & 4)) {
      json.begin_array();
      while (json.next_item()) {
        if (piece.box.size() == rank) json.fail_here("a box has more axes than its tensor");
        uint64_t ends[2] = {0, 0};
        size_t n = 0;
        json.begin_array();
        while (json.next_item()) {
          if (n == 2) json.fail_here("a range of a box has more than two ends");
          ends[n] = json.u64();
          if (ends[n++] > kMostSize) json.fail_here("a box beyond 2^62");
        }
        if (n != 2) json.fail_here("a range of a box has fewer than two ends");
        piece.box.push_back({static_cast<int64_t>(ends[0]), static_cast<int64_t>(ends[1])});
      }
      seen |= 4;
    } else {
      json.fail_here(concat("unknown or repeated key \"", key, "\" of a piece"));
    }
  }
  if (seen != 7) json.fail_here("a piece lacks shard, offset or box");
  return piece;
}

SavedTensor read_tensor(JsonReader& json) {
  SavedTensor tensor;
  std::string key;
  unsigned seen = 0;
  json.begin_object();
  while (json.next_key(key)) {
    if (key == "name" && !(seen & 1)) {
      tensor.name = json.plain_string();
      if (!is_tensor_name(tensor.name)) json.fail_here(concat("\"", tensor.name, "\" is no tensor name"));
      seen |= 1;
    } else if (key == "dtype" && !(seen & 2)) {
      const std::string text = json.string(32);
      const auto type = parse_file_type(text);
      const auto dtype = type ? heddle_type(*type) : std::nullopt;
      if (!dtype) json.fail_here(concat("unknown dtype \"", text, "\""));
      tensor.dtype = *dtype;
      seen |= 2;
    } else if (key == "shape" && !(seen & 4)) {
      json.begin_array();
      while (json.next_item()) {
        if (tensor.global.size() == kMostRank) json.fail_here(concat("tensor \"", tensor.name, "\" has more than ", kMostRank, " dimensions"));
        const uint64_t n = json.u64();
        if (n > kMostSize) json.fail_here("a dimension beyond 2^62");
        tensor.global.push_back(static_cast<int64_t>(n));
      }
      seen |= 4;
    } else if (key == "pieces" && !(seen & 8)) {
      if (!(seen & 4)) json.fail_here("pieces stand before their tensor's shape");
      json.begin_array();
      while (json.next_item()) tensor.pieces.push_back(read_piece(json, tensor.global.size()));
      seen |= 8;
    } else {
      json.fail_here(concat("unknown or repeated key \"", key, "\" of a tensor"));
    }
  }
  if (seen != 15) json.fail_here("a tensor lacks name, dtype, shape or pieces");
  return tensor;
}

// Everything between the tables: boxes inside shapes, byte ranges inside files, no two pieces on one byte, every tensor whole.
void check_tables(const Manifest& m, std::string_view place) {
  const auto refuse = [&](const std::string& rule) { fail("checkpoint", concat(place, ": ", rule), ExitCode::bad_data); };
  struct Extent {
    uint64_t shard, begin, end;
    const SavedTensor* tensor;
  };
  std::vector<Extent> extents;
  for (size_t t = 0; t < m.tensors.size(); ++t) {
    const SavedTensor& tensor = m.tensors[t];
    if (t > 0 && !(m.tensors[t - 1].name < tensor.name))
      refuse(concat("tensor \"", tensor.name, "\" does not come after \"", m.tensors[t - 1].name, "\""));
    uint64_t total = static_cast<uint64_t>(size_of(tensor.dtype));
    const bool empty = std::find(tensor.global.begin(), tensor.global.end(), 0) != tensor.global.end();
    for (const int64_t n : tensor.global) {
      if (!empty && (__builtin_mul_overflow(total, static_cast<uint64_t>(n), &total) || total > kMostSize)) {
        refuse(concat("tensor \"", tensor.name, "\" has more than 2^62 bytes"));
      }
    }
    std::vector<const Box*> boxes;
    for (const SavedPiece& piece : tensor.pieces) {
      if (piece.shard >= m.shards.size()) refuse(concat("tensor \"", tensor.name, "\" lies in shard ", piece.shard, " of ", m.shards.size()));
      if (!is_inside(piece.box, tensor.global)) refuse(concat("tensor \"", tensor.name, "\": box ", box_text(piece.box), " leaves its shape"));
      // Inside the global shape, whose bytes fit, so this product does.
      const uint64_t bytes = static_cast<uint64_t>(volume(piece.box) * size_of(tensor.dtype));
      const uint64_t size = m.shards[piece.shard].bytes;
      if (piece.offset > size || bytes > size - piece.offset) {
        refuse(concat("tensor \"", tensor.name, "\": ", bytes, " bytes at ", piece.offset, " leave shard ", piece.shard, " of ", size, " bytes"));
      }
      if (bytes > 0) extents.push_back({piece.shard, piece.offset, piece.offset + bytes, &tensor});
      boxes.push_back(&piece.box);
    }
    if (!tiles_exactly(tensor.global, boxes)) {
      refuse(concat("tensor \"", tensor.name, "\" of shape ", box_text(whole_box(tensor.global)), " is not covered exactly once by its ",
                    boxes.size(), " pieces, the first ", boxes.empty() ? std::string("absent") : box_text(*boxes[0])));
    }
  }
  std::sort(extents.begin(), extents.end(),
            [](const Extent& a, const Extent& b) { return a.shard != b.shard ? a.shard < b.shard : a.begin < b.begin; });
  for (size_t i = 1; i < extents.size(); ++i) {
    if (extents[i].shard == extents[i - 1].shard && extents[i].begin < extents[i - 1].end) {
      refuse(concat("tensors \"", extents[i - 1].tensor->name, "\" and \"", extents[i].tensor->name, "\" overlap in shard ", extents[i].shard));
    }
  }
}

}  // namespace

const SavedTensor* Manifest::find(std::string_view name) const {
  const auto it = std::lower_bound(tensors.begin(), tensors.end(), name, [](const SavedTensor& t, std::string_view n) { return t.name < n; });
  return it != tensors.end() && it->name == name ? &*it : nullptr;
}

bool is_tensor_name(std::string_view name) {
  const auto allowed = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '.' || c == '-' || c == '/';
  };
  return !name.empty() && name.size() <= 256 && std::all_of(name.begin(), name.end(), allowed);
}

Manifest parse_manifest(std::string_view text, std::string_view place) {
  const auto refuse = [&](const std::string& rule) { fail("checkpoint", concat(place, ": ", rule), ExitCode::bad_data); };
  if (text.size() > kMostManifestBytes) refuse(concat("has ", text.size(), " bytes, at most ", kMostManifestBytes, " are accepted"));
  if (text.size() <= kSelfHashBytes) refuse(concat("has only ", text.size(), " bytes; it is truncated"));
  const std::string_view body = text.substr(0, text.size() - kSelfHashBytes), trailer = text.substr(body.size());
  Manifest m;
  if (trailer.substr(0, 7) != "sha256 " || trailer.back() != '\n' || !parse_hex(trailer.substr(7, 64), m.self)) {
    refuse("does not end in its own hash; it is truncated or overwritten");
  }
  if (sha256(body) != m.self) refuse("does not match its own hash; it has been changed or damaged");

  JsonReader json(body, place);
  std::string key;
  unsigned seen = 0;
  const auto once = [&](unsigned bit) {
    if (seen & bit) json.fail_here(concat("key \"", key, "\" appears twice"));
    seen |= bit;
  };
  json.begin_object();
  while (json.next_key(key)) {
    if (key == "format") {
      once(1);
      if (json.string(64) != kFormat) json.fail_here("this is no heddle checkpoint");
    } else if (key == "version") {
      once(2);
      if (const uint64_t version = json.u64(); version != kVersion) {
        json.fail_here(concat("format version ", version, ", this program reads ", kVersion, "; use the heddle that wrote it"));
      }
    } else if (key == "step") {
      once(4);
      m.step = json.u64();
      if (m.step >= kNumberEnd) json.fail_here("a step of 2^62 or more");
    } else if (key == "incarnation") {
      once(8);
      m.incarnation = json.u64();
      if (m.incarnation >= kNumberEnd) json.fail_here("an incarnation of 2^62 or more");
    } else if (key == "fold") {
      once(16);
      const std::string_view digits = json.plain_string();
      if (digits.size() != 16 || !parse_digits(digits, m.fold)) json.fail_here("fold must be 16 lower-case hexadecimal digits");
    } else if (key == "environment") {
      once(32);
      m.environment = json.string(kMostManifestBytes);
    } else if (key == "config") {
      once(64);
      m.config = json.string(kMostManifestBytes);
    } else if (key == "scalars") {
      once(128);
      m.scalars = json.string(kMostManifestBytes);
    } else if (key == "block") {
      once(256);
      if (json.u64() != kBlockBytes) json.fail_here(concat("checksum blocks must have ", kBlockBytes, " bytes"));
    } else if (key == "shards") {
      once(512);
      json.begin_array();
      while (json.next_item()) {
        if (m.shards.size() == kMostShards) json.fail_here(concat("more than ", kMostShards, " shards"));
        m.shards.push_back(read_shard(json));
      }
    } else if (key == "tensors") {
      once(1024);
      json.begin_array();
      while (json.next_item()) {
        if (m.tensors.size() == kMostTensors) json.fail_here(concat("more than ", kMostTensors, " tensors"));
        m.tensors.push_back(read_tensor(json));
      }
    } else {
      json.fail_here(concat("unknown key \"", key, "\""));
    }
  }
  json.end();
  if (seen != 2047) refuse("lacks a required key");
  if (m.shards.empty()) refuse("names no shards");
  check_tables(m, place);
  return m;
}

void append_tensor(std::string& out, const SavedTensor& tensor) {
  out += "{\"name\":\"";
  out += tensor.name;
  out += "\",\"dtype\":\"";
  out += name_of(file_type(tensor.dtype));
  out += "\",\"shape\":[";
  for (size_t i = 0; i < tensor.global.size(); ++i) {
    if (i > 0) out += ',';
    append(out, static_cast<uint64_t>(tensor.global[i]));
  }
  out += "],\"pieces\":[";
  for (size_t p = 0; p < tensor.pieces.size(); ++p) {
    const SavedPiece& piece = tensor.pieces[p];
    if (p > 0) out += ',';
    out += "{\"shard\":";
    append(out, piece.shard);
    out += ",\"offset\":";
    append(out, piece.offset);
    out += ",\"box\":[";
    for (size_t i = 0; i < piece.box.size(); ++i) {
      out += i > 0 ? ",[" : "[";
      append(out, static_cast<uint64_t>(piece.box[i].begin));
      out += ',';
      append(out, static_cast<uint64_t>(piece.box[i].end));
      out += ']';
    }
    out += "]}";
  }
  out += "]}";
}

size_t manifest_capacity(const ManifestParts& parts) {
  size_t n = 1024 + kSelfHashBytes + 6 * (parts.environment.size() + parts.config.size() + parts.scalars.size()) + parts.tensors.size();
  for (const SavedShard& shard : *parts.shards) n += 160 + 8 * static_cast<size_t>(block_count(shard.bytes));
  return n;
}

void write_manifest(const ManifestParts& parts, Sha256& hash, std::string& out) {
  out.clear();
  out += "{\"format\":\"";
  out += kFormat;
  out += "\",\"version\":";
  append(out, kVersion);
  out += ",\"step\":";
  append(out, parts.step);
  out += ",\"incarnation\":";
  append(out, parts.incarnation);
  out += ",\"fold\":\"";
  append_hex(out, parts.fold, 16);
  out += "\",\"environment\":";
  append_json_string(out, parts.environment);
  out += ",\"config\":";
  append_json_string(out, parts.config);
  out += ",\"scalars\":";
  append_json_string(out, parts.scalars);
  out += ",\"block\":";
  append(out, kBlockBytes);
  out += ",\n\"shards\":[";
  char digits[64];
  for (size_t i = 0; i < parts.shards->size(); ++i) {
    const SavedShard& shard = (*parts.shards)[i];
    out += i > 0 ? ",\n{\"bytes\":" : "\n{\"bytes\":";
    append(out, shard.bytes);
    out += ",\"sha256\":\"";
    write_hex(shard.sha256, digits);
    out.append(digits, sizeof digits);
    out += "\",\"crc32c\":\"";
    for (const uint32_t crc : shard.crc32c) append_hex(out, crc, 8);
    out += "\"}";
  }
  out += "],\n\"tensors\":[";
  out += parts.tensors;
  out += "]}\n";
  hash.reset();
  hash.update(out);
  write_hex(hash.finish(), digits);
  out += "sha256 ";
  out.append(digits, sizeof digits);
  out += '\n';
}

}  // namespace heddle
