// Layout: where every Part of a module lies, as a value. Arena, optimizers, gradient buckets, checkpoints and memory plans all read this one.
//
//   arena elements [0, size):  | matrices | rest: embeddings, head, gains, biases | frozen |
//                              |  bucket  |  bucket |  bucket  |  ...             |
//
// Parameters start at multiples of 128 elements; the padding between them is zero and belongs to no norm and no file. A bucket is a run of parameters
// of one section whose gradients are reduced together. With several data-parallel ranks that share optimizer state (ZeRO-1: Rajbhandari et al. 2020,
// arXiv:1910.02054) each rank owns an equal range of every bucket, or, where Muon needs whole matrices, whole Parts, balanced over the model.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "core/nn/module.h"
#include "core/state.h"

namespace heddle {

enum class Section : uint8_t { matrix, rest, frozen };
inline constexpr int kSections = 3;

// The rank's place, in plain numbers; tp is the innermost axis.
struct MeshShape {
  int dp = 1, tp = 1, dp_rank = 0, tp_rank = 0;
};

// Stable 64-bit key of a Part's or layer's name: FNV-1a (Fowler, Noll, Vo), finished as in MurmurHash3 so that all bits depend on all characters.
uint64_t name_key(std::string_view name);

class Layout {
 public:
  struct Options {
    bool whole_matrices = false;  // Parts of the matrix section have one owner each (Muon)
    // Offsets and cells() do not depend on the number of ranks; what they own of a bucket is then a run of whole cells, only nearly equal.
    bool fixed_cells = false;
    // Neighbouring groups (Module::begin_bucket) share a bucket until it has this many elements; embeddings and heads never share. Parameters
    // outside every group are cut at this size.
    int64_t bucket_elements = (int64_t{25} << 20) / 4;
  };
  // A Parameter in arena order.
  struct Slot {
    std::string name;
    ParameterSpec spec;  // Parts under their whole names
    Section section;
    Range range;           // arena elements, without padding
    size_t bucket = 0;     // meaningless in the frozen section
    size_t parameter = 0;  // its index in module.parameters()
  };
  // A Part in arena order.
  struct Place {
    Part part;  // under its whole name
    size_t slot = 0;
    Range range;       // arena elements of this rank's box, row-major
    uint64_t key = 0;  // name_key(part.name)
    int owner = 0;     // dp rank, with whole_matrices in the matrix section
  };
  struct Bucket {
    std::string name;  // of its first group
    Section section;
    Range range;  // with padding; buckets tile the trainable sections
  };
  // With fixed_cells: a piece of a Parameter, or of a Part that has one owner; a sum over each and then over all of them has one order on any number
  // of ranks.
  struct Cell {
    Range range;
    size_t bucket = 0;
    int owner = 0;  // dp rank
  };
  // A piece of a Part: `box` of the global tensor lies dense at `range`.
  struct Piece {
    size_t place = 0;
    Box box;
    Range range;
  };

  // Error when two Parts have one name, or one key.
  explicit Layout(const Module& module, const MeshShape& mesh = {}) : Layout(module, mesh, Options{}) {}
  Layout(const Module& module, const MeshShape& mesh, const Options& options);

  int64_t size() const { return section(Section::frozen).end; }            // elements
  Range trainable() const { return {0, section(Section::frozen).begin}; }  // what has gradients and state
  Range section(Section s) const { return sections_[static_cast<size_t>(s)]; }
  const std::vector<Slot>& slots() const { return slots_; }
  const std::vector<Place>& places() const { return places_; }
  const std::vector<Bucket>& buckets() const { return buckets_; }
  const std::vector<Cell>& cells() const { return cells_; }  // ascending; of the trainable sections, without padding
  const MeshShape& mesh() const { return mesh_; }

  // What of a bucket dp rank r owns, ascending and disjoint. The ranks' ranges of a bucket tile it, those of whole Parts and cells with the padding
  // behind them.
  std::vector<Range> owned(size_t bucket, int dp_rank) const;
  // Of all buckets; neighbours are joined.
  std::vector<Range> owned(int dp_rank) const;

  // The pieces that make up arena elements `flat`, in order: a Part that straddles its borders comes as the boxes of what lies inside.
  std::vector<Piece> pieces(Range flat) const;

 private:
  MeshShape mesh_;
  Options options_;
  std::array<Range, kSections> sections_{};
  std::vector<Slot> slots_;
  std::vector<Place> places_;
  std::vector<Bucket> buckets_;
  std::vector<Cell> cells_;

  void deal_matrices();
  void cut_cells();
};

// Arena ranges kept one after the other in a buffer of their own: what a rank holds of masters and moments.
struct PackedRange {
  Range arena;
  int64_t at = 0;  // of its first element in the buffer
};
std::vector<PackedRange> pack(std::span<const Range> ranges);
int64_t packed_size(std::span<const PackedRange> ranges);

}  // namespace heddle
