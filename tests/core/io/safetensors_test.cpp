// The rules of the format one by one, a file byte for byte as the reference writes it, and files through the disk.
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "core/io/safetensors_file.h"
#include "tests/support/catch.h"

namespace heddle {
namespace {

namespace fs = std::filesystem;

struct Folder {
  fs::path path = fs::temp_directory_path() / concat("heddle-safetensors-", ::getpid());
  Folder() { fs::create_directories(path); }
  ~Folder() { fs::remove_all(path); }
  std::string operator/(const char* name) const { return (path / name).string(); }
};

std::string content(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  std::ostringstream out;
  out << in.rdbuf();
  return out.str();
}

SafetensorsHeader parse(const std::string& json, uint64_t data_bytes) {
  return parse_safetensors_header(json, 8 + json.size() + data_bytes, "f");
}

bool refuses(const std::string& json, uint64_t data_bytes) {
  try {
    parse(json, data_bytes);
  } catch (const Error& e) {
    return e.code() == ExitCode::bad_data;
  }
  return false;
}

}  // namespace

TEST_CASE("safetensors: a header with everything the format allows") {
  const auto h = parse(R"({"__metadata__":{"format":"pt","k":"v"},"b":{"shape":[2,3],"dtype":"F32","data_offsets":[1,25]},)"
                       R"("a":{"dtype":"BOOL","shape":[],"data_offsets":[0,1]},"empty":{"dtype":"I64","shape":[0,7],"data_offsets":[25,25]}}   )",
                       25);
  CHECK(h.metadata.at("k") == "v");
  REQUIRE(h.tensors.size() == 3);
  CHECK(h.tensors[0].name == "a");
  CHECK(h.tensors[1].name == "b");
  CHECK(h.tensors[1].begin == h.data_begin + 1);
  CHECK(h.tensors[1].shape == std::vector<uint64_t>{2, 3});
  CHECK(h.find("empty")->end == h.file_size);
  CHECK(parse("{}", 0).tensors.empty());
  CHECK(parse(R"({"x":{"dtype":"F4","shape":[2],"data_offsets":[0,1]}})", 1).tensors[0].type == FileType::F4);
}

TEST_CASE("safetensors: every rule of the reader") {
  const auto one = [](const std::string& dtype, const std::string& shape, const std::string& offsets) {
    return "{\"t\":{\"dtype\":\"" + dtype + "\",\"shape\":" + shape + ",\"data_offsets\":" + offsets + "}}";
  };
  REQUIRE(!refuses(one("F32", "[2]", "[0,8]"), 8));
  CHECK(refuses(" " + one("F32", "[2]", "[0,8]"), 8));      // must begin with {
  CHECK(!refuses(one("F32", "[2]", "[0,8]") + "    ", 8));  // padding
  CHECK(refuses(one("F32", "[2]", "[0,8]") + "    x", 8));
  CHECK(refuses(one("F32", "[2]", "[0,8]"), 9));  // trailing bytes
  CHECK(refuses(one("F32", "[2]", "[0,8]"), 7));  // truncated
  CHECK(refuses(one("F32", "[2]", "[1,9]"), 9));  // a hole at the start
  CHECK(refuses(one("F32", "[3]", "[0,8]"), 8));  // size is not the shape's
  CHECK(refuses(one("F33", "[2]", "[0,8]"), 8));
  CHECK(refuses(one("F32", "[2]", "[8,0]"), 8));
  CHECK(refuses(one("F32", "[2]", "[0,8,9]"), 8));
  CHECK(refuses(one("F32", "[2]", "[0]"), 8));
  CHECK(refuses(one("F32", "[-2]", "[0,8]"), 8));
  CHECK(refuses(one("F4", "[3]", "[0,1]"), 1));  // half a byte
  CHECK(refuses(one("F32", "[4294967296,4294967296,4]", "[0,8]"), 8));
  CHECK(refuses(one("U8", "[18446744073709551615,8]", "[0,8]"), 8));
  CHECK(!refuses(one("F32", "[4294967296,4294967296,4294967296,0]", "[0,0]"), 0));
  CHECK(refuses(one("F32", "[1,1,1,1,1,1,1,1,2]", "[0,8]"), 8));
  CHECK(refuses(R"({"t":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"t":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}})", 2));
  CHECK(refuses(R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}})", 3));  // overlap
  CHECK(refuses(R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[2],"data_offsets":[3,5]}})", 5));  // hole
  CHECK(refuses(R"({"__metadata__":{"k":1}})", 0));
  CHECK(refuses(R"({"__metadata__":{"k":"1","k":"2"}})", 0));
  CHECK(refuses(R"({"t":{"dtype":"U8","shape":[1],"data_offsets":[0,1],"code":"x"}})", 1));
  CHECK(refuses(R"({"t":{"dtype":"U8","shape":[1]}})", 1));
  CHECK(refuses(R"({"t":{"dtype":"U8","dtype":"U8","shape":[1],"data_offsets":[0,1]}})", 1));
  CHECK(refuses("", 0));
  CHECK(refuses("[]", 0));

  uint64_t n = 100'000'001;
  CHECK_THROWS_AS(parse_header_length(&n, UINT64_MAX, "f"), Error);
  n = 93;
  CHECK_THROWS_AS(parse_header_length(&n, 100, "f"), Error);
  n = 92;
  CHECK(parse_header_length(&n, 100, "f") == 92);
  CHECK_THROWS_AS(parse_header_length(&n, 7, "f"), Error);
}

