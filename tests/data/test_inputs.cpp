// What tokenize takes as text and where it writes: folders and patterns, files that are no text, and other people's files in the output folder.
#include <sys/stat.h>
#include <zlib.h>
#if HEDDLE_HAVE_ZSTD
#include <zstd.h>
#endif

#include <algorithm>
#include <functional>
#include <map>

#include "data/file.h"
#include "data/prepare.h"
#include "data/tokenizer.h"
#include "tests/data/support.h"

using namespace heddle;
using namespace heddle::test;

namespace {

namespace fs = std::filesystem;
using std::string_literals::operator""s;

std::vector<std::string> texts_of(TextSourceOptions options) {
  TextSource source(std::move(options));
  std::vector<std::string> texts;
  Document document;
  while (source.next(document)) texts.push_back(document.text);
  return texts;
}

std::string utf16(const std::string& ascii, bool big) {
  std::string text;
  for (const char c : ascii) text += big ? "\0"s + c : c + "\0"s;
  return text;
}

// Every file below the folder, links as what they point to, and its content.
std::map<std::string, std::string> content_of(const std::string& folder) {
  std::map<std::string, std::string> files;
  for (const auto& entry : fs::recursive_directory_iterator(folder)) {
    if (!entry.is_directory()) files[fs::relative(entry.path(), folder).string()] = slurp(entry.path().string());
  }
  return files;
}

PrepareOptions options_for(std::vector<std::string> inputs, const std::string& out) {
  PrepareOptions options;
  options.inputs = std::move(inputs);
  options.tokenizer = "bytes";
  options.out = out;
  options.name = "x";
  return options;
}

}  // namespace

TEST_CASE("a UTF-8 byte order mark is no text, in any format", "[text]") {
  const Scratch scratch;
  const std::string mark = "\xEF\xBB\xBF";
  CHECK(texts_of({{scratch.write("a.txt", mark + "one")}}) == std::vector<std::string>{"one"});
  CHECK(texts_of({{scratch.write("b.txt", mark + "\n\ntwo\n")}, DocumentSeparator::blank_line}) == std::vector<std::string>{"two\n"});
  CHECK(texts_of({{scratch.write("c.jsonl", mark + "{\"text\": \"three\"}\n")}}) == std::vector<std::string>{"three"});
  CHECK(texts_of({{scratch.write("d.txt", mark)}}).empty());
  CHECK(texts_of({{scratch.write("e.txt", "a" + mark)}}) == std::vector<std::string>{"a" + mark});  // only the first character is one
  CHECK(texts_of({{scratch.write("f.txt", mark + "x")}, DocumentSeparator::file, TextFormat::text}) == std::vector<std::string>{"x"});
}

