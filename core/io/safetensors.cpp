#include "core/io/safetensors.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <numeric>
#include <unordered_set>

#include "core/io/json_reader.h"
#include "kernels/api/check.h"

namespace heddle {
namespace {

static_assert(std::endian::native == std::endian::little, "heddle writes tensors as they lie in memory");

struct TypeRow {
  std::string_view name;
  uint64_t bits;
};
constexpr std::array<TypeRow, 22> kTypes = {{{"U64", 64},        {"I64", 64},    {"F64", 64},    {"C64", 64},    {"F32", 32}, {"U32", 32},
                                             {"I32", 32},        {"BF16", 16},   {"F16", 16},    {"U16", 16},    {"I16", 16}, {"F8_E5M2FNUZ", 8},
                                             {"F8_E4M3FNUZ", 8}, {"F8_E8M0", 8}, {"F8_E4M3", 8}, {"F8_E5M2", 8}, {"I8", 8},   {"U8", 8},
                                             {"F6_E3M2", 6},     {"F6_E2M3", 6}, {"F4", 4},      {"BOOL", 8}}};
static_assert(static_cast<size_t>(FileType::BOOL) + 1 == kTypes.size());

[[noreturn]] void refuse(std::string_view place, const std::string& rule) {
  fail("safetensors", concat(place, ": ", rule), ExitCode::bad_data);
}

// The bytes of a tensor; false on overflow or a broken byte.
bool tensor_bytes(FileType type, const std::vector<uint64_t>& shape, uint64_t& bytes) {
  uint64_t bits = bits_of(type);
  // A zero anywhere makes the tensor empty, whatever overflows beside it.
  if (std::find(shape.begin(), shape.end(), 0u) != shape.end()) bits = 0;
  for (const uint64_t n : shape) {
    if (bits != 0 && __builtin_mul_overflow(bits, n, &bits)) return false;
  }
  bytes = bits / 8;
  return bits % 8 == 0;
}

void read_metadata(JsonReader& json, std::map<std::string, std::string>& metadata) {
  constexpr size_t kLongestValue = size_t{16} << 20;
  json.begin_object();
  std::string key;
  while (json.next_key(key)) {
    if (!metadata.emplace(key, json.string(kLongestValue)).second) json.fail_here(concat("metadata key \"", key, "\" appears twice"));
  }
}

void read_tensor(JsonReader& json, FileTensor& tensor, uint64_t max_rank) {
  json.begin_object();
  bool has_type = false, has_shape = false, has_offsets = false;
  std::string key;
  while (json.next_key(key)) {
    if (key == "dtype" && !has_type) {
      const std::string text = json.string(32);
      const auto type = parse_file_type(text);
      if (!type) json.fail_here(concat("tensor \"", tensor.name, "\" has the unknown dtype \"", text, "\""));
      tensor.type = *type;
      has_type = true;
    } else if (key == "shape" && !has_shape) {
      json.begin_array();
      while (json.next_item()) {
        if (tensor.shape.size() == max_rank) json.fail_here(concat("tensor \"", tensor.name, "\" has more than ", max_rank, " dimensions"));
        tensor.shape.push_back(json.u64());
      }
      has_shape = true;
    } else if (key == "data_offsets" && !has_offsets) {
      uint64_t* const ends[] = {&tensor.begin, &tensor.end};
      size_t n = 0;
      json.begin_array();
      while (json.next_item()) {
        if (n == 2) json.fail_here(concat("tensor \"", tensor.name, "\" has more than two data_offsets"));
        *ends[n++] = json.u64();
      }
      if (n != 2) json.fail_here(concat("tensor \"", tensor.name, "\" has fewer than two data_offsets"));
      has_offsets = true;
    } else {
      json.fail_here(concat("tensor \"", tensor.name, "\": unknown or repeated key \"", key, "\""));
    }
  }
  if (!has_type || !has_shape || !has_offsets) json.fail_here(concat("tensor \"", tensor.name, "\" lacks dtype, shape or data_offsets"));
}

}  // namespace

std::string_view name_of(FileType type) {
  return kTypes[static_cast<size_t>(type)].name;
}
uint64_t bits_of(FileType type) {
  return kTypes[static_cast<size_t>(type)].bits;
}

std::optional<FileType> parse_file_type(std::string_view name) {
  for (size_t i = 0; i < kTypes.size(); ++i) {
    if (kTypes[i].name == name) return static_cast<FileType>(i);
  }
  return std::nullopt;
}

FileType file_type(DType dtype) {
  switch (dtype) {
    case DType::f32: return FileType::F32;
    case DType::bf16: return FileType::BF16;
    case DType::f64: return FileType::F64;
    case DType::i32: return FileType::I32;
    case DType::u16: return FileType::U16;
    case DType::u8: return FileType::U8;
  }
  fail("safetensors", concat("no file type for dtype ", name_of(dtype)));
}

std::optional<DType> heddle_type(FileType type) {
  switch (type) {
    case FileType::F32: return DType::f32;
    case FileType::BF16: return DType::bf16;
    case FileType::F64: return DType::f64;
    case FileType::I32: return DType::i32;
    case FileType::U16: return DType::u16;
    case FileType::U8: return DType::u8;
    default: return std::nullopt;
  }
}

const FileTensor* SafetensorsHeader::find(std::string_view name) const {
  const auto it = std::find_if(tensors.begin(), tensors.end(), [&](const FileTensor& t) { return t.name == name; });
  return it == tensors.end() ? nullptr : &*it;
}

uint64_t parse_header_length(const void* first8, uint64_t file_size, std::string_view place, const SafetensorsLimits& limits) {
  if (file_size < 8) refuse(place, concat("has ", file_size, " bytes; a safetensors file has at least 8"));
  uint64_t n = 0;
  std::memcpy(&n, first8, 8);
  if (n > limits.header_bytes) refuse(place, concat("byte 0: header of ", n, " bytes, at most ", limits.header_bytes, " are accepted"));
  if (n > file_size - 8)
    refuse(place, concat("byte 0: header of ", n, " bytes in a file of ", file_size, "; it is truncated or no safetensors file"));
  return n;
}

SafetensorsHeader parse_safetensors_header(std::string_view text, uint64_t file_size, std::string_view place, const SafetensorsLimits& limits) {
  if (text.empty() || text[0] != '{') refuse(place, "byte 8: the header must begin with '{'");
  SafetensorsHeader header;
  header.data_begin = 8 + text.size();
  header.file_size = file_size;
  if (file_size < header.data_begin) refuse(place, "is shorter than its header");

  JsonReader json(text, place, 8);
  std::unordered_set<std::string> names;
  std::string key;
  json.begin_object();
  while (json.next_key(key)) {
    if (!names.insert(key).second) json.fail_here(concat("key \"", key, "\" appears twice"));
    if (key == "__metadata__") {
      read_metadata(json, header.metadata);
      continue;
    }
    if (header.tensors.size() == limits.tensors) json.fail_here(concat("more than ", limits.tensors, " tensors"));
    FileTensor& tensor = header.tensors.emplace_back();
    tensor.name = key;
    read_tensor(json, tensor, limits.rank);
  }
  json.end();

  std::sort(header.tensors.begin(), header.tensors.end(), [](const FileTensor& a, const FileTensor& b) {
    return a.begin != b.begin ? a.begin < b.begin : a.end != b.end ? a.end < b.end : a.name < b.name;
  });
  const uint64_t data_bytes = file_size - header.data_begin;
  uint64_t at = 0;
  for (FileTensor& t : header.tensors) {
    if (t.begin != at || t.end < t.begin) {
      refuse(place, concat("tensor \"", t.name, "\": data_offsets [", t.begin, ", ", t.end, "] leave a hole or overlap; ", at, " was the next byte"));
    }
    uint64_t bytes = 0;
    if (!tensor_bytes(t.type, t.shape, bytes)) refuse(place, concat("tensor \"", t.name, "\": its shape needs more than 2^64 bits or broken bytes"));
    if (t.end - t.begin != bytes) {
      refuse(place, concat("tensor \"", t.name, "\": dtype and shape need ", bytes, " bytes, data_offsets give ", t.end - t.begin));
    }
    if (t.end > data_bytes) refuse(place, concat("tensor \"", t.name, "\" ends at data byte ", t.end, " of ", data_bytes, "; the file is truncated"));
    at = t.end;
    t.begin += header.data_begin;
    t.end += header.data_begin;
  }
  if (at != data_bytes) refuse(place, concat("tensors end at data byte ", at, " of ", data_bytes, "; trailing bytes are not allowed"));
  return header;
}

void append_json_string(std::string& out, std::string_view text) {
  constexpr char kDigits[] = "0123456789abcdef";
  out += '"';
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (static_cast<unsigned char>(c) < 0x20) {
      out += "\\u00";
      out += kDigits[c >> 4];
      out += kDigits[c & 15];
    } else {
      out += c;
    }
  }
  out += '"';
}

