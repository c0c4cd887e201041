#include "core/io/safetensors_file.h"

#include <cerrno>
#include <unordered_map>

namespace heddle {
namespace {

std::vector<uint64_t> shape_of(const View& view) {
  return {view.shape.begin(), view.shape.begin() + view.rank};
}

std::string text_of(FileType type, const std::vector<uint64_t>& shape) {
  std::string text(name_of(type));
  text += " (";
  for (size_t i = 0; i < shape.size(); ++i) {
    if (i > 0) text += ", ";
    text += std::to_string(shape[i]);
  }
  return text + ")";
}

void check_view(const std::string& name, const View& view) {
  if (!view.contiguous()) fail("safetensors", concat("tensor \"", name, "\" is not dense"), ExitCode::usage);
}

}  // namespace

SafetensorsFile::SafetensorsFile(const std::string& path, const SafetensorsLimits& limits, FileSystem& fs) : fs_(&fs), path_(path) {
  // The directory is opened as the user named it; the file itself may be a link here, so it is not opened by open_regular.
  const int h = fs.open_linked_file(path.c_str());
  if (h < 0) fail_io("safetensors", "open", path, h);
  handle_ = Handle(fs, h);
  FileInfo info;
  if (const int r = fs.info(h, info); r < 0) fail_io("safetensors", "examine", path, r);
  if (!info.regular) fail("safetensors", concat(path, ": is not a regular file"), ExitCode::bad_data);
  uint64_t first = 0;
  if (info.size >= 8) read_exact(fs, h, &first, 8, 0, path);
  std::string json(static_cast<size_t>(parse_header_length(&first, info.size, path, limits)), '\0');
  read_exact(fs, h, json.data(), json.size(), 8, path);
  header_ = parse_safetensors_header(json, info.size, path, limits);
}

void SafetensorsFile::read(const FileTensor& tensor, void* to) const {
  read(tensor, 0, to, static_cast<size_t>(tensor.end - tensor.begin));
}

void SafetensorsFile::read(const FileTensor& tensor, uint64_t offset, void* to, size_t bytes) const {
  const uint64_t size = tensor.end - tensor.begin;
  HEDDLE_CHECK(offset <= size && bytes <= size - offset, "safetensors", "tensor \"", tensor.name, "\" has ", size, " bytes; asked for ", bytes,
               " at ", offset);
  read_exact(*fs_, handle_.get(), to, bytes, tensor.begin + offset, path_);
}

void save_safetensors(const std::string& path, const NamedViews& tensors, std::map<std::string, std::string> metadata, FileSystem& fs) {
  metadata.emplace("format", "pt");
  std::vector<FileTensor> wanted;
  std::unordered_map<std::string_view, const View*> views;
  for (const auto& [name, view] : tensors) {
    check_view(name, view);
    wanted.push_back({name, file_type(view.dtype), shape_of(view)});
    views.emplace(name, &view);
  }
  const SafetensorsHeader layout = layout_safetensors(std::move(wanted), std::move(metadata));

  const size_t slash = path.rfind('/');
  const std::string directory = slash == std::string::npos ? "." : slash == 0 ? "/" : path.substr(0, slash);
  const std::string name = slash == std::string::npos ? path : path.substr(slash + 1);
  const int d = fs.open_root(directory.c_str());
  if (d < 0) fail_io("safetensors", "open directory", directory, d);
  const Handle at(fs, d);
  const std::string temporary = name + ".tmp";
  int h = fs.create_file(d, temporary.c_str());
  if (h == -EEXIST) {
    fs.unlink(d, temporary.c_str());
    h = fs.create_file(d, temporary.c_str());
  }
  if (h < 0) fail_io("safetensors", "create", path + ".tmp", h);
  Handle file(fs, h);
  try {
    if (const int r = fs.allocate(h, layout.file_size); r < 0) fail_io("safetensors", "reserve space for", path, r);
    const std::string header = write_safetensors_header(layout);
    write_all(fs, h, header.data(), header.size(), 0, path);
    for (const FileTensor& t : layout.tensors) write_all(fs, h, views.at(t.name)->data, static_cast<size_t>(t.end - t.begin), t.begin, path);
    if (const int r = fs.sync(h); r < 0) fail_io("safetensors", "fsync", path, r);
    if (const int r = file.close(); r < 0) fail_io("safetensors", "close", path, r);
    if (const int r = fs.rename(d, temporary.c_str(), d, name.c_str()); r < 0) fail_io("safetensors", "rename to", path, r);
  } catch (...) {
    fs.unlink(d, temporary.c_str());
    throw;
  }
  if (const int r = fs.sync(d); r < 0) fail_io("safetensors", "fsync directory", directory, r);
}

std::map<std::string, std::string> load_safetensors(const std::string& path, const NamedViews& into, FileSystem& fs) {
  const SafetensorsFile file(path, {}, fs);
  std::unordered_map<std::string_view, const FileTensor*> found;
  for (const FileTensor& t : file.header().tensors) found.emplace(t.name, &t);

  std::vector<std::pair<const FileTensor*, std::byte*>> sources;
  std::string missing, mismatched, unexpected;
  for (const auto& [name, view] : into) {
    check_view(name, view);
    const auto it = found.find(name);
    if (it == found.end()) {
      missing += "\n  missing: " + name;
      continue;
    }
    const FileTensor& t = *it->second;
    if (t.type != file_type(view.dtype) || t.shape != shape_of(view)) {
      mismatched +=
          concat("\n  differs: ", name, ": ", text_of(t.type, t.shape), " in the file, ", text_of(file_type(view.dtype), shape_of(view)), " wanted");
    }
    sources.emplace_back(&t, view.data);
    found.erase(it);
  }
  for (const FileTensor& t : file.header().tensors) {
    if (found.count(t.name)) unexpected += "\n  unexpected: " + t.name;
  }
  if (!missing.empty() || !mismatched.empty() || !unexpected.empty()) {
    fail("safetensors", concat(path, ": its tensors are not those of the model:", missing, unexpected, mismatched), ExitCode::bad_data);
  }
  for (const auto& [tensor, to] : sources) file.read(*tensor, to);
  return file.header().metadata;
}

}  // namespace heddle
