// A stream of documents out of text files: plain, JSON lines, gzip, zstd.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace heddle {

// What separates the documents of a plain text file.
enum class DocumentSeparator : uint8_t {
  file,        // one file is one document
  blank_line,  // a document is a run of lines that are not blank (blank: nothing but spaces, tabs and CR); each line keeps its end
};

enum class TextFormat : uint8_t {
  automatic,  // by the name without .gz and .zst: .jsonl and .ndjson are JSON lines, all else is text
  text,
  jsonl,  // one object a line, the document is its string "text"; blank lines are skipped
};

struct TextSourceOptions {
  std::vector<std::string> inputs;  // regular files, in this order (text_files() makes them out of folders and patterns)
  DocumentSeparator separator = DocumentSeparator::file;
  TextFormat format = TextFormat::automatic;
};

struct Document {
  std::string text;  // any bytes; never empty
  std::string file;
  uint64_t line = 0;  // where it begins, from 1
};

inline constexpr size_t kMaxDocumentBytes = size_t{1} << 30;

// The files that `inputs` name: a file is itself; a folder is every regular file in it and below, in byte order, but for hidden ones and those in
// the folder `leave_out`, the output's; a quoted shell pattern is all it matches. Error(usage) names an input without any file, or that is
// `leave_out`.
std::vector<std::string> text_files(const std::vector<std::string>& inputs, const std::string& leave_out);

// Compression is told by the first bytes (1F 8B gzip, RFC 1952; 28 B5 2F FD zstd, RFC 8878), whatever the name. A UTF-8 byte order mark at the
// beginning of a file is no text and dropped. Files that are known not to be UTF-8 text (UTF-16, programs, archives, images, ...) are refused, unless
// the format is asked for as `text`; then there is a warning. Empty documents are skipped and not counted. Error(bad_data) names the file and the
// line of the document, or the offset in the compressed file; a document above 1 GiB is one. Memory: one document.
class TextSource {
 public:
  explicit TextSource(TextSourceOptions options);  // opens every file once, so that a missing or wrong one is told before any work
  ~TextSource();
  TextSource(const TextSource&) = delete;
  TextSource& operator=(const TextSource&) = delete;
  bool next(Document& document);  // false at the end
  void rewind();
  const std::vector<std::string>& warnings() const;  // each names a file that looks like no text; complete after the constructor

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace heddle
