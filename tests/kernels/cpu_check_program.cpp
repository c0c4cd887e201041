// What cpu_check.sh runs on simulated CPUs: compiled for x86-64-v3, it uses AVX2 in a constructor already.
#include <cstdio>

namespace {

typedef int Ints __attribute__((vector_size(32)));
volatile Ints counted = {1, 2, 3, 4, 5, 6, 7, 8};

struct Early {
  Early() {
    counted = counted * counted;
    std::puts("constructed");
  }
} early;

}  // namespace

int main() {
  std::printf("ran: %d\n", counted[7]);
}