TEST_CASE("what is known not to be UTF-8 text is refused by name before any work, or taken with a warning", "[text]") {
  const Scratch scratch;
  const std::string words = "In the beginning\n";
  std::string tar(512, '\0');
  tar.replace(0, 5, "a.txt");
  tar.replace(257, 5, "ustar");
  const std::vector<std::pair<std::string, std::string>> cases = {{"\xFF\xFE" + utf16(words, false), "UTF-16 text; convert it, as in `iconv"},
                                                                  {"\xFE\xFF" + utf16(words, true), "UTF-16 text"},
                                                                  {utf16(words, false), "iconv -f UTF-16LE"},
                                                                  {utf16(words, true), "iconv -f UTF-16BE"},
                                                                  {"\xFF\xFE\0\0I\0\0\0"s, "UTF-32 text"},
                                                                  {"\0\0\xFE\xFF\0\0\0I"s, "UTF-32 text"},
                                                                  {"\x7F"
                                                                   "ELF\2\1\1\0"s +
                                                                       words,
                                                                   "an ELF program"},
                                                                  {"%PDF-1.7\n" + words, "a PDF document; export its text"},
                                                                  {"PK\3\4" + words, "a ZIP archive"},
                                                                  {"\xFD"
                                                                   "7zXZ\0"s +
                                                                       words,
                                                                   "xz data; decompress it"},
                                                                  {"BZh91AY&SY" + words, "bzip2 data"},
                                                                  {tar, "a tar archive; unpack it"},
                                                                  {"PAR1\x15" + words, "a Parquet file"},
                                                                  {shard_bytes({1, 2, 3}), "a token shard"},
                                                                  {shard_bytes({1, 2, 3}, true), "a token shard"}};
  const std::string good = scratch.write("good.txt", words);
  for (const auto& [content, what] : cases) {
    for (const char* name : {"x.txt", "x.jsonl"}) {
      const std::string path = scratch.write(name, content);
      const std::string message = error_of([&] { TextSource({{good, path}}); }, ExitCode::bad_data);
      INFO(what << "\n" << message);
      CHECK(contains(message, path));
      CHECK(contains(message, what));
      CHECK(contains(message, "--format text"));
    }
    const std::string out = scratch / "out";
    CHECK(error_of([&] { prepare(options_for({good, scratch / "x.txt"}, out)); }, ExitCode::bad_data) != "");
    CHECK(!fs::exists(out));
    TextSource source({{scratch / "x.txt"}, DocumentSeparator::file, TextFormat::text});
    REQUIRE(source.warnings().size() == 1);
    CHECK(contains(source.warnings()[0], what));
    Document document;
    REQUIRE(source.next(document));
    CHECK(document.text == content);
    source.rewind();
    CHECK(source.next(document));
    CHECK(source.warnings().size() == 1);
  }
  // Zero bytes alone prove nothing, but are told.
  TextSource source({{good, scratch.write("zeros.txt", "some text\0\0 and more text"s)}});
  REQUIRE(source.warnings().size() == 1);
  CHECK(contains(source.warnings()[0], "zeros.txt: holds zero bytes"));
  CHECK(prepare(options_for({scratch / "zeros.txt"}, scratch / "zeros")).warnings.size() == 1);
  for (const std::string text : {"a", "", "\xC3\xA9t\xC3\xA9", "MZ means nothing", "BZh", "\xFF"}) {
    CHECK(TextSource({{scratch.write("plain.txt", text)}}).warnings().empty());
  }
}

TEST_CASE("the content is judged behind its compression", "[text]") {
  const Scratch scratch;
  const std::string content =
      "\x7F"
      "ELF\2\1\1\0"s +
      std::string(100, 'x');
  const std::string path = scratch / "x.txt.gz";
  gzFile file = ::gzopen(path.c_str(), "wb");
  REQUIRE(::gzwrite(file, content.data(), static_cast<unsigned>(content.size())) == static_cast<int>(content.size()));
  ::gzclose(file);
  CHECK(contains(error_of([&] { TextSource({{path}}); }, ExitCode::bad_data), "x.txt.gz: this is an ELF program"));
#if HEDDLE_HAVE_ZSTD
  const std::string text = "In the beginning\n";
  std::string packed(ZSTD_compressBound(text.size()), '\0');
  packed.resize(ZSTD_compress(packed.data(), packed.size(), text.data(), text.size(), 3));
  // What pzstd writes before each frame, and what anybody may put anywhere between frames.
  for (const std::string& frame : {"\x50\x2A\x4D\x18\x04\0\0\0abcd"s, "\x5F\x2A\x4D\x18\0\0\0\0"s}) {
    CHECK(texts_of({{scratch.write("a.zst", frame + packed + frame + packed)}}) == std::vector<std::string>{text + text});
    CHECK(texts_of({{scratch.write("b.zst", frame)}}).empty());
    CHECK(contains(error_of([&] { texts_of({{scratch.write("cut.zst", frame.substr(0, 7))}}); }, ExitCode::bad_data), "in the middle of a frame"));
  }
  CHECK(texts_of({{scratch.write("p.txt", "`*M\x18 is text")}}) == std::vector<std::string>{"`*M\x18 is text"});
#endif
}

