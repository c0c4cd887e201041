#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>
#include <zlib.h>
#if HEDDLE_HAVE_ZSTD
#include <zstd.h>
#endif

#include <cmath>
#include <sstream>

#include "data/file.h"
#include "data/prepare.h"
#include "data/shard.h"
#include "data/tokenizer.h"
#include "data/windows.h"
#include "tests/data/support.h"

using namespace heddle;
using namespace heddle::test;

namespace {

std::vector<std::string> documents_of(TextSourceOptions options) {
  TextSource source(std::move(options));
  std::vector<std::string> texts;
  Document document;
  while (source.next(document)) texts.push_back(document.text);
  source.rewind();
  for (const std::string& text : texts) {
    REQUIRE(source.next(document));
    REQUIRE(document.text == text);
  }
  return texts;
}

std::string gzip(const std::string& text) {
  z_stream state{};
  REQUIRE(deflateInit2(&state, 6, Z_DEFLATED, 16 + MAX_WBITS, 8, Z_DEFAULT_STRATEGY) == Z_OK);
  std::string packed(deflateBound(&state, text.size()), '\0');
  state.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(text.data()));
  state.avail_in = static_cast<uInt>(text.size());
  state.next_out = reinterpret_cast<Bytef*>(packed.data());
  state.avail_out = static_cast<uInt>(packed.size());
  REQUIRE(deflate(&state, Z_FINISH) == Z_STREAM_END);
  packed.resize(state.total_out);
  deflateEnd(&state);
  return packed;
}

// 60 chapters of one to four lines, a blank line between.
std::string chapters(std::vector<std::string>& each) {
  std::mt19937_64 random(41);
  std::string text;
  for (int c = 0; c < 60; ++c) {
    std::string chapter;
    for (uint64_t lines = 1 + random() % 4; lines > 0; --lines) chapter += concat("In chapter ", c, " the lord said ", random() % 100, " words.\n");
    text += (c ? "\n" : "") + chapter;
    each.push_back(chapter);
  }
  return text;
}

PrepareOptions options_for(const std::string& input, const std::string& tokenizer, const std::string& out) {
  PrepareOptions options;
  options.inputs = {input};
  options.tokenizer = tokenizer;
  options.out = out;
  options.separator = DocumentSeparator::blank_line;
  options.val_fraction = 0.05;
  return options;
}

// The documents in the shards of one split, decoded.
std::vector<std::string> decoded(const std::string& out, const std::string& split) {
  const DatasetInfo info = DatasetInfo::load(out).value();
  const Tokenizer tokenizer = Tokenizer::load(out + "/" + info.tokenizer);
  std::vector<std::string> texts;
  std::string text;
  for (const DatasetInfo::Shard& shard : info.shards) {
    if (shard.split != split) continue;
    const ShardReader reader(out + "/" + shard.file);
    int64_t bytes = 0, documents = 0;
    for (int64_t i = 0; i < reader.tokens(); ++i) {
      const int32_t token = static_cast<int32_t>(reader.token(i));
      const bool prepend = info.eot_position == EotPosition::prepend;
      if (token == info.eot) {
        if (prepend) ++documents;
        if (prepend && !text.empty()) texts.push_back(text), text.clear();
        if (!prepend) texts.push_back(text), text.clear();
        continue;
      }
      bytes += static_cast<int64_t>(tokenizer.bytes_of(token).size());
      text += tokenizer.bytes_of(token);
    }
    CHECK(shard.bytes == bytes);
    CHECK(shard.tokens == reader.tokens());
    if (info.eot_position == EotPosition::prepend) CHECK(shard.documents == documents);
    CHECK(shard.sha256 == sha256_hex(slurp(out + "/" + shard.file)));
  }
  if (!text.empty()) texts.push_back(text);
  return texts;
}

}  // namespace