TEST_CASE("safetensors: the writer's order and bytes are the reference's") {
  // dtype rank descending, then name; __metadata__ first; compact; padded with spaces to a multiple of 8.
  const auto layout = layout_safetensors({{"b", FileType::F32, {2}}, {"z", FileType::BF16, {1}}, {"a", FileType::F32, {}}, {"y", FileType::I64, {1}}},
                                         {{"format", "pt"}});
  const std::string expected =
      R"({"__metadata__":{"format":"pt"},"y":{"dtype":"I64","shape":[1],"data_offsets":[0,8]},"a":{"dtype":"F32","shape":[],"data_offsets":[8,12]},)"
      R"("b":{"dtype":"F32","shape":[2],"data_offsets":[12,20]},"z":{"dtype":"BF16","shape":[1],"data_offsets":[20,22]}})";
  const std::string text = write_safetensors_header(layout);
  CHECK(text.substr(8, expected.size()) == expected);
  CHECK(text.size() % 8 == 0);
  CHECK(text.size() < 8 + expected.size() + 8);
  CHECK(text.find_first_not_of(' ', 8 + expected.size()) == std::string::npos);
  CHECK(layout.file_size == layout.data_begin + 22);
  // and what is written is what is read
  const auto read = parse_safetensors_header(std::string_view(text).substr(8), layout.file_size, "f");
  REQUIRE(read.tensors.size() == 4);
  for (size_t i = 0; i < 4; ++i) {
    CHECK(read.tensors[i].name == layout.tensors[i].name);
    CHECK(read.tensors[i].begin == layout.tensors[i].begin);
  }
  CHECK(write_safetensors_header(layout_safetensors({}, {})).substr(8, 2) == "{}");
  CHECK_THROWS_AS(layout_safetensors({{"a", FileType::U8, {1}}, {"a", FileType::U8, {1}}}, {}), Error);
  CHECK_THROWS_AS(layout_safetensors({{"__metadata__", FileType::U8, {1}}}, {}), Error);
  CHECK_THROWS_AS(layout_safetensors({{"a", FileType::U64, {UINT64_MAX, 2}}}, {}), Error);
}

TEST_CASE("safetensors: files") {
  const Folder folder;
  const std::string path = folder / "model.safetensors";
  std::vector<float> w = {1, 2, 3, 4, 5, 6}, w2(6);
  std::vector<uint16_t> ids = {7, 8}, ids2(2);
  save_safetensors(path, {{"ids", make_view(ids.data(), {2})}, {"w \"q\" \u00e9", make_view(w.data(), {2, 3})}}, {{"note", "line\nbreak"}});
  save_safetensors(path, {{"ids", make_view(ids.data(), {2})}, {"w \"q\" \u00e9", make_view(w.data(), {2, 3})}},
                   {{"note", "line\nbreak"}});  // over itself
  CHECK(!fs::exists(path + ".tmp"));
  const auto metadata = load_safetensors(path, {{"w \"q\" \u00e9", make_view(w2.data(), {2, 3})}, {"ids", make_view(ids2.data(), {2})}});
  CHECK(w2 == w);
  CHECK(ids2 == ids);
  CHECK(metadata.at("format") == "pt");
  CHECK(metadata.at("note") == "line\nbreak");

  std::string message;
  try {
    load_safetensors(path, {{"w \"q\" \u00e9", make_view(w2.data(), {3, 2})}, {"other", make_view(ids2.data(), {2})}});
  } catch (const Error& e) {
    message = e.what();
  }
  for (const char* part : {"missing: other", "unexpected: ids", "F32 (2, 3) in the file, F32 (3, 2) wanted"})
    CHECK(message.find(part) != std::string::npos);

  const SafetensorsFile file(path);
  float middle[2] = {};
  file.read(*file.header().find("w \"q\" \u00e9"), 8, middle, 8);
  CHECK(middle[0] == 3);
  CHECK_THROWS_AS(file.read(*file.header().find("ids"), 2, middle, 4), Error);

  fs::create_symlink("model.safetensors", folder.path / "link");
  CHECK(SafetensorsFile(folder / "link").header().tensors.size() == 2);
  const std::string whole = content(path);
  for (size_t n = 0; n < whole.size(); ++n) {
    std::ofstream(folder / "short", std::ios::binary | std::ios::trunc) << whole.substr(0, n);
    CHECK_THROWS_AS(SafetensorsFile(folder / "short"), Error);
  }
  CHECK_THROWS_AS(SafetensorsFile(folder.path.string()), Error);
  CHECK_THROWS_AS(SafetensorsFile(folder / "absent"), Error);
}

}  // namespace heddle
