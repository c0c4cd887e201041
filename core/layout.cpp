#include "core/layout.h"

#include <algorithm>
#include <numeric>
#include <unordered_map>

#include "core/io/fnv1a.h"
#include "kernels/api/check.h"
#include "kernels/api/optimizer.h"

namespace heddle {
namespace {

constexpr int64_t kBlock = kernels::kArenaBlock;

int64_t align(int64_t n, int64_t to) {
  return (n + to - 1) / to * to;
}

Section section_of(const ParameterSpec& spec) {
  if (spec.frozen) return Section::frozen;
  return spec.kind == ParamKind::matrix ? Section::matrix : Section::rest;
}

// Their gradients become final at one end of backward each, and they are large.
bool stands_alone(const ParameterSpec& spec) {
  return spec.kind == ParamKind::embedding || spec.kind == ParamKind::head;
}

void append(std::vector<Range>& ranges, Range next) {
  if (next.size() == 0) return;
  if (!ranges.empty() && ranges.back().end == next.begin) {
    ranges.back().end = next.end;
  } else {
    ranges.push_back(next);
  }
}

}  // namespace

uint64_t name_key(std::string_view name) {
  uint64_t h = fnv1a(name);
  h = (h ^ (h >> 33)) * 0xff51afd7ed558ccdu;
  h = (h ^ (h >> 33)) * 0xc4ceb9fe1a85ec53u;
  return h ^ (h >> 33);
}

Layout::Layout(const Module& module, const MeshShape& mesh, const Options& options) : mesh_(mesh), options_(options) {
  HEDDLE_CHECK(mesh.dp >= 1 && mesh.tp >= 1, "layout", "a mesh of ", mesh.dp, " x ", mesh.tp, " ranks");
  const std::vector<Parameter> parameters = module.parameters();
  std::vector<size_t> order(parameters.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return section_of(parameters[a].spec()) < section_of(parameters[b].spec()); });

  int64_t end = 0;
  const auto close_bucket = [&] {
    // Equal ranges of whole blocks for every rank; whole Parts need none.
    if (!buckets_.empty()) {
      const bool dealt = !options_.fixed_cells && !(options_.whole_matrices && buckets_.back().section == Section::matrix);
      end = buckets_.back().range.begin + align(end - buckets_.back().range.begin, dealt ? kBlock * mesh.dp : kBlock);
      buckets_.back().range.end = end;
    }
  };
  int current = -1;  // section
  const auto enter = [&](int section) {
    if (current < static_cast<int>(Section::frozen)) close_bucket();
    for (; current < section; ++current) {
      if (current >= 0) sections_[static_cast<size_t>(current)].end = end;
      sections_[static_cast<size_t>(current + 1)].begin = end;
    }
  };
  std::string group;
  bool alone = false;
  for (const size_t index : order) {
    const Parameter& p = parameters[index];
    ParameterSpec spec = p.spec();
    spec.parts = p.parts();
    const Section section = section_of(spec);
    bool opens = false;
    if (static_cast<int>(section) != current) {
      enter(static_cast<int>(section));
      opens = true;
    } else if (section != Section::frozen) {
      const bool full = end - buckets_.back().range.begin >= options_.bucket_elements;
      opens = p.bucket() != group ? full || alone || stands_alone(spec) : full && group.empty();
      if (opens) close_bucket();
    }
    if (section != Section::frozen) {
      if (opens) buckets_.push_back({p.bucket().empty() ? p.name() : p.bucket(), section, {end, end}});
      alone = stands_alone(spec) || (!opens && alone && p.bucket() == group);
      group = p.bucket();
    }
    const int64_t n = p.tensor().numel();
    int64_t at = end;
    for (const Part& part : spec.parts) {
      const int64_t size = volume(part.box);
      places_.push_back({part, slots_.size(), {at, at + size}, name_key(part.name), 0});
      at += size;
    }
    slots_.push_back({p.name(), std::move(spec), section, {end, end + n}, buckets_.empty() ? 0 : buckets_.size() - 1, index});
    end = align(end + n, kBlock);
  }
  enter(kSections - 1);
  sections_[kSections - 1].end = end;

  std::unordered_map<uint64_t, const Place*> keys;
  for (const Place& place : places_) {
    const auto [it, fresh] = keys.emplace(place.key, &place);
    HEDDLE_CHECK(fresh, "layout", "parts \"", it->second->part.name, "\" and \"", place.part.name, "\" ",
                 it->second->part.name == place.part.name ? "have one name" : "have names of equal hash: rename one of them");
  }

  if (options_.whole_matrices) deal_matrices();
  if (options_.fixed_cells) cut_cells();
}

