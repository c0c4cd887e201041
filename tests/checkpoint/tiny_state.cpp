#include "tests/checkpoint/tiny_state.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <mutex>
#include <sstream>
#include <thread>

#include "checkpoint/fold.h"

#include "parallel/communicator.h"

namespace heddle::test {

namespace fs = std::filesystem;

ScratchDirectory::ScratchDirectory(const std::string& what) {
  static std::atomic<int> count{0};
  // In memory where that is possible: these tests make thousands of directories, and what is durable is simulated anyway.
  const char* const named = std::getenv("HEDDLE_TEST_SCRATCH");
  const fs::path base = named != nullptr ? fs::path(named) : ::access("/dev/shm", W_OK) == 0 ? fs::path("/dev/shm") : fs::temp_directory_path();
  path_ = base / concat("heddle-", what, "-", ::getpid(), "-", count++);
  fs::remove_all(path_);
  fs::create_directories(path_);
}

ScratchDirectory::~ScratchDirectory() {
  std::error_code ignored;
  fs::remove_all(path_, ignored);
}

void ScratchDirectory::clear() const {
  for (const auto& entry : fs::directory_iterator(path_)) fs::remove_all(entry);
}

const std::vector<TinyState::Tensor>& TinyState::model() {
  static const std::vector<Tensor> tensors = {
      {"model.embed.weight", DType::f32, {16, 8}},
      {"model.blocks.0.attn.qkv.weight", DType::f32, {24, 8}},
      {"model.blocks.0.norm.weight", DType::f32, {8}},
      {"model.half", DType::bf16, {3, 5}},
      {"optim.m.embed.weight", DType::f32, {16, 8}},
      {"optim.v.embed.weight", DType::f32, {16, 8}},
      {"optim.t", DType::i32, {}},
      {"aux.cube", DType::f64, {2, 3, 4}},
      {"aux.tokens", DType::u16, {7}},
      {"aux.bytes", DType::u8, {5}},
      {"aux.empty", DType::f32, {0, 4}},
  };
  return tensors;
}

TinyState::TinyState(const Slicing& slicing, const std::vector<Tensor>& tensors) {
  for (const Tensor& t : tensors) {
    for (const Box& box : slicing ? slicing(t) : std::vector<Box>{whole_box(t.shape)}) {
      StateDict::Entry e;
      e.name = t.name;
      e.global = t.shape;
      e.box = box;
      auto& bytes = storage_.emplace_back(static_cast<size_t>(volume(box) * size_of(t.dtype)) + 1);  // +1: an empty one has an address too
      View& v = e.data;
      v.data = bytes.data();
      v.dtype = t.dtype;
      v.rank = static_cast<int>(box.size());
      int64_t step = 1;
      for (int i = v.rank - 1; i >= 0; --i) {
        v.shape[i] = box[i].size();
        v.stride[i] = step;
        step *= v.shape[i];
      }
      dict.tensors.push_back(std::move(e));
    }
  }
  set_to_step(0);
}

namespace {

// visit(entry, element in the entry, bytes of that element at `step`)
template <class Visit>
void for_each_element(const StateDict& dict, uint64_t step, Visit visit) {
  for (const StateDict::Entry& e : dict.tensors) {
    const Box whole = whole_box(e.global);
    const auto size = static_cast<size_t>(size_of(e.data.dtype));
    for_each_run(e.box, e.box, whole, [&](int64_t mine, int64_t global, int64_t count) {
      for (int64_t i = 0; i < count; ++i) {
        const uint64_t bits = fold_mix(fnv1a(e.name) + step * 7919, static_cast<uint64_t>(global + i), step);
        visit(e.data.data + static_cast<size_t>(mine + i) * size, &bits, size);
      }
    });
  }
}

std::string scalars_at(uint64_t step) {
  return concat("{\"step\":", step, ",\"tokens\":", step * 4096, ",\"note\":\"p\u00e4t \\\"q\\\"\"}");
}

}  // namespace

void TinyState::set_to_step(uint64_t step) {
  for_each_element(dict, step, [](std::byte* to, const void* from, size_t n) { std::memcpy(to, from, n); });
  dict.scalars = scalars_at(step);
}

void TinyState::scramble() {
  for (auto& bytes : storage_) std::fill(bytes.begin(), bytes.end(), std::byte{0xA5});
  dict.scalars = "scrambled";
}

bool TinyState::is_at_step(uint64_t step) const {
  bool equal = dict.scalars == scalars_at(step);
  for_each_element(dict, step, [&](std::byte* at, const void* expected, size_t n) { equal = equal && std::memcmp(at, expected, n) == 0; });
  return equal;
}

namespace {

// A meeting point of all ranks of one group.
struct Meeting {
  explicit Meeting(int ranks) : size(ranks), texts(static_cast<size_t>(ranks)) {}
  int size;
  std::mutex mutex;
  std::condition_variable changed;
  int arrived = 0;
  uint64_t round = 0;
  std::vector<std::string> texts, result;
  std::shared_ptr<Meeting> child;
};

class ThreadControl final : public Control {
 public:
  ThreadControl(int rank, std::shared_ptr<Meeting> meeting) : rank_(rank), meeting_(std::move(meeting)) {}
  int rank() const override { return rank_; }
  int size() const override { return meeting_->size; }

