#include "tests/fuzz/target.h"

#include <malloc.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <new>

namespace heddle::fuzz {
namespace {

#if defined(__SANITIZE_ADDRESS__)
#define HEDDLE_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define HEDDLE_SANITIZED 1
#endif
#endif

// Of the thread that parses. A freed block that is older than the bound makes `held` negative.
thread_local bool watching = false;
thread_local int64_t held = 0, limit = 0;

void count(int64_t bytes) {
  if (!watching) return;
  held += bytes;
  if (held > limit) {
    watching = false;
    broken(concat("holds ", held, " bytes of memory, at most ", limit, " are allowed for an input of this size"));
  }
}

struct Scratch {
  Scratch() {
    const char* const asked = std::getenv("HEDDLE_TEST_SCRATCH");
    std::filesystem::path parent = asked != nullptr ? asked : "/dev/shm";
    if (::access(parent.c_str(), W_OK) != 0) parent = std::filesystem::temp_directory_path();
    std::string name = (parent / "heddle-fuzz-XXXXXX").string();
    if (::mkdtemp(name.data()) == nullptr) broken(concat("cannot make a folder ", name));
    path = name;
  }
  ~Scratch() {
    std::error_code error;
    std::filesystem::remove_all(path, error);
  }
  std::string path;
};

}  // namespace

void run_input(std::string_view input) {
  static const auto before = std::signal(SIGPROF, [](int) {
    constexpr std::string_view kMessage = "broken: takes more than a second of processor time\n";
    if (::write(STDERR_FILENO, kMessage.data(), kMessage.size()) < 0) std::_Exit(1);
    std::abort();
  });
  require(before != SIG_ERR, "cannot watch the time");
  const itimerval limit{{}, {kMostSeconds, 0}}, off{};
  ::setitimer(ITIMER_PROF, &limit, nullptr);
  run_target(input);
  ::setitimer(ITIMER_PROF, &off, nullptr);
}

Outcome& outcome() {
  static Outcome last;
  return last;
}

void broken(const std::string& what) {
  std::fprintf(stderr, "broken: %s\n", what.c_str());
  std::fflush(stderr);
  std::abort();
}

AllocationBound::AllocationBound(size_t bytes) {
  held = 0;
  limit = static_cast<int64_t>(bytes);
  watching = true;
}

AllocationBound::~AllocationBound() {
  watching = false;
}

MemoryFile::MemoryFile(std::string_view content) : descriptor_(::memfd_create("fuzz", MFD_CLOEXEC)) {
  require(descriptor_ >= 0, "cannot make a file in memory");
  for (size_t at = 0; at < content.size();) {
    const ssize_t put = ::write(descriptor_, content.data() + at, content.size() - at);
    require(put > 0, "cannot write to a file in memory");
    at += static_cast<size_t>(put);
  }
  path_ = concat("/proc/self/fd/", descriptor_);
}

MemoryFile::~MemoryFile() {
  ::close(descriptor_);
}

const std::string& scratch_folder() {
  static const Scratch scratch;
  return scratch.path;
}

}  // namespace heddle::fuzz

#ifdef HEDDLE_SANITIZED
// AddressSanitizer checks that each block is freed as it was allocated, so its own operator new stays; it tells of every block. Declared here because
// g++ has no header for it (sanitizer/allocator_interface.h of LLVM).
extern "C" int __sanitizer_install_malloc_and_free_hooks(void (*on_malloc)(const volatile void*, size_t), void (*on_free)(const volatile void*));
extern "C" size_t __sanitizer_get_allocated_size(const volatile void* block);

namespace heddle::fuzz {
namespace {

const int hooks = __sanitizer_install_malloc_and_free_hooks([](const volatile void*, size_t bytes) { count(static_cast<int64_t>(bytes)); },
                                                            [](const volatile void* block) {
                                                              if (watching && block != nullptr)
                                                                count(-static_cast<int64_t>(__sanitizer_get_allocated_size(block)));
                                                            });

}  // namespace
}  // namespace heddle::fuzz
#else
// The forms that new expressions and containers use; the others call these.
void* operator new(size_t bytes) {
  void* const block = std::malloc(bytes == 0 ? 1 : bytes);
  if (block == nullptr) throw std::bad_alloc();
  heddle::fuzz::count(static_cast<int64_t>(malloc_usable_size(block)));
  return block;
}
void operator delete(void* block) noexcept {
  if (block != nullptr) heddle::fuzz::count(-static_cast<int64_t>(malloc_usable_size(block)));
  std::free(block);
}
void operator delete(void* block, size_t) noexcept {
  operator delete(block);
}
#endif

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  heddle::fuzz::run_input({reinterpret_cast<const char*>(data), size});
  return 0;
}