// Largest first, each to the rank with the least so far: the loads differ by one Part at most.
void Layout::deal_matrices() {
  std::vector<size_t> matrices;
  for (size_t i = 0; i < places_.size(); ++i) {
    if (slots_[places_[i].slot].section == Section::matrix) matrices.push_back(i);
  }
  std::stable_sort(matrices.begin(), matrices.end(), [&](size_t a, size_t b) { return places_[a].range.size() > places_[b].range.size(); });
  std::vector<int64_t> load(static_cast<size_t>(mesh_.dp), 0);
  for (const size_t i : matrices) {
    const auto least = std::min_element(load.begin(), load.end());
    *least += places_[i].range.size();
    places_[i].owner = static_cast<int>(least - load.begin());
  }
}

// A cell belongs to the rank in whose equal share of the bucket its middle lies.
void Layout::cut_cells() {
  constexpr int64_t kLeast = int64_t{1} << 16, kMost = 4096;  // elements of a cell; cells that cost a launch each
  const int64_t trained = trainable().size();
  int64_t grain = kLeast;
  while (grain * kMost < trained) grain *= 2;
  const auto cut = [&](Range range, size_t bucket, int owner) {
    for (int64_t at = range.begin; at < range.end; at += grain) cells_.push_back({{at, std::min(at + grain, range.end)}, bucket, owner});
  };
  for (const Place& place : places_) {
    const Slot& slot = slots_[place.slot];
    if (slot.section == Section::frozen) continue;
    if (options_.whole_matrices && slot.section == Section::matrix) {
      cut(place.range, slot.bucket, place.owner);
    } else if (cells_.empty() || cells_.back().range.end <= slot.range.begin) {  // once a Parameter
      cut(slot.range, slot.bucket, -1);
    }
  }
  for (Cell& cell : cells_) {
    if (cell.owner >= 0) continue;
    const Range bucket = buckets_[cell.bucket].range;
    const int64_t middle = (cell.range.begin + cell.range.end) / 2 - bucket.begin;
    cell.owner = static_cast<int>(middle * mesh_.dp / bucket.size());
  }
}

std::vector<Range> Layout::owned(size_t bucket, int dp_rank) const {
  HEDDLE_CHECK(bucket < buckets_.size() && 0 <= dp_rank && dp_rank < mesh_.dp, "layout", "bucket ", bucket, " of ", buckets_.size(), ", rank ",
               dp_rank, " of ", mesh_.dp);
  const Range all = buckets_[bucket].range;
  std::vector<Range> ranges;
  const bool by_parts = options_.whole_matrices && buckets_[bucket].section == Section::matrix;
  if (options_.fixed_cells && !by_parts) {
    auto cell = std::partition_point(cells_.begin(), cells_.end(), [&](const Cell& c) { return c.bucket < bucket; });
    for (; cell != cells_.end() && cell->bucket == bucket; ++cell) {
      const auto next = cell + 1;
      const int64_t end = next == cells_.end() || next->bucket != bucket ? all.end : next->range.begin;
      if (cell->owner == dp_rank) append(ranges, {cell->range.begin, end});
    }
    return ranges;
  }
  if (!by_parts) {
    const int64_t length = all.size() / mesh_.dp;
    append(ranges, {all.begin + dp_rank * length, all.begin + (dp_rank + 1) * length});
    return ranges;
  }
  for (size_t i = 0; i < places_.size(); ++i) {
    const Range range = places_[i].range;
    if (range.begin < all.begin || range.begin >= all.end || places_[i].owner != dp_rank) continue;
    const bool last = i + 1 == places_.size() || places_[i + 1].range.begin >= all.end;
    append(ranges, {range.begin, last ? all.end : places_[i + 1].range.begin});
  }
  return ranges;
}

std::vector<Range> Layout::owned(int dp_rank) const {
  std::vector<Range> ranges;
  for (size_t b = 0; b < buckets_.size(); ++b) {
    for (const Range& range : owned(b, dp_rank)) append(ranges, range);
  }
  return ranges;
}

std::vector<Layout::Piece> Layout::pieces(Range flat) const {
  std::vector<Piece> pieces;
  for (size_t i = 0; i < places_.size(); ++i) {
    const Place& place = places_[i];
    const int64_t begin = std::max(flat.begin, place.range.begin), end = std::min(flat.end, place.range.end);
    if (begin >= end) continue;
    std::vector<int64_t> local;
    for (const Range& range : place.part.box) local.push_back(range.size());
    int64_t at = begin;
    for (Box& box : split_flat_range(local, begin - place.range.begin, end - place.range.begin)) {
      const int64_t n = volume(box);
      for (size_t axis = 0; axis < box.size(); ++axis) {
        box[axis].begin += place.part.box[axis].begin;
        box[axis].end += place.part.box[axis].begin;
      }
      pieces.push_back({i, std::move(box), {at, at + n}});
      at += n;
    }
  }
  return pieces;
}

std::vector<PackedRange> pack(std::span<const Range> ranges) {
  std::vector<PackedRange> packed;
  int64_t at = 0;
  for (const Range& range : ranges) {
    packed.push_back({range, at});
    at += range.size();
  }
  return packed;
}

int64_t packed_size(std::span<const PackedRange> ranges) {
  return ranges.empty() ? 0 : ranges.back().at + ranges.back().arena.size();
}

}  // namespace heddle
