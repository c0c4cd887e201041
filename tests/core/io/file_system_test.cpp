#include "core/io/file_system.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <fstream>

#include "tests/support/catch.h"

namespace heddle {
namespace {

namespace fs = std::filesystem;

struct Folder {
  fs::path path = fs::temp_directory_path() / concat("heddle-files-", ::getpid());
  Folder() {
    fs::remove_all(path);
    fs::create_directories(path);
  }
  ~Folder() { fs::remove_all(path); }
};

ExitCode code_of(const std::function<void()>& body) {
  try {
    body();
  } catch (const Error& e) {
    return e.code();
  }
  return ExitCode::ok;
}

}  // namespace

TEST_CASE("files: only regular files are opened, by any of their names, and nothing waits") {
  const Folder folder;
  FileSystem& disk = real_file_system();
  const Handle at(disk, disk.open_root(folder.path.c_str()));
  std::ofstream(folder.path / "plain") << "content";
  CHECK(read_small_file(disk, at.get(), "plain", "plain", 100) == "content");
  CHECK(code_of([&] { read_small_file(disk, at.get(), "plain", "plain", 6); }) == ExitCode::bad_data);
  CHECK(code_of([&] { read_small_file(disk, at.get(), "absent", "absent", 6); }) == ExitCode::bad_data);
  fs::create_symlink("plain", folder.path / "link");
  ::mkfifo((folder.path / "fifo").c_str(), 0600);
  fs::create_directory(folder.path / "directory");
  for (const char* name : {"link", "fifo", "directory"}) {
    INFO(name);
    CHECK(code_of([&] { open_regular(disk, at.get(), name, name); }) == ExitCode::bad_data);
  }
  fs::create_hard_link(folder.path / "plain", folder.path / "second");
  CHECK(code_of([&] { open_regular(disk, at.get(), "plain", "plain"); }) == ExitCode::ok);
  CHECK(read_small_file(disk, at.get(), "second", "second", 100) == "content");
}

TEST_CASE("files: creation is exclusive, leaves the mode to the umask, and follows no link") {
  const Folder folder;
  FileSystem& disk = real_file_system();
  const Handle at(disk, disk.open_root(folder.path.c_str()));
  {
    const mode_t before = ::umask(0027);
    const Handle file(disk, disk.create_file(at.get(), "a"));
    ::umask(before);
    REQUIRE(file);
    struct stat s {};
    ::stat((folder.path / "a").c_str(), &s);
    CHECK((s.st_mode & 0777) == 0640);
  }
  CHECK(disk.create_file(at.get(), "a") == -EEXIST);
  fs::create_symlink(folder.path / "outside", folder.path / "dangling");
  CHECK(disk.create_file(at.get(), "dangling") == -EEXIST);
  CHECK(!fs::exists(folder.path / "outside"));
  fs::create_directory_symlink(folder.path, folder.path / "loop");
  CHECK(disk.open_directory(at.get(), "loop") < 0);
}

TEST_CASE("files: a small file is replaced whole") {
  const Folder folder;
  FileSystem& disk = real_file_system();
  const Handle at(disk, disk.open_root(folder.path.c_str()));
  write_file_atomically(disk, at.get(), "hint", "one", "hint");
  std::ofstream(folder.path / "hint.tmp") << "left by a crash";
  write_file_atomically(disk, at.get(), "hint", "two", "hint");
  CHECK(read_small_file(disk, at.get(), "hint", "hint", 10) == "two");
  CHECK(!fs::exists(folder.path / "hint.tmp"));
}

TEST_CASE("files: directories are made with their parents") {
  const Folder folder;
  make_directories(real_file_system(), (folder.path / "x/y/z").string());
  make_directories(real_file_system(), (folder.path / "x/y/z").string());
  CHECK(fs::is_directory(folder.path / "x/y/z"));
  std::ofstream(folder.path / "file") << "";
  CHECK(code_of([&] { make_directories(real_file_system(), (folder.path / "file/below").string()); }) == ExitCode::io);
}

TEST_CASE("files: one holder of a lock") {
  const Folder folder;
  FileSystem& disk = real_file_system();
  const Handle at(disk, disk.open_root(folder.path.c_str()));
  Handle first(disk, disk.open_lock(at.get(), "LOCK"));
  const Handle second(disk, disk.open_lock(at.get(), "LOCK"));
  CHECK(disk.lock(first.get()) == 0);
  CHECK(disk.lock(second.get()) == -EWOULDBLOCK);
  first.close();
  CHECK(disk.lock(second.get()) == 0);
}

}  // namespace heddle