std::string write_tensor_entries(const SafetensorsHeader& layout) {
  std::string out;
  for (const FileTensor& t : layout.tensors) {
    out += ',';
    append_json_string(out, t.name);
    // Appended piece by piece: a stream (concat) would hide a failed allocation and write half a header.
    out += ":{\"dtype\":\"";
    out += name_of(t.type);
    out += "\",\"shape\":[";
    for (size_t i = 0; i < t.shape.size(); ++i) {
      if (i > 0) out += ',';
      out += std::to_string(t.shape[i]);
    }
    out += "],\"data_offsets\":[";
    out += std::to_string(t.begin - layout.data_begin);
    out += ',';
    out += std::to_string(t.end - layout.data_begin);
    out += "]}";
  }
  return out;
}

namespace {

std::string write_json(const SafetensorsHeader& layout) {
  std::string out = "{";
  if (!layout.metadata.empty()) {
    out += "\"__metadata__\":{";
    for (const auto& [key, value] : layout.metadata) {
      if (out.back() != '{') out += ',';
      append_json_string(out, key);
      out += ':';
      append_json_string(out, value);
    }
    out += '}';
  }
  const std::string entries = write_tensor_entries(layout);
  out += layout.metadata.empty() && !entries.empty() ? entries.substr(1) : entries;
  return out + "}";
}

}  // namespace