TEST_CASE("inputs may be folders and patterns", "[prepare]") {
  const Scratch scratch;
  fs::create_directories(scratch / "books/b/c");
  fs::create_directories(scratch / "books/.git");
  fs::create_directories(scratch / "empty");
  scratch.write("books/z.txt", "z\n");
  scratch.write("books/b/y.txt", "y\n");
  scratch.write("books/b/c/x.jsonl", "{\"text\": \"x\\n\"}\n");
  scratch.write("books/.git/config", "hidden");
  scratch.write("books/.hidden", "hidden");
  scratch.write("books/a[1].txt", "one\n");
  fs::create_symlink(scratch / "books/z.txt", scratch / "books/link.txt");
  REQUIRE(::mkfifo((scratch / "books/pipe").c_str(), 0600) == 0);
  const auto files = [&](const std::vector<std::string>& inputs) {
    std::vector<std::string> names;
    for (const std::string& file : text_files(inputs, scratch / "books/out"))
      names.push_back(fs::path(file).lexically_relative(scratch.path()).string());
    return names;
  };
  using Names = std::vector<std::string>;
  const Names all = {"books/a[1].txt", "books/b/c/x.jsonl", "books/b/y.txt", "books/link.txt", "books/z.txt"};
  CHECK(files({scratch / "books"}) == all);
  CHECK(files({scratch / "books/"}) == all);
  CHECK(files({scratch / "books/*.txt"}) == Names{"books/a[1].txt", "books/link.txt", "books/z.txt"});
  CHECK(files({scratch / "books/a[1].txt", scratch / "books/[z]*"}) == Names{"books/a[1].txt", "books/z.txt"});
  CHECK(files({scratch / "books/?"}) == Names{"books/b/c/x.jsonl", "books/b/y.txt"});
  CHECK(contains(error_of([&] { files({scratch / "empty"}); }, ExitCode::usage), "empty: there is no file in this folder"));
  CHECK(contains(error_of([&] { files({scratch / "books/*.md"}); }, ExitCode::usage), "no file matches"));

  PrepareOptions options = options_for({scratch / "books/"}, scratch / "books/out");
  options.name = "";
  const PrepareReport first = prepare(options);
  CHECK(first.train.documents == 5);
  CHECK(first.info.shards[0].file == "books_train_000000.bin");
  CHECK(prepare(options).info.to_json() == first.info.to_json());  // what it wrote itself is no input
}

TEST_CASE("in the output folder only what heddle wrote is replaced", "[prepare]") {
  const Scratch scratch;
  const std::string text = scratch.write("a.txt", "some text\n"), more = scratch.write("b.txt", "other text, and longer\n");
  const std::string out = scratch / "out";
  prepare(options_for({text}, out));
  // A dataset.json that somebody forged, or that lists what is no shard of ours.
  DatasetInfo info = DatasetInfo::load(out).value();
  scratch.write("out/notes.txt", "mine");
  scratch.write("out/thesis_train_000000.bin", "mine too");
  scratch.write("precious", "not in this folder");
  fs::create_symlink(scratch / "precious", scratch / "out/link_train_000000.bin");
  for (const char* file : {"notes.txt", "thesis_train_000000.bin", "link_train_000000.bin", "gone_train_000000.bin"}) {
    info.shards.push_back({file, "train", 3, 3, 1, std::string(64, 'a')});
  }
  scratch.write("out/dataset.json", info.to_json());
  prepare(options_for({more}, out));
  CHECK(slurp(out + "/notes.txt") == "mine");
  CHECK(slurp(out + "/thesis_train_000000.bin") == "mine too");
  CHECK(fs::is_symlink(out + "/link_train_000000.bin"));
  CHECK(slurp(scratch / "precious") == "not in this folder");
  CHECK(DatasetInfo::load(out)->shards.size() == 1);

  // Where the new set would have to go over it, it is refused, whatever dataset.json says.
  const auto refused = [&](const std::string& part) {
    const auto before = content_of(out);
    const std::string message = error_of([&] { prepare(options_for({text}, out)); }, ExitCode::usage);
    INFO(message);
    CHECK(contains(message, part));
    CHECK(content_of(out) == before);
  };
  const std::string dataset = slurp(out + "/dataset.json");
  for (const std::string& theirs : {""s, "[]"s, "{\"format\": \"csv\"}"s, "name,size\n"s}) {
    scratch.write("out/dataset.json", theirs);
    const auto before = content_of(out);
    CHECK(contains(error_of([&] { prepare(options_for({text}, out)); }, ExitCode::bad_data), out + "/dataset.json: another program's file"));
    CHECK(content_of(out) == before);
  }
  scratch.write("out/dataset.json", dataset);
  const std::string shard = slurp(out + "/x_train_000000.bin");
  scratch.write("out/x_train_000000.bin", shard + "!");
  refused("x_train_000000.bin: a shard of the name 'x'");
  scratch.write("out/x_train_000000.bin", shard);
  const std::string tokenizer = slurp(out + "/tokenizer.json");
  for (const std::string& theirs : {"{}"s, Tokenizer(Tokenizer::bytes().spec()).to_json().replace(0, 0, " "), "theirs"s}) {
    scratch.write("out/tokenizer.json", theirs);
    if (theirs[0] == ' ') {  // spelled otherwise, but the same
      prepare(options_for({text}, out));
    } else {
      refused("tokenizer.json: not the tokenizer of a data set that heddle wrote here");
    }
  }
  const std::string fresh = scratch / "fresh";  // no data set at all: the tokenizer that somebody put there
  fs::create_directory(fresh);
  scratch.write("fresh/tokenizer.json", " " + tokenizer);
  prepare(options_for({text}, fresh));
  CHECK(slurp(fresh + "/tokenizer.json") == " " + tokenizer);
  PrepareOptions other = options_for({text}, fresh);
  other.tokenizer = "bpe:258";
  prepare(other);  // by now it is that of a data set
  CHECK(Tokenizer::load(fresh).vocab_size() == 258);
}

