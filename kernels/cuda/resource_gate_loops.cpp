#include "kernels/cuda/resource_gate_loops.h"

#include <algorithm>
#include <map>
#include <set>
#include <utility>

namespace heddle::kernels::cuda {
namespace {

constexpr int64_t kLanes = 32;
constexpr int64_t kSimtProducts = 64, kSimtShared = 4096;  // FFMA, and bytes read, of a loop that multiplies from shared memory

// Straight pieces of code and the way between them. Compilers put what is rarely run behind the end of the kernel, so a loop is not a range of
// addresses: it is what can come back to its head without leaving it (Aho, Sethi, Ullman: natural loops).
class Graph {
 public:
  explicit Graph(const std::vector<Instruction>& code) : code_(code) {
    std::set<uint64_t> starts = {code.front().address};
    for (size_t i = 0; i < code.size(); ++i) {
      if (code[i].target != 0) starts.insert(code[i].target);
      if (ends(code[i]) && i + 1 < code.size()) starts.insert(code[i + 1].address);
    }
    std::map<uint64_t, int> at;
    for (size_t i = 0; i < code.size(); ++i) {
      if (starts.count(code[i].address) != 0) {
        at.emplace(code[i].address, static_cast<int>(at.size()));
        first_.push_back(i);
      }
    }
    first_.push_back(code.size());
    before_.resize(at.size());
    after_.resize(at.size());
    for (int block = 0; block < size(); ++block) {
      const Instruction& last = code[first_[static_cast<size_t>(block) + 1] - 1];
      const bool goes_on = !ends(last) || last.conditional;
      if (goes_on && block + 1 < size()) connect(block, block + 1);
      if (const auto to = at.find(last.target); last.target != 0 && to != at.end()) connect(block, to->second);
    }
    find_dominators();
  }

  int size() const { return static_cast<int>(before_.size()); }

  // Of every loop its blocks, the head first.
  std::vector<std::vector<int>> loops() const {
    std::map<int, std::set<int>> bodies;
    for (int block = 0; block < size(); ++block) {
      for (const int head : after_[static_cast<size_t>(block)]) {
        if (!dominates(head, block)) continue;
        std::set<int>& body = bodies[head];
        std::vector<int> open = {block};
        body.insert(head);
        while (!open.empty()) {
          const int next = open.back();
          open.pop_back();
          if (!body.insert(next).second) continue;
          for (const int before : before_[static_cast<size_t>(next)])
            if (reached(before)) open.push_back(before);
        }
      }
    }
    std::vector<std::vector<int>> loops;
    for (const auto& [head, body] : bodies) {
      std::vector<int> blocks = {head};
      for (const int block : body)
        if (block != head) blocks.push_back(block);
      loops.push_back(blocks);
    }
    return loops;
  }

  // Of the ways round the loop that do most of `work`, the one of the most instructions or of the fewest: its blocks.
  template <class Work>
  std::vector<int> way_round(const std::vector<int>& loop, const Work& work, bool most) const {
    struct Way {
      int64_t work = -1, instructions = 0;
      int before = -1;
      bool operator<(const Way& other) const { return std::pair(work, instructions) < std::pair(other.work, other.instructions); }
    };
    std::map<int, Way> best;  // that ends with a block
    std::vector<int> order = loop;
    const auto later = [&](int a, int b) { return number_[static_cast<size_t>(a)] > number_[static_cast<size_t>(b)]; };
    std::sort(order.begin(), order.end(), later);  // no way leads back but to the heads of loops
    int end = -1;
    for (const int block : order) {
      Way way;
      if (block == loop.front()) way.work = 0;
      for (const int before : before_[static_cast<size_t>(block)]) {
        if (block == loop.front() || best.count(before) == 0 || !later(before, block)) continue;
        Way longer = best[before];
        longer.before = before;
        way = std::max(way, longer);
      }
      each(block, [&](const Instruction& i) {
        way.work += work(i) ? 1 : 0;
        way.instructions += most ? 1 : -1;
      });
      best[block] = way;
      const std::vector<int>& after = after_[static_cast<size_t>(block)];
      const bool closes = std::find(after.begin(), after.end(), loop.front()) != after.end();
      if (closes && (end < 0 || best[end] < way)) end = block;
    }
    std::vector<int> blocks;
    for (; end >= 0; end = best[end].before) blocks.push_back(end);
    return blocks;
  }

