#include "data/text_kind.h"

#include "kernels/api/check.h"

namespace heddle {
namespace {

struct Magic {
  std::string_view bytes;
  const char* what;
  size_t offset = 0;
};

using std::string_view_literals::operator""sv;

constexpr char kDecompress[] = "decompress it first (gzip and zstd are read as they are)";
constexpr char kUnpack[] = "unpack it first";
constexpr char kExport[] = "export its text first";

// Beginnings that no text has.
struct Known {
  Magic magic;
  const char* cure;
};
constexpr Known kKnown[] = {
    {{"\x7F"
      "ELF"sv,
      "an ELF program or library"},
     nullptr},
    {{"\xFE\xED\xFA\xCE"sv, "a Mach-O program"}, nullptr},
    {{"\xFE\xED\xFA\xCF"sv, "a Mach-O program"}, nullptr},
    {{"\xCF\xFA\xED\xFE"sv, "a Mach-O program"}, nullptr},
    {{"\xCA\xFE\xBA\xBE"sv, "a Java class or Mach-O program"}, nullptr},
    {{"\x00"
      "asm"sv,
      "a WebAssembly module"},
     nullptr},
    {{"\xFD"
      "7zXZ\0"sv,
      "xz data"},
     kDecompress},
    {{"BZh91AY&SY"sv, "bzip2 data"}, kDecompress},
    {{"\x04\x22\x4D\x18"sv, "LZ4 data"}, kDecompress},
    {{"7z\xBC\xAF\x27\x1C"sv, "a 7-Zip archive"}, kUnpack},
    {{"PK\x03\x04"sv, "a ZIP archive or an office document"}, kUnpack},
    {{"PK\x05\x06"sv, "an empty ZIP archive"}, kUnpack},
    {{"Rar!\x1A\x07"sv, "a RAR archive"}, kUnpack},
    {{"ustar"sv, "a tar archive", 257}, kUnpack},
    {{"%PDF-"sv, "a PDF document"}, kExport},
    {{"\xD0\xCF\x11\xE0\xA1\xB1\x1A\xE1"sv, "an old office document"}, kExport},
    {{"SQLite format 3\0"sv, "an SQLite database"}, kExport},
    {{"\x89HDF\r\n\x1A\n"sv, "an HDF5 file"}, kExport},
    {{"\x93NUMPY"sv, "a NumPy array"}, kExport},
    {{"PAR1\x15"sv, "a Parquet file"}, kExport},
    {{"ARROW1\0\0"sv, "an Arrow file"}, kExport},
    {{"\x89PNG\r\n\x1A\n"sv, "a PNG image"}, nullptr},
    {{"\xFF\xD8\xFF"sv, "a JPEG image"}, nullptr},
    {{"GIF89a"sv, "a GIF image"}, nullptr},
    {{"GIF87a"sv, "a GIF image"}, nullptr},
    {{"OggS\0"sv, "Ogg audio"}, nullptr},
    {{"\x88\xD8\x34\x01\x01\0\0\0"sv, "a token shard, tokenized already"}, nullptr},
    {{"\xA1\xD9\x34\x01\x07\0\0\0"sv, "a token shard, tokenized already"}, nullptr},
};

std::string utf(const char* form, const char* order) {
  return concat(form, " text; convert it, as in `iconv -f ", form, order, " -t UTF-8 FILE >NEW`");
}

// Text of UTF-16 without a mark: of its characters, most of them of Latin scripts, every other byte is zero.
std::string unmarked_utf16(std::string_view begin) {
  size_t zeros[2] = {};
  for (size_t i = 0; i < begin.size(); ++i) zeros[i % 2] += begin[i] == 0;
  const size_t half = begin.size() / 2;
  for (const size_t side : {size_t{0}, size_t{1}}) {
    if (half >= 2 && zeros[side] > half / 2 && zeros[1 - side] * 16 <= half) return utf("UTF-16", side == 0 ? "BE" : "LE");
  }
  return "";
}

}  // namespace

TextKind kind_of_text(std::string_view begin) {
  const auto starts = [&](std::string_view with, size_t offset = 0) { return begin.size() >= offset && begin.substr(offset, with.size()) == with; };
  TextKind kind;
  if (starts("\xEF\xBB\xBF")) {
    kind.skip = 3;
    begin.remove_prefix(3);
  } else if (starts("\xFF\xFE\0\0"sv) || starts("\0\0\xFE\xFF"sv)) {
    kind.not_text = utf("UTF-32", "");
  } else if (starts("\xFF\xFE") || starts("\xFE\xFF")) {
    kind.not_text = utf("UTF-16", "");
  }
  for (const Known& known : kKnown) {
    if (kind.not_text.empty() && starts(known.magic.bytes, known.magic.offset))
      kind.not_text = known.cure ? concat(known.magic.what, "; ", known.cure) : known.magic.what;
  }
  if (!kind.not_text.empty()) return kind;
  begin = begin.substr(0, kTextKindBytes);
  if (begin.find('\0') == std::string_view::npos) return kind;
  kind.not_text = unmarked_utf16(begin);
  if (kind.not_text.empty()) kind.suspicion = "zero bytes, which text seldom has";
  return kind;
}

}  // namespace heddle
