// A hash map from a pair of token ids to a 32-bit value: open addressing, linear probing, no erase. Internal to the tokenizer and the trainer.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace heddle {

class PairMap {
 public:
  static constexpr uint32_t kNone = 0xFFFFFFFF;  // no such pair; not a value to store

  explicit PairMap(size_t expected = 16) {
    size_t capacity = 16;
    while (capacity < expected * 2) capacity *= 2;
    slots_.resize(capacity);
  }
  static uint64_t key(int32_t a, int32_t b) { return static_cast<uint64_t>(static_cast<uint32_t>(a)) << 32 | static_cast<uint32_t>(b); }

  uint32_t find(int32_t a, int32_t b) const {
    const uint64_t wanted = key(a, b);
    for (size_t i = hash(wanted) & (slots_.size() - 1);; i = (i + 1) & (slots_.size() - 1)) {
      if (slots_[i].value == kNone || slots_[i].key == wanted) return slots_[i].value;
    }
  }
  // The value of (a, b), which becomes `fresh` when the pair is new.
  uint32_t insert(int32_t a, int32_t b, uint32_t fresh) {
    if (2 * (size_ + 1) > slots_.size()) grow();
    Slot& slot = place(key(a, b));
    if (slot.value == kNone) {
      slot = {key(a, b), fresh};
      ++size_;
    }
    return slot.value;
  }
  size_t size() const { return size_; }

 private:
  struct Slot {
    uint64_t key = 0;
    uint32_t value = kNone;
  };
  static size_t hash(uint64_t x) {  // the finaliser of splitmix64
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
    return static_cast<size_t>(x ^ (x >> 31));
  }
  Slot& place(uint64_t wanted) {
    size_t i = hash(wanted) & (slots_.size() - 1);
    while (slots_[i].value != kNone && slots_[i].key != wanted) i = (i + 1) & (slots_.size() - 1);
    return slots_[i];
  }
  void grow() {
    std::vector<Slot> old(slots_.size() * 2);
    old.swap(slots_);
    for (const Slot& slot : old) {
      if (slot.value != kNone) place(slot.key) = slot;
    }
  }
  std::vector<Slot> slots_;
  size_t size_ = 0;
};

}  // namespace heddle