  std::vector<std::string> gather_text(const std::string& mine, double seconds) override {
    Meeting& m = *meeting_;
    std::unique_lock lock(m.mutex);
    m.texts[static_cast<size_t>(rank_)] = mine;
    const uint64_t round = m.round;
    if (++m.arrived == m.size) {
      m.result = m.texts;
      m.arrived = 0;
      ++m.round;
      m.changed.notify_all();
    } else {
      if (!m.changed.wait_for(lock, std::chrono::duration<double>(seconds > 0 ? seconds : 1e9), [&] { return m.round != round; })) {
        fail("gather", "some rank has not answered", ExitCode::hung);
      }
    }
    return m.result;
  }
  std::unique_ptr<Control> split(int, int) override {  // all ranks together is all the tests need
    gather_text("", 0);
    if (rank_ == 0) meeting_->child = std::make_shared<Meeting>(meeting_->size);
    gather_text("", 0);
    return std::make_unique<ThreadControl>(rank_, meeting_->child);
  }
  std::unique_ptr<Communicator> communicator(Device, const CommunicatorOptions&) override { return nullptr; }

 private:
  int rank_;
  std::shared_ptr<Meeting> meeting_;
};

}  // namespace

void run_ranks(int ranks, const std::function<void(Control&)>& rank_main) {
  const auto meeting = std::make_shared<Meeting>(ranks);
  std::vector<std::exception_ptr> errors(static_cast<size_t>(ranks));
  std::vector<std::thread> threads;
  for (int r = 0; r < ranks; ++r) {
    threads.emplace_back([&, r] {
      try {
        ThreadControl comm(r, meeting);
        rank_main(comm);
      } catch (...) {
        errors[static_cast<size_t>(r)] = std::current_exception();
      }
    });
  }
  for (std::thread& t : threads) t.join();
  for (const std::exception_ptr& e : errors) {
    if (e) std::rethrow_exception(e);
  }
}

CheckpointOptions quiet_options() {
  CheckpointOptions options;
  options.environment = "test";
  return options;
}

std::vector<std::string> tree(const fs::path& root) {
  std::vector<std::string> names;
  for (const auto& entry : fs::recursive_directory_iterator(root)) {
    names.push_back(fs::relative(entry.path(), root).string() + (entry.is_directory() ? "/" : ""));
  }
  std::sort(names.begin(), names.end());
  return names;
}

std::string read_file(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  std::ostringstream out;
  out << in.rdbuf();
  return out.str();
}

void write_file(const fs::path& path, const std::string& content) {
  std::ofstream out(path, std::ios::binary | std::ios::trunc);
  out << content;
}

}  // namespace heddle::test