SafetensorsHeader layout_safetensors(std::vector<FileTensor> tensors, std::map<std::string, std::string> metadata, uint64_t header_multiple,
                                     uint64_t metadata_reserve) {
  std::sort(tensors.begin(), tensors.end(),
            [](const FileTensor& a, const FileTensor& b) { return a.type != b.type ? a.type < b.type : a.name < b.name; });
  std::unordered_set<std::string_view> names;
  uint64_t at = 0;
  for (FileTensor& t : tensors) {
    if (t.name == "__metadata__" || !names.insert(t.name).second) {
      fail("safetensors", concat("tensor name \"", t.name, "\" is reserved or given twice"), ExitCode::usage);
    }
    uint64_t bytes = 0;
    if (!tensor_bytes(t.type, t.shape, bytes) || __builtin_add_overflow(at, bytes, &t.end)) {
      fail("safetensors", concat("tensor \"", t.name, "\": the file would exceed 2^64 bytes"), ExitCode::usage);
    }
    t.begin = at;
    at = t.end;
  }
  SafetensorsHeader layout;
  layout.metadata = std::move(metadata);
  layout.tensors = std::move(tensors);
  const uint64_t header = 8 + write_json(layout).size() + metadata_reserve;
  layout.data_begin = (header + header_multiple - 1) / header_multiple * header_multiple;
  layout.file_size = layout.data_begin + at;
  for (FileTensor& t : layout.tensors) {
    t.begin += layout.data_begin;
    t.end += layout.data_begin;
  }
  return layout;
}

std::string write_safetensors_header(const SafetensorsHeader& layout) {
  const std::string json = write_json(layout);
  if (layout.data_begin < 8 || json.size() > layout.data_begin - 8) {
    fail("safetensors", concat("a header of ", json.size(), " bytes does not fit into ", layout.data_begin, " - 8"), ExitCode::usage);
  }
  const uint64_t n = layout.data_begin - 8;
  std::string out(8, '\0');
  std::memcpy(out.data(), &n, 8);
  out += json;
  out.resize(layout.data_begin, ' ');
  return out;
}

}  // namespace heddle
