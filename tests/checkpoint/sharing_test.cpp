// What others may do with a run: read it as the umask allows, keep a hard-linked copy of it.
#include <sys/stat.h>

#include <algorithm>
#include <cstdio>
#include <map>

#include "core/io/safetensors_file.h"
#include "tests/checkpoint/tiny_state.h"
#include "tests/support/catch.h"

namespace heddle::test {
namespace {

namespace fs = std::filesystem;

struct Umask {
  explicit Umask(mode_t mask) : before(::umask(mask)) {}
  ~Umask() { ::umask(before); }
  mode_t before;
};

mode_t mode_of(const fs::path& path) {
  struct stat s {};
  REQUIRE(::lstat(path.c_str(), &s) == 0);
  return s.st_mode & 0777;
}

void save_steps(const fs::path& run, uint64_t first, uint64_t last, int ranks = 1) {
  run_ranks(ranks, [&](Control& comm) {
    Checkpoints checkpoints(run, comm, quiet_options());
    TinyState state;
    if (checkpoints.find_newest()) checkpoints.load(state.dict);
    for (uint64_t step = first; step <= last; ++step) {
      state.set_to_step(step);
      checkpoints.save(step, state.dict, "");
      checkpoints.wait();
    }
  });
}

// `from` with every file linked, not copied: `cp -al`.
void link_tree(const fs::path& from, const fs::path& to) {
  fs::create_directory(to);
  for (const auto& entry : fs::directory_iterator(from)) {
    if (entry.is_directory()) {
      link_tree(entry.path(), to / entry.path().filename());
    } else {
      fs::create_hard_link(entry.path(), to / entry.path().filename());
    }
  }
}

}  // namespace

TEST_CASE("modes: every file and directory that heddle makes has what the umask leaves") {
  for (const mode_t mask : {0000, 0002, 0022, 0027, 0077}) {
    const ScratchDirectory scratch("modes");
    const Umask set(mask);
    const fs::path run = scratch / "new/run";
    save_steps(run, 1, 5, 2);  // two ranks, retention, LATEST
    save_steps(run, 6, 6);     // and a second start
    save_safetensors((run / "export.safetensors").string(), {});
    int files = 0, directories = 0;
    for (const std::string& name : tree(scratch / "new")) {
      const fs::path path = scratch / "new" / name;
      const bool directory = fs::is_directory(path);
      INFO(name << " under umask " << std::oct << mask);
      CHECK(mode_of(path) == ((directory ? 0777u : 0666u) & ~mask));
      ++(directory ? directories : files);
    }
    CHECK(directories >= 6);
    CHECK(files >= 9);
  }
}

TEST_CASE("a hard-linked copy: both are whole, and what the run does later leaves the copy as it was") {
  const ScratchDirectory scratch("links");
  const fs::path run = scratch / "run", copy = scratch / "copy";
  save_steps(run, 1, 3);
  link_tree(run, copy);
  CHECK(digest(run.string()) == digest(copy.string()));
  std::map<std::string, std::string> before;
  for (const std::string& name : tree(copy)) {
    if (name.back() != '/') before[name] = read_file(copy / name);
  }
  save_steps(run, 4, 8);  // starts from step 3, deletes 1 to 5
  CHECK(!fs::exists(run / "quarantine/s3-i1"));
  TinyState state;
  CHECK(read_checkpoint(run.string(), state.dict).step == 8);
  for (const auto& [name, content] : before) {
    INFO(name);
    CHECK(read_file(copy / name) == content);
  }
  CHECK(read_checkpoint(copy.string(), state.dict).step == 3);
  CHECK(state.is_at_step(3));
  save_steps(copy, 4, 4);  // the copy is a run of its own
  CHECK(read_checkpoint(copy.string(), state.dict).step == 4);
  // What the other deleted and made since is not its concern.
  CHECK(read_checkpoint(run.string(), state.dict).step == 8);
}

}  // namespace heddle::test