TEST_CASE("what only bears the name of the hidden folder is left alone", "[prepare]") {
  const Scratch scratch;
  const std::string text = scratch.write("a.txt", "some text\n"), out = scratch / "out", work = out + "/.heddle-tokenize";
  fs::create_directories(scratch / "elsewhere/old");
  scratch.write("elsewhere/old/precious", "mine");
  const std::vector<std::pair<std::string, std::function<void()>>> theirs = {
      {"a file", [&] { scratch.write("out/.heddle-tokenize", "mine"); }},
      {"a link", [&] { fs::create_directory_symlink(scratch / "elsewhere", work); }},
      {"a folder of files", [&] { fs::create_directory(work), scratch.write("out/.heddle-tokenize/dataset.json", "mine"); }},
      {"a folder of folders", [&] { fs::copy(scratch / "elsewhere", work, fs::copy_options::recursive); }}};
  for (const bool had : {false, true}) {
    for (const auto& [what, make] : theirs) {
      fs::remove_all(out);
      fs::create_directory(out);
      if (had) prepare(options_for({text}, out));
      make();
      const auto before = content_of(scratch.path());
      const std::string message = error_of([&] { prepare(options_for({text}, out)); }, ExitCode::usage);
      INFO(what << ", an earlier set: " << had << "\n" << message);
      CHECK(contains(message, work + ": not a folder that heddle tokenize made; move it away"));
      CHECK(fs::exists(fs::symlink_status(work)));
      CHECK(content_of(scratch.path()) == before);
    }
    // What a killed process left: before its mark, and after it.
    for (const bool marked : {false, true}) {
      fs::remove_all(work);
      fs::create_directory(work);
      if (marked) scratch.write("out/.heddle-tokenize/.made-by-heddle", ""), scratch.write("out/.heddle-tokenize/x_train_000000.bin.tmp7", "torn");
      prepare(options_for({text}, out));
      CHECK(!fs::exists(work));
    }
  }
}

