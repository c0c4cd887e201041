// Counters: the accesses of a warp's lanes put together again, as the memory system would see them.
#include <algorithm>
#include <array>
#include <map>
#include <string_view>
#include <tuple>
#include <vector>

#include "kernels/sim/check/check.h"
#include "kernels/sim/check/check_internal.h"
#include "kernels/sim/check/report.h"

namespace heddle::sim {

bool counting = false;

namespace {

struct LaneAccess {
  uint32_t place;
  uint32_t bytes;
  uint64_t address;
  bool shared, write;
};

struct Key {
  uint32_t place;
  bool shared, write;
  friend bool operator<(const Key& a, const Key& b) { return std::tie(a.place, a.shared, a.write) < std::tie(b.place, b.shared, b.write); }
};

// By thread of the running group: what it did since its warp's log was last put together.
std::map<uint32_t, std::vector<LaneAccess>> logs;
std::map<Key, AccessCount> totals;

constexpr uint64_t kBanks = 32, kBankBytes = 4, kWavefrontBytes = kBanks * kBankBytes, kSectorBytes = 32;

// Bank conflicts: lanes are served in order, as many at once as fill a wavefront; in each such group the fullest bank decides. Lanes that read the
// same word share it.
void count_shared(const std::vector<LaneAccess>& lanes, AccessCount& count) {
  const uint64_t bytes = std::max<uint64_t>(kBankBytes, lanes[0].bytes);
  const size_t per_wavefront = std::max<uint64_t>(1, kWavefrontBytes / bytes);
  for (size_t first = 0; first < lanes.size(); first += per_wavefront) {
    std::array<std::vector<uint64_t>, kBanks> words;
    size_t fullest = 1;
    for (size_t i = first; i < std::min(lanes.size(), first + per_wavefront); ++i)
      for (uint64_t word = lanes[i].address / kBankBytes; word <= (lanes[i].address + lanes[i].bytes - 1) / kBankBytes; ++word) {
        auto& bank = words[word % kBanks];
        if (std::find(bank.begin(), bank.end(), word) == bank.end()) bank.push_back(word);
        fullest = std::max(fullest, bank.size());
      }
    count.transactions += fullest;
    count.ideal += 1;
  }
}

void count_global(const std::vector<LaneAccess>& lanes, AccessCount& count) {
  std::vector<uint64_t> sectors;
  std::vector<std::pair<uint64_t, uint64_t>> ranges;
  for (const LaneAccess& lane : lanes) {
    for (uint64_t sector = lane.address / kSectorBytes; sector <= (lane.address + lane.bytes - 1) / kSectorBytes; ++sector) sectors.push_back(sector);
    ranges.emplace_back(lane.address, lane.address + lane.bytes);
  }
  std::sort(sectors.begin(), sectors.end());
  const auto distinct = static_cast<uint64_t>(std::unique(sectors.begin(), sectors.end()) - sectors.begin());
  // Distinct bytes: what lanes share costs nothing.
  std::sort(ranges.begin(), ranges.end());
  uint64_t bytes = 0, end = 0;
  for (const auto& [begin, stop] : ranges) {
    if (stop > end) bytes += stop - std::max(begin, end);
    end = std::max(end, stop);
  }
  count.transactions += distinct;
  count.ideal += std::min(distinct, (bytes + kSectorBytes - 1) / kSectorBytes);
}

}  // namespace

void count_access(const ThreadState& thread, const void* pointer, size_t bytes, bool shared, bool write, uint32_t place) {
  logs[thread.id].push_back({place, static_cast<uint32_t>(bytes), reinterpret_cast<uint64_t>(pointer), shared, write});
}

void count_flush(const WarpState& warp) {
  if (!counting) return;
  // (place, k) -> the k-th access of each lane at that place
  std::map<std::pair<Key, uint32_t>, std::vector<LaneAccess>> warp_accesses;
  for (uint32_t lane = 0; lane < kWarpSize && (warp.existing >> lane & 1) != 0; ++lane) {
    const auto log = logs.find(warp.lanes[lane].id);
    if (log == logs.end()) continue;
    std::map<Key, uint32_t> executions;
    for (const LaneAccess& access : log->second) {
      const Key key{access.place, access.shared, access.write};
      warp_accesses[{key, executions[key]++}].push_back(access);
    }
    log->second.clear();
  }
  for (const auto& [key, lanes] : warp_accesses) {
    AccessCount& count = totals[key.first];
    count.shared = key.first.shared;
    count.write = key.first.write;
    ++count.warp_accesses;
    if (count.shared)
      count_shared(lanes, count);
    else
      count_global(lanes, count);
  }
}

namespace {
// A launch reads the kernel's arguments out of its closure, in source that is not the kernel's.
bool is_launch(std::string_view file) {
  const std::string_view name = file.substr(file.rfind('/') + 1);
  return name == "platform_sim.inl" || name == "std_function.h" || name == "tuple" || name == "invoke.h";
}
}  // namespace

void count_accesses(bool on) {
  if (on) {
    totals.clear();
    logs.clear();
  }
  counting = on;
}

std::vector<AccessCount> access_counts() {
  // Several program counters may belong to one line (an unrolled loop).
  std::map<std::tuple<std::string, int, bool, bool>, AccessCount> by_line;
  std::vector<uint32_t> places;
  for (const auto& [key, count] : totals) places.push_back(key.place);
  know_places(places);
  for (const auto& [key, count] : totals) {
    const Site site = place_site(key.place);
    if (is_launch(site.file)) continue;
    AccessCount& sum = by_line[{site.file, site.line, key.shared, key.write}];
    sum.file = site.file;
    sum.line = site.line;
    sum.shared = key.shared;
    sum.write = key.write;
    sum.warp_accesses += count.warp_accesses;
    sum.transactions += count.transactions;
    sum.ideal += count.ideal;
  }
  std::vector<AccessCount> result;
  for (auto& [line, count] : by_line) result.push_back(std::move(count));
  return result;
}

}  // namespace heddle::sim
