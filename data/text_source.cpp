#include "data/text_source.h"

#include <cstring>

#include "core/io/strict_json.h"
#include "data/byte_stream.h"
#include "data/file.h"
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

struct TextSource::Impl {
  TextSourceOptions options;
  size_t file = 0;  // the one that is open, or to be opened next
  std::unique_ptr<ByteStream> stream;
  std::string buffer = std::string(kBuffer, '\0');
  size_t begin = 0, end = 0;
  uint64_t line = 0;  // lines read so far

  const std::string& path() const { return options.inputs[file]; }
  bool fill() {
    if (begin < end) return true;
    begin = 0;
    end = stream->read(buffer.data(), buffer.size());
    return end > 0;
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
  for (const std::string& path : impl_->options.inputs) open_byte_stream(path);
}

TextSource::~TextSource() = default;

void TextSource::rewind() {
  impl_->file = 0;
  impl_->stream.reset();
}

bool TextSource::next(Document& document) {
  for (; impl_->file < impl_->options.inputs.size(); ++impl_->file, impl_->stream.reset()) {
    if (!impl_->stream) {
      impl_->stream = open_byte_stream(impl_->path());
      impl_->begin = impl_->end = 0;
      impl_->line = 0;
    }
    if (impl_->next_in_file(document)) return true;
  }
  return false;
}

}  // namespace heddle