TEST_CASE("documents: one a file, runs of lines between blank ones, JSON lines", "[text]") {
  const Scratch scratch;
  const std::string a = scratch.write("a.txt", "\n \t\r\none\ntwo\n\n\r\n\nthree  \r\n \nfour"), empty = scratch.write("empty.txt", "");
  CHECK(documents_of({{a, empty, a}, DocumentSeparator::file}) == std::vector<std::string>{slurp(a), slurp(a)});
  CHECK(documents_of({{a}, DocumentSeparator::blank_line}) == std::vector<std::string>{"one\ntwo\n", "three  \r\n", "four"});
  const std::string lines = "{\"text\": \"a\\n\\u00e9\", \"id\": 7}\n\n{\"text\": \"\"}\n{\"text\":\"b\"}";
  const std::string json = scratch.write("x.jsonl", lines);
  CHECK(documents_of({{json}}) == std::vector<std::string>{"a\n\xC3\xA9", "b"});
  CHECK(documents_of({{json}, DocumentSeparator::file, TextFormat::text}) == std::vector<std::string>{lines});
  TextSource source({{a}, DocumentSeparator::blank_line});
  Document document;
  source.next(document);
  CHECK(document.line == 3);
  source.next(document);
  CHECK(document.line == 8);
  CHECK(document.file == a);
}

TEST_CASE("long lines and documents that straddle buffers come out whole", "[text]") {
  const Scratch scratch;
  std::mt19937_64 random(42);
  std::string text;
  std::vector<std::string> expected;
  for (int d = 0; d < 40; ++d) {
    std::string body(1 + random() % 60000, 'x');
    for (size_t i = 100; i < body.size(); i += 1 + random() % 5000) body[i] = '\n';
    while (body.find("\n\n") != std::string::npos) body.replace(body.find("\n\n"), 2, "\nx");
    if (body.back() == '\n') body.back() = 'y';
    expected.push_back(body + "\n");
    text += expected.back() + "\n";
  }
  CHECK(documents_of({{scratch.write("a", text)}, DocumentSeparator::blank_line}) == expected);
}

TEST_CASE("gzip and zstd are told by their first bytes; members and frames join", "[text]") {
  const Scratch scratch;
  std::mt19937_64 random(43);
  const std::string one = random_bytes(random, 700000), two = std::string(300000, 'a') + "\n";
  CHECK(documents_of({{scratch.write("a.weird", gzip(one) + gzip("") + gzip(two))}}) == std::vector<std::string>{one + two});
  CHECK(documents_of({{scratch.write("b.jsonl.gz", gzip("{\"text\":\"x\"}\n"))}}) == std::vector<std::string>{"x"});
  const std::string cut = scratch.write("cut.gz", gzip(one).substr(0, 5000));
  CHECK(contains(error_of([&] { documents_of({{cut}}); }, ExitCode::bad_data), "cut.gz: the gzip data end in the middle"));
  std::string damaged = gzip(one);
  damaged[damaged.size() - 6] ^= 1;  // the checksum
  CHECK(contains(error_of([&] { documents_of({{scratch.write("bad.gz", damaged)}}); }, ExitCode::bad_data), "damaged gzip data"));
  CHECK(contains(error_of([&] { documents_of({{scratch.write("tail.gz", gzip("x") + "trailing")}}); }, ExitCode::bad_data), "damaged gzip data"));
#if HEDDLE_HAVE_ZSTD
  const auto zstd = [](const std::string& text) {
    std::string packed(ZSTD_compressBound(text.size()), '\0');
    packed.resize(ZSTD_compress(packed.data(), packed.size(), text.data(), text.size(), 3));
    return packed;
  };
  CHECK(documents_of({{scratch.write("a.zst", zstd(one) + zstd(two))}}) == std::vector<std::string>{one + two});
  CHECK(contains(error_of([&] { documents_of({{scratch.write("cut.zst", zstd(one).substr(0, 5000))}}); }, ExitCode::bad_data),
                 "in the middle of a frame"));
  CHECK(contains(error_of([&] { documents_of({{scratch.write("tail.zst", zstd("x") + "trailing")}}); }, ExitCode::bad_data), "damaged zstd data"));
#endif
}

TEST_CASE("document i is held out iff floor((i + 1) x) > floor(i x)", "[prepare]") {
  for (uint64_t i = 0; i < 2000; ++i) {
    REQUIRE(is_held_out(i, 0.05) == (i % 20 == 19));
    REQUIRE(is_held_out(i, 0.1) == (i % 10 == 9));
    REQUIRE(is_held_out(i, 0.25) == (i % 4 == 3));
    REQUIRE(!is_held_out(i, 0));
  }
}

