// The order of sums depends on the number of units alone, however many ranks share them.
#include "parallel/unit_tree.h"

#include <string>
#include <vector>

#include "kernels/api/check.h"
#include "tests/support/catch.h"

namespace heddle {
namespace {

// What units [first, first + count) of one rank come to one after the other, as text: "((0+1)+2)".
struct Sums {
  std::vector<std::string> at;  // by first unit
  explicit Sums(int64_t units) {
    for (int64_t u = 0; u < units; ++u) at.push_back(std::to_string(u));
  }
  void join(const std::vector<TreeJoin>& joins) {
    for (const TreeJoin& j : joins) {
      std::string& into = at[static_cast<size_t>(j.into)];
      into = concat("(", into, "+", at[static_cast<size_t>(j.from)], ")");
    }
  }
};
std::vector<TreeNode> leaves(int64_t first, int64_t count) {
  std::vector<TreeNode> nodes;
  for (int64_t u = first; u < first + count; ++u) nodes.push_back({0, u});
  return nodes;
}

TEST_CASE("any number of ranks adds the units in the order of one") {
  for (int64_t units = 1; units <= 60; ++units) {
    Sums alone(units);
    alone.join(tree_joins(leaves(0, units), true));
    for (int64_t ranks = 1; ranks <= units; ++ranks) {
      if (units % ranks != 0) continue;
      CAPTURE(units, ranks);
      const int64_t each = units / ranks;
      Sums shared(units);
      std::vector<TreeNode> all;
      for (int64_t rank = 0; rank < ranks; ++rank) {
        shared.join(tree_joins(leaves(rank * each, each), false));
        for (const TreeNode& node : tree_nodes(rank * each, each)) all.push_back(node);
      }
      shared.join(tree_joins(all, true));
      CHECK(shared.at[0] == alone.at[0]);
    }
  }
  // Neighbours first, what is left over from the right: the order that saved runs were added in.
  Sums seven(7);
  seven.join(tree_joins(leaves(0, 7), true));
  CHECK(seven.at[0] == "(((0+1)+(2+3))+((4+5)+6))");
}

TEST_CASE("a rank's nodes are the fewest that tile its units, and no more wait than said") {
  for (int64_t first = 0; first <= 40; ++first) {
    for (int64_t count = 1; count <= 40; ++count) {
      CAPTURE(first, count);
      const std::vector<TreeNode> nodes = tree_nodes(first, count);
      int64_t end = first;
      for (const TreeNode& node : nodes) {
        CHECK(node.first() == end);
        end += int64_t{1} << node.level;
      }
      CHECK(end == first + count);
      CHECK(tree_joins(nodes, false).empty());  // none of them make up another
      // A rank adds as it goes: what then waits are the nodes of what there is so far.
      std::vector<TreeNode> waiting;
      size_t most = 0;
      for (int64_t unit = first; unit < first + count; ++unit) {
        TreeNode node{0, unit};
        for (; !waiting.empty() && siblings(waiting.back(), node); waiting.pop_back()) node = node.parent();
        waiting.push_back(node);
        if (unit + 1 < first + count) most = std::max(most, waiting.size());
      }
      CHECK(waiting == nodes);
      CHECK(tree_waiting(first, count) == static_cast<int64_t>(most));
    }
  }
}

}  // namespace
}  // namespace heddle
