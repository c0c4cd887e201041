// What keeps the streams of the simulated runtime in order, for tests of programs: the graph of dependencies, and the same run with one left out.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace heddle::sim {

// A piece of work as a stream was given it.
struct RecordedWork {
  uint64_t number = 0;  // in the order of the calls, from 1
  std::string stream, what;
  uint64_t blocks = 0;          // of a kernel's grid
  uint64_t event = 0;           // cudaStreamWaitEvent: the record that it waits for; one of `after`
  std::vector<uint64_t> after;  // what it waits for, directly: the stream's previous work, events, joined streams
};
// From here on (true) every piece of work is kept, with all that it waits for, whether that was done by then or not. (false) ends it.
void record_work(bool on);
std::vector<RecordedWork> recorded_work();

// The n-th cudaStreamWaitEvent from here on (0: the next) does nothing, as if the program had forgotten it. Below 0: none. Counts anew.
void forget_wait(int64_t n);
uint64_t waits_counted();

// StreamOrder::random: another order from here on.
void reorder_streams(uint64_t seed);

}  // namespace heddle::sim