TEST_CASE("a data set holds exactly the documents, in order, split as promised", "[prepare]") {
  const Scratch scratch;
  std::vector<std::string> each;
  const std::string input = scratch.write("kjv.txt", chapters(each));
  const std::string tokenizer = GENERATE("bytes", "bpe:300");
  const EotPosition position = GENERATE(EotPosition::prepend, EotPosition::append);
  const int64_t shard_tokens = GENERATE(100'000'000, 400, 60);
  const std::string out = scratch / "out";
  PrepareOptions options = options_for(input, tokenizer, out);
  options.eot_position = position;
  options.shard_tokens = shard_tokens;
  const PrepareReport report = prepare(options);
  std::vector<std::string> train, val;
  int64_t bytes = 0;
  for (size_t i = 0; i < each.size(); ++i) {
    (i % 20 == 19 ? val : train).push_back(each[i]);
    bytes += static_cast<int64_t>(each[i].size());
  }
  CHECK(decoded(out, "train") == train);
  CHECK(decoded(out, "val") == val);
  CHECK(report.train.documents == 57);
  CHECK(report.val.documents == 3);
  CHECK(report.train.bytes + report.val.bytes == bytes);
  for (const DatasetInfo::Shard& shard : report.info.shards) CHECK(shard.tokens <= shard_tokens);
  CHECK(report.info.shards[0].file == "kjv_train_000000.bin");
  CHECK(!std::filesystem::exists(out + "/.heddle-tokenize"));
  const DatasetInfo info = DatasetInfo::load(out).value();
  CHECK(info.to_json() == report.info.to_json());
  CHECK(info.tokenizer_fingerprint == Tokenizer::load(out).fingerprint());
  std::ostringstream text;
  print_report(report, options, text);
  CHECK(contains(text.str(), "57 documents"));

  // The loader and the windows take vocabulary, end-of-text and its position from dataset.json.
  LoaderOptions loading;
  loading.shards = {out + "/*_train_*.bin"};
  loading.seq = 4;
  Loader loader(loading);
  CHECK(loader.vocab() == info.vocab);
  CHECK(loader.eot() == info.eot);
  WindowOptions held_out;
  held_out.shards = {out + "/*_val_*.bin"};
  held_out.seq = 64;
  held_out.stride = 32;
  const Windows windows(held_out);
  CHECK(windows.text_bytes() == static_cast<uint64_t>(report.val.bytes));
  CHECK(windows.scored_bytes(0, windows.rows(), Tokenizer::load(out)) == static_cast<uint64_t>(report.val.bytes));
}

TEST_CASE("the files depend on text and options, not on threads or earlier runs", "[prepare]") {
  const Scratch scratch;
  std::vector<std::string> each;
  const std::string input = scratch.write("kjv.txt", chapters(each));
  PrepareOptions one = options_for(input, "bpe:300", scratch / "one"), four = options_for(input, "bpe:300", scratch / "four");
  one.threads = 1;
  four.threads = 4;
  four.shard_tokens = 50;  // many shards first: the second run must leave none of them
  prepare(one);
  prepare(four);
  four.shard_tokens = one.shard_tokens;
  prepare(four);
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(scratch / "one")) names.push_back(entry.path().filename().string());
  CHECK(names.size() == 4);
  size_t found = 0;
  for (const auto& entry : std::filesystem::directory_iterator(scratch / "four")) {
    ++found;
    CHECK(slurp(entry.path().string()) == slurp((scratch / "one") + "/" + entry.path().filename().string()));
  }
  CHECK(found == names.size());
}

TEST_CASE("held-out documents do not shape the tokenizer", "[prepare]") {
  const Scratch scratch;
  std::string plain, other;
  for (int d = 0; d < 20; ++d) {
    plain += d == 19 ? "zqzqzq zqzqzq zqzqzq\n\n" : concat("the lord ", d, " said unto the people\n\n");
    other += d == 19 ? "xkxkxk\n\n" : concat("the lord ", d, " said unto the people\n\n");
  }
  const auto trained = [&](const std::string& name, const std::string& text) {
    return prepare(options_for(scratch.write(name + ".txt", text), "bpe:280", scratch / name)).info.tokenizer_fingerprint;
  };
  CHECK(trained("a", plain) == trained("b", other));
}

TEST_CASE("an existing tokenizer is used as it is", "[prepare]") {
  const Scratch scratch;
  std::vector<std::string> each;
  const std::string input = scratch.write("kjv.txt", chapters(each));
  prepare(options_for(input, "bpe:300", scratch / "one"));
  prepare(options_for(input, scratch / "one/tokenizer.json", scratch / "two"));
  prepare(options_for(input, scratch / "one", scratch / "three"));
  for (const char* out : {"two", "three"}) {
    for (const char* file : {"kjv_train_000000.bin", "kjv_val_000000.bin", "tokenizer.json", "dataset.json"}) {
      CHECK(slurp(concat(scratch / "one", "/", file)) == slurp(concat(scratch / out, "/", file)));
    }
  }
}

