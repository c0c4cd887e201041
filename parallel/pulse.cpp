#include "parallel/pulse.h"

#include <atomic>
#include <mutex>
#include <utility>

namespace heddle {
namespace {

std::atomic<const Phase*> at{&phase::kStartUp};
std::atomic<uint64_t> done{0}, progress{0}, begun{0};
std::atomic<const char*> newest{""};
std::atomic<int> waits{0};
std::mutex note_mutex;
std::string note;
constexpr auto kRelaxed = std::memory_order_relaxed;  // a report may mix two moments; nothing is read through these

}  // namespace

Pulse pulse() {
  return {at.load(kRelaxed), done.load(kRelaxed), progress.load(kRelaxed), begun.load(kRelaxed), newest.load(kRelaxed), waits.load(kRelaxed) > 0};
}

void enter(const Phase& phase, uint64_t step) {
  done.store(step, kRelaxed);
  enter(phase);
}
void enter(const Phase& phase) {
  at.store(&phase, kRelaxed);
  mark_progress();
}
void mark_progress() {
  progress.fetch_add(1, kRelaxed);
}

void note_late(std::string lines) {
  const std::lock_guard lock(note_mutex);
  note = std::move(lines);
}
std::string late_note() {
  const std::lock_guard lock(note_mutex);
  return note;
}

void note_collective(const char* op) {
  newest.store(op, kRelaxed);
  begun.fetch_add(1, kRelaxed);
}

Waiting::Waiting() {
  waits.fetch_add(1, kRelaxed);
}
Waiting::~Waiting() {
  waits.fetch_sub(1, kRelaxed);
}

}  // namespace heddle