TEST_CASE("no input is where the output goes, by whatever path or link", "[prepare]") {
  const Scratch scratch;
  const std::string text = scratch.write("a.txt", "some text\n"), out = scratch / "out";
  fs::create_directory(out);
  scratch.write("out/b.txt", "a text beside the data set\n");
  const auto refused = [&](const std::string& input, const std::string& to, const std::string& first, const std::string& second) {
    const auto before = content_of(scratch.path());
    const std::string message = error_of([&] { prepare(options_for({text, input}, to)); }, ExitCode::usage);
    INFO("--input " << input << " --out " << to << "\n" << message);
    CHECK(contains(message, first));
    CHECK(contains(message, second));
    CHECK(contains(message, "give another --out"));
    CHECK(std::count(message.begin(), message.end(), '\n') == 0);
    CHECK(content_of(scratch.path()) == before);
  };
  fs::create_directory_symlink("out", scratch / "link");
  const auto folders = [&] {  // whatever is in it
    for (const std::string& to : {out, out + "/", scratch / "link", scratch / "out/../out/."}) {
      for (const std::string& input : {out, out + "/", scratch / "link", scratch / "link/", scratch / "o?t", scratch / "link/../out/"}) {
        refused(input, to, "the input folder " + scratch.path(), "is the output folder " + to);
      }
    }
  };
  folders();
  CHECK(!fs::exists(out + "/dataset.json"));
  prepare(options_for({text, out + "/b.txt"}, out));  // a file that stays is no matter
  prepare(options_for({text, out + "/b.txt"}, out));
  folders();

  fs::create_directories(scratch / "texts");
  for (const char* file : {"tokenizer.json", "dataset.json"}) {
    const std::string path = concat(out, "/", file), hard = concat(scratch / "hard-", file), soft = concat(scratch / "texts/soft-", file);
    fs::create_hard_link(path, hard);
    fs::create_symlink(path, soft);
    for (const std::string& to : {out, scratch / "link/"}) {
      for (const std::string& input : {path, concat(scratch / "link/", file), concat(scratch / "out/../out/", file), hard, soft}) {
        refused(input, to, "--input " + input + " is " + to, "--out " + to);
      }
    }
    refused(scratch / "texts", out, "--input " + soft + " is " + path, "--out " + out);
    refused(out + "/*" + std::string(file).substr(1), out, "--input " + path + " is " + path, "--out " + out);
    fs::remove(hard);
    fs::remove(soft);
  }
  // And what a killed process left there, which is to go.
  fs::create_directory(out + "/.heddle-tokenize");
  scratch.write("out/.heddle-tokenize/.made-by-heddle", "");
  refused(scratch.write("out/.heddle-tokenize/notes.txt", "mine"), out, out + "/.heddle-tokenize/notes.txt is ", "--out " + out);
}

TEST_CASE("a killed tokenize is put right by the next: the old set comes back whole", "[prepare]") {
  const Scratch scratch;
  const std::string text = scratch.write("a.txt", "some text\n"), more = scratch.write("b.txt", std::string(2000, 'y'));
  const std::string out = scratch / "out", work = out + "/.heddle-tokenize";
  const auto set = [&](const std::string& folder, const std::string& input) {
    PrepareOptions options = options_for({input}, scratch / folder);
    options.shard_tokens = input == more ? 700 : 100;
    prepare(options);
  };
  set("new", more);  // three shards
  const auto fresh = content_of(scratch / "new");
  const auto move = [](const std::string& from, const std::string& to) { fs::rename(from, to); };
  // The renames of a commit, in their order; `done` of them were made before the end.
  const std::vector<std::string> order = {"dataset.json", "x_train_000000.bin", "tokenizer.json"};
  const std::vector<std::string> into = {"x_train_000000.bin", "x_train_000001.bin", "x_train_000002.bin", "tokenizer.json"};
  for (const bool had : {true, false}) {
    for (size_t done = 0; done <= order.size() + into.size(); ++done) {
      INFO("an earlier set: " << had << ", renames: " << done);
      fs::remove_all(out);
      if (had) {
        set("out", text);
      } else {
        fs::create_directory(out);
      }
      const auto before = content_of(out);
      fs::create_directories(work + "/old");
      scratch.write("out/.heddle-tokenize/.made-by-heddle", "");
      for (const auto& [file, content] : fresh) scratch.write("out/.heddle-tokenize/" + file, content);
      for (size_t i = 0; i < done; ++i) {
        if (i < order.size() && had) move(out + "/" + order[i], work + "/old/" + order[i]);
        if (i >= order.size()) move(work + "/" + into[i - order.size()], out + "/" + into[i - order.size()]);
      }
      PrepareOptions wrong = options_for({text}, out);
      wrong.tokenizer = "bpe:5000";
      CHECK(error_of([&] { prepare(wrong); }, ExitCode::usage) != "");
      CHECK(content_of(out) == before);
    }
  }
}
