// The order in which a data set's files reach the disk. Renames and flushes of this program pass through the functions below.
#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <string>
#include <vector>

#include "data/prepare.h"
#include "tests/data/support.h"
#include "tests/support/catch.h"

namespace {

bool recording = false;
std::vector<std::string> order;  // "rename <name>" of what comes to lie in the folder, "flush" of the folder
std::string folder;

}  // namespace

extern "C" {
int fsync(int handle) {
  std::error_code unknown;
  if (recording && std::filesystem::read_symlink("/proc/self/fd/" + std::to_string(handle), unknown) == folder) order.emplace_back("flush");
  return static_cast<int>(::syscall(SYS_fsync, handle));
}
int rename(const char* from, const char* to) noexcept {
  const std::filesystem::path target(to);
  if (recording && target.parent_path() == folder) order.push_back("rename " + target.filename().string());
  return static_cast<int>(::syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0));
}
}

namespace heddle {
namespace {

TEST_CASE("a data set is durable before dataset.json vouches for it, and dataset.json before tokenize ends", "[prepare]") {
  const test::Scratch scratch;
  PrepareOptions options;
  options.inputs = {scratch.write("words.txt", "some words and more\n\nand others\n")};
  options.tokenizer = "bytes";
  options.out = scratch / "set";
  options.threads = 1;
  for (const bool again : {false, true}) {  // into an empty folder, and over an earlier set
    CAPTURE(again);
    folder = std::filesystem::canonical(scratch.path()) / "set";
    order.clear();
    recording = true;
    prepare(options);
    recording = false;
    const auto at = [](const std::string& event) { return std::find(order.begin(), order.end(), event) - order.begin(); };
    const auto end = static_cast<ptrdiff_t>(order.size());
    const ptrdiff_t shard = at("rename words_train_000000.bin"), dataset = at("rename dataset.json");
    REQUIRE((shard < end && dataset < end));
    REQUIRE(shard < dataset);
    CHECK(order[static_cast<size_t>(dataset - 1)] == "flush");
    REQUIRE(dataset + 1 < end);
    CHECK(order[static_cast<size_t>(dataset + 1)] == "flush");
    CHECK(at("flush") < shard);  // of the earlier set nothing vouches for what is about to change
  }
}

}  // namespace
}  // namespace heddle