  template <class F>
  void each(int block, const F& f) const {
    for (size_t i = first_[static_cast<size_t>(block)]; i < first_[static_cast<size_t>(block) + 1]; ++i) f(code_[i]);
  }

 private:
  static bool ends(const Instruction& i) { return i.base == "BRA" || i.base == "EXIT" || i.base == "RET"; }
  bool reached(int block) const { return dominator_[static_cast<size_t>(block)] >= 0; }

  void connect(int from, int to) {
    after_[static_cast<size_t>(from)].push_back(to);
    before_[static_cast<size_t>(to)].push_back(from);
  }

  bool dominates(int a, int b) const {
    if (!reached(b)) return false;
    while (b != a && b != 0) b = dominator_[static_cast<size_t>(b)];
    return b == a;
  }

  // Cooper, Harvey, Kennedy, "A simple, fast dominance algorithm".
  void find_dominators() {
    std::vector<int> order;
    number_.assign(static_cast<size_t>(size()), -1);
    std::vector<std::pair<int, size_t>> path = {{0, 0}};
    std::vector<bool> seen(static_cast<size_t>(size()));
    seen[0] = true;
    while (!path.empty()) {
      auto& [block, next] = path.back();
      const std::vector<int>& after = after_[static_cast<size_t>(block)];
      if (next < after.size()) {
        const int to = after[next++];
        if (!seen[static_cast<size_t>(to)]) {
          seen[static_cast<size_t>(to)] = true;
          path.emplace_back(to, 0);
        }
        continue;
      }
      number_[static_cast<size_t>(block)] = static_cast<int>(order.size());
      order.push_back(block);
      path.pop_back();
    }
    dominator_.assign(static_cast<size_t>(size()), -1);
    dominator_[0] = 0;
    for (bool changed = true; changed;) {
      changed = false;
      for (auto block = order.rbegin(); block != order.rend(); ++block) {
        if (*block == 0) continue;
        int common = -1;
        for (int before : before_[static_cast<size_t>(*block)]) {
          if (!reached(before)) continue;
          if (common < 0) {
            common = before;
            continue;
          }
          while (before != common) {
            int& lower = number_[static_cast<size_t>(before)] < number_[static_cast<size_t>(common)] ? before : common;
            lower = dominator_[static_cast<size_t>(lower)];
          }
        }
        if (dominator_[static_cast<size_t>(*block)] == common) continue;
        dominator_[static_cast<size_t>(*block)] = common;
        changed = true;
      }
    }
  }