TEST_CASE("what prepare refuses leaves the folder as it was", "[prepare]") {
  const Scratch scratch;
  std::vector<std::string> each;
  const std::string input = scratch.write("kjv.txt", chapters(each));
  const std::string out = scratch / "out";
  prepare(options_for(input, "bytes", out));
  const std::string before = slurp(out + "/dataset.json");
  const auto refused = [&](PrepareOptions options, ExitCode code, const std::string& part) {
    const std::string message = error_of([&] { prepare(options); }, code);
    INFO(message);
    CHECK(contains(message, part));
    CHECK(slurp(out + "/dataset.json") == before);
    CHECK(DatasetInfo::load(out)->shards.size() == 2);
    CHECK(std::distance(std::filesystem::directory_iterator(out), std::filesystem::directory_iterator()) == 4);
  };
  PrepareOptions options = options_for(input, "bytes", out);
  const auto with = [&](auto change) {
    PrepareOptions changed = options;
    change(changed);
    return changed;
  };
  refused(with([](PrepareOptions& o) { o.inputs.clear(); }), ExitCode::usage, "--input");
  refused(with([](PrepareOptions& o) { o.inputs = {"/nonexistent/file"}; }), ExitCode::io, "/nonexistent/file: cannot open");
  refused(with([&](PrepareOptions& o) { o.inputs = {"/dev/null"}; }), ExitCode::usage, "not a regular file");
  refused(with([](PrepareOptions& o) { o.val_fraction = 1; }), ExitCode::usage, "--val-fraction");
  refused(with([](PrepareOptions& o) { o.val_fraction = std::nan(""); }), ExitCode::usage, "--val-fraction");
  refused(with([](PrepareOptions& o) { o.separator = DocumentSeparator::file; }), ExitCode::usage, "holds out none of 1 document");
  refused(with([](PrepareOptions& o) { o.shard_tokens = 0; }), ExitCode::usage, "--shard-tokens 0");
  refused(with([](PrepareOptions& o) { o.name = "../x"; }), ExitCode::usage, "--name '../x'");
  refused(with([](PrepareOptions& o) { o.name = std::string(201, 'x'); }), ExitCode::usage, "--name 'xxx");  // leaves no room for what comes behind
  for (const char* bad : {"bpe:", "bpe:x", "bpe:-5", "bpe:256", "bpe:3.5", "bpe:99999999999999999999", "bpe:300M"}) {
    refused(with([&](PrepareOptions& o) { o.tokenizer = bad; }), ExitCode::usage, "N of bpe:N");
  }
  refused(with([](PrepareOptions& o) { o.tokenizer = "bpe:100000"; }), ExitCode::usage, "ask for fewer");
  refused(with([&](PrepareOptions& o) { o.tokenizer = scratch / "none.json"; }), ExitCode::usage, "none.json' is neither bytes nor bpe:N");
  refused(with([&](PrepareOptions& o) { o.inputs = {scratch.write("blank.txt", "\n\n \n")}; }), ExitCode::bad_data, "no text in the input");

  const int held = ::open(out.c_str(), O_RDONLY | O_DIRECTORY);
  REQUIRE(::flock(held, LOCK_EX) == 0);
  refused(options, ExitCode::in_use, "another heddle tokenize");
  ::close(held);

  scratch.write("out/kjv_train_000007.bin", "somebody's");
  CHECK(contains(error_of([&] { prepare(options); }, ExitCode::usage),
                 "kjv_train_000007.bin: a shard of the name 'kjv' that no dataset.json records as it is"));
  CHECK(slurp(out + "/kjv_train_000007.bin") == "somebody's");
}

TEST_CASE("the King James Bible: every 20th chapter is held out", "[prepare]") {
  // The quickstart's file, when the machine has it: 1,189 chapters, 4,139,038 bytes with 1,188 blank lines between them.
  const std::string kjv = test_data("kjv.txt");
  if (kjv.empty()) return;
  const Scratch scratch;
  const PrepareReport report = prepare(options_for(kjv, "bytes", scratch / "kjv"));
  CHECK(report.val.documents == 59);
  CHECK(report.train.documents == 1130);
  CHECK(report.train.bytes + report.val.bytes == 4139038 - 1188);
}
