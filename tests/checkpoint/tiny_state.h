// A small training state, a scratch directory, and ranks as threads: what the checkpoint tests are built from.
#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "checkpoint/checkpoints.h"
#include "core/io/boxes.h"
#include "core/state.h"
#include "parallel/control.h"

namespace heddle::test {

// A directory below /dev/shm, HEDDLE_TEST_SCRATCH or the system's temporary one, removed at the end.
class ScratchDirectory {
 public:
  explicit ScratchDirectory(const std::string& what = "run");
  ~ScratchDirectory();
  ScratchDirectory(const ScratchDirectory&) = delete;
  ScratchDirectory& operator=(const ScratchDirectory&) = delete;

  std::filesystem::path path() const { return path_; }
  std::filesystem::path operator/(const std::string& name) const { return path_ / name; }
  void clear() const;

 private:
  std::filesystem::path path_;
};

// A few tensors of a model and its optimizer: every dtype, ranks 0 to 3, an empty one.
class TinyState {
 public:
  struct Tensor {
    std::string name;
    DType dtype;
    std::vector<int64_t> shape;
  };
  static const std::vector<Tensor>& model();
  // Which boxes of a tensor a rank holds; the default is all of it.
  using Slicing = std::function<std::vector<Box>(const Tensor&)>;

  explicit TinyState(const Slicing& slicing = {}, const std::vector<Tensor>& tensors = model());

  StateDict dict;                   // its views point into this object
  void set_to_step(uint64_t step);  // all values a function of (name, element's global index, step); scalars too
  void scramble();                  // every byte overwritten
  bool is_at_step(uint64_t step) const;
  std::string digest() const { return heddle::digest(dict); }

 private:
  std::vector<std::vector<std::byte>> storage_;
};

// Runs `rank_main` on `ranks` threads with communicators that talk to each other; rethrows the first rank's exception.
void run_ranks(int ranks, const std::function<void(Control&)>& rank_main);

CheckpointOptions quiet_options();

// Files below `root`, relative, sorted; directories end in '/'.
std::vector<std::string> tree(const std::filesystem::path& root);
std::string read_file(const std::filesystem::path& path);
void write_file(const std::filesystem::path& path, const std::string& content);

}  // namespace heddle::test
