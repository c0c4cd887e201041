// Fibers: a stack of its own per simulated thread and a switch between them that costs about ten nanoseconds.
//
// x86-64 and aarch64 have a hand-written switch (fiber.cpp); elsewhere, or with HEDDLE_SIM_UCONTEXT, <ucontext.h> serves: sixty times slower, since
// it saves the signal mask by a system call. A fiber stays on the OS thread that started it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#if !defined(HEDDLE_SIM_UCONTEXT) && !defined(__x86_64__) && !defined(__aarch64__)
#define HEDDLE_SIM_UCONTEXT 1
#endif
#ifdef HEDDLE_SIM_UCONTEXT
#include <ucontext.h>
#endif

namespace heddle::sim {

// One mapping with a guard page at its low end: running over it is a fault, not a corruption.
struct Stack {
  std::byte* base = nullptr;
  size_t size = 0;
  size_t color = 0;  // bytes left unused at the top: stacks that all begin at one page offset would fight for the same cache sets
};

// Last in, first out, so that the warm stack is reused.
class StackPool {
 public:
  StackPool() = default;
  ~StackPool();
  StackPool(const StackPool&) = delete;
  StackPool& operator=(const StackPool&) = delete;
  Stack* take();
  void give(Stack* stack) { free_.push_back(stack); }

 private:
  std::vector<Stack*> free_, all_;
};

// Where a fiber stopped.
struct Context {
#ifdef HEDDLE_SIM_UCONTEXT
  ucontext_t machine;
#else
  void* stack_pointer = nullptr;
#endif
  const Stack* stack = nullptr;  // null: the OS thread's own
};

// Makes `context` begin entry() on `stack` when it is first switched to. entry never returns.
void prepare(Context& context, Stack& stack, void (*entry)());

// Saves the running fiber in `from` and continues `to`. last: the running fiber will never be continued (its stack may be reused).
void switch_fiber(Context& from, Context& to, bool last);

// Must be the first thing entry() does, and follows every return of switch_fiber by itself: tells AddressSanitizer which stack it is on.
void entered_fiber();

}  // namespace heddle::sim
