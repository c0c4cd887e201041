#include "checkpoint/plan.h"

#include <algorithm>
#include <charconv>
#include <map>

#include "checkpoint/words.h"

namespace heddle {
namespace {

struct Claim {  // one piece of one rank, as it is told to the others
  std::string name;
  DType dtype = DType::f32;
  std::vector<int64_t> global;
  Box box;
};

std::string describe(const StateDict& state) {
  std::string out;
  for (const StateDict::Entry& e : state.tensors) {
    HEDDLE_CHECK(is_tensor_name(e.name), "checkpoint", "\"", e.name, "\" is no tensor name: letters, digits and _ . - / only, at most 256");
    HEDDLE_CHECK(e.data.data != nullptr || e.data.numel() == 0, "checkpoint", "tensor \"", e.name, "\" has no data");
    HEDDLE_CHECK(e.data.contiguous(), "checkpoint", "tensor \"", e.name, "\" is not dense");
    HEDDLE_CHECK(is_inside(e.box, e.global), "checkpoint", "tensor \"", e.name, "\": box ", box_text(e.box), " does not lie in its global shape");
    HEDDLE_CHECK(volume(e.box) == e.data.numel(), "checkpoint", "tensor \"", e.name, "\": box ", box_text(e.box), " and view ", shape_text(e.data),
                 " differ in size");
    out.append(e.name).append(" ").append(name_of(file_type(e.data.dtype))).append(" ");
    append_number(out, e.global.size(), ' ');
    for (size_t i = 0; i < e.global.size(); ++i) {
      append_number(out, e.global[i], ' ');
      append_number(out, e.box[i].begin, ' ');
      append_number(out, e.box[i].end, ' ');
    }
    out.back() = '\n';
  }
  return out;
}

std::vector<Claim> parse_claims(const std::string& text) {
  std::vector<Claim> claims;
  for (Words words(text); !words.done();) {
    Claim c;
    c.name = words.word();
    const auto type = parse_file_type(words.word());
    const auto dtype = type ? heddle_type(*type) : std::nullopt;
    HEDDLE_CHECK(dtype.has_value(), "checkpoint", "another rank sent a malformed message");
    c.dtype = *dtype;
    const auto rank = words.number<size_t>();
    c.global.resize(rank);
    c.box.resize(rank);
    for (size_t i = 0; i < rank; ++i) {
      c.global[i] = words.number<int64_t>();
      c.box[i].begin = words.number<int64_t>();
      c.box[i].end = words.number<int64_t>();
    }
    claims.push_back(std::move(c));
  }
  return claims;
}

bool box_less(const Box& a, const Box& b) {
  return std::lexicographical_compare(a.begin(), a.end(), b.begin(), b.end(),
                                      [](const Range& x, const Range& y) { return x.begin != y.begin ? x.begin < y.begin : x.end < y.end; });
}

struct BoxLess {
  bool operator()(const Box& a, const Box& b) const { return box_less(a, b); }
};

struct Holding {
  int rank = 0;
  size_t claim = 0;
};

}  // namespace

std::string shard_label(uint64_t shard, uint64_t shards, uint64_t step, uint64_t incarnation) {
  const auto padded = [](uint64_t value) {
    std::string digits = std::to_string(value);
    return std::string(20 - digits.size(), '0') + digits;
  };
  return "step " + padded(step) + ", incarnation " + padded(incarnation) + ", shard " + std::to_string(shard) + " of " + std::to_string(shards);
}

std::vector<std::string> exchange(Control& control, const std::string& text, const Error* error, double seconds) {
  if (control.size() == 1) {
    if (error != nullptr) throw *error;
    return {text};
  }
  const std::string mine = error != nullptr ? "-" + std::to_string(static_cast<int>(error->code())) + " " + error->what() : "+" + text;
  std::vector<std::string> all = control.gather_text(mine, seconds);
  for (std::string& one : all) {
    if (one.empty()) fail("checkpoint", "a rank sent an empty answer");
    if (one[0] == '-') {
      const size_t space = one.find(' ');
      int its_code = static_cast<int>(ExitCode::runtime);
      std::from_chars(one.data() + 1, one.data() + space, its_code);
      throw Error(one.substr(space + 1), static_cast<ExitCode>(its_code));
    }
    one.erase(0, 1);
  }
  return all;
}

Plan make_plan(const StateDict& state, Control& control) {
  const std::vector<std::string> texts = agree(control, [&] { return describe(state); });
  const auto ranks = static_cast<size_t>(control.size());
  std::vector<std::vector<Claim>> claims;
  for (const std::string& text : texts) claims.push_back(parse_claims(text));

  // Every rank computes the same plan from the same texts. Ordered maps: by name, then by box.
  std::map<std::string, std::map<Box, std::vector<Holding>, BoxLess>> pieces;
  std::map<std::string, const Claim*> first;
  for (size_t r = 0; r < ranks; ++r) {
    for (size_t i = 0; i < claims[r].size(); ++i) {
      const Claim& c = claims[r][i];
      const Claim& known = *first.emplace(c.name, &c).first->second;
      HEDDLE_CHECK(known.dtype == c.dtype && known.global == c.global, "checkpoint", "tensor \"", c.name,
                   "\": ranks disagree on its dtype or global shape");
      std::vector<Holding>& holders = pieces[c.name][c.box];
      HEDDLE_CHECK(holders.empty() || holders.back().rank != static_cast<int>(r), "checkpoint", "tensor \"", c.name, "\": box ", box_text(c.box),
                   " is given twice by rank ", r);
      holders.push_back({static_cast<int>(r), i});
    }
  }

  Plan plan;
  plan.held.resize(state.tensors.size());
  std::vector<uint64_t> load(ranks, 0);
  std::vector<std::vector<FileTensor>> files(ranks);
  struct Placed {
    size_t tensor, piece;
    std::string file_name;
  };
  std::vector<std::vector<Placed>> placed(ranks);
  for (const auto& [name, boxes] : pieces) {
    const Claim& c = *first.at(name);
    SavedTensor& tensor = plan.tensors.emplace_back();
    tensor.name = name;
    tensor.dtype = c.dtype;
    tensor.global = c.global;
    std::vector<const Box*> all;
    std::map<int, int> count_in;  // pieces of this tensor in one shard: their names there must differ
    for (const auto& [box, holders] : boxes) {
      all.push_back(&box);
      // The least loaded of the ranks that hold it writes it.
      const auto owner = std::min_element(holders.begin(), holders.end(), [&](const Holding& a, const Holding& b) {
                           return load[a.rank] != load[b.rank] ? load[a.rank] < load[b.rank] : a.rank < b.rank;
                         })->rank;
      load[owner] += static_cast<uint64_t>(volume(box) * size_of(c.dtype));
      const int nth = count_in[owner]++;
      const std::string file_name = nth == 0 ? name : name + "#" + std::to_string(nth);
      placed[owner].push_back({plan.tensors.size() - 1, tensor.pieces.size(), file_name});
      FileTensor file{file_name, file_type(c.dtype), {}};
      for (const Range& r : box) file.shape.push_back(static_cast<uint64_t>(r.size()));
      files[owner].push_back(std::move(file));
      for (const Holding& h : holders) {
        if (h.rank != control.rank()) continue;
        plan.held[h.claim] = {h.claim,
                              plan.tensors.size() - 1,
                              tensor.pieces.size(),
                              0,
                              holders.size() > 1 ? plan.replicas : HeldPiece::kSingle,
                              owner == control.rank()};
      }
      if (holders.size() > 1) ++plan.replicas;
      tensor.pieces.push_back({static_cast<uint64_t>(owner), 0, box});
    }
    if (!tiles_exactly(tensor.global, all)) {
      fail("checkpoint", concat("the pieces all ranks hold of tensor \"", name, "\" do not cover it exactly once"), ExitCode::usage);
    }
  }

  for (size_t r = 0; r < ranks; ++r) {
    // 4096: the data then begins on a page, as direct I/O wants it.
    plan.shards.push_back(layout_safetensors(std::move(files[r]), {{"format", "pt"}, {"heddle", shard_label(r, ranks, 0, 0)}}, 4096));
    HEDDLE_CHECK(plan.shards[r].data_begin <= kMostShardHeaderBytes, "checkpoint", "shard ", r, " needs a header of ", plan.shards[r].data_begin,
                 " bytes, at most ", kMostShardHeaderBytes);
    std::map<std::string_view, uint64_t> offsets;
    for (const FileTensor& t : plan.shards[r].tensors) offsets.emplace(t.name, t.begin);
    for (const Placed& p : placed[r]) plan.tensors[p.tensor].pieces[p.piece].offset = offsets.at(p.file_name);
  }
  for (HeldPiece& h : plan.held) h.offset = plan.tensors[h.tensor].pieces[h.piece].offset;
  return plan;
}

}  // namespace heddle
