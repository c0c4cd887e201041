#include "train/replicas.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <vector>

#include "core/io/fnv1a.h"
#include "kernels/api/check.h"
#include "parallel/launch.h"

namespace heddle {
namespace {

struct Piece {
  uint64_t key, fold;  // which one, and what it holds
};

uint64_t key_of(const StateDict::Entry& e) {
  std::string text = e.name;
  for (const Range& r : e.box) text += concat(' ', r.begin, ':', r.end);
  return fnv1a(text);
}

}  // namespace

void require_equal_replicas(const StateDict& state, const View& values, Control& control, const CopyOut& copy_out, uint64_t step, uint64_t saved) {
  if (control.size() == 1) return;
  std::vector<Piece> mine;
  std::map<uint64_t, std::string> names;
  const auto hash = [&](const StateDict::Entry& e) {
    mine.push_back({key_of(e), fold_state_entry(e, copy_out)});
    names[mine.back().key] = e.name;
  };
  for (const StateDict::Entry& e : state.tensors) hash(e);
  hash({"the weights in use", values, {values.numel()}, {{0, values.numel()}}});
  struct Held {
    int rank;
    uint64_t fold;
  };
  std::map<uint64_t, std::vector<Held>> all;
  const std::vector<std::string> texts = control.gather_text({reinterpret_cast<const char*>(mine.data()), mine.size() * sizeof(Piece)});
  for (size_t r = 0; r < texts.size(); ++r) {
    for (size_t at = 0; at + sizeof(Piece) <= texts[r].size(); at += sizeof(Piece)) {
      Piece piece;
      std::memcpy(&piece, texts[r].data() + at, sizeof piece);
      all[piece.key].push_back({static_cast<int>(r), piece.fold});
    }
  }
  std::vector<bool> odd(texts.size(), false);
  std::string what;
  bool majority = true;
  for (const auto& [key, held] : all) {
    const auto votes = [&held = held](uint64_t fold) {
      return std::count_if(held.begin(), held.end(), [&](const Held& h) { return h.fold == fold; });
    };
    const auto most = std::max_element(held.begin(), held.end(), [&](const Held& a, const Held& b) { return votes(a.fold) < votes(b.fold); });
    if (votes(most->fold) == static_cast<int64_t>(held.size())) continue;
    const bool decided = 2 * votes(most->fold) > static_cast<int64_t>(held.size());
    majority = majority && decided;
    if (what.empty()) what = names.count(key) ? names[key] : "a piece of the state";
    for (const Held& h : held) odd[static_cast<size_t>(h.rank)] = odd[static_cast<size_t>(h.rank)] || !decided || h.fold != most->fold;
  }
  if (what.empty()) return;
  const std::vector<std::string> hosts = control.gather_text(host_name());
  std::string ranks;
  for (size_t r = 0; r < hosts.size(); ++r) {
    if (odd[r]) ranks += concat(ranks.empty() ? "rank " : " and rank ", r, " (", hosts[r], ")");
  }
  fail("replicas", concat("after step ", step, " ", ranks, majority ? " holds other bits of " : " hold different bits of ", what,
                          majority ? " than its replicas" : "",
                          ": a memory or processor errs, or a kernel is not deterministic. Nothing of this step is saved; start the same command "
                          "again to go on from ",
                          saved == 0 ? "the beginning" : concat("the checkpoint of step ", saved), "; a host that is named again wants a look"));
}

}  // namespace heddle