  const std::vector<Instruction>& code_;
  std::vector<size_t> first_;  // of every block, and the end
  std::vector<std::vector<int>> before_, after_;
  std::vector<int> number_;     // in the order in which a search in depth leaves them
  std::vector<int> dominator_;  // the nearest; -1: never reached (the bodies of CALL)
};

// "64x256x16" of HGMMA, "16816" of HMMA: products of one warp.
int64_t products(const Instruction& i) {
  if (i.base == "HMMA") return i.has("16816") ? 16 * 8 * 16 : 16 * 8 * 8;
  const size_t n = i.opcode.find("64x");
  return n == std::string::npos ? 0 : 64 / 4 * std::atoll(i.opcode.c_str() + n + 3) * 16;
}

int register_at(const std::string& operands, size_t at) {
  return at != std::string::npos && operands.compare(at, 1, "R") == 0 && operands[at + 1] != 'Z' ? std::atoi(operands.c_str() + at + 1) : -1;
}

// Registers that tensor cores add up in.
void note_accumulators(const Instruction& i, std::set<int>& accumulators) {
  if (pipe_of(i) != Pipe::tensor) return;
  const int first = register_at(i.operands, 0), count = i.base == "HMMA" ? 4 : static_cast<int>(products(i) / (64 / 4 * 16) / 2);
  for (int r = first; r < first + count; ++r) accumulators.insert(r);
}

// "MOV R24, R100", "IMAD.MOV.U32 R24, RZ, RZ, R100": from or to an accumulator.
bool moves_accumulator(const Instruction& i, const std::set<int>& accumulators) {
  if (i.base != "MOV" && !i.has("MOV")) return false;
  const int to = register_at(i.operands, 0), from = register_at(i.operands, i.operands.rfind(' ') + 1);
  return to >= 0 && from >= 0 && (accumulators.count(to) != 0 || accumulators.count(from) != 0);
}

void add(LoopFigures& sum, const Instruction& i) {
  ++sum[kIssued];
  ++sum[kTensor + static_cast<size_t>(pipe_of(i))];
  const int64_t bytes = kLanes * i.width();
  if (i.base == "LDS") sum[kSharedRead] += bytes;
  if (i.base == "STS" || i.base == "LDGSTS") sum[kSharedWritten] += bytes;
  if (i.base == "LDG" || i.base == "LDGSTS") sum[kGlobalRead] += bytes;
  if (i.base == "STG") sum[kGlobalWritten] += bytes;
  if (i.base == "LDSM" || i.base == "STSM") sum[i.base == "LDSM" ? kSharedRead : kSharedWritten] += 128 * (i.has("4") ? 4 : i.has("2") ? 2 : 1);
  if (pipe_of(i) == Pipe::tensor) sum[kProducts] += products(i);
  if (i.base == "HGMMA") {  // "R24, gdesc[UR8], R24": both operands from shared memory; "R24, R4, gdesc[UR8], R24": one
    const int64_t n = products(i) / (64 / 4 * 16), rows = i.operands.find("gdesc") == i.operands.find(", ") + 2 ? 64 + n : n;
    sum[kSharedRead] += rows * 16 * 2 / 4;
  }
}

}  // namespace

MainLoops main_loops(const std::vector<Instruction>& code, const TmaStage& stage) {
  MainLoops result;
  if (code.empty()) return result;
  const Graph graph(code);
  const char* feeders = "HMMA HGMMA UTMALDG";
  const bool feeds = std::any_of(code.begin(), code.end(), [&](const Instruction& i) { return one_of(i.base, feeders); });
  const auto works = [&](const Instruction& i) { return one_of(i.base, feeds ? feeders : "FFMA"); };
  const auto count = [&](const std::vector<int>& loop, const auto& which) {
    int64_t n = 0;
    for (const int block : loop) graph.each(block, [&](const Instruction& i) { n += which(i); });
    return n;
  };
  const auto shared = [](const Instruction& i) { return i.base == "LDS" ? kLanes * i.width() : 0; };
  std::vector<std::vector<int>> loops = graph.loops();
  std::erase_if(loops, [&](const std::vector<int>& loop) {
    return feeds ? count(loop, works) == 0 : count(loop, works) < kSimtProducts || count(loop, shared) < kSimtShared;
  });
  for (const std::vector<int>& loop : loops) {
    const auto inside = [&](const std::vector<int>& other) {
      return &other != &loop && std::find(loop.begin(), loop.end(), other.front()) != loop.end();
    };
    if (std::any_of(loops.begin(), loops.end(), inside)) continue;
    LoopFigures sum = {};
    const std::vector<int> fullest = graph.way_round(loop, works, true);
    for (const int block : fullest) graph.each(block, [&](const Instruction& i) { add(sum, i); });
    for (const int block : graph.way_round(loop, works, false)) graph.each(block, [&](const Instruction&) { ++sum[kLeanest]; });
    if (const int64_t boxes = count(fullest, [](const Instruction& i) { return i.base == "UTMALDG"; }); boxes > 0) {
      if (stage.boxes == 0)
        result.faults.push_back("TMA in a main loop: say in launch_of of resource_gate_kernel.cpp what a stage of its ring holds");
      sum[kGlobalRead] += boxes * stage.bytes / std::max(stage.boxes, 1);
      sum[kSharedWritten] += boxes * stage.bytes_received / std::max(stage.boxes, 1);
    }
    uint64_t first = UINT64_MAX, last = 0;
    std::set<int> accumulators;
    for (const int block : loop) {
      graph.each(block, [&](const Instruction& i) {
        first = std::min(first, i.address);
        last = std::max(last, i.address);
        note_accumulators(i, accumulators);
      });
    }
    for (const int block : loop) {
      graph.each(block, [&](const Instruction& i) {
        const bool moves = sum[kMufu] == 0 && moves_accumulator(i, accumulators);  // softmax takes accumulators apart, and registers for both
        if (!feeds || !(i.fences_gpu() || i.local() || i.base == "CCTL" || moves)) return;
        std::ostringstream fault;
        fault << i.opcode << " at 0x" << std::hex << i.address << " in the main loop 0x" << first << " to 0x" << last;
        if (moves) fault << " moves an accumulator: " << i.operands;
        result.faults.push_back(fault.str());
      });
    }
    result.figures.push_back(sum);
  }
  return result;
}

}  // namespace heddle::kernels::cuda
