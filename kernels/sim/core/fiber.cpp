#include "kernels/sim/core/fiber.h"

#include <sys/mman.h>
#include <unistd.h>

#include "kernels/api/check.h"

// The ASan flavour compiles this file without instrumentation and tells the sanitizer about every switch.
#ifdef HEDDLE_SIM_ASAN
#include <sanitizer/common_interface_defs.h>
#endif

namespace heddle::sim {

namespace {

#ifdef HEDDLE_SIM_ASAN
constexpr size_t kStackBytes = 512 * 1024;  // instrumented frames are several times larger
#else
constexpr size_t kStackBytes = 128 * 1024;
#endif

}  // namespace

Stack* StackPool::take() {
  if (!free_.empty()) {
    Stack* stack = free_.back();
    free_.pop_back();
    return stack;
  }
  const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  void* base = mmap(nullptr, kStackBytes + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  HEDDLE_CHECK(base != MAP_FAILED, "sim", "no memory for the stack of simulated thread ", all_.size());
  HEDDLE_CHECK(mprotect(base, page, PROT_NONE) == 0, "sim", "mprotect of a stack's guard page failed");
  constexpr size_t kColors = 61, kColorBytes = 192;  // prime, so that neighbours differ in every cache-set bit
  auto* stack = new Stack{static_cast<std::byte*>(base) + page, kStackBytes, all_.size() % kColors * kColorBytes};
  all_.push_back(stack);
  return stack;
}

StackPool::~StackPool() {
  const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  for (Stack* stack : all_) {
    munmap(stack->base - page, stack->size + page);
    delete stack;
  }
}

#ifdef HEDDLE_SIM_ASAN

namespace {

// The OS thread's own stack, learnt at the first switch away from it.
thread_local const void* host_stack_bottom;
thread_local size_t host_stack_size;

}  // namespace

void entered_fiber() {
  const void* bottom;
  size_t size;
  __sanitizer_finish_switch_fiber(nullptr, &bottom, &size);
  if (host_stack_bottom == nullptr) {
    host_stack_bottom = bottom;
    host_stack_size = size;
  }
}

namespace {

void* announce(const Context& to, bool last) {
  void* fake_stack = nullptr;
  const void* bottom = to.stack != nullptr ? to.stack->base : host_stack_bottom;
  const size_t size = to.stack != nullptr ? to.stack->size : host_stack_size;
  __sanitizer_start_switch_fiber(last ? nullptr : &fake_stack, bottom, size);
  return fake_stack;
}
void announced(void* fake_stack) {
  __sanitizer_finish_switch_fiber(fake_stack, nullptr, nullptr);
}

}  // namespace

#else

void entered_fiber() {}

namespace {

void* announce(const Context&, bool) {
  return nullptr;
}
void announced(void*) {}

}  // namespace

#endif

#ifdef HEDDLE_SIM_UCONTEXT

void prepare(Context& context, Stack& stack, void (*entry)()) {
  getcontext(&context.machine);
  context.machine.uc_stack.ss_sp = stack.base;
  context.machine.uc_stack.ss_size = stack.size - stack.color;
  context.machine.uc_link = nullptr;
  makecontext(&context.machine, entry, 0);
  context.stack = &stack;
}

void switch_fiber(Context& from, Context& to, bool last) {
  void* fake_stack = announce(to, last);
  swapcontext(&from.machine, &to.machine);
  announced(fake_stack);
}

#else

// Saves the callee-saved registers on the running stack, its pointer in *save, and continues where `to` was saved.
extern "C" void heddle_sim_switch(void** save, void* to);

#if defined(__x86_64__)

// System V ABI: rbx, rbp, r12-r15 are the callee's. mxcsr and the x87 control word too; kernels do not change them.
asm(R"(
.text
.p2align 4
.globl heddle_sim_switch
.type heddle_sim_switch, @function
heddle_sim_switch:
  .cfi_startproc
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
  .cfi_endproc
.size heddle_sim_switch, .-heddle_sim_switch
)");

namespace {

constexpr size_t kSavedWords = 6;

// entry() must find rsp = 8 mod 16, as after a call; the word above is its return address, 0: debuggers stop there.
void* first_frame(std::byte* top, void (*entry)()) {
  auto* words = reinterpret_cast<uint64_t*>(reinterpret_cast<uintptr_t>(top) & ~uintptr_t{15});
  *--words = 0;
  *--words = reinterpret_cast<uint64_t>(entry);
  for (size_t i = 0; i < kSavedWords; ++i) *--words = 0;
  return words;
}

}  // namespace

#elif defined(__aarch64__)

// AAPCS64: x19-x28, the frame pointer x29, the link register x30 and the low halves of v8-v15 are the callee's.
asm(R"(
.text
.p2align 4
.globl heddle_sim_switch
.type heddle_sim_switch, %function
heddle_sim_switch:
  sub sp, sp, #160
  stp x19, x20, [sp, #0]
  stp x21, x22, [sp, #16]
  stp x23, x24, [sp, #32]
  stp x25, x26, [sp, #48]
  stp x27, x28, [sp, #64]
  stp x29, x30, [sp, #80]
  stp d8, d9, [sp, #96]
  stp d10, d11, [sp, #112]
  stp d12, d13, [sp, #128]
  stp d14, d15, [sp, #144]
  mov x9, sp
  str x9, [x0]
  mov sp, x1
  ldp x19, x20, [sp, #0]
  ldp x21, x22, [sp, #16]
  ldp x23, x24, [sp, #32]
  ldp x25, x26, [sp, #48]
  ldp x27, x28, [sp, #64]
  ldp x29, x30, [sp, #80]
  ldp d8, d9, [sp, #96]
  ldp d10, d11, [sp, #112]
  ldp d12, d13, [sp, #128]
  ldp d14, d15, [sp, #144]
  add sp, sp, #160
  ret
.size heddle_sim_switch, .-heddle_sim_switch
)");

namespace {

constexpr size_t kSavedWords = 20, kLinkRegister = 11;

void* first_frame(std::byte* top, void (*entry)()) {
  auto* words = reinterpret_cast<uint64_t*>(reinterpret_cast<uintptr_t>(top) & ~uintptr_t{15}) - kSavedWords;
  for (size_t i = 0; i < kSavedWords; ++i) words[i] = 0;
  words[kLinkRegister] = reinterpret_cast<uint64_t>(entry);
  return words;
}

}  // namespace

#endif

void prepare(Context& context, Stack& stack, void (*entry)()) {
  context.stack_pointer = first_frame(stack.base + stack.size - stack.color, entry);
  context.stack = &stack;
}

void switch_fiber(Context& from, Context& to, bool last) {
  void* fake_stack = announce(to, last);
  heddle_sim_switch(&from.stack_pointer, to.stack_pointer);
  announced(fake_stack);
}

#endif

}  // namespace heddle::sim
