// The safetensors format: u64 N | N bytes of JSON | data (little-endian throughout).
// Source: github.com/huggingface/safetensors, README and safetensors/src/tensor.rs (the checks and the writer's order).
//
// safetensors.h is the format without files; safetensors_file.h reads and writes files.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/api/types.h"

namespace heddle {

// Every dtype of the format, in the reference writer's rank order, highest first: tensors are laid out in this order, so each is aligned.
enum class FileType : uint8_t {
  U64,
  I64,
  F64,
  C64,
  F32,
  U32,
  I32,
  BF16,
  F16,
  U16,
  I16,
  F8_E5M2FNUZ,
  F8_E4M3FNUZ,
  F8_E8M0,
  F8_E4M3,
  F8_E5M2,
  I8,
  U8,
  F6_E3M2,
  F6_E2M3,
  F4,
  BOOL
};
std::string_view name_of(FileType type);
uint64_t bits_of(FileType type);
std::optional<FileType> parse_file_type(std::string_view name);
FileType file_type(DType dtype);
std::optional<DType> heddle_type(FileType type);  // absent: heddle has no such dtype

struct FileTensor {
  std::string name;
  FileType type = FileType::F32;
  std::vector<uint64_t> shape;  // may be empty (a scalar); sizes may be 0
  uint64_t begin = 0, end = 0;  // bytes, from the start of the file
};

struct SafetensorsHeader {
  std::map<std::string, std::string> metadata;
  std::vector<FileTensor> tensors;  // in file order
  uint64_t data_begin = 0;          // 8 + N
  uint64_t file_size = 0;

  const FileTensor* find(std::string_view name) const;
};

struct SafetensorsLimits {
  uint64_t header_bytes = 100'000'000;  // the format's own limit; checkpoints use 16 MiB
  uint64_t tensors = 1'000'000;
  uint64_t rank = 8;
};

// Reads N from the first 8 bytes of a file and checks it against the file's size and the limit.
uint64_t parse_header_length(const void* first8, uint64_t file_size, std::string_view place, const SafetensorsLimits& = {});

// `json` is the N header bytes. Checks every rule of the format: begins with '{'; known dtypes; offsets without hole or overlap from 0 to exactly the
// end of the file; each size = product of the shape times the dtype's bits, in whole bytes, without overflow; no duplicate keys. Error(bad_data).
SafetensorsHeader parse_safetensors_header(std::string_view json, uint64_t file_size, std::string_view place, const SafetensorsLimits& = {});

// Where each tensor goes in a new file. `tensors` needs name, type and shape; they are sorted into the reference order and given offsets.
// `header_multiple`: 8 + N is a multiple of it (8 as the reference; 4096 suits direct I/O). `metadata_reserve` leaves room in the header beyond what
// `metadata` needs. Throws Error(usage) for a name twice or sizes beyond 64 bits.
SafetensorsHeader layout_safetensors(std::vector<FileTensor> tensors, std::map<std::string, std::string> metadata, uint64_t header_multiple = 8,
                                     uint64_t metadata_reserve = 0);

// The `data_begin` first bytes of the file: length, JSON, spaces. Throws Error(usage) when the JSON does not fit into data_begin - 8.
std::string write_safetensors_header(const SafetensorsHeader& layout);

// The JSON of the tensors alone, as it stands after the metadata: ,"name":{"dtype":...} for each. Used to write headers without allocating.
std::string write_tensor_entries(const SafetensorsHeader& layout);

// Appends `text` as a JSON string with its quotes.
void append_json_string(std::string& out, std::string_view text);

}  // namespace heddle
