// A whole safetensors file. Accepted: no tensor leaves the file, names are unique, the same through the file reader, and written again to the same
// meaning; what is written is a fixed point.
#include <cstring>
#include <set>

#include "core/io/safetensors_file.h"
#include "tests/fuzz/target.h"

namespace heddle::fuzz {
namespace {

constexpr Rules kRules = {{ExitCode::bad_data}};

void require_same(const FileTensor& a, const FileTensor& b) {
  require(a.name == b.name && a.type == b.type && a.shape == b.shape && a.end - a.begin == b.end - b.begin, "tensor ", a.name, " changed");
}

void check_header(const SafetensorsHeader& header, size_t size) {
  std::set<std::string> names;
  uint64_t at = header.data_begin;
  for (const FileTensor& t : header.tensors) {
    require(t.begin == at && t.end >= t.begin && t.end <= size, "tensor ", t.name, " is not where the one before ends");
    require(names.insert(t.name).second, "two tensors are called ", t.name);
    at = t.end;
  }
  require(at == size, "bytes follow the last tensor");
}

// The same file read through SafetensorsFile: equal header, equal bytes.
void check_file(std::string_view input, const SafetensorsHeader& header) {
  const MemoryFile memory(input);
  const SafetensorsFile file(memory.path());
  require(file.header().metadata == header.metadata && file.header().tensors.size() == header.tensors.size(), "the file reader sees another header");
  for (size_t i = 0; i < header.tensors.size(); ++i) {
    const FileTensor& t = file.header().tensors[i];
    require_same(header.tensors[i], t);
    std::string bytes(static_cast<size_t>(t.end - t.begin), '\0');
    file.read(t, bytes.data());
    require(bytes == input.substr(static_cast<size_t>(t.begin), bytes.size()), "tensor ", t.name, " is read from another place");
    const size_t half = bytes.size() / 2;
    file.read(t, half, bytes.data(), bytes.size() - half);
    require(std::memcmp(bytes.data(), input.data() + t.begin + half, bytes.size() - half) == 0, "half of tensor ", t.name, " is read wrongly");
  }
}

void check_written(const SafetensorsHeader& header) {
  const SafetensorsHeader layout = layout_safetensors(header.tensors, header.metadata);
  const std::string text = write_safetensors_header(layout);
  require(text.size() == layout.data_begin && layout.data_begin % 8 == 0, "the written header has another length than its layout");
  require(parse_header_length(text.data(), layout.file_size, "written") == text.size() - 8, "the written header length reads back differently");
  const SafetensorsHeader again = parse_safetensors_header(std::string_view(text).substr(8), layout.file_size, "written");
  require(again.metadata == header.metadata && again.tensors.size() == header.tensors.size(), "metadata or the number of tensors changed");
  std::set<std::string> names;
  for (const FileTensor& t : header.tensors) names.insert(t.name);
  for (size_t i = 0; i < again.tensors.size(); ++i) {
    require(names.count(again.tensors[i].name) == 1, "tensor ", again.tensors[i].name, " was made up");
    // Empty tensors share their offset, so only those with bytes have one place in the order of the file.
    if (again.tensors[i].begin == again.tensors[i].end) continue;
    require_same(layout.tensors[i].begin == again.tensors[i].begin ? layout.tensors[i] : *layout.find(again.tensors[i].name), again.tensors[i]);
  }
  require(write_safetensors_header(layout_safetensors(again.tensors, again.metadata)) == text, "writing what was written gives other bytes");
}

}  // namespace

void run_target(std::string_view input) {
  const auto header = parse_input(kRules, input.size(), [&] {
    const uint64_t n = parse_header_length(input.data(), input.size(), "input");
    return parse_safetensors_header(input.substr(8, n), input.size(), "input");
  });
  if (!header) return;
  check_header(*header, input.size());
  check_file(input, *header);
  check_written(*header);
}

}  // namespace heddle::fuzz
