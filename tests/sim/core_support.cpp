#include "tests/sim/core_support.h"

#include <cstring>
#include <memory>
#include <vector>

namespace heddle::test {

void bulk_load(uint32_t mbarrier, void* shared, const void* global, uint32_t bytes, sim::Where where) {
  const auto copy = [=](sim::Agent& agent) {
    sim::note_read(agent, global, bytes);
    sim::note_write(agent, shared, bytes);
    std::memcpy(shared, global, bytes);
  };
  sim::issue_on_mbarrier(mbarrier, bytes, copy, where.op("bulk_load"));
}

void bulk_store(void* global, const void* shared, size_t bytes, sim::Where where) {
  auto between = std::make_shared<std::vector<std::byte>>(bytes);
  const auto read = [=](sim::Agent& agent) {
    sim::note_read(agent, shared, bytes);
    std::memcpy(between->data(), shared, bytes);
  };
  const auto write = [=](sim::Agent& agent) {
    sim::note_write(agent, global, bytes);
    std::memcpy(global, between->data(), bytes);
  };
  sim::issue_bulk(read, write, where.op("bulk_store"));
}

}  // namespace heddle::test
