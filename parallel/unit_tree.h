// The order in which --deterministic adds the units (micro-steps) of a step, however many ranks share them: a balanced binary tree over their
// numbers.
//
// Sums of 2^k aligned neighbours are formed first, like the carries of a binary counter; what is left at the end is added from the right. A rank has
// the units [rank n, rank n + n): it forms what nodes of the tree lie wholly in there, two for each power of two at most.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace heddle {

// Units [index 2^level, (index + 1) 2^level).
struct TreeNode {
  int level = 0;
  int64_t index = 0;
  int64_t first() const { return index << level; }
  TreeNode parent() const { return {level + 1, index / 2}; }
  bool operator==(const TreeNode&) const = default;
};

// Whether the two make up their parent.
bool siblings(const TreeNode& left, const TreeNode& right);

// The nodes that units [first, first + count) come to by themselves, ascending.
std::vector<TreeNode> tree_nodes(int64_t first, int64_t count);
// How many sums wait at most while the units of such a range come one after the other, the last one's apart.
int64_t tree_waiting(int64_t first, int64_t count);

// The sum at unit `into` takes in the one at unit `from`; a sum stands where its first unit is.
struct TreeJoin {
  int64_t into = 0, from = 0;
  bool operator==(const TreeJoin&) const = default;
};
// How to add ascending neighbours: to what tree_nodes() gives, or, with `all`, to one sum at the first.
std::vector<TreeJoin> tree_joins(std::span<const TreeNode> nodes, bool all);

}  // namespace heddle
