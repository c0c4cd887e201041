// What a production case needs of the device: memory with guards around it, operands made on the device, a fingerprint of results, time. Nothing of
// CUDA shows here.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <type_traits>
#include <vector>

#include "kernels/api/types.h"

namespace heddle::bench {

// The tensors of one case. What a kernel writes has a state to start from, to which reset() brings it back.
class Memory {
 public:
  enum Plan { kPlan, kAllocate };
  // kPlan: addresses that nobody may follow, to ask a candidate what it refuses.
  explicit Memory(Plan plan);
  ~Memory();
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;

  // Read only. The same values for the same shapes in the same order, on every machine.
  View normal(DType dtype, std::initializer_list<int64_t> shape, double mean = 0, double stddev = 1);  // f32 or bf16
  View below(DType dtype, std::initializer_list<int64_t> shape, int64_t limit);                        // i32 or u8, in [0, limit)
  View zeros(DType dtype, std::initializer_list<int64_t> shape);
  View listed(std::initializer_list<int64_t> shape, const std::vector<int32_t>& values);  // i32
  // Written: poisoned to begin with; of a Sink that adds: full of kStart; in place: as normal() makes it.
  View output(DType dtype, std::initializer_list<int64_t> shape);
  Sink added(DType dtype, std::initializer_list<int64_t> shape);
  View in_place(DType dtype, std::initializer_list<int64_t> shape, double mean = 0, double stddev = 1);
  View before(const View& in_place) const;  // its copy, as it was
  // A struct in device memory, as it was after each reset().
  template <class T>
  T* put(const T& value) {
    static_assert(std::is_trivially_copyable_v<T>);
    return reinterpret_cast<T*>(bytes(&value, sizeof value));
  }
  std::byte* raw(size_t bytes);  // scratch: poisoned

  static constexpr double kStart = 2;

  void reset();
  std::string guards() const;  // "" or which tensor was written around
  bool planned() const { return plan_ == kPlan; }

 private:
  struct Tensor;
  Tensor& add(DType dtype, std::initializer_list<int64_t> shape);
  std::byte* bytes(const void* value, size_t size);
  Plan plan_;
  std::vector<std::unique_ptr<Tensor>> tensors_;
};

// Of a view's elements: equal digests are equal bits. `unwritten`: elements that still have the poison of Memory::output.
struct Digest {
  uint64_t hash = 0, unwritten = 0;
  bool operator==(const Digest&) const = default;
};
Digest digest(const View& view);

// Overwrites elements [first, first + count) of a dense view with zeros: planted faults.
void blot(const View& view, int64_t first, int64_t count);
// Keeps the stream busy for so long, by a function of the host: planted faults.
void dawdle(double seconds);

// Milliseconds on the device of each piece of work, by events: all take turns `rounds` times, `flush`: with the L2 cache emptied in between. Sorted.
std::vector<std::vector<double>> time_in_turn(const std::vector<std::function<void()>>& work, int rounds, bool flush);
double median(const std::vector<double>& sorted);

// What a copy within device memory reaches, bytes per second read and written; measured once.
double copy_rate();

std::string device_name();
int multiprocessors();
void synchronise();  // Error with what went wrong in any kernel so far

}  // namespace heddle::bench
