#include "kernels/api/check.h"

#include <atomic>
#include <cstring>

#include "kernels/api/printable.h"

namespace heddle {
namespace {

std::atomic<int> error_rank{-1};

// "/any/where/kernels/cpu/matmul.cpp" -> "kernels/cpu/matmul.cpp": messages must not depend on where the tree was built.
std::string_view source_path(std::string_view file) {
#ifdef HEDDLE_SOURCE_ROOT
  constexpr std::string_view root = HEDDLE_SOURCE_ROOT "/";
  if (file.substr(0, root.size()) == root) file.remove_prefix(root.size());
#endif
  return file;
}

}  // namespace

void set_error_rank(int rank) {
  error_rank = rank;
}

void fail(std::string_view op, const std::string& text, ExitCode code, const char* file, int line) {
  std::string place = file == nullptr || *file == 0 ? "" : concat(source_path(file), ":", line);
  if (const int rank = error_rank; rank >= 0) place += concat(place.empty() ? "" : ", ", "rank ", rank);
  const std::string shown = printable(text, true);
  throw Error(place.empty() ? concat("[", op, "] ", shown) : concat("[", op, "] ", shown, " (", place, ")"), code);
}

}  // namespace heddle
