#include "data/text_source.h"

#include <algorithm>
#include <cstring>
#include <filesystem>

#include "core/io/strict_json.h"
#include "data/byte_stream.h"
#include "data/file.h"
#include "data/text_kind.h"
#include "kernels/api/check.h"

namespace heddle {
namespace {

constexpr size_t kBuffer = size_t{1} << 18;

bool ends_with(std::string_view text, std::string_view end) {
  return text.size() >= end.size() && text.substr(text.size() - end.size()) == end;
}

bool named_jsonl(std::string_view name) {
  for (const std::string_view packed : {".gz", ".zst"}) {
    if (ends_with(name, packed)) name.remove_suffix(packed.size());
  }
  return ends_with(name, ".jsonl") || ends_with(name, ".ndjson");
}

bool is_blank(std::string_view line) {
  return line.find_first_not_of(" \t\r\n") == std::string_view::npos;
}

}  // namespace

std::vector<std::string> text_files(const std::vector<std::string>& inputs, const std::string& leave_out) {
  namespace fs = std::filesystem;
  std::error_code unknown;
  std::vector<std::string> files;
  const auto add_folder = [&](const std::string& folder) {
    std::vector<std::string> found;
    if (fs::equivalent(folder, leave_out, unknown)) {
      fail("text",
           concat("the input folder ", folder, " is the output folder ", leave_out,
                  ": the next run would read what this one writes; give another --out, which may lie in the input folder"),
           ExitCode::usage);
    }
    for (fs::recursive_directory_iterator at(folder), end; at != end; ++at) {
      const bool hidden = at->path().filename().string().front() == '.';
      const bool own = at->is_directory() && fs::equivalent(at->path(), leave_out, unknown);
      if (at->is_directory() && (hidden || own)) at.disable_recursion_pending();
      if (!hidden && at->is_regular_file()) found.push_back(at->path().string());
    }
    if (found.empty()) fail("text", concat(folder, ": there is no file in this folder"), ExitCode::usage);
    std::sort(found.begin(), found.end());
    files.insert(files.end(), found.begin(), found.end());
  };
  for (const std::string& input : inputs) {
    const bool pattern = input.find_first_of("*?[") != std::string::npos && !fs::exists(input, unknown);
    for (const std::string& name : pattern ? expand_glob(input, "quote the pattern, and look where it begins") : std::vector<std::string>{input}) {
      if (fs::is_directory(name, unknown)) {
        add_folder(name);
      } else {
        files.push_back(name);
      }
    }
  }
  return files;
}

struct TextSource::Impl {
  TextSourceOptions options;
  size_t file = 0;  // the one that is open, or to be opened next
  std::unique_ptr<ByteStream> stream;
  std::string buffer = std::string(kBuffer, '\0');
  size_t begin = 0, end = 0;
  uint64_t line = 0;  // lines read so far
  std::vector<std::string> warnings;

  const std::string& path() const { return options.inputs[file]; }
  bool fill() {
    if (begin < end) return true;
    begin = 0;
    end = stream->read(buffer.data(), buffer.size());
    return end > 0;
  }

  // Opens the file and judges its first bytes; `told` where that was done before.
  void open(bool told) {
    stream = open_byte_stream(path());
    begin = end = 0;
    line = 0;
    while (end < kTextKindBytes) {
      const size_t got = stream->read(buffer.data() + end, buffer.size() - end);
      if (got == 0) break;
      end += got;
    }
    const TextKind kind = kind_of_text({buffer.data(), end});
    begin = kind.skip;
    if (told) return;
    if (!kind.not_text.empty() && options.format != TextFormat::text) {
      fail("text", concat(path(), ": this is ", kind.not_text, " (--format text takes its bytes as they are)"), ExitCode::bad_data);
    }
    if (!kind.not_text.empty()) warnings.push_back(concat(path(), ": this is ", kind.not_text, ". Its bytes are taken as they are"));
    if (!kind.suspicion.empty()) warnings.push_back(concat(path(), ": holds ", kind.suspicion, "; they are taken as they are"));
  }

  // Appends to the document, which must not grow without limit: a compressed file may hold any amount.
  void append(Document& document, std::string_view text) const {
    if (text.size() > kMaxDocumentBytes - document.text.size()) {
      fail("text",
           concat(path(), ":", document.line, ": the document that begins here is larger than 1 GiB; separate documents (--document-separator)"),
           ExitCode::bad_data);
    }
    document.text += text;
  }

  // Appends the next line with its end; false at the end of the file.
  bool read_line(Document& document) {
    if (!fill()) return false;
    ++line;
    for (bool whole = false; !whole && fill();) {
      const std::string_view rest(buffer.data() + begin, end - begin);
      const size_t newline = rest.find('\n');
      whole = newline != std::string_view::npos;
      const std::string_view part = rest.substr(0, whole ? newline + 1 : rest.size());
      append(document, part);
      begin += part.size();
    }
    return true;
  }

  bool next_in_file(Document& document) {
    document.text.clear();
    document.file = path();
    document.line = line + 1;
    const bool jsonl = options.format == TextFormat::jsonl || (options.format == TextFormat::automatic && named_jsonl(path()));
    if (jsonl) return next_json(document);
    if (options.separator == DocumentSeparator::blank_line) return next_paragraph(document);
    while (fill()) {
      append(document, {buffer.data() + begin, end - begin});
      begin = end;
    }
    return !document.text.empty();
  }

  bool next_paragraph(Document& document) {
    for (;;) {
      const size_t before = document.text.size();
      if (before == 0) document.line = line + 1;
      if (!read_line(document)) return before > 0;
      if (!is_blank(std::string_view(document.text).substr(before))) continue;
      document.text.resize(before);
      if (before > 0) return true;
    }
  }

  bool next_json(Document& document) {
    for (;;) {
      document.text.clear();
      document.line = line + 1;
      if (!read_line(document)) return false;
      if (is_blank(document.text)) continue;
      const std::string place = concat(path(), ":", document.line);
      const nlohmann::json object = parse_strict_json(document.text, place, kMaxDocumentBytes);
      if (!object.is_object()) fail("text", concat(place, ": not a JSON object"), ExitCode::bad_data);
      const auto text = object.find("text");
      if (text == object.end() || !text->is_string()) {
        fail("text", concat(place, ": the object has no string field \"text\""), ExitCode::bad_data);
      }
      document.text = text->get<std::string>();
      if (!document.text.empty()) return true;
    }
  }
};

TextSource::TextSource(TextSourceOptions options) : impl_(std::make_unique<Impl>()) {
  impl_->options = std::move(options);
  if (impl_->options.inputs.empty()) fail("text", "no input file given", ExitCode::usage);
  for (; impl_->file < impl_->options.inputs.size(); ++impl_->file) impl_->open(false);
  rewind();
}

TextSource::~TextSource() = default;

void TextSource::rewind() {
  impl_->file = 0;
  impl_->stream.reset();
}

const std::vector<std::string>& TextSource::warnings() const {
  return impl_->warnings;
}

bool TextSource::next(Document& document) {
  for (; impl_->file < impl_->options.inputs.size(); ++impl_->file, impl_->stream.reset()) {
    if (!impl_->stream) {
      impl_->open(true);
    }
    if (impl_->next_in_file(document)) return true;
  }
  return false;
}

}  // namespace heddle
