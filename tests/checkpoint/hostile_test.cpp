// Files made to harm: each is refused with a message of its own, quickly, and nothing outside the run directory is touched.
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <map>
#include <set>

#include "checkpoint/manifest.h"
#include "checkpoint/run_directory.h"
#include "core/io/crc32c.h"
#include "core/io/sha256.h"
#include "tests/checkpoint/tiny_state.h"
#include "tests/support/catch.h"

namespace heddle::test {
namespace {

namespace fs = std::filesystem;

constexpr const char* kShard = "shard-0-of-1.safetensors";

double processor_ms() {
  timespec t{};
  ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) * 1e3 + static_cast<double>(t.tv_nsec) * 1e-6;
}

// The body of a manifest with a fresh self-hash: the damage is in what it says, not in its bytes.
std::string sealed(const std::string& body) {
  return body + "sha256 " + hex(sha256(body)) + "\n";
}

std::string replaced(std::string text, const std::string& from, const std::string& to) {
  const size_t at = text.find(from);
  REQUIRE(at != std::string::npos);
  return text.replace(at, from.size(), to);
}

std::string repeated(const std::string& part, size_t times) {
  std::string out;
  for (size_t i = 0; i < times; ++i) out += part;
  return out;
}

struct Case {
  std::string name;
  std::function<void(const fs::path& checkpoint)> harm;
};

// Changes one place of the manifest and seals it again.
Case edit(const std::string& from, const std::string& to) {
  return {concat("manifest: ", from.substr(0, 40), " -> ", to.substr(0, 40)), [=](const fs::path& at) {
            const std::string text = read_file(at / "MANIFEST");
            write_file(at / "MANIFEST", sealed(replaced(text.substr(0, text.size() - kSelfHashBytes), from, to)));
          }};
}

Case whole(const std::string& name, const std::string& body) {
  return {"manifest: " + name, [=](const fs::path& at) { write_file(at / "MANIFEST", sealed(body)); }};
}

// Replaces the shard's header JSON and makes the manifest vouch for the new file.
Case header(const std::string& name, const std::function<std::string(const std::string& json)>& change, const std::string& data_change = {}) {
  return {"shard header: " + name, [=](const fs::path& at) {
            const std::string old = read_file(at / kShard);
            uint64_t n = 0;
            std::memcpy(&n, old.data(), 8);
            std::string json = change(old.substr(8, n));
            if (json.size() < n) json.resize(n, ' ');
            uint64_t length = json.size();
            std::string file(8, '\0');
            std::memcpy(file.data(), &length, 8);
            file += json + old.substr(8 + n) + data_change;
            write_file(at / kShard, file);
            const std::string text = read_file(at / "MANIFEST");
            std::string body = text.substr(0, text.size() - kSelfHashBytes);
            const auto set = [&](const std::string& key, const std::string& value, const std::string& end) {
              const size_t begin = body.find(key) + key.size();
              body.replace(begin, body.find(end, begin) - begin, value);
            };
            set("{\"bytes\":", std::to_string(file.size()), ",");
            set("\"sha256\":\"", hex(sha256(file)), "\"");
            char digits[9];
            std::snprintf(digits, sizeof digits, "%08x", crc32c(file.data(), file.size()));
            set("\"crc32c\":\"", digits, "\"");
            write_file(at / "MANIFEST", sealed(body));
          }};
}

std::vector<Case> corpus(const fs::path& outside) {
  std::vector<Case> cases;
  const auto add = [&](Case c) { cases.push_back(std::move(c)); };
  const auto in_place = [&](const std::string& name, const char* file, const std::function<void(const fs::path&)>& make) {
    add({name, [=](const fs::path& at) {
           fs::remove(at / file);
           make(at / file);
         }});
  };
  // What stands where a file should.
  for (const char* file : {"MANIFEST", kShard}) {
    const std::string f = file;
    in_place(f + " is a link to a file outside", file, [=](const fs::path& p) { fs::create_symlink(outside / "canary", p); });
    in_place(f + " is a FIFO", file, [](const fs::path& p) { ::mkfifo(p.c_str(), 0600); });
    in_place(f + " is a hard link", file, [=](const fs::path& p) { fs::create_hard_link(outside / "canary", p); });
    in_place(f + " is missing", file, [](const fs::path&) {});
  }
  in_place("MANIFEST is empty", "MANIFEST", [](const fs::path& p) { write_file(p, ""); });
  in_place("shard is empty", kShard, [](const fs::path& p) { write_file(p, ""); });
  in_place("shard is a sparse terabyte", kShard, [](const fs::path& p) {
    write_file(p, "");
    REQUIRE(::truncate(p.c_str(), off_t{1} << 40) == 0);
  });
  in_place("MANIFEST is a sparse gigabyte", "MANIFEST", [](const fs::path& p) {
    write_file(p, "");
    REQUIRE(::truncate(p.c_str(), off_t{1} << 30) == 0);
  });
  in_place("MANIFEST is noise", "MANIFEST", [](const fs::path& p) { write_file(p, repeated("\x9c\x01noise", 512)); });
  add({"a file too many", [](const fs::path& at) { write_file(at / "..data", "x"); }});
  add({"a directory too many", [](const fs::path& at) { fs::create_directory(at / "sub"); }});
  add({"the checkpoint is a link to another directory", [=](const fs::path& at) {
         fs::remove_all(at);
         fs::create_directory_symlink(outside, at);
       }});

  // JSON.
  add(whole("nothing", " "));
  add(whole("not an object", "[]\n"));
  add(whole("an empty object", "{}\n"));
  add(whole("unclosed", "{\"format\":\"heddle-checkpoint\""));
  add(whole("deeply nested arrays", "{\"shards\":" + repeated("[", 100000)));
  add(whole("deeply nested objects", repeated("{\"tensors\":", 100000)));
  add(whole("a million shards", "{\"shards\":[" + repeated("{\"bytes\":0,\"sha256\":\"" + std::string(64, '0') + "\",\"crc32c\":\"\"},", 100000)));
  add(whole("a number of a megabyte", "{\"step\":" + std::string(1 << 20, '9')));
  add(whole("a key of a megabyte", "{\"" + std::string(1 << 20, 'k') + "\":1}"));
  add(whole("invalid UTF-8", "{\"environment\":\"\xc0\xaf\"}\n"));
  add(whole("a lone surrogate", "{\"environment\":\"\\ud800\"}\n"));
  add(whole("a raw control character", std::string("{\"environment\":\"a\0b\"}\n", 21)));
  add(whole("an unknown escape", "{\"environment\":\"\\x41\"}\n"));
  add(edit("{\"format\"", "{\"format\":\"heddle-checkpoint\",\"format\""));
  add(edit("\"step\":", "\"step\":10,\"step\":"));
  add(edit("\"format\":\"heddle-checkpoint\"", "\"format\":\"pickle\""));
  add(edit("\"version\":1", "\"version\":2"));
  add(edit("\"version\":1", "\"version\":-1"));
  add(edit("\"version\":1", "\"version\":1.0"));
  add(edit("\"version\":1", "\"version\":01"));
  add(edit("\"step\":10", "\"step\":18446744073709551616"));
  add(edit("\"step\":10", "\"step\":11"));
  add(edit("\"incarnation\":1", "\"incarnation\":null"));
  add(edit("\"block\":1048576", "\"block\":0"));
  add(edit("\"fold\":\"", "\"fold\":\"00"));
  add(edit("\"environment\"", "\"command\":\"rm -rf /\",\"environment\""));

  // Shard table.
  add(edit("{\"bytes\":", "{\"file\":\"../../outside/canary\",\"bytes\":"));
  add(edit("{\"bytes\":", "{\"bytes\":9223372036854775808,\"bytes\":"));
  add(edit("{\"bytes\":", "{\"bytes\":4611686018427387903,\"sha256\":\"" + std::string(64, '0') + "\",\"crc32c\":\"00000000\"},{\"bytes\":"));
  add(edit("\"sha256\":\"", "\"sha256\":\"g"));
  add(edit("\"crc32c\":\"", "\"crc32c\":\"0"));
  add(edit("\"crc32c\":\"", "\"crc32c\":\"00000000"));
  add({"manifest: two shards announced, one there", [](const fs::path& at) {
         const std::string text = read_file(at / "MANIFEST");
         std::string body = text.substr(0, text.size() - kSelfHashBytes);
         body = replaced(body, "],\n\"tensors\"", ",{\"bytes\":0,\"sha256\":\"" + std::string(64, '0') + "\",\"crc32c\":\"\"}],\n\"tensors\"");
         write_file(at / "MANIFEST", sealed(body));
       }});

  // Tensor table. "aux.bytes" comes first: U8, shape [5].
  add(edit("\"name\":\"aux.bytes\"", "\"name\":\"../../outside/canary\\u0000\""));
  add(edit("\"name\":\"aux.bytes\"", "\"name\":\"\""));
  add(edit("\"name\":\"aux.bytes\"", "\"name\":\"a b\""));
  add(edit("\"name\":\"aux.bytes\"", "\"name\":\"" + std::string(300, 'n') + "\""));
  add(edit("\"name\":\"aux.bytes\"", "\"name\":\"aux.cube\""));
  add(edit("\"name\":\"aux.bytes\"", "\"name\":\"zz\""));
  add(edit("\"dtype\":\"U8\"", "\"dtype\":\"OBJECT\""));
  add(edit("\"dtype\":\"U8\"", "\"dtype\":\"F64\""));
  add(edit("\"shape\":[5]", "\"shape\":[9223372036854775808]"));
  add(edit("\"shape\":[5]", "\"shape\":[4611686018427387904]"));
  add(edit("\"shape\":[5]", "\"shape\":[1,1,1,1,1,1,1,1,5]"));
  add(edit("\"shape\":[5]", "\"shape\":[6]"));
  add(edit("\"shape\":[2,3,4]", "\"shape\":[4294967296,4294967296,4]"));
  add(edit("[[0,5]]", "[[0,6]]"));
  add(edit("[[0,5]]", "[[5,0]]"));
  add(edit("[[0,5]]", "[[0,4]]"));
  add(edit("[[0,5]]", "[[0,5],[0,1]]"));
  add(edit("[[0,5]]", "[[0,5,5]]"));
  add(edit("[[0,5]]", "[[0]]"));
  add(edit("\"pieces\":[", "\"pieces\":[" + repeated("{\"shard\":0,\"offset\":0,\"box\":[[0,5]]},", 3)));
  add(edit("\"shard\":0", "\"shard\":1"));
  add(edit("\"shard\":0", "\"shard\":18446744073709551615"));
  add({"manifest: a piece beyond its shard", [](const fs::path& at) {
         const std::string text = read_file(at / "MANIFEST");
         std::string body = text.substr(0, text.size() - kSelfHashBytes);
         const size_t begin = body.find("\"offset\":") + 9;
         body.replace(begin, body.find(',', begin) - begin, "18446744073709551615");
         write_file(at / "MANIFEST", sealed(body));
       }});
  add({"manifest: two tensors on the same bytes", [](const fs::path& at) {
         const std::string text = read_file(at / "MANIFEST");
         std::string body = text.substr(0, text.size() - kSelfHashBytes);
         const size_t cube = body.find("aux.cube"), begin = body.find("\"offset\":", cube) + 9;
         const size_t other = body.find("optim.m.embed.weight"), from = body.find("\"offset\":", other) + 9;
         body.replace(begin, body.find(',', begin) - begin, body.substr(from, body.find(',', from) - from));
         write_file(at / "MANIFEST", sealed(body));
       }});
  add(edit("\"pieces\":[{", "\"pieces\":[],\"other\":[{"));

  // Shard headers that the manifest vouches for.
  add(header("not JSON", [](const std::string&) { return std::string("<pickle>"); }));
  add(header("a label of another step", [](const std::string& j) { return replaced(j, "step 00000000000000000010", "step 00000000000000000009"); }));
  add(header("no label", [](const std::string& j) { return replaced(j, "\"heddle\"", "\"weddle\""); }));
  add(header("a tensor twice", [](const std::string& j) { return replaced(j, "\"aux.tokens\":", "\"aux.bytes\":"); }));
  add(header("a tensor renamed", [](const std::string& j) { return replaced(j, "\"aux.tokens\":", "\"aux.tokenz\":"); }));
  add(header("an unknown dtype", [](const std::string& j) { return replaced(j, "\"dtype\":\"U8\"", "\"dtype\":\"V8\""); }));
  add(header("an overflowing shape",
             [](const std::string& j) { return replaced(j, "\"shape\":[2,3,4]", "\"shape\":[4294967296,4294967296,4294967296]"); }));
  add(header("offsets backwards", [](const std::string& j) { return replaced(j, "\"data_offsets\":[0,", "\"data_offsets\":[9999999,"); }));
  add(header("a size that is not the shape's", [](const std::string& j) { return replaced(j, "\"shape\":[2,3,4]", "\"shape\":[2,3,5]"); }));
  add(header(
      "bytes after the last tensor", [](const std::string& j) { return j; }, "polyglot"));
  add(header("a header longer than 16 MiB", [](const std::string& j) { return j + std::string(size_t{17} << 20, ' '); }));
  return cases;
}

}  // namespace

TEST_CASE("hostile checkpoints") {
  const ScratchDirectory scratch("hostile");
  const fs::path run = scratch / "run", outside = scratch / "outside", keep = scratch / "keep";
  const auto comm = local_control();
  {
    Checkpoints checkpoints(run, *comm, quiet_options());
    checkpoints.find_newest();
    TinyState state;
    state.set_to_step(10);
    checkpoints.save(10, state.dict, "");
    checkpoints.wait();
  }
  fs::copy(run, keep, fs::copy_options::recursive);
  fs::create_directory(outside);
  write_file(outside / "canary", "do not touch");
  struct stat before {};
  ::stat((outside / "canary").c_str(), &before);

  std::map<std::string, std::string> by_message;
  double slowest = 0;
  std::string slowest_name;
  const std::vector<Case> cases = corpus(outside);
  for (const Case& c : cases) {
    INFO(c.name);
    fs::remove_all(run);
    fs::copy(keep, run, fs::copy_options::recursive);
    c.harm(run / "ckpt/s10-i1");
    const double begun = processor_ms();
    const auto begun_wall = std::chrono::steady_clock::now();
    std::string message;
    try {
      Checkpoints checkpoints(run, *comm, quiet_options());
      // A missing MANIFEST is an unfinished save, not a damaged checkpoint.
      checkpoints.find_newest(Checkpoints::Resume::must);
      FAIL("accepted");
    } catch (const Error& e) {
      CHECK(e.code() == ExitCode::bad_data);
      message = e.what();
    }
    // Processor time: what the file costs, whatever else the machine does. Wall time: that nothing waits.
    const double ms = processor_ms() - begun;
    CHECK(std::chrono::steady_clock::now() - begun_wall < std::chrono::seconds(5));
    if (ms > slowest) {
      slowest = ms;
      slowest_name = c.name;
    }
    CHECK(ms <= 100);
    CHECK(message.size() < 4096);
    const auto [other, first] = by_message.emplace(message, c.name);
    INFO(message << "\nsame as: " << other->second);
    CHECK(first);
    CHECK(read_file(outside / "canary") == "do not touch");
    CHECK(tree(outside) == std::vector<std::string>{"canary"});
    CHECK(tree(scratch.path()).size() < 40);
  }
  struct stat after {};
  ::stat((outside / "canary").c_str(), &after);
  CHECK(before.st_mtim.tv_nsec == after.st_mtim.tv_nsec);
  CHECK(before.st_size == after.st_size);
  std::printf("hostile: %zu of %zu files refused, %zu distinct messages, slowest %.1f ms (%s)\n", cases.size(), cases.size(), by_message.size(),
              slowest, slowest_name.c_str());
  CHECK(cases.size() >= 64);
}

}  // namespace heddle::test
